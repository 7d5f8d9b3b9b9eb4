from functools import cache

import numpy as np
import pytest

from nwb_compact.config import Interpret
from nwb_compact.findings import of_unit
from nwb_compact.interpretation.made_images import made_images
from nwb_compact.interpretation.synthesis import adversarial, synthesise
from nwb_compact.interpretation.tables import stacked
from nwb_compact.student import example_student, predict
from tests.test_interpretation.students import BLUE, LEFT, RED, RIGHT, half_student, with_readout

FEW = Interpret(maximizing_grey=1, minimizing_grey=0, steps=30, adversarial_steps=10, blur_every=10)
MEAN, CONTRAST = 110.0, 45.0


def step_of(images, channel):
    """Left minus right."""
    return images[:, :, LEFT, channel].mean(axis=(1, 2)) - images[:, :, RIGHT, channel].mean(axis=(1, 2))


@cache
def made_for_red():
    return synthesise(half_student(), np.array([1, 1, -1]), np.array([False, True, False]), np.array([3, 3, 4]), FEW,
                      mean_level=MEAN, contrast=CONTRAST)


@cache
def natural():
    """Smooth, of middle levels, and each brighter on one side."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 112)[None, None, :, None] * rng.uniform(-40, 40, (7, 1, 1, 1))
    return (120 + ramp + rng.normal(0, 10, (7, 112, 112, 3))).clip(0, 255).astype(np.uint8)


# From noise -----------------------------------------------------------------------------------------------------------
def test_images_show_what_the_student_was_built_to_answer():
    most, grey, least = made_for_red()
    red, blue = step_of(made_for_red(), RED), step_of(made_for_red(), BLUE)
    assert red[0] > 60
    assert red[0] > 1.5 * blue[0], "colour weighs less, but it does weigh"
    assert red[2] < -60
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    assert red[1] > 60
    assert most.std(axis=(0, 1)).std() > 1, "while this one is not grey"
    assert least.dtype == np.uint8


def test_mean_and_contrast_are_those_that_are_asked_for():
    np.testing.assert_allclose(made_for_red().mean(axis=(1, 2, 3)), MEAN, atol=0.6)
    np.testing.assert_allclose(made_for_red().std(axis=(1, 2, 3)), CONTRAST, atol=0.6)


@cache
def weights_of_pixels():
    """The student is linear and answers rows x columns: lines of light tell what each row and each column weighs."""
    lines = np.zeros((224, 112, 112, 3), np.uint8)
    for place in range(112):
        lines[place, place, :56], lines[112 + place, :, place] = 200, 200
    rows, columns = predict(half_student(), lines).reshape(2, 112).astype(float) / 200
    return np.outer(rows, columns) / rows.sum()


def test_a_grey_image_comes_close_to_the_best_there_is():
    """The best image of a mean and contrast is the mean + contrast x the standardised weights (Cauchy-Schwarz); clipping and blurring
    can only take away from that.
    """
    weights = weights_of_pixels()
    best = MEAN * weights.sum() + CONTRAST * np.sqrt(weights.size * ((weights - weights.mean()) ** 2).sum())
    assert 0.93 * best < predict(half_student(), made_for_red()[1:2])[0] < 1.01 * best


def test_shifts_move_nothing_on_average():
    """Shifted or not, the edge between the bright and the dark half lies at the same place, to half a pixel."""
    edges = []
    for shift_px in (0, 2):
        settings = Interpret(shift_px=shift_px, steps=40)
        made = synthesise(half_student(), np.array([1]), np.array([True]), np.array([0]), settings, mean_level=MEAN, contrast=CONTRAST)
        falling = made[0, :, 45:70, 0].mean(axis=0)
        edges.append(np.interp(-MEAN, -falling, np.arange(45, 70)))
    assert edges[0] == pytest.approx(57, abs=3)
    assert edges[1] == pytest.approx(edges[0], abs=0.5)


def test_pixels_vary_smoothly():
    """Noise of single pixels, which drives a network and no neuron, is gone: neighbours are nearly equal."""
    images = made_for_red().astype(float)
    for axis in (1, 2):
        assert np.abs(np.diff(images, axis=axis)).mean() < 0.1 * CONTRAST


def test_an_image_depends_on_its_own_seed_alone():
    student = half_student()
    alone = synthesise(student, np.array([1]), np.array([False]), np.array([3]), FEW, mean_level=MEAN, contrast=CONTRAST)
    assert np.abs(alone.astype(int) - made_for_red()[:1]).max() <= 1
    faint = Interpret(steps=1)
    one, other = synthesise(student, np.array([1, 1]), np.array([False] * 2), np.array([3, 4]), faint, mean_level=MEAN, contrast=CONTRAST)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.9


def test_more_steps_than_a_few_gain_little():
    """So that the default of steps is enough for a student whose filters are many and random."""
    student = example_student((6, 6, 6, 6, 4), seed=3)
    answers = [
        predict(student, synthesise(student, np.array([1]), np.array([False]), np.array([0]), Interpret(steps=steps), mean_level=MEAN,
                                    contrast=CONTRAST))[0]
        for steps in (8, 100, 200)
    ]
    assert answers[1] > 1.2 * answers[0]
    assert answers[1] > 0.8 * answers[2]


# From natural images --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("budget", [0.0, 0.4, 3.0, 10.0])
def test_a_change_stays_within_its_budget_and_moves_the_answer(budget):
    student, direction = half_student(), np.array([1, 1, -1, -1])
    start = natural()[[0, 1, 0, 1]]
    made = adversarial(student, start, direction, Interpret(adversarial_budget=budget, adversarial_steps=10))
    change = np.abs(made.astype(int) - start).mean(axis=(1, 2, 3))
    assert (change <= budget).all()
    moved = direction * (predict(student, made) - predict(student, start))
    if budget >= 3:
        assert (change > 0.9 * budget).all()
        assert (moved > 0.7 * budget).all(), "twice the change at most: one half up and the other down"
    assert (moved >= 0).all()


@pytest.mark.parametrize("level", [0, 255])
def test_images_at_the_end_of_the_scale_do_not_wrap(level):
    start = np.full((2, 112, 112, 3), level, np.uint8)
    made = adversarial(half_student(), start, np.array([1, -1]), FEW)
    assert (np.abs(made.astype(int) - start).mean(axis=(1, 2, 3)) <= 10).all()
    towards_middle = (np.abs(made.astype(int) - level) < 150).all()
    assert towards_middle


# All of a run ---------------------------------------------------------------------------------------------------------
@cache
def run():
    student = half_student()
    students = [with_readout(student, 0), student, with_readout(student, np.nan)]
    of_each = [[of_unit(found, unit) for found in made_images(one, natural(), FEW, seed=5)] for unit, one in enumerate(students)]
    return [stacked(tables) for tables in zip(*of_each, strict=True)]


def test_each_unit_has_all_kinds_with_their_answers():
    images, _ = run()
    kinds = ["maximizing"] * 3 + ["minimizing"] * 2 + ["adversarial-up"] * 2 + ["adversarial-down"] * 2
    assert images["kind"].tolist() == kinds * 3
    assert images["unit"].tolist() == [0] * 9 + [1] * 9 + [2] * 9
    assert images["is_grey"].tolist() == [False, False, True, *[False] * 6] * 3
    assert images["seed"].tolist() == [5, 6, 5, 5, 6, -1, -1, -1, -1] * 3
    of = images["unit"] == 1
    np.testing.assert_allclose(images["answer"][of], predict(half_student(), images["image"][of]), rtol=1e-5)
    up = np.array([1, 1, 1, -1, -1, 1, 1, -1, -1])
    assert (up * (images["answer"] - images["start_answer"])[of] > 3).all()


def test_changed_images_are_those_that_are_answered_as_half_of_them_are():
    images, _ = run()
    answers = predict(half_student(), natural())
    middle = np.argsort(np.abs(answers - np.sort(answers)[3]))[:2]
    of = images["unit"] == 1
    assert images["start_row"][of].tolist() == [-1] * 5 + [*middle, *middle]
    np.testing.assert_allclose(images["start_answer"][of][5:], np.tile(answers[middle], 2), rtol=1e-5)


def test_made_images_have_the_light_of_the_natural_ones():
    images, _ = run()
    made = images["image"][images["start_row"] < 0]
    np.testing.assert_allclose(made.mean(axis=(1, 2, 3)), natural().mean(), atol=0.6)
    np.testing.assert_allclose(made.std(axis=(1, 2, 3)), natural().std(axis=(1, 2, 3)).mean(), atol=0.6)


def test_similarity_is_the_correlation_of_the_two_images_in_colour():
    images, similarity = run()
    one, other = images["image"][9:11]
    assert similarity["unit"].tolist() == [0, 1, 2]
    assert similarity["seed_similarity"][1] == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1], abs=1e-6)
    assert similarity["seed_similarity"][1] > 0.9


def test_students_that_answer_nothing_give_nan_and_leave_the_others_alone():
    images, similarity = run()
    assert np.isnan(similarity["seed_similarity"][[0, 2]]).all()
    assert (images["answer"][:9] == 0).all()
    assert np.isnan(images["answer"][18:]).all()
    for first in (0, 18):
        rows = images["start_row"][first + 5 : first + 9]
        np.testing.assert_array_equal(images["image"][first + 5 : first + 9], natural()[rows])
    alone, _ = made_images(half_student(), natural(), FEW, seed=5)
    np.testing.assert_array_equal(alone["image"], images["image"][9:18])


def test_kinds_can_be_left_out():
    settings = Interpret(maximizing=1, maximizing_grey=0, minimizing=0, minimizing_grey=0, adversarial=0, steps=2)
    images, similarity = made_images(half_student(), natural(), settings, seed=0)
    assert images["kind"].tolist() == ["maximizing"]
    assert np.isnan(similarity["seed_similarity"]).all()
