from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import binom

from nwb_compact.results import Results, StudentWeights
from nwb_compact_analysis.medians import LEAST_SPAN, best_score
from nwb_compact_analysis.report import draw_sections
from nwb_compact_analysis.shared_figures import curves, plot_shared_models, shared_runs


@pytest.fixture
def shared(make_fit):
    """`shared(run_id, K, r2)` gives a run of a shared model of K filters; `teacher` is None where there is none."""
    def run(run_id: str, filters: int, r2, teacher: float | None = 0.5, *, corrected: bool = False) -> Results:
        n = len(r2)
        made = make_fit(n, 20)[0]
        layer = np.zeros((filters, 3, 5, 5), np.float32)
        students = tuple(StudentWeights({"layer1.kernel": layer, "readout.bias": np.full(1, unit, np.float32)}) for unit in range(n))
        missing, of_teacher = np.full(n, np.nan), np.full(n, np.nan if teacher is None else teacher)
        scores = {**made.scores, "student_r2": np.array(r2), "teacher_r2": of_teacher, "student_r2_er": missing, "teacher_r2_er": missing}
        if corrected:
            scores |= {"student_r2_er": 2 * np.array(r2), "teacher_r2_er": 2 * of_teacher}
        kept = np.full((n, 5), filters)
        return replace(made, run_id=run_id, students=students, scores=scores, filters_per_layer=kept)

    return run


@pytest.fixture
def sweep(shared):
    nan = np.nan
    return [
        shared("day-K25", 25, [0.1, 0.39, 0.39, 0.6, nan]), shared("day-K5", 5, [0.2] * 5), shared("day-K100", 100, [0.4] * 5),
        shared("day-K10", 10, [0.37] * 5),
    ]


def test_medians_intervals_and_the_fewest_filters_within_five_per_cent(sweep):
    curve = curves(shared_runs(sweep))["day"]
    assert curve.filters.tolist() == [5, 10, 25, 100]
    assert curve.median.tolist() == [0.2, 0.37, 0.39, 0.4]
    assert (curve.low[[0, 1, 3]].tolist(), curve.high[[0, 1, 3]].tolist()) == ([0.2, 0.37, 0.4], [0.2, 0.37, 0.4])  # all units alike
    assert (curve.filters[curve.enough], curve.teacher) == (25, 0.5)  # 0.37 is less than 0.95 of 0.4


def test_the_interval_is_that_of_the_median_of_resampled_units(shared):
    """The median of 15 units drawn from 15 is at most the k-th value where 8 or more of them are among the lowest k."""
    values = np.array([0.01, 0.05, 0.06, 0.1, 0.2, 0.21, 0.22, 0.3, 0.33, 0.5, 0.55, 0.6, 0.7, 0.8, 0.95])
    at_most = binom.sf(7, 15, np.arange(1, 16) / 15)
    expected = [values[np.argmax(at_most >= share)] for share in (0.05, 0.95)]
    curve = curves([shared("day-K25", 25, [*values[::-1], np.nan])])["day"]
    assert (curve.median[0], curve.low[0], curve.high[0]) == (0.3, *expected)


def test_only_runs_whose_students_share_all_but_their_readouts_are_taken(shared, make_fit):
    first, second = shared("a-K5", 5, [0.2] * 5), shared("a-K10", 10, [0.3] * 5)
    own = make_fit(5)[0]
    half = [{**student.arrays, "layer2.bias": np.zeros(5, np.float32)} for student in first.students]  # equal, but each its own
    partly = replace(first, students=tuple(StudentWeights(arrays) for arrays in half))
    unscored = shared("a-K7", 7, [np.nan] * 5)
    assert [run.run_id for run in shared_runs([second, own, partly, first, unscored])] == ["a-K5", "a-K10"]
    assert shared_runs([own, first]) == ()


def test_a_curve_is_what_is_named_alike_but_for_its_filters(shared):
    names = ("published-5", 5), ("day-K5", 5), ("published-10", 10), ("day-K10", 10), ("20261120-K1", 10), ("other-5", 50)
    found = curves([shared(name, k, [0.2] * 5) for name, k in names])
    assert {name: curve.filters.tolist() for name, curve in found.items()} == {
        "published": [5, 10], "day": [5, 10], "20261120-K1": [10], "other-5": [50],
    }


def test_noise_corrected_scores_are_drawn_only_where_every_run_has_them(shared, close_figures):
    plain, corrected = shared("a-K5", 5, [0.2] * 5), shared("a-K10", 10, [0.3] * 5, corrected=True)
    assert (best_score([corrected]), best_score([plain, corrected])) == ("r2_er", "r2")
    assert curves([corrected])["a"].median.tolist() == [0.6]
    assert plot_shared_models([corrected]).get_ylabel().startswith("noise-corrected r²")
    ax = plot_shared_models([plain, corrected])
    assert ax.get_ylabel().startswith("r² on scored images")
    assert ax.lines[0].get_ydata().tolist() == [0.2, 0.3]


def test_line_ring_teacher_and_ticks_stand_where_the_numbers_are(sweep, close_figures):
    ax = plot_shared_models(shared_runs(sweep))
    line, teacher = ax.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([5, 10, 25, 100], [0.2, 0.37, 0.39, 0.4])
    assert set(teacher.get_ydata()) == {0.5}
    assert ax.collections[1].get_offsets().tolist() == [[25, 0.39]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["5", "10", "25", "100"]
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said == ["day: best 0.400; within 5 % from K = 25 (ring)", "teacher: 0.500"]
    curve = curves(shared_runs(sweep))["day"]
    bars = np.array(ax.collections[0].get_segments())
    np.testing.assert_array_equal(bars[:, :, 1], np.stack([curve.low, curve.high], axis=1))
    assert ax.get_ylim()[0] < curve.low.min() < 0.5 < ax.get_ylim()[1]


def test_without_a_teacher_there_is_no_line_of_one_and_small_differences_stay_small(shared, close_figures):
    ax = plot_shared_models([shared("a-K5", 5, [0.2] * 5, None), shared("a-K10", 10, [0.201] * 5, None)])
    assert len(ax.lines) == 1
    low, high = ax.get_ylim()
    assert high - low == pytest.approx(1.1 * LEAST_SPAN)


def test_two_sweeps_stand_side_by_side(shared, close_figures):
    runs = [shared(f"{name}-K{k}", k, [0.2] * 5, teacher) for name, teacher in (("a", 0.5), ("b", 0.4)) for k in (5, 10)]
    first, second, *teachers = plot_shared_models(runs).lines
    assert (first.get_xdata() < [5, 10]).all()
    assert (second.get_xdata() > [5, 10]).all()
    assert [line.get_ydata()[0] for line in teachers] == [0.4, 0.5]


def test_the_report_of_any_run_shows_the_shared_models_of_its_file(sweep, make_fit):
    results, session = make_fit(5, 20)
    section = {section.heading: section for section in draw_sections(results, session, sweep)}["Shared models"]
    assert [picture.file_name for picture in section.pictures] == ["figure_2d_shared_models.png"]
    assert "Shared models" not in {section.heading for section in draw_sections(results, session, sweep[:1])}


def test_it_draws_on_the_axes_it_is_given(sweep, close_figures):
    ax = plt.subplots()[1]
    made = plt.get_fignums()
    assert plot_shared_models(sweep, ax) is ax
    assert plt.get_fignums() == made
