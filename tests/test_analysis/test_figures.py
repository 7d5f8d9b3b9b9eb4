from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from nwb_compact_analysis import figures


def scatter_points(ax, index: int = 0) -> np.ndarray:
    return np.asarray(ax.collections[index].get_offsets())


@pytest.mark.parametrize(
    "plot",
    [
        figures.plot_teacher_against_student,
        figures.plot_accuracy_against_parameters,
        figures.plot_filters_per_layer,
        figures.plot_scores_by_unit,
    ],
)
def test_every_figure_draws_on_the_axes_it_is_given(plot, make_fit, close_figures):
    results, _ = make_fit(5)
    ax = plt.subplots()[1]
    made = plt.get_fignums()
    drawn = plot(results, ax=ax)
    assert drawn is ax
    assert plt.get_fignums() == made
    assert drawn.get_xlabel()


def test_teacher_against_student_shows_each_unit_and_both_medians(make_fit, close_figures):
    results, _ = make_fit(9)
    ax = figures.plot_teacher_against_student(results)
    np.testing.assert_array_equal(scatter_points(ax), np.stack([results.scores["teacher_r2"], results.scores["student_r2"]], axis=1))
    assert (ax.get_xlim(), ax.get_ylim(), ax.get_aspect()) == ((0, 1), (0, 1), 1.0)
    teacher, student = np.median(results.scores["teacher_r2"]), np.median(results.scores["student_r2"])
    assert ax.get_title(loc="left") == f"medians (lines): teacher {teacher:.2f}, student {student:.2f}\n9 units"


def test_units_without_r2_are_left_out_and_not_counted(make_fit, close_figures):
    results, _ = make_fit(4)
    results.scores["student_r2"][1] = np.nan
    ax = figures.plot_teacher_against_student(results)
    assert len(scatter_points(ax)) == 3
    assert ax.get_title(loc="left").endswith("3 units")


def test_units_below_the_snr_floor_are_open(make_fit, close_figures):
    results, _ = make_fit(4)
    results.scores["below_snr_floor"] = np.array([0.0, 1.0, np.nan, 0.0])
    ax = figures.plot_teacher_against_student(results)
    np.testing.assert_array_equal(ax.collections[0].get_facecolor()[:, 3] == 0, [False, True, False, False])
    assert ax.get_title(loc="left").endswith("4 units, open: SNR below the floor")


def test_accuracy_against_parameters_sets_the_teacher_at_its_own_size(make_fit, close_figures):
    results, _ = make_fit(6)
    ax = figures.plot_accuracy_against_parameters(results)
    students, _, teachers, _ = (scatter_points(ax, k) for k in range(4))
    np.testing.assert_array_equal(students[:, 0], results.scores["student_parameters"])
    assert set(teachers[:, 0]) == {1_200_000}
    assert ax.get_legend().get_texts()[1].get_text().endswith("with 1.2 M parameters")


def test_teacher_parameters_follow_from_compression_where_not_written_down(make_fit):
    results, _ = make_fit(6)
    assert figures.teacher_parameters(replace(results, provenance={})) == pytest.approx(1_200_000)


def test_filters_per_layer_draws_a_line_a_unit_and_their_median(make_fit, close_figures):
    results, _ = make_fit(7)
    lines = figures.plot_filters_per_layer(results).lines
    np.testing.assert_array_equal([line.get_ydata() for line in lines[:-1]], results.filters_per_layer)
    np.testing.assert_array_equal(lines[-1].get_ydata(), np.median(results.filters_per_layer, axis=0))


def test_units_are_ordered_best_first_and_nan_last(make_fit):
    results, _ = make_fit(6, nan_units=(0, 3))
    order = figures.order_by_accuracy(results)
    ranked = results.scores["student_r2_er"][order]
    assert sorted(ranked[:4], reverse=True) == ranked[:4].tolist()
    assert set(order[4:]) == {0, 3}


def test_a_unit_without_a_score_keeps_its_row_and_says_why(make_fit, close_figures):
    results, _ = make_fit(3, nan_units=(1,))
    ax = figures.plot_scores_by_unit(results, [1, 0, 2])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["unit-2", "unit-1", "unit-3"]
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("repeat averages only: noise…", 0)]


def test_without_any_noise_correction_r2_is_shown_and_named(make_fit, close_figures):
    results, _ = make_fit(4, averages_only=True)
    ax = figures.plot_scores_by_unit(results)
    assert ax.get_xlabel() == "r² (not noise-corrected)"
    assert ax.get_xlim() == (0, 1)
    assert not ax.texts


def test_scores_beyond_the_axis_become_arrow_heads_at_its_edge(make_fit, close_figures):
    results, _ = make_fit(3)
    results.scores["student_r2_er"][:] = [-40.0, 0.5, 7.0]
    ax = figures.plot_scores_by_unit(results, [0, 1, 2])
    low, high = figures.SHOWN_R2
    drawn = np.concatenate([scatter_points(ax, k) for k in range(len(ax.collections)) if len(scatter_points(ax, k))])
    assert [low, 0.0] in drawn.tolist()
    assert [high, 2.0] in drawn.tolist()
    assert ax.get_xlim() == figures.SHOWN_R2
