import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Circle

from nwb_compact.interpretation.stimuli import COLOURS, GREY
from nwb_compact.interpretation.tables import Table
from nwb_compact_analysis import tuning_figures as tuning
from nwb_compact_analysis.field_figures import plot_contrast
from nwb_compact_analysis.style import STUDENT
from tests.test_analysis.interpreted import BLANK, DOT_PX, LEAST, constant, example_tables, table

pytestmark = pytest.mark.usefixtures("close_figures")


@pytest.fixture
def tables():
    return example_tables()


@pytest.fixture
def probed(tables):
    return tuning.probed_of(tables, 0)


def answers_to(tables, **properties) -> float:
    """Mean answer of unit 0 to the stimuli that have these properties."""
    probes = tables["probes"]
    return float(probes["student"][np.all([probes[name] == value for name, value in properties.items()], axis=0), 0].mean())


def test_only_rows_of_the_unit_are_taken_and_a_unit_that_was_left_out_has_none(tables):
    assert set(tuning.rows_of(tables, "ablation", 2)["unit"].tolist()) == {2}
    assert tuning.rows_of(tables, "ablation", 1) is None
    assert tuning.rows_of({}, "ablation", 2) is None


def test_the_column_of_a_unit_is_its_place_among_those_interpreted_and_not_its_row_in_the_run(tables):
    np.testing.assert_allclose(tuning.probed_of(tables, 2).answers, tables["probes"]["student"][:, 1])
    assert tuning.probed_of(tables, 1) is None


def test_answers_that_are_no_numbers_are_not_drawn(tables):
    answers = tables["probes"]["student"].copy()
    answers[3, 0] = np.nan
    columns = {name: column.values for name, column in tables["probes"].columns.items()} | {"student": answers}
    assert tuning.probed_of({**tables, "probes": table(**columns)}, 0) is None
    assert tuning.probed_of({**tables, "probes": table(**columns)}, 2) is not None


def test_each_label_has_its_index_as_a_bar_its_least_as_a_tick_and_the_one_that_was_given_is_filled(tables):
    ax = tuning.plot_evidence(tuning.rows_of(tables, "preferences", 0))
    bars = {int(bar.get_y() + 0.5): bar for bar in ax.patches}
    assert {y: bar.get_width() for y, bar in bars.items()} == {0: -0.5, 1: 0.6, 3: 0.7, 4: 0.1}
    assert [to_hex(bar.get_facecolor()) == STUDENT.lower() for bar in bars.values()] == [False, False, True, False]
    assert [line.get_xdata()[0] for line in ax.lines[: len(LEAST)]] == list(LEAST.values())
    assert [text.get_text() for text in ax.texts] == ["−0.50", "0.60", "none", "0.70", "0.10"]
    assert ax.get_title(loc="left") == "prefers: dot"


def test_a_unit_without_a_label_has_no_filled_bar(tables):
    ax = tuning.plot_evidence(tuning.rows_of(tables, "preferences", 2))
    assert ax.get_title(loc="left") == "preference: unclear"
    assert STUDENT.lower() not in [to_hex(bar.get_facecolor()) for bar in ax.patches]


def test_the_map_and_the_ring_of_a_receptive_field_lie_at_the_same_place(tables):
    """All of the field is in row 1, column 6 of 8, whose centre is 35 px above and to the right of the centre of the image."""
    ax = tuning.plot_receptive_field(tuning.rows_of(tables, "receptive_fields", 0))
    (ring,) = (patch for patch in ax.patches if isinstance(patch, Circle))
    left, right, bottom, top = ax.images[0].get_extent()
    row, column = np.argwhere(ax.images[0].get_array() == 1)[0]
    pixel = left + (column + 0.5) * (right - left) / 8, top + (row + 0.5) * (bottom - top) / 8
    assert ring.center == pixel == (35.0, -35.0)
    assert ring.radius == 10
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # downwards


def test_a_unit_without_a_receptive_field_is_told_so(tables):
    ax = tuning.plot_receptive_field(tuning.rows_of(constant(tables, 0), "receptive_fields", 0))
    assert [text.get_text() for text in ax.texts] == ["no cover changes\nits answer"]


def test_the_orientation_curve_is_the_mean_over_phases_at_the_best_wavelength_and_closes(tables, probed):
    ax = tuning.plot_orientations(probed)
    angle, answers = ax.lines[-1].get_data()
    assert angle.tolist() == [0, 45, 90, 135, 180]
    np.testing.assert_allclose(answers[1], answers_to(tables, family="grating", orientation_deg=45.0, wavelength_px=7.0), rtol=1e-6)
    assert answers[0] == answers[-1]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [BLANK + 0.2 * 0.5, BLANK + 2.0 * 1.5], rtol=1e-6)


def test_dots_that_lie_beside_the_middle_are_left_out_of_the_size_curve(tables, probed):
    ax = tuning.plot_dots(probed)
    bright, dark = (line.get_ydata() for line in ax.lines if len(line.get_xdata()) == len(DOT_PX))
    np.testing.assert_allclose(bright, [BLANK + 0.5, BLANK + 1.0, BLANK + 0.25])
    np.testing.assert_allclose(dark, [BLANK + 2.0, BLANK + 4.0, BLANK + 1.0])


@pytest.mark.parametrize(("family", "axis", "plot"), [("surround", "size_px", tuning.plot_sizes), ("contrast", "contrast", plot_contrast)])
def test_curves_over_sizes_and_contrasts_are_of_the_grating_that_their_index_is_of(family, axis, plot):
    """One grating is answered most at one phase, the other on average over phases, by which the index chooses."""
    rows = [(angle, phase, level) for angle in (0.0, 90.0) for phase in (0.0, 90.0, 180.0, 270.0) for level in (0.5, 1.0)]
    answers = [BLANK, *(BLANK + level * ((10.0 if phase == 0 else 0.0) if angle == 0 else 6.0) for angle, phase, level in rows)]
    angle, phase, level = (np.array([np.nan, *values]) for values in zip(*rows, strict=True))
    one = np.ones(1 + len(rows))
    probes = {"family": ["blank", *[family] * len(rows)], "orientation_deg": angle, "wavelength_px": 7 * one, "phase_deg": phase,
              "size_px": one, "contrast": one, axis: level}
    ax = plot(tuning.Probed(table(**probes), np.array(answers), {"surround_suppression": 0.0, "c50": 0.5}))
    np.testing.assert_allclose(ax.lines[-1].get_xydata(), [[0.5, BLANK + 3], [1.0, BLANK + 6]])


def test_curves_are_those_of_the_polarity_that_drives_most(probed):
    ax = tuning.plot_curves(probed)
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), np.full(5, BLANK + 0.3))
    assert ax.get_title(loc="left").startswith("bright curves of 16 px")


def test_colours_are_those_of_the_stimuli_and_their_bars_begin_at_the_blank_screen(probed):
    assert (tuning.COLOURS, tuning.GREY_LEVEL) == (COLOURS, GREY)
    ax = tuning.plot_colours(probed)
    assert {bar.get_y() for bar in ax.patches} == {BLANK}
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], 0.1, rtol=1e-5)
    red = np.array(ax.patches[0].get_facecolor()[:3]) * 255
    np.testing.assert_allclose(red, [192, 71.3, 112])


def test_the_strongest_answer_of_every_family_is_shown(tables, probed):
    ax = tuning.plot_families(probed)
    strongest = dict(zip([label.get_text() for label in ax.get_xticklabels()], ax.lines[-1].get_ydata(), strict=True))
    assert strongest["dot"] == BLANK + 4
    assert strongest["grating"] == BLANK + 3
    assert set(strongest) == set(tables["probes"]["family"]) - {"blank", "surround", "contrast"}


def test_all_panels_have_one_scale_that_holds_every_answer(probed):
    figure = tuning.tuning_figure(probed, 100)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    low, high = figure.axes[0].get_ylim()
    assert low < probed.answers.min()
    assert high > probed.answers.max()


def test_a_battery_that_lacks_families_gives_panels_that_say_so():
    nothing = {name: np.full(1, np.nan) for name in ("orientation_deg", "wavelength_px", "phase_deg", "size_px", "polarity")}
    probes = table(family=["blank"], colour=["grey"], row_offset_px=[0.0], column_offset_px=[0.0], **nothing)
    figure = tuning.tuning_figure(tuning.Probed(probes, np.ones(1), {}), 100)
    said = {text.get_text().replace("\n", " ") for ax in figure.axes for text in ax.texts}
    assert said == {"no grating was shown", "no dot was shown", "no colour was shown", "no curve was shown",
                    "no grating of several sizes was shown"}


def test_an_index_that_is_not_defined_is_none_in_the_titles(tables):
    empty = Table("", {name: column for name, column in tables["tuning"].columns.items() if name == "unit"})
    probed = tuning.probed_of({**tables, "tuning": empty}, 0)
    assert tuning.plot_orientations(probed).get_title(loc="left").endswith("OSI none, F1/F0 none")
