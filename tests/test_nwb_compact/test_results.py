from dataclasses import replace

import numpy as np
import pytest

from nwb_compact.results import (
    MODEL_SCORES,
    SCORE_COLUMNS,
    SIDES,
    baselines_of,
    disagreement,
    example_results,
    median,
    score_columns,
    teacher_validation_r2,
)
from nwb_compact.session import example_session


def test_preferred_images_are_ranked_for_each_unit():
    answers = np.array([[3, 0], [1, 5], [2, 9], [0, 4], [-1, 3], [-2, 2]], np.float32)
    results = replace(example_results(), student_prediction=answers)
    np.testing.assert_array_equal(results.preferred_images(3), [[0, 2, 1], [2, 1, 3]])
    np.testing.assert_array_equal(results.preferred_images(2), [[0, 2], [2, 1]])


def test_of_equal_answers_the_earlier_image_comes_first():
    results = replace(example_results(), student_prediction=np.ones((6, 2), np.float32))
    np.testing.assert_array_equal(results.preferred_images(5), [[0, 1, 2, 3, 4]] * 2)


@pytest.mark.parametrize("session", [None, example_session(n_units=5)])
def test_the_example_is_whole(session):
    results = example_results(session)
    n_images, n_units = results.teacher_prediction.shape
    assert list(results.scores) == list(SCORE_COLUMNS)
    assert {len(column) for column in results.scores.values()} == {n_units}
    assert len(results.unit_name) == len(results.reason) == len(results.students) == len(results.filters_per_layer) == n_units
    assert len(results.side) == len(results.image_sha256) == n_images
    assert set(results.side) <= set(SIDES)
    if session is not None:
        assert (results.unit_name, results.image_sha256) == (session.units.name, session.images.sha256)


def test_both_models_have_the_same_kinds_of_scores():
    teacher = {name.removeprefix("teacher_") for name in SCORE_COLUMNS if name.startswith("teacher_")} - {"student_r2"}
    student = {name.removeprefix("student_") for name in SCORE_COLUMNS if name.startswith("student_")} - {"parameters", "filters", "bytes"}
    assert teacher == student


def test_baselines_add_their_columns_after_those_of_every_run():
    columns = score_columns(["ridge", "ln"])
    assert list(columns)[: len(SCORE_COLUMNS)] == list(SCORE_COLUMNS)
    assert list(columns)[len(SCORE_COLUMNS) :] == [f"{model}_{name}" for model in ("ridge", "ln") for name in MODEL_SCORES]
    assert (columns["ln_r"], columns["teacher_r"]) == (f"{MODEL_SCORES['r']}, baseline ln", f"{MODEL_SCORES['r']}, teacher")
    assert baselines_of(columns) == ("ridge", "ln")
    assert baselines_of(SCORE_COLUMNS) == ()


def test_median_ignores_units_without_a_value():
    assert median(np.array([np.nan, 3.0, 1.0, 2.0])) == 2.0
    assert np.isnan(median(np.array([np.nan])))
    assert np.isnan(median(np.zeros(0)))


def test_disagreement_is_the_standard_deviation_over_members_of_each_unit_and_image():
    results = example_results()
    members = np.random.default_rng(1).normal(size=(6, 2, 4)).astype(np.float32)
    found = disagreement(replace(results, teacher_member_prediction=members))
    deviation = members - members.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(found, np.sqrt((deviation**2).sum(axis=2) / 3), rtol=1e-5)
    np.testing.assert_array_equal(disagreement(replace(results, teacher_member_prediction=members), [1]), found[:, [1]])


def test_members_that_agree_do_so_exactly_and_one_that_gives_no_number_bounds_nothing():
    members = np.ones((6, 2, 3), np.float32)
    members[0, 0, 1], members[1, 0] = np.nan, np.inf
    found = disagreement(replace(example_results(), teacher_member_prediction=members))
    assert found[:, 0].tolist() == [np.inf, np.inf, 0, 0, 0, 0]
    assert found[:, 1].tolist() == [0] * 6


@pytest.mark.parametrize("members", [None, np.ones((6, 2, 1), np.float32)])
def test_disagreement_of_less_than_two_members_is_not_known(members):
    assert disagreement(replace(example_results(), teacher_member_prediction=members)) is None


@pytest.mark.parametrize(
    ("written", "read"),
    [("0.4641 0.4831", (0.4641, 0.4831)), ("0.5000", (0.5,)), ("", ()), ("not recorded", ()), ("0.4 nan", ()), (None, ())],
)
def test_validation_scores_are_read_as_they_were_written(written, read):
    results = replace(example_results(), provenance={} if written is None else {"teacher_member_validation_r2": written})
    assert teacher_validation_r2(results, "teacher_member") == read
    assert teacher_validation_r2(results) == ()


def test_a_baseline_of_an_earlier_version_is_one_and_a_column_of_that_name_alone_is_not():
    earlier = [name for name in score_columns(["ridge"]) if "ecci" not in name]
    assert baselines_of(earlier) == ("ridge",)
    assert baselines_of([*SCORE_COLUMNS, "mine_r2"]) == ()


def test_images_that_the_fit_did_not_use_are_neither_preferred_nor_spurned_unless_it_used_none():
    results = example_results()
    prediction = np.repeat(np.arange(6, dtype=np.float32)[:, None], 2, axis=1)
    results = replace(results, student_prediction=prediction, side=("unused", "fit", "fit", "validation", "scored", "unused"))
    assert results.preferred_images(6).tolist() == [[4, 3, 2, 1]] * 2
    assert results.spurned_images(2).tolist() == [[1, 2]] * 2
    unused = replace(results, side=("unused",) * 6)
    assert unused.preferred_images(2).tolist() == [[5, 4]] * 2
