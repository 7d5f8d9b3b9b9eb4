import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from nwb_compact.interpretation.ablation import ablate, answers_without_each, filters, size_index, size_selectivity
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student, predict

WIDTHS = (5, 4, 4, 3, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 14, 14, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)  # 6: one step and a half
MEASURED = np.array([1.0, 4.0, 2.0, 0.5, 3.0, 2.5])
DIAMETERS = (0, 4, 8, 12, 20, 32, 48, 70)
DRIVING, SUPPRESSING, UNREAD = 0, 1, 2
"""Channels of the hand-built detector."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with threadpool_limits(1, user_api="openmp"):
        yield


def dots(diameters=DIAMETERS):
    """White dots on grey 116 in the middle of the image."""
    row, column = np.mgrid[:112, :112] - 55.5
    inside = np.hypot(row, column) < np.array(diameters)[:, None, None] / 2
    return np.where(inside[..., None], 255, 116).repeat(3, axis=3).astype(np.uint8)


def dot_detector():
    """Three channels that hand on what is brighter than grey: the middle of one drives the answer, the whole of another suppresses it."""
    n, centre = 3, np.zeros((5, 5), np.float32)
    centre[2, 2] = 1
    arrays = {"input.mean": np.zeros(3, np.float32), "layer1.kernel": np.tile(centre / 3, (n, 3, 1, 1))}
    for layer in range(2, 6):
        arrays |= {f"layer{layer}.depthwise": np.tile(centre, (n, 1, 1)), f"layer{layer}.pointwise": np.eye(n, dtype=np.float32)}
    arrays |= {f"layer{layer}.bias": np.full(n, -117 if layer == 1 else 0, np.float32) for layer in range(1, 6)}
    weight = np.zeros((n, 28, 28), np.float32)
    weight[DRIVING, 13:15, 13:15] = 1e-2
    weight[SUPPRESSING] = -1e-4
    return StudentWeights(arrays | {"readout.weight": weight, "readout.bias": np.ones(1, np.float32)})


def consolidating(seed):
    """A student in which one filter of layer 3 makes size selectivity out of many that have none, and which that is.

    Twelve channels of layers 1 and 2 hand on what is bright, six of them blurred, each with weights of its own. The planted filter takes
    the blurred ones from the others, as in the circuit of the study. Of the other filters of layer 3 one grows with the area of a dot, and
    six look at random mixtures of other channels, away from where dots are shown.
    """
    rng = np.random.default_rng(seed)
    n_sharp, n_blurred, n_others, n_late = 6, 6, 8, 8
    n, carry = n_sharp + n_blurred + n_others, n_sharp + n_blurred
    delta, box = np.zeros((5, 5)), np.full((5, 5), 1 / 25)
    delta[2, 2] = 1
    first = rng.normal(size=(n, 3, 5, 5)) / 10
    first[:carry] = (delta + 0.1 * rng.random((carry, 1, 5, 5))) / 3
    first[:carry] /= first[:carry].sum(axis=(1, 2, 3), keepdims=True)
    handed_on = np.concatenate([np.tile(delta, (n_sharp, 1, 1)), np.tile(box, (n_blurred, 1, 1)), rng.normal(size=(n_others, 5, 5)) / 5])
    mixed = np.eye(n)
    mixed[carry:, carry:] = rng.normal(size=(n_others, n_others)) / 3
    late, planted = np.zeros((n_late, n)), int(rng.integers(n_late))
    area, *others = [k for k in rng.permutation(n_late).tolist() if k != planted]
    late[planted, :n_sharp] = rng.uniform(0.7, 1.3, n_sharp) / n_sharp
    late[planted, n_sharp:carry] = -2 * rng.uniform(0.7, 1.3, n_blurred) / n_blurred
    late[area, n_sharp:carry] = rng.uniform(0.7, 1.3, n_blurred) / n_blurred
    late[np.ix_(others, range(carry, n))] = rng.normal(size=(len(others), n_others)) / 3
    weight = np.zeros((n_late, 28, 28))
    weight[planted, 13:15, 13:15], weight[area, 13:15, 13:15] = 0.02, 0.0004
    weight[others, :2] = rng.normal(size=(len(others), 2, 28)) / 1000
    arrays = {
        "input.mean": np.zeros(3), "layer1.kernel": first, "layer1.bias": np.where(np.arange(n) < carry, -117, 0),
        "layer2.depthwise": handed_on, "layer2.pointwise": mixed, "layer2.bias": np.zeros(n),
        "layer3.depthwise": handed_on, "layer3.pointwise": late, "layer3.bias": np.zeros(n_late),
        "readout.weight": weight, "readout.bias": np.ones(1),
    }
    for layer in (4, 5):
        arrays |= {f"layer{layer}.depthwise": np.tile(delta, (n_late, 1, 1)), f"layer{layer}.pointwise": np.eye(n_late)}
        arrays[f"layer{layer}.bias"] = np.zeros(n_late)
    return StudentWeights({name: array.astype(np.float32) for name, array in arrays.items()}), planted


def changed(student, **arrays):
    return StudentWeights(student.arrays | {name.replace("_", "."): np.asarray(array, np.float32) for name, array in arrays.items()})


def separable(student):
    rng, n = np.random.default_rng(1), len(student.arrays["readout.weight"])
    kept = {name: array for name, array in student.arrays.items() if name != "readout.weight"}
    return changed(StudentWeights(kept), readout_filter=rng.normal(size=n), readout_space=rng.normal(size=(28, 28)))


def mute(student, layer, k):
    """Silenced in another way: no weights and a negative bias, so that nothing is left after rectification."""
    arrays = {name: array.copy() for name, array in student.arrays.items()}
    arrays["layer1.kernel" if layer == 1 else f"layer{layer}.pointwise"][k] = 0
    arrays[f"layer{layer}.bias"][k] = -1
    return StudentWeights(arrays)


def r2(a, b):
    return np.corrcoef(a, b)[0, 1] ** 2


STUDENTS = [example_student(WIDTHS), separable(example_student(WIDTHS))]


@pytest.mark.parametrize("student", STUDENTS)
def test_each_filter_is_silenced_as_if_it_had_no_weights(student):
    intact, silenced = answers_without_each(student, IMAGES)
    expected = np.stack([predict(mute(student, *which), IMAGES) for which in zip(*filters(student), strict=True)], axis=1)
    assert (np.abs(expected - intact[:, None]).max(axis=0) > 0).sum() > sum(WIDTHS) / 2  # most filters do something
    np.testing.assert_allclose(intact, predict(student, IMAGES), rtol=1e-4, atol=1e-4 * intact.std())
    np.testing.assert_allclose(silenced, expected, rtol=1e-4, atol=1e-4 * intact.std())


def test_scores_compare_the_silenced_answers_with_the_measured_and_the_intact():
    student = STUDENTS[0]
    found, intact = ablate(student, IMAGES, MEASURED, dots()), predict(student, IMAGES)
    compared = 0
    for row, (layer, k) in enumerate(zip(found["layer"], found["filter"], strict=True)):
        answers = predict(mute(student, layer, k), IMAGES)
        if answers.std() < 1e-3 * intact.std():
            continue
        compared += 1
        assert found["r2_change"][row] == pytest.approx(r2(answers, MEASURED) - r2(intact, MEASURED), abs=1e-4)
        assert found["r2_with_intact"][row] == pytest.approx(r2(answers, intact), abs=1e-4)
        assert found["mean_change"][row] == pytest.approx(answers.mean() - intact.mean(), abs=1e-4 * float(intact.std()))
    assert compared > sum(WIDTHS) / 2


def test_images_without_a_response_are_left_out():
    some = np.where([True, False, True, True, True, False], MEASURED, np.nan)
    shown = np.isfinite(some)
    found = ablate(STUDENTS[0], IMAGES, some, dots((0, 9)))
    np.testing.assert_allclose(
        found["r2_change"], ablate(STUDENTS[0], IMAGES[shown], some[shown], dots((0, 9)))["r2_change"], atol=1e-5
    )


def test_the_hand_built_detector_needs_what_suppresses_it_at_every_layer():
    student = dot_detector()
    curve = predict(student, dots())
    assert 0 < curve.argmax() < len(DIAMETERS) - 2
    found = ablate(student, IMAGES, MEASURED, dots())
    of = found["filter"]
    np.testing.assert_array_equal(found["size_index"][of == SUPPRESSING], 1)  # the answer no longer falls
    np.testing.assert_array_equal(found["size_index"][of == DRIVING], 0)  # what is left falls with every dot
    np.testing.assert_array_equal(found["size_index"][of == UNREAD], 0)
    np.testing.assert_allclose(found["r2_with_intact"][of == UNREAD], 1)
    np.testing.assert_array_equal(found["mean_change"][of == UNREAD], 0)
    assert (found["mean_change"][of == SUPPRESSING] > 0).all()
    assert (found["mean_change"][of == DRIVING] < 0).all()
    np.testing.assert_allclose(found["curve"][of == UNREAD], np.tile(curve, (5, 1)), rtol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_the_planted_filter_that_consolidates_is_the_one_that_ablation_names(seed):
    student, planted = consolidating(seed)
    curve = predict(student, dots())
    assert 0 < curve.argmax() < len(DIAMETERS) - 2
    found = ablate(student, IMAGES, MEASURED, dots())
    necessary = {layer: found["size_index"][found["layer"] == layer] for layer in (1, 2, 3)}
    assert necessary[3].argmax() == planted
    assert necessary[3][planted] > 0.9
    assert np.delete(necessary[3], planted).max() < 0.25
    assert max(necessary[1].max(), necessary[2].max()) < 0.25  # as in the study: no single one of the filters that it reads is needed


def test_a_filter_without_which_nothing_varies_takes_all_that_was_explained():
    """The answer is then constant but for rounding, which must not be correlated with anything."""
    student = example_student((4, 4, 1, 3, 3), seed=1)
    intact = predict(student, IMAGES)
    assert intact.std() > 0.01
    found = ablate(student, IMAGES, MEASURED, IMAGES)
    only = found["layer"] == 3
    np.testing.assert_array_equal(found["r2_with_intact"][only], 0)
    np.testing.assert_allclose(found["r2_change"][only], -r2(intact, MEASURED), rtol=1e-4)


@pytest.mark.parametrize("broken", [
    changed(dot_detector(), readout_weight=np.zeros((3, 28, 28))),
    changed(dot_detector(), readout_bias=[np.nan]),
    changed(dot_detector(), layer3_bias=[np.nan, 0, 0]),
    changed(dot_detector(), layer1_bias=[np.inf, 0, 0]),
])
def test_a_student_without_answers_that_vary_has_no_scores(broken):
    found = ablate(broken, IMAGES, MEASURED, dots((0, 20, 70)))
    assert len(found) == 15
    for name in ("r2_change", "r2_with_intact", "size_index"):
        assert np.isnan(found[name]).all()


def test_answers_that_little_but_rounding_moves_have_no_scores():
    found = ablate(changed(dot_detector(), readout_bias=[1e6]), IMAGES, MEASURED, dots())
    assert np.ptp(found["curve"]) > 0
    for name in ("r2_change", "r2_with_intact", "size_index"):
        assert np.isnan(found[name]).all()


@pytest.mark.parametrize("measured", [np.full(6, np.nan), np.ones(6)])
def test_without_measured_responses_the_student_is_still_taken_apart(measured):
    found = ablate(dot_detector(), IMAGES, measured, dots())
    assert np.isnan(found["r2_change"]).all()
    assert np.isfinite(found["r2_with_intact"]).all()
    assert np.isfinite(found["size_index"]).all()


# The index ------------------------------------------------------------------------------------------------------------
def test_a_curve_that_only_grows_selects_no_size():
    grows = np.array([0.0, 1.0, 2.0, 3.0])
    assert size_selectivity(grows[:, None]) == [0]
    assert np.isnan(size_index(np.array([grows, -grows]).T, grows)).all()


def test_what_is_left_without_range_selects_nothing():
    intact = np.array([0.0, 10.0, 0.0])
    below, above = 0.009 * intact, 0.011 * intact  # a hundredth is the limit
    np.testing.assert_array_equal(size_index(np.array([below, above]).T, intact), [1, 0])


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(0.1, 100), offset=st.floats(-10, 10))
def test_the_index_does_not_depend_on_units_and_stays_within_its_ends(seed, gain, offset):
    curves = np.random.default_rng(seed).normal(size=(7, 5))
    intact = np.array([0.0, 0.5, 1.0, 3.0, 2.0, 1.0, 0.5])
    index = size_index(curves, intact)
    assert ((index >= 0) & (index <= 1)).all()
    np.testing.assert_allclose(size_index(gain * curves + offset, gain * intact + offset), index, atol=1e-9)
