import matplotlib.pyplot as plt
import numpy as np
import pytest

from nwb_compact_analysis.baseline_figures import LABELS, models_figure, plot_models
from nwb_compact_analysis.figures import SHOWN_R2
from nwb_compact_analysis.strips import SPREAD
from nwb_compact_analysis.style import BASELINES

NAMES = ("ridge", "direct", "ln")


def points(ax, model: int) -> np.ndarray:
    """What is drawn of one model: places across and scores."""
    drawn = [np.asarray(part.get_offsets()) for part in ax.collections if hasattr(part, "get_sizes") and len(part.get_offsets())]
    every = np.concatenate(drawn)
    return every[np.abs(every[:, 0] - model) <= SPREAD / 2]


def median_bars(ax) -> list[float]:
    return [part.get_segments()[0][0, 1] for part in ax.collections if hasattr(part, "get_segments")]


@pytest.mark.parametrize("score", list(LABELS))
def test_every_unit_of_every_model_is_drawn_with_the_median_and_its_number(score, make_fit, close_figures):
    results, _ = make_fit(9, baselines=NAMES)
    ax = plot_models(results, score)
    assert ax.get_ylabel() == LABELS[score]
    for place, model in enumerate(("teacher", "student", *NAMES)):
        values = results.scores[f"{model}_{score}"]
        np.testing.assert_allclose(np.sort(points(ax, place)[:, 1]), np.sort(values))
        assert median_bars(ax)[place] == pytest.approx(np.median(values))
        assert ax.get_xticklabels()[place].get_text() == f"{model}\n{np.median(values):.2f}"
    assert ax.get_title(loc="left") == "9 units; bars and numbers are medians"


def test_a_unit_stands_at_the_same_place_in_every_model_even_where_another_has_no_score(make_fit, close_figures):
    results, _ = make_fit(5, baselines=NAMES)
    results.scores["ridge_r2"][1] = np.nan
    ax = plot_models(results)
    teacher, ridge = points(ax, 0), points(ax, 2)
    np.testing.assert_allclose(np.delete(teacher[:, 0], 1), ridge[:, 0] - 2)


def test_units_below_the_snr_floor_are_open_and_the_title_says_so(make_fit, close_figures):
    results, _ = make_fit(5, baselines=NAMES)
    results.scores["below_snr_floor"][:] = [0, 1, 0, 0, 1]
    ax = plot_models(results)
    assert ax.get_title(loc="left") == "5 units; bars and numbers are medians\nopen: SNR below the floor"
    hollow = [part for part in ax.collections if hasattr(part, "get_sizes") and len(part.get_offsets()) and not len(part.get_facecolor())]
    assert [len(part.get_offsets()) for part in hollow] == [2] * 5
    np.testing.assert_array_equal(np.asarray(hollow[2].get_offsets())[:, 1], results.scores["ridge_r2"][[1, 4]])


def test_scores_beyond_the_axis_are_arrow_heads_at_its_edge(make_fit, close_figures):
    results, _ = make_fit(3, baselines=("ridge",))
    results.scores["ridge_r2_er"][:] = [-40.0, 0.5, 7.0]
    ax = plot_models(results, "r2_er")
    assert sorted(points(ax, 2)[:, 1]) == [SHOWN_R2[0], 0.5, SHOWN_R2[1]]
    assert ax.get_ylim() == SHOWN_R2


def test_definitions_never_share_a_panel_and_one_that_nothing_has_is_left_out(make_fit):
    assert [ax.get_ylabel() for ax in models_figure(make_fit(4, baselines=NAMES)[0], 100).axes] == list(LABELS.values())
    assert [ax.get_ylabel() for ax in models_figure(make_fit(4, baselines=NAMES, averages_only=True)[0], 100).axes] == [LABELS["r2"]]


def test_it_draws_on_the_axes_it_is_given_and_every_model_looks_its_own(make_fit, close_figures):
    results, _ = make_fit(4, baselines=NAMES)
    ax = plt.subplots()[1]
    made = plt.get_fignums()
    assert plot_models(results, ax=ax) is ax
    assert plt.get_fignums() == made
    colours = {tuple(part.get_facecolor()[0][:3]) for part in ax.collections if hasattr(part, "get_sizes") and len(part.get_offsets())}
    assert len(colours) == 2 + len(BASELINES)


def test_a_single_unit_and_one_without_any_score_are_drawn(make_fit, close_figures):
    results, _ = make_fit(1, baselines=NAMES)
    results.scores["ln_r2"][:] = np.nan
    ax = plot_models(results)
    assert len(points(ax, 0)) == 1
    assert len(points(ax, 4)) == 0
    assert ax.get_xticklabels()[4].get_text() == "ln\n–"
