from dataclasses import replace

import numpy as np
import pytest

from nwb_compact.results import Results
from nwb_compact_analysis.compression_figures import compression_curves, plot_compression, tolerance_of
from nwb_compact_analysis.report import draw_sections


@pytest.fixture
def pruned(make_fit):
    """`pruned(run_id, tolerance, r2, size)` gives a run whose students may have lost that."""
    def run(run_id: str, tolerance: float, r2, size: float, *, teacher: float = 0.5, **scores) -> Results:
        made = make_fit(len(r2), 20)[0]
        n = len(r2)
        changed = {
            "student_r2": np.array(r2), "teacher_r2": np.full(n, teacher), "student_parameters": np.full(n, float(size)),
            "student_r2_er": np.full(n, np.nan), "teacher_r2_er": np.full(n, np.nan), **scores,
        }
        provenance = {"tolerance": str(tolerance)}  # as a fit writes it down
        return replace(made, run_id=run_id, scores={**made.scores, **changed}, provenance=provenance)

    return run


def test_a_curve_is_the_runs_of_one_fit_strictest_first(pruned, make_fit):
    runs = [pruned("day-T10", 0.1, [0.2, 0.3], 900), pruned("day-T1", 0.01, [0.3, 0.4], 4000), pruned("day-T2-5", 0.025, [0.3, 0.3], 2000)]
    lonely, unscored = pruned("night-T5", 0.05, [0.2, 0.2], 800), pruned("day-T3", 0.03, [np.nan, np.nan], 800)
    found = compression_curves([*runs, lonely, unscored, make_fit(2)[0]])
    assert {name: [run.run_id for run in curve] for name, curve in found.items()} == {"day": ["day-T1", "day-T2-5", "day-T10"]}


@pytest.mark.parametrize(("said", "tolerance"), [({"tolerance": "0.05"}, 0.05), ({"tolerance": "1e-06"}, 1e-6), ({}, None)])
def test_the_tolerance_is_what_the_fit_wrote_down(make_fit, said, tolerance):
    assert tolerance_of(replace(make_fit(2)[0], provenance=said)) == tolerance


def test_points_intervals_and_teacher_stand_where_the_numbers_are(pruned, close_figures):
    curves = {"day": [pruned("day-T1", 0.01, [0.3, 0.3, 0.3], 4000), pruned("day-T10", 0.1, [0.1, 0.2, 0.6], 900)]}
    ax = plot_compression(curves)
    line, teacher = ax.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([4000, 900], [0.3, 0.2])
    assert set(teacher.get_ydata()) == {0.5}
    (bars,) = ax.collections
    first, second = bars.get_segments()
    assert first[:, 1].tolist() == [0.3, 0.3]
    assert second[:, 1].tolist() == [0.1, 0.6], "of three units the median of a resampling is often the lowest or highest"
    assert [text.get_text() for text in ax.texts] == ["1 %", "10 %"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["day", "teacher: 0.500"]
    assert ax.get_ylim()[0] < 0.1 < 0.6 < ax.get_ylim()[1]


def test_noise_corrected_scores_are_drawn_where_every_run_has_them(pruned, close_figures):
    corrected = {"student_r2_er": np.array([0.7, 0.7]), "teacher_r2_er": np.array([0.8, 0.8])}
    both = [pruned("day-T1", 0.01, [0.3, 0.3], 4000, **corrected), pruned("day-T10", 0.1, [0.2, 0.2], 900, **corrected)]
    assert plot_compression({"day": both}).lines[0].get_ydata().tolist() == [0.7, 0.7]
    mixed = [both[0], pruned("day-T10", 0.1, [0.2, 0.2], 900)]
    assert plot_compression({"day": mixed}).lines[0].get_ydata().tolist() == [0.3, 0.2]


def test_the_report_of_any_run_shows_what_pruning_costs_in_its_file(pruned, make_fit):
    results, session = make_fit(5, 20)
    curve = [pruned("day-T1", 0.01, [0.3] * 5, 4000), pruned("day-T10", 0.1, [0.2] * 5, 900)]
    section = {section.heading: section for section in draw_sections(results, session, curve)}["What pruning costs"]
    assert [picture.file_name for picture in section.pictures] == ["figure_2e_compression.png"]
    assert "What pruning costs" not in {section.heading for section in draw_sections(results, session, curve[:1])}
