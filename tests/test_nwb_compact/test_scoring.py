from dataclasses import replace

import numpy as np
import pytest

from nwb_compact.reliability import repeat_statistics
from nwb_compact.responses import Responses, mean_by_image
from nwb_compact.results import MODEL_SCORES, SCORE_COLUMNS, score_columns
from nwb_compact.scores import feve, r2_er, single_trial_correlation
from nwb_compact.scoring import (
    AVERAGES_ONLY,
    FEW_IMAGES,
    FEW_REPEATS,
    FLAT_FIT,
    FLAT_MODEL,
    FLAT_RESPONSE,
    NO_NOISE,
    NO_PREDICTION,
    NO_REPEATS,
    NO_SIGNAL,
    SILENT_HALF,
    Predictions,
    score_units,
)

N_IMAGES, N_UNITS = 120, 4
SIDES = ("fit",) * 50 + ("validation",) * 8 + ("scored",) * 60 + ("unused",) * 2
SCORED = np.array(SIDES) == "scored"
NEED_TRIALS = {name for name in SCORE_COLUMNS if any(part in name for part in ("r2_er", "feve", "single_trial", "reliab", "cc_max", "snr"))}
NEED_A_PREDICTION = {f"{model}_{name}" for model in ("teacher", "student") for name in MODEL_SCORES}


def from_counts(count, image):
    names = tuple(f"unit-{number}" for number in range(count.shape[1]))
    return Responses(names, tuple(map(str, range(N_IMAGES))), None, mean_by_image(count, image, N_IMAGES), None, count, image)


def world(*, repeats=(2, 3, 5)):
    """Poisson units in long form, a good teacher and a worse student."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 2.0, (N_IMAGES, N_UNITS))
    image = np.repeat(np.arange(N_IMAGES), rng.choice(repeats, N_IMAGES))
    count = rng.poisson(rate[image]).astype(np.uint16)
    teacher, student = rate.astype(np.float32), (rate + rng.normal(size=rate.shape)).astype(np.float32)
    sizes = np.full(4, 1_000_000), np.array([9, 10, 11, 12]) * 1000, np.array([30, 31, 32, 33])
    return from_counts(count, image), Predictions(teacher, student, *sizes)


def scored(responses, predictions, sides=SIDES, **baselines):
    return score_units(responses, sides, predictions, n_bootstraps=20, seed=0, snr_floor=5.0, baselines=baselines)


def nan_columns(scores, unit):
    return {name for name, column in scores.items() if np.isnan(column[unit])}


def with_counts(responses, unit, rows, value):
    """The same session with other counts in some rows of one unit."""
    count = responses.count.copy()
    count[rows, unit] = value
    return from_counts(count, responses.image_of_count)


def test_every_score_is_there_in_order_and_none_is_missing_without_a_reason():
    scores, reason = scored(*world())
    assert list(scores) == list(SCORE_COLUMNS)
    assert reason == ("",) * N_UNITS
    assert all(column.shape == (N_UNITS,) and np.isfinite(column).all() for column in scores.values())


def test_the_scores_are_those_of_the_scored_images():
    responses, predictions = world()
    scores, _ = scored(responses, predictions)
    kept = SCORED[responses.image_of_count]
    count, image = responses.count[kept], responses.image_of_count[kept]
    repeats = repeat_statistics(count, image)
    for model, prediction in (("teacher", predictions.teacher.astype(float)), ("student", predictions.student.astype(float))):
        r = [np.corrcoef(prediction[SCORED, unit], responses.mean[SCORED, unit])[0, 1] for unit in range(N_UNITS)]
        np.testing.assert_allclose(scores[f"{model}_r"], r)
        np.testing.assert_allclose(scores[f"{model}_r2"], np.square(r))
        np.testing.assert_allclose(scores[f"{model}_r2_er"], r2_er(prediction[repeats.image], repeats))
        np.testing.assert_allclose(scores[f"{model}_feve"], feve(prediction, count, image, repeats))
        np.testing.assert_allclose(scores[f"{model}_single_trial_r"], single_trial_correlation(prediction, count, image))
        for kind in ("", "_ecci"):
            low, high = scores[f"{model}_r2_er{kind}_low"], scores[f"{model}_r2_er{kind}_high"]
            assert ((low < scores[f"{model}_r2_er"].clip(0, 1)) & (scores[f"{model}_r2_er"].clip(0, 1) <= high)).all()
    np.testing.assert_array_equal(scores["cc_max"], np.sqrt(scores["reliability"]))
    np.testing.assert_allclose(scores["mean_count"], responses.mean[SCORED].mean(axis=0))


def test_sizes_are_told_as_they_were_given():
    scores, _ = scored(*world())
    np.testing.assert_array_equal(scores["student_parameters"], [9000, 10_000, 11_000, 12_000])
    np.testing.assert_array_equal(scores["student_bytes"], [36_000, 40_000, 44_000, 48_000])
    np.testing.assert_array_equal(scores["student_filters"], [30, 31, 32, 33])
    np.testing.assert_allclose(scores["compression"], 1_000_000 / scores["student_parameters"])


def test_a_student_that_copies_the_teacher_scores_as_it_does():
    responses, predictions = world()
    scores, _ = scored(responses, replace(predictions, student=predictions.teacher))
    np.testing.assert_allclose(scores["teacher_student_r2"], 1.0)
    for name in SCORE_COLUMNS:
        if name.startswith("teacher_r") or name in ("teacher_feve", "teacher_single_trial_r"):
            np.testing.assert_array_equal(scores[name], scores[name.replace("teacher", "student")])


def test_a_model_that_answers_the_wrong_way_round_has_a_negative_r():
    responses, predictions = world()
    scores, _ = scored(responses, replace(predictions, teacher=-predictions.teacher))
    upright, _ = scored(responses, predictions)
    np.testing.assert_allclose(scores["teacher_r"], -upright["teacher_r"])
    np.testing.assert_allclose(scores["teacher_r2_er"], upright["teacher_r2_er"])


# Baselines ------------------------------------------------------------------------------------------------------------
def test_a_baseline_is_scored_as_the_models_are_and_changes_none_of_their_scores():
    responses, predictions = world()
    alone, _ = scored(responses, predictions)
    beside, reason = scored(responses, predictions, ridge=predictions.student, ln=-predictions.teacher)
    assert reason == ("",) * N_UNITS
    assert list(beside) == list(score_columns(["ridge", "ln"]))
    for name in SCORE_COLUMNS:
        np.testing.assert_array_equal(beside[name], alone[name], err_msg=name)
    for name in MODEL_SCORES:
        np.testing.assert_array_equal(beside[f"ridge_{name}"], alone[f"student_{name}"], err_msg=name)
    np.testing.assert_allclose(beside["ln_r"], -alone["teacher_r"])


def test_a_baseline_that_answers_every_image_the_same_explains_nothing_and_is_the_reason():
    responses, predictions = world()
    flat = predictions.teacher.copy()
    flat[:, 1] = 2.0
    scores, reason = scored(responses, predictions, ridge=flat)
    assert reason == ("", FLAT_MODEL, "", "")
    assert (scores["ridge_r"][1], scores["ridge_r2"][1]) == (0.0, 0.0)
    assert np.isnan(scores["ridge_r2_er"][1])
    assert not {name for name in nan_columns(scores, 1) if not name.startswith("ridge_")}


# Only scored images are looked at -------------------------------------------------------------------------------------
def test_responses_to_other_images_and_predictions_of_them_change_nothing():
    responses, predictions = world()
    rng = np.random.default_rng(1)
    count, other = responses.count.copy(), ~SCORED[responses.image_of_count]
    count[other] = rng.integers(0, 50, (other.sum(), N_UNITS))
    teacher, student = predictions.teacher.copy(), predictions.student.copy()
    teacher[~SCORED], student[~SCORED] = rng.random((2, (~SCORED).sum(), N_UNITS), np.float32)
    before = scored(responses, predictions)
    after = scored(from_counts(count, responses.image_of_count), replace(predictions, teacher=teacher, student=student))
    assert after[1] == before[1]
    for name in SCORE_COLUMNS:
        np.testing.assert_array_equal(after[0][name], before[0][name], err_msg=name)


@pytest.mark.parametrize("flat", [58, 50], ids=["fit and validation", "fit alone"])
def test_responses_to_fitting_images_matter_only_if_they_never_vary(flat):
    responses, predictions = world()
    before, _ = scored(responses, predictions)
    scores, reason = scored(with_counts(responses, 1, responses.image_of_count < flat, 3), predictions)
    assert reason == ("", FLAT_FIT, "", "")
    assert nan_columns(scores, 1) == NEED_A_PREDICTION
    others = [0, 2, 3]
    for name in SCORE_COLUMNS:
        np.testing.assert_array_equal(scores[name][others], before[name][others], err_msg=name)


# Why a score is not known ---------------------------------------------------------------------------------------------
def test_repeat_averages_give_no_score_that_needs_single_trials():
    responses, predictions = world()
    with_trials, _ = scored(responses, predictions)
    scores, reason = scored(replace(responses, count=None, image_of_count=None), predictions)
    assert reason == (AVERAGES_ONLY,) * N_UNITS
    for unit in range(N_UNITS):
        assert nan_columns(scores, unit) == NEED_TRIALS
    for name in set(SCORE_COLUMNS) - NEED_TRIALS:
        np.testing.assert_array_equal(scores[name], with_trials[name], err_msg=name)


def test_averages_that_a_unit_lacks_are_left_out_for_that_unit_alone():
    responses, predictions = world()
    mean = responses.mean.copy()
    mean[60:80, 2] = np.nan
    whole, _ = scored(replace(responses, count=None, image_of_count=None), predictions)
    scores, _ = scored(replace(responses, mean=mean, count=None, image_of_count=None), predictions)
    held = SCORED & np.isfinite(mean[:, 2])
    assert scores["teacher_r"][2] == pytest.approx(np.corrcoef(predictions.teacher[held, 2], mean[held, 2])[0, 1])
    np.testing.assert_array_equal(scores["teacher_r"][[0, 1, 3]], whole["teacher_r"][[0, 1, 3]])


def test_a_unit_without_any_average_on_the_scored_side_has_no_scores():
    responses, predictions = world()
    mean = responses.mean.copy()
    mean[58:, 2] = np.nan
    scores, reason = scored(replace(responses, mean=mean, count=None, image_of_count=None), predictions)
    assert reason[2] == FLAT_RESPONSE
    assert nan_columns(scores, 2) == NEED_TRIALS | {"teacher_r", "teacher_r2", "student_r", "student_r2", "mean_count"}


def test_images_shown_once_give_no_noise_corrected_score():
    scores, reason = scored(*world(repeats=(1,)))
    assert reason == (NO_REPEATS,) * N_UNITS
    for unit in range(N_UNITS):
        assert nan_columns(scores, unit) == NEED_TRIALS - {"teacher_single_trial_r", "student_single_trial_r"}


def test_repeats_on_the_fitting_side_do_not_count():
    responses, predictions = world()
    _, first = np.unique(responses.image_of_count, return_index=True)
    kept = np.union1d(first, np.flatnonzero(~SCORED[responses.image_of_count]))
    _, reason = scored(from_counts(responses.count[kept], responses.image_of_count[kept]), predictions)
    assert reason == (NO_REPEATS,) * N_UNITS


def test_a_unit_that_never_varies_over_scored_images_is_named():
    responses, predictions = world()
    scores, reason = scored(with_counts(responses, 3, SCORED[responses.image_of_count], 0), predictions)
    assert reason == ("", "", "", FLAT_RESPONSE)
    assert nan_columns(scores, 3) == NEED_TRIALS | {"teacher_r", "teacher_r2", "student_r", "student_r2"}
    assert scores["mean_count"][3] == 0.0


def test_a_unit_of_noise_alone_is_named():
    responses, predictions = world(repeats=(2,))
    rows = np.arange(len(responses.image_of_count))
    noise = 4 * (rows % 2) + (responses.image_of_count % 7 == 0) * (rows % 2 == 0)  # 0 4, 0 4, ... and now and then 1 4
    scores, reason = scored(with_counts(responses, 0, rows, noise), predictions)
    assert reason == (NO_SIGNAL, "", "", "")
    assert np.isnan(scores["student_r2_er"][0])
    assert np.isfinite(scores["student_r2"][0])


def test_repeats_that_agree_exactly_have_no_noise_but_a_signal():
    responses, predictions = world()
    exact = np.arange(N_IMAGES, dtype=np.uint16)[responses.image_of_count]
    scores, reason = scored(with_counts(responses, 2, slice(None), exact), predictions)
    assert reason == ("", "", NO_NOISE, "")
    assert nan_columns(scores, 2) == {"snr"}
    assert scores["below_snr_floor"][2] == 0.0
    for end in ("low", "high"):
        assert scores[f"teacher_r2_er_ecci_{end}"][2] == scores["teacher_r2_er"][2] == pytest.approx(scores["teacher_r2"][2])


def test_two_repeated_images_tell_too_little_of_reliability():
    responses, predictions = world(repeats=(1,))
    count, image = (np.concatenate([held, held[58:60]]) for held in (responses.count, responses.image_of_count))
    count[-2:] += np.array([[3], [1]], np.uint16)
    scores, reason = scored(from_counts(count, image), predictions)
    assert reason == (FEW_REPEATS,) * N_UNITS
    assert np.isnan(scores["reliability"]).all()


def test_three_scored_images_have_no_credible_interval():
    responses, predictions = world()
    sides = tuple("scored" if image in (100, 101, 102) else "fit" for image in range(N_IMAGES))
    scores, reason = scored(responses, predictions, sides)
    assert reason == (FEW_IMAGES,) * N_UNITS
    assert np.isnan(scores["student_r2_er_ecci_low"]).all()


def test_a_unit_whose_halves_may_be_silent_has_a_signal_and_no_reliability():
    """It answers one image in two of three presentations, and nothing else."""
    responses, predictions = world(repeats=(3,))
    count = responses.count.copy()
    count[SCORED[responses.image_of_count], 1] = 0
    count[np.flatnonzero(responses.image_of_count == 60)[:2], 1] = 1
    scores, reason = scored(from_counts(count, responses.image_of_count), predictions)
    assert scores["snr"][1] > 0
    assert np.isfinite(scores["student_r2_er"][1])
    assert np.isnan(scores["reliability"][1])
    assert reason == ("", SILENT_HALF, "", "")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_prediction_that_is_not_a_number_is_no_score_of_0(number):
    responses, predictions = world()
    whole, _ = scored(responses, predictions)
    broken = predictions.student.copy()
    broken[60, 1] = number
    scores, reason = scored(responses, replace(predictions, student=broken))
    assert reason == ("", NO_PREDICTION, "", "")
    assert nan_columns(scores, 1) == {f"student_{name}" for name in MODEL_SCORES} | {"teacher_student_r2"}
    for name in SCORE_COLUMNS:
        np.testing.assert_array_equal(np.delete(scores[name], 1), np.delete(whole[name], 1), err_msg=name)


def test_a_prediction_of_an_image_that_is_not_scored_may_be_anything():
    responses, predictions = world()
    whole, _ = scored(responses, predictions)
    broken = predictions.student.copy()
    broken[~SCORED] = np.nan
    scores, reason = scored(responses, replace(predictions, student=broken))
    assert reason == ("",) * N_UNITS
    for name in SCORE_COLUMNS:
        np.testing.assert_array_equal(scores[name], whole[name], err_msg=name)


# The floor of the SNR -------------------------------------------------------------------------------------------------
def test_units_below_the_floor_are_marked_and_scored_all_the_same():
    responses, predictions = world(repeats=(5,))
    noise = np.random.default_rng(5).poisson(4.0, len(responses.count))
    scores, _ = scored(with_counts(responses, 1, slice(None), noise), predictions)
    standard_error = np.sqrt(2 / (SCORED.sum() * 5 * 4))
    assert scores["snr"][1] < 5 * standard_error < scores["snr"][[0, 2, 3]].min()
    np.testing.assert_array_equal(scores["below_snr_floor"], [0, 1, 0, 0])
    assert np.isfinite(scores["teacher_r2"][1])


def test_what_models_predict_does_not_move_a_unit_over_the_floor():
    responses, predictions = world(repeats=(2,))
    first, _ = scored(responses, predictions)
    other, _ = scored(responses, replace(predictions, teacher=predictions.student[::-1].copy()))
    for name in ("snr", "below_snr_floor", "reliability", "cc_max"):
        np.testing.assert_array_equal(first[name], other[name])


@pytest.mark.parametrize("seed", range(3))
def test_no_score_is_missing_without_a_reason_however_little_the_units_fire(seed):
    rng = np.random.default_rng(seed)
    n_units = 100
    rate = np.repeat(np.geomspace(0.003, 0.3, n_units)[None], N_IMAGES, axis=0) * rng.gamma(2.0, 0.5, (N_IMAGES, n_units))
    image = np.repeat(np.arange(N_IMAGES), 3)
    responses = from_counts(rng.poisson(rate[image]).astype(np.uint16), image)
    prediction, sizes = rate.astype(np.float32), np.full(n_units, 1000)
    scores, reason = scored(responses, Predictions(prediction, prediction, sizes, sizes, sizes))
    missing = [bool(nan_columns(scores, unit)) for unit in range(n_units)]
    assert missing == [bool(why) for why in reason]
    assert 0 < sum(missing) < n_units
    assert {FLAT_RESPONSE, NO_SIGNAL, ""} <= set(reason)
