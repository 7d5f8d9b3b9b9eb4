from dataclasses import replace
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from PIL import Image

from nwb_compact.interpretation import robustness
from nwb_compact.interpretation.consolidation import consolidation, drop_test
from nwb_compact.interpretation.physiology import tuning
from nwb_compact.interpretation.preference import CRITERIA, preferences
from nwb_compact.interpretation.stimuli import battery
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.results import StudentWeights
from nwb_compact_analysis import image_figures, network_figures, physiology_figures
from nwb_compact_analysis.population_figures import copied_filters, population_sections
from nwb_compact_analysis.style import GREY, STUDENT

AGREEMENT = ("probe_r2", "maximizing_above_best", "minimizing_below_median", "adversarial_followed")
CHANGES = {"noise": (4.0, 8.0, 16.0, 32.0), "contrast": (0.75, 0.5, 0.25), "luminance": (-40.0, -20.0, 20.0, 40.0)}
KINDS = ("maximizing", "maximizing", "minimizing", "adversarial-up", "adversarial-down")
LABELS = ("colour", "edge", "curvature", "dot", "texture")


def table(**columns) -> Table:
    return Table("made up", {name: Column(f"made up {name}", np.asarray(values)) for name, values in columns.items()})


def interpreted(n_units: int, nan_units: tuple[int, ...] = (), seed: int = 0) -> dict[str, Table]:
    """Made-up findings of units that are rows 2, 4, 6, ... of a run; all numbers of some units may be missing."""
    rng, unit = np.random.default_rng(seed), 2 * np.arange(1, n_units + 1)
    missing = np.isin(np.arange(n_units), nan_units)

    def drawn(low: float, high: float, *shape: int) -> np.ndarray:
        values = rng.uniform(low, high, (n_units, *shape))
        values[missing] = np.nan
        return values

    indices = {f"{name}_index": drawn(-1, 1) for name in LABELS}
    least = {f"{name}_least": [CRITERIA[name]] * n_units for name in LABELS}
    preferred = np.where(missing, "unclear", rng.choice([*LABELS, "unclear"], n_units))
    cka = drawn(0, 1, 5, n_units).transpose(1, 0, 2)
    cka = np.clip((cka + cka.transpose(0, 2, 1)) / 2, None, 1).astype(np.float32)
    filters, made = np.repeat(unit, 20), np.repeat(unit, len(KINDS))
    steps = [("none", 0.0), *((change, level) for change, levels in CHANGES.items() for level in levels)]
    return {
        "preferences": table(unit=unit, preference=preferred, **indices, **least),
        "tuning": table(unit=unit, osi=drawn(0, 1), f1_f0=drawn(0, 3), dot_px=2.0 ** np.round(drawn(2, 6)), size_suppression=drawn(0, 1),
                        surround_suppression=drawn(0, 1)),
        "receptive_fields": table(unit=unit, rf_diameter_px=drawn(10, 130)),
        "consolidation": table(unit=unit, largest_drop_after_layer=rng.integers(0, 5, n_units)),
        "consolidation_test": table(after_layer=[3], n_units=[n_units], median_drop=[54.0], p=[0.0001]),
        "similarity": table(layer=np.arange(1, 6), cka=cka, median_cka=np.zeros(5)),
        "similarity_test": table(median_early=[0.8], median_late=[0.2], n_pairs=[n_units // 2], p=[0.04]),
        "output_similarity": table(unit=unit, r2=cka[0]),
        "early_filters": table(unit=filters, orientation_deg=15.0 * rng.integers(0, 12, 20 * n_units),
                               gabor_r2=rng.uniform(0, 1, 20 * n_units)),
        "early_filter_clusters": table(kernel=rng.normal(size=(30, 3, 5, 5)), unit_share=rng.uniform(0, 1, 30)),
        "ablation": table(unit=filters, layer=np.tile(np.repeat(np.arange(1, 6, dtype=np.int8), 4), n_units),
                          size_index=drawn(0, 1, 20).ravel(), r2_change=drawn(-0.3, 0.02, 20).ravel()),
        "made_images": table(unit=made, kind=np.tile(KINDS, n_units), is_grey=np.tile([False, True, False, False, False], n_units),
                             answer=drawn(-5, 40, 5).ravel(), start_answer=drawn(0, 1, 5).ravel()),
        "natural_answers": table(unit=unit, mean_answer=drawn(0, 1), sd_answer=drawn(0.5, 2)),
        "natural_images": table(unit=np.repeat(unit, 4), kind=np.tile(np.repeat(["natural-strongest", "natural-weakest"], 2), n_units),
                                rank=np.tile([0, 1], 2 * n_units), answer=drawn(-1, 9, 4).ravel().astype(np.float32)),
        "robustness": table(change=[change for change, _ in steps], level=[level for _, level in steps],
                            r2=drawn(0, 1, len(steps)).T, answer_r2=drawn(0, 1, len(steps)).T),
    }


FIGURES = [
    "figure_8a_preferences.png", "figure_8b_tuning.png", "figure_8c_consolidation.png", "figure_8d_common_filters.png",
    "figure_8e_silenced_filters.png", "figure_8f_robustness.png", "figure_8g_made_images.png",
]


# The sections -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_units", "nan_units"), [(1, ()), (1, (0,)), (219, (3,))])
def test_every_figure_is_whole_and_takes_half_a_page(n_units, nan_units, make_fit):
    sections = population_sections(make_fit(2)[0], interpreted(n_units, nan_units))
    pictures = [picture for section in sections for picture in section.pictures]
    assert [picture.file_name for picture in pictures] == FIGURES
    assert all(section.text and "nan" not in section.text.split() for section in sections)
    for picture in pictures:
        assert picture.size_in[0] <= 7
        assert picture.size_in[1] <= 5
        ink = np.asarray(Image.open(BytesIO(picture.png)).convert("L")) < 250
        touching = [edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1])]
        assert touching == [False] * 4, picture.file_name


def test_what_was_not_computed_is_left_out(make_fit):
    results, found = make_fit(2)[0], interpreted(3)
    of_one = {name: [section.heading for section in population_sections(results, {name: part})] for name, part in found.items()}
    assert {name for name, headings in of_one.items() if not headings} == {
        "consolidation_test", "similarity_test", "output_similarity", "made_images", "natural_answers", "natural_images",
    }
    assert all(len(headings) <= 1 for headings in of_one.values())


def test_what_is_alike_by_construction_is_told_of_the_run_itself(make_fit):
    results, _ = make_fit(2)
    kernel, bias = np.ones((4, 3, 5, 5), np.float32), np.zeros(4, np.float32)

    def text(*students: dict[str, np.ndarray]) -> str:
        run = replace(results, students=tuple(StudentWeights(arrays) for arrays in students))
        return population_sections(run, {"early_filters": interpreted(2)["early_filters"]})[0].text

    other = kernel * np.arange(1, 5, dtype=np.float32)[:, None, None, None]
    one, same = {"layer1.kernel": kernel, "layer1.bias": bias}, {"layer1.kernel": kernel, "layer1.bias": bias}
    assert "All students of this run hold the same layer 1: alike" in text(one, same)
    assert "No filter of layer 1 in this run is a copy" in text(one, {"layer1.kernel": -other, "layer1.bias": bias.copy()})
    cut = {"layer1.kernel": np.concatenate([other[:1], other[2:] + 9]), "layer1.bias": bias[:3].copy()}
    assert "40 % of the filters of layer 1 are exact copies" in text({"layer1.kernel": other[:2], "layer1.bias": bias[:2]}, cut)


def test_a_filter_twice_in_one_student_is_no_copy_of_another_units(make_fit):
    results, _ = make_fit(1)
    results.students[0].arrays["layer1.kernel"] = np.ones((3, 3, 5, 5), np.float32)
    assert copied_filters(results) == 0


def test_the_caption_of_similarity_gives_the_test_and_says_nothing_where_there_was_none(make_fit):
    results, found = make_fit(2)[0], interpreted(5)
    said = "median CKA is 0.80 in early and 0.20 in late layers (p = 0.040, 2 pairs without a common unit)"
    assert said in population_sections(results, {name: found[name] for name in ("similarity", "similarity_test")})[0].text
    unknown = table(median_early=[np.nan], median_late=[np.nan], n_pairs=[0], p=[np.nan])
    assert "CKA is" not in population_sections(results, {"similarity": found["similarity"], "similarity_test": unknown})[0].text


# What the figures ask of the rooms that write the tables -------------------------------------------------------------------


def test_tables_are_named_and_worded_as_the_figures_expect(close_figures):
    stimuli, silent = battery(), np.zeros((len(battery()), 2))
    tuned = tuning(stimuli, silent)
    preferred = preferences(stimuli, silent, tuned)
    assert {name: physiology_figures.criterion(preferred, name) for name in physiology_figures.labels_of(preferred)} == CRITERIA
    assert {measure.column for measure in physiology_figures.MEASURES if measure.table == "tuning"} < set(tuned.columns)
    assert physiology_figures.plot_preferences(preferred).get_title(loc="left") == "0 of 2 units with a label"
    assert list(image_figures.LEVELS) == list(robustness.LEVELS)
    filters = np.array([[47, 47, 57, 3, 7]] * 20)
    ax = network_figures.plot_largest_drops(consolidation(filters), drop_test(filters, n_permutations=2000))
    assert ax.get_title(loc="left") == "layer 3 to 4: median fall 54 filters,\np < 0.001, 20 units"


# Preferences and tuning ---------------------------------------------------------------------------------------------------


def test_labels_are_counted_and_their_units_are_blue_in_their_own_column(close_figures):
    index, least = [0.5, np.nan, 0.6], [0.4] * 3
    found = table(preference=["dot", "unclear", "edge"], edge_index=index, dot_index=index, edge_least=least, dot_least=least)
    assert [bar.get_width() for bar in physiology_figures.plot_preferences(found).patches] == [1, 1, 1]
    ax = physiology_figures.plot_preference_indices(found)
    edge, dot = (part for part in ax.collections if isinstance(part, PathCollection))
    assert [to_hex(colour) for colour in edge.get_facecolors()] == [GREY.lower(), STUDENT.lower()]
    assert [to_hex(colour) for colour in dot.get_facecolors()] == [STUDENT.lower(), GREY.lower()]
    np.testing.assert_array_equal(edge.get_offsets()[:, 1], [0.5, 0.6])
    levels = [part.get_segments()[0][0, 1] for part in ax.collections if isinstance(part, LineCollection)]
    assert levels == [0.55, 0.55, 0.4, 0.4]  # medians, then the least index of either label


def test_bars_hold_every_known_unit_and_values_beyond_stand_in_the_last_one(close_figures):
    f1_f0 = next(measure for measure in physiology_figures.MEASURES if measure.column == "f1_f0")
    ax = physiology_figures.plot_distribution(f1_f0, np.array([0.05, 0.1, 1.9, 7.0, np.nan]))
    heights = [bar.get_height() for bar in ax.patches]
    assert (heights[0], heights[-1], sum(heights)) == (2, 2, 4)
    assert ax.get_title(loc="left") == "median 1.00, 4 of 5 units"


@pytest.mark.parametrize("sizes", [[12.0], [4.0, 4.0, 64.0], [2.0, 96.0]])
def test_a_preferred_size_has_a_bar_where_it_is(sizes, close_figures):
    dots = next(measure for measure in physiology_figures.MEASURES if measure.column == "dot_px")
    ax = physiology_figures.plot_distribution(dots, np.array(sizes))
    centres = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    np.testing.assert_allclose(centres, np.unique(sizes))
    assert [bar.get_height() for bar in ax.patches] == np.unique(sizes, return_counts=True)[1].tolist()
    low, high = ax.get_xlim()
    assert low < min(sizes) <= max(sizes) < high


# Networks -----------------------------------------------------------------------------------------------------------------


def test_units_that_lose_no_filter_have_a_bar_of_their_own(close_figures):
    ax = network_figures.plot_largest_drops(table(largest_drop_after_layer=[0, 3, 3]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1 to 2", "2 to 3", "3 to 4", "4 to 5", "no fall"]
    assert [bar.get_height() for bar in ax.patches] == [0, 0, 2, 0, 1]


def test_similarity_is_of_pairs_and_not_of_units_with_themselves(close_figures):
    cka = np.full((5, 4, 4), np.nan, np.float32)
    cka[:, :3, :3] = np.eye(3)
    for layer, values in enumerate([(0.9, 0.8, 0.7), (0.5, 0.5, 0.5), (0.3, 0.1, 0.2), (0.0, 0.1, 0.0), (np.nan,) * 3]):
        cka[layer][np.triu_indices(3, 1)] = cka[layer].T[np.triu_indices(3, 1)] = values
    ax = network_figures.plot_similarity(table(layer=np.arange(1, 6), cka=cka), table(r2=cka[0] / 2))
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.8, 0.5, 0.2, 0.0], atol=1e-6)
    assert (ax.lines[1].get_xdata()[0], round(float(ax.lines[1].get_ydata()[0]), 6)) == (5, 0.4)
    assert ax.get_title(loc="left") == "CKA, medians 0.80, 0.50, 0.20, 0.00\nof 3 pairs of units; lines: 5 to 95 %"


def test_the_most_common_kernels_come_first_each_with_its_own_share(close_figures):
    kernel = np.zeros((20, 3, 5, 5))
    kernel[np.arange(20), 0, 0, 0] = np.where(np.arange(20) == 7, -1.0, 1.0)
    ax = network_figures.plot_common_filters(table(kernel=kernel, unit_share=np.where(np.arange(20) == 7, 0.6, 0.1)))
    assert [text.get_text() for text in ax.texts] == ["60 %", *["10 %"] * (network_figures.COMMON_FILTERS - 1)]
    assert [float(image.get_array()[0, 0, 0]) for image in ax.images] == [0.0, *[1.0] * (network_figures.COMMON_FILTERS - 1)]


def test_orientations_are_of_filters_that_a_gabor_explains(close_figures):
    angle = np.array([0.0, 0.0, 165.0, 90.0, np.nan, np.nan])
    ax = network_figures.plot_orientations(table(orientation_deg=angle, gabor_r2=[0.9, 0.8, 0.7, 0.2, 0.9, np.nan]))
    shares = dict(zip(np.arange(0, 180, 15), [bar.get_height() for bar in ax.patches], strict=True))
    assert {step: share for step, share in shares.items() if share} == {0: pytest.approx(2 / 3), 165: pytest.approx(1 / 3)}
    assert ax.get_title(loc="left") == "3 of 6 filters have an orientation,\n1 are blobs without one"


def test_silenced_filters_are_taken_by_unit_and_layer(close_figures):
    found = table(unit=[5, 5, 5, 9, 9], layer=np.array([1, 1, 4, 1, 4], np.int8), size_index=[0.2, 0.7, np.nan, np.nan, 0.1],
                  r2_change=[-0.1, 0.3, -0.4, np.nan, -0.2])
    nan = np.nan
    largest = network_figures.extreme_of_layer(found, "size_index", "largest")
    np.testing.assert_array_equal(largest, [[0.7, nan, nan, nan, nan], [nan, nan, nan, 0.1, nan]])
    smallest = network_figures.extreme_of_layer(found, "r2_change", "smallest")
    np.testing.assert_array_equal(smallest, [[-0.1, nan, nan, -0.4, nan], [nan, nan, nan, -0.2, nan]])
    labels = [label.get_text() for label in network_figures.plot_size_index_by_layer(found).get_xticklabels()]
    assert labels == ["1\n(2)", "2\n(0)", "3\n(0)", "4\n(1)", "5\n(0)"]


# Images -------------------------------------------------------------------------------------------------------------------


def test_robustness_has_the_intact_score_as_a_line_and_one_axis_for_all(close_figures):
    found = interpreted(9, (2,))["robustness"]
    axes = [image_figures.plot_robustness(found, change) for change in image_figures.changes_of(found)]
    assert [ax.get_title(loc="left") for ax in axes] == list(CHANGES)
    assert len({ax.get_ylim() for ax in axes}) == 1
    others = np.delete(found["r2"], 2, axis=1)
    assert axes[0].lines[0].get_ydata()[0] == pytest.approx(np.median(others[0]))
    np.testing.assert_allclose(axes[1].lines[1].get_xdata(), CHANGES["contrast"])
    np.testing.assert_allclose(axes[1].lines[1].get_ydata(), np.median(others[5:8], axis=1))
    assert axes[1].get_xlim()[0] > axes[1].get_xlim()[1]


def test_other_models_have_lines_of_their_own_beside_the_students(close_figures):
    found = interpreted(5)["robustness"]
    half = Table("", {**found.columns, "r2": Column("", found["r2"] / 2)})
    ax = image_figures.plot_robustness(found, "noise", others={"vone_robustness": half})
    labels = [line.get_label() for line in ax.lines]
    assert "measured responses, model behind a fixed V1" in ax.get_legend_handles_labels()[1], labels
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), ax.lines[1].get_ydata() / 2)


def test_units_that_were_never_measured_still_show_how_far_their_answers_move(close_figures):
    found = interpreted(4)["robustness"]
    unmeasured = Table("", {**found.columns, "r2": Column("", np.full_like(found["r2"], np.nan))})
    (line,) = image_figures.plot_robustness(unmeasured, "noise").lines
    np.testing.assert_allclose(line.get_ydata(), np.median(found["answer_r2"][1:5], axis=1))


def test_answers_are_in_sds_from_natural_ones_and_averaged_over_the_images_of_a_unit(close_figures):
    kind = [*["maximizing"] * 3, "minimizing", *["minimizing"] * 2]
    made = table(unit=[3, 3, 3, 8, 3, 3], kind=kind, is_grey=[False, False, True, False, False, True],
                 answer=[9.0, 11.0, 5.0, -3.0, -1.0, 0.0], start_answer=[2.0, 4.0, 1.0, 0.0, 1.0, 1.0])
    natural = table(unit=[3, 8], mean_answer=[1.0, 2.0], sd_answer=[2.0, 0.0])
    extremes = table(unit=[3, 3, 8, 8], kind=["natural-strongest"] * 4, rank=[1, 0, 0, 1], answer=[5.0, 7.0, np.nan, np.nan])
    kinds, answers, starts = image_figures.relative_answers(made, natural, extremes)
    assert kinds == ["natural-strongest", "maximizing", "maximizing, grey", "minimizing", "minimizing, grey"]
    np.testing.assert_array_equal(answers, [[3.0, 4.5, 2.0, -1.0, -0.5], [np.nan] * 5])  # unit 8 answers all natural images alike
    np.testing.assert_array_equal(starts, [[np.nan, 1.0, 0.0, 0.0, 0.0], [np.nan] * 5])
    ax = image_figures.plot_made_answers(kinds, answers, starts)
    assert ax.get_title(loc="left").startswith("1 of 2 units;")


def test_panels_are_drawn_on_the_axes_they_are_given(close_figures):
    found, made = interpreted(3), plt.get_fignums()
    kinds, answers, starts = image_figures.relative_answers(found["made_images"], found["natural_answers"])
    panels = [
        lambda ax: physiology_figures.plot_preferences(found["preferences"], ax),
        lambda ax: physiology_figures.plot_preference_indices(found["preferences"], ax),
        lambda ax: physiology_figures.plot_distribution(physiology_figures.MEASURES[0], found["tuning"]["osi"], ax),
        lambda ax: network_figures.plot_largest_drops(found["consolidation"], None, ax),
        lambda ax: network_figures.plot_similarity(found["similarity"], None, ax),
        lambda ax: network_figures.plot_common_filters(found["early_filter_clusters"], ax),
        lambda ax: network_figures.plot_orientations(found["early_filters"], ax),
        lambda ax: network_figures.plot_size_index_by_layer(found["ablation"], ax),
        lambda ax: network_figures.plot_r2_loss_by_layer(found["ablation"], ax),
        lambda ax: image_figures.plot_robustness(found["robustness"], "noise", ax),
        lambda ax: image_figures.plot_made_answers(kinds, answers, starts, ax),
    ]
    axes = plt.figure().subplots(1, len(panels))
    made = plt.get_fignums()
    assert all(plot(ax) is ax for plot, ax in zip(panels, axes, strict=True))
    assert plt.get_fignums() == made


def test_what_the_teacher_says_of_its_students_is_a_figure_where_it_was_asked(make_fit):
    fitted = make_fit(2)[0]
    tables = interpreted(5, nan_units=(2,))
    agreement = {"teacher_agreement": table(unit=tables["tuning"]["unit"], **{name: np.linspace(0, 1, 5) for name in AGREEMENT})}
    *others, last = population_sections(fitted, tables | agreement)
    assert [section.heading for section in population_sections(fitted, tables)] == [section.heading for section in others]
    assert last.heading == "What the teacher says of its students"
    assert [picture.file_name for picture in last.pictures] == ["figure_8h_teacher.png"]
