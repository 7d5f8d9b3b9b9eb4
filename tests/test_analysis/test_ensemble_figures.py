from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from nwb_compact.measured import measured_means
from nwb_compact.responses import responses_of
from nwb_compact.results import Results
from nwb_compact.scoring import Predictions, score_units
from nwb_compact_analysis.ensemble_figures import (
    SCORED,
    VALIDATION,
    has_members,
    members_figure,
    members_r2,
    plot_members,
    plot_validation,
)
from nwb_compact_analysis.medians import LEAST_SPAN

VALIDATED = {"teacher_validation_r2": "0.4000 0.4300 0.4400", "teacher_member_validation_r2": "0.4000 0.3900 0.4100"}


def validated(results: Results) -> Results:
    return replace(results, provenance={**results.provenance, **VALIDATED})


def curve(ax) -> np.ndarray:
    (line,) = ax.lines
    return np.asarray(line.get_xydata())


def dots(ax) -> np.ndarray:
    (scatter,) = ax.collections
    return np.asarray(scatter.get_offsets())


def test_curve_and_dots_are_medians_over_units_of_r2_on_scored_images(make_fit, close_figures):
    results, session = make_fit(5, 30)
    measured = measured_means(session, results)
    ax = plot_members(results, measured)
    scored = np.asarray(results.side) == "scored"
    members = results.teacher_member_prediction[scored].astype(float)
    for n in (1, 2, 3):
        for drawn, prediction in ((curve(ax), members[:, :, :n].mean(axis=2)), (dots(ax), members[:, :, n - 1])):
            expected = [np.corrcoef(prediction[:, unit], measured[scored, unit])[0, 1] ** 2 for unit in range(5)]
            np.testing.assert_allclose(drawn[n - 1], [n, np.median(expected)])
    assert ax.get_ylabel() == SCORED
    first, last = curve(ax)[[0, 2], 1]
    assert ax.get_title(loc="left") == f"first member {first:.3f}; all 3: {last:.3f}\ndots: each member by itself"


def test_the_average_of_all_members_has_the_r2_of_the_table_of_scores(make_fit):
    results, session = make_fit(4, 40)
    members = results.teacher_member_prediction.copy()
    members[:, 1] = 2.0  # a teacher that answers all images alike explains nothing
    counts = session.counts.count.copy()
    counts[:, 2] = 3  # a unit that never varies has no score
    session = replace(session, counts=replace(session.counts, count=counts))
    sizes = np.full(4, 9)
    predictions = Predictions(members.mean(axis=2), results.student_prediction, sizes, sizes, sizes)
    scores, _ = score_units(responses_of(session), results.side, predictions, n_bootstraps=2, seed=0, snr_floor=5.0)
    results = replace(results, teacher_member_prediction=members, scores=scores)
    averages, alone = members_r2(results, measured_means(session, results))
    np.testing.assert_allclose(averages[-1], scores["teacher_r2"], atol=1e-6)
    assert averages[:, 1].tolist() == alone[:, 1].tolist() == [0.0] * 3
    assert np.isnan(averages[:, 2]).all()
    assert np.isnan(alone[:, 2]).all()


def test_images_that_a_unit_was_not_shown_are_left_out(make_fit):
    results, session = make_fit(2, 30)
    measured = measured_means(session, results)
    scored = np.flatnonzero(np.asarray(results.side) == "scored")
    measured[scored[0], 1] = np.nan
    whole, _ = members_r2(results, measured_means(session, results))
    averages, _ = members_r2(results, measured)
    rest = scored[1:]
    prediction = results.teacher_member_prediction[rest, 1].astype(float).mean(axis=1)
    assert averages[2, 1] == pytest.approx(np.corrcoef(prediction, measured[rest, 1])[0, 1] ** 2)
    assert averages[2, 1] != whole[2, 1]
    assert averages[2, 0] == whole[2, 0]


def test_validation_is_drawn_as_the_fit_wrote_it_on_axes_of_its_own(make_fit, close_figures):
    results, session = make_fit(3)
    results = validated(results)
    figure = members_figure(results, measured_means(session, results), 100)
    assert [ax.get_ylabel() for ax in figure.axes] == [SCORED, VALIDATION]
    for ax in (figure.axes[1], plot_validation(results)):
        assert curve(ax).tolist() == [[1, 0.40], [2, 0.43], [3, 0.44]]
        assert dots(ax).tolist() == [[1, 0.40], [2, 0.39], [3, 0.41]]
        assert ax.get_title(loc="left") == "first member 0.400; all 3: 0.440\ndots: each member by itself"


@pytest.mark.parametrize("written", [{}, {"teacher_validation_r2": "0.4"}, {"teacher_validation_r2": "not recorded"}])
def test_without_validation_scores_there_is_one_panel(written, make_fit):
    results, session = make_fit(3)
    results = replace(results, provenance={**results.provenance, **written})
    assert [ax.get_ylabel() for ax in members_figure(results, measured_means(session, results), 100).axes] == [SCORED]


def test_small_differences_are_not_blown_up_and_large_ones_are_inside(make_fit, close_figures):
    results, _ = make_fit(1)
    low, high = plot_validation(validated(results)).get_ylim()
    assert (high - low, (low + high) / 2) == pytest.approx((1.1 * LEAST_SPAN, 0.415))
    low, high = plot_validation(replace(results, provenance={"teacher_validation_r2": "0.1 0.6"})).get_ylim()
    assert low < 0.1 < 0.6 < high


def test_a_run_has_members_when_two_are_stored_and_a_unit_has_a_score(make_fit):
    results, _ = make_fit(2)
    assert has_members(results)
    assert not has_members(replace(results, teacher_member_prediction=None))
    assert not has_members(replace(results, teacher_member_prediction=results.teacher_member_prediction[:, :, :1]))
    assert not has_members(replace(results, scores={**results.scores, "teacher_r2": np.full(2, np.nan)}))


def test_it_draws_on_the_axes_it_is_given(make_fit, close_figures):
    results, session = make_fit(1)
    ax = plt.subplots()[1]
    made = plt.get_fignums()
    assert plot_members(results, measured_means(session, results), ax) is ax
    assert plt.get_fignums() == made
