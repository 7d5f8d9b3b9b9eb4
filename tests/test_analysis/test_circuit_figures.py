import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from nwb_compact.results import StudentWeights
from nwb_compact_analysis import circuit_figures as circuit
from nwb_compact_analysis.unit_figures import LARGEST_FILTERS
from tests.test_analysis.interpreted import DOT_PX, WIDTHS, example_tables, full_student, table, with_full_students

pytestmark = pytest.mark.usefixtures("close_figures")


def one_connection(kernel: float, weight: float) -> tuple:
    """A circuit of a filter of layer 1 that one of layer 2 reads with a kernel of this weight everywhere."""
    arrays = full_student((1, 1, 1, 1, 1)).arrays | {"layer2.depthwise": np.full((1, 5, 5), kernel, np.float32)}
    filters = table(layer=[1, 2], filter=[0, 0], effect_curve=[[0.0, 1.0, -3.0], [0.0, 2.0, 1.0]])
    summary = table(n_kept=[[1, 1, 0, 0, 0]], n_filters=[[1, 1, 1, 1, 1]], explained=[0.9])
    return StudentWeights(arrays), summary, filters, table(layer=[2], filter=[0], input=[0], weight=[weight])


def drawn_lines(ax) -> list[tuple[str, str]]:
    """Colour and style of the connections."""
    return [(line.get_color(), line.get_linestyle()) for line in ax.lines if line.get_zorder() == 2]


# Filters ------------------------------------------------------------------------------------------------------------------


def test_kernels_of_later_layers_are_grey_pictures_largest_first():
    arrays = {"layer2.depthwise": np.zeros((2, 5, 5), np.float32)}
    arrays["layer2.depthwise"][0, 0, 0], arrays["layer2.depthwise"][1, 2, 2] = 1.0, 2.0
    pictures = circuit.kernel_pictures(StudentWeights(arrays), 2)
    assert pictures[0, 2, 2].tolist() == [1, 1, 1]
    assert pictures[1, 0, 0].tolist() == [1, 1, 1]
    assert pictures[0, 0, 0].tolist() == [0.5, 0.5, 0.5]


def test_a_kernel_and_its_negative_look_the_same_since_only_the_product_with_what_follows_counts():
    kernels = np.random.default_rng(0).normal(size=(4, 5, 5))
    np.testing.assert_array_equal(circuit.signed(kernels), circuit.signed(-kernels))


def test_every_layer_says_how_many_kernels_it_keeps_also_beyond_those_that_fit(make_fit):
    results = with_full_students(make_fit(3)[0], (LARGEST_FILTERS + 7, 5, 4, 3, 2))
    ax = circuit.plot_filters(results, 1)
    counts = [text.get_text() for text in ax.texts if text.get_text().isdigit()]
    assert counts == [str(LARGEST_FILTERS + 7), str(LARGEST_FILTERS + 7), "5", "4", "3"]
    widths = np.array([bar.get_width() for bar in ax.patches])
    np.testing.assert_allclose(widths / widths.max(), results.filters_per_layer[1] / results.filters_per_layer[1].max())


def test_a_run_that_holds_first_layers_only_says_so_in_the_others(make_fit):
    ax = circuit.plot_filters(make_fit(2)[0], 0)
    assert sum(text.get_text() == "the run does not hold them" for text in ax.texts) == 4


# Ablation -----------------------------------------------------------------------------------------------------------------


def test_bars_of_a_layer_are_its_filters_from_the_highest_to_the_lowest():
    found = table(layer=[1, 1, 2, 1], r2_with_intact=[0.9, 0.2, 0.5, 0.7])
    ax = circuit.plot_ablation(found, "r2_with_intact")
    bars = sorted(ax.patches, key=lambda bar: bar.get_x())
    np.testing.assert_allclose([bar.get_height() for bar in bars], [0.8, 0.3, 0.1, 0.5])
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["layer 1\n3", "layer 2\n1"]


def test_a_unit_that_selects_no_size_is_told_so_where_the_index_would_stand():
    ax = circuit.plot_ablation(table(layer=[1, 2], size_index=[np.nan, np.nan]), "size_index")
    assert [text.get_text() for text in ax.texts] == ["its curve selects no size, so no filter can be needed for that"]


def test_curves_are_the_intact_one_the_circuits_and_those_without_the_filters_that_change_it_most():
    intact = np.array([0.0, 1.0, 3.0, 2.0])
    curves = np.stack([intact, intact + 1, intact - 5, intact + 2, intact + 0.1])
    found = table(layer=[1, 1, 2, 3, 4], filter=[0, 1, 0, 2, 0], curve=curves)
    summary = table(curve=[intact * 0.9], curve_intact=[intact])
    ax = circuit.plot_dot_curves(found, summary, np.array(DOT_PX))
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert list(drawn) == ["intact", "circuit only", "no L2 F0", "no L3 F2", "no L1 F1"]
    np.testing.assert_array_equal(drawn["no L2 F0"], intact - 5)
    assert ax.lines[0].get_xdata().tolist() == [0, *DOT_PX]


def test_without_a_circuit_or_known_sizes_what_is_known_is_drawn():
    found = table(layer=[1], filter=[0], curve=[[1.0, 2.0, 3.0, 4.0]])
    assert circuit.plot_dot_curves(found, None, np.array(DOT_PX)).texts[0].get_text() == "its answers are not known"
    summary = table(curve=[[np.nan] * 4], curve_intact=[[0.0, 1.0, 2.0, 3.0]])
    ax = circuit.plot_dot_curves(found, summary, np.empty(0))
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2, 3]
    assert len(ax.lines) == 2  # no curve of the circuit


# Circuit ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "excites"), [(2.0, True), (-2.0, False)])
def test_a_connection_looks_as_its_weight_says(weight, excites):
    (line,) = drawn_lines(circuit.plot_circuit(*one_connection(1.0, weight)))
    assert line == ((circuit.EXCITES, "-") if excites else (circuit.INHIBITS, "--"))


def test_a_filter_that_excites_at_small_dots_and_inhibits_at_large_ones_is_drawn_on_both_sides_of_its_line():
    ax = circuit.plot_circuit(*one_connection(1.0, 1.0))
    above, below = (np.concatenate([path.vertices[:, 1] for path in part.get_paths()]) for part in ax.collections[:2])  # of layer 1
    middle = above.max()
    assert above.min() < middle == below.min() < below.max()  # y points down
    assert below.max() - middle == pytest.approx(3 * (middle - above.min()))
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    assert [(to_hex(frame.get_edgecolor()), frame.get_linestyle()) for frame in frames] == [
        (circuit.INHIBITS.lower(), "--"), (circuit.EXCITES.lower(), "-")]
    assert [text.get_text() for text in ax.texts if ":" in text.get_text() and text.get_text()[0].isdigit()] == ["0: −3.00", "0: +2.00"]


def test_only_the_filters_with_the_largest_effect_are_drawn_and_the_others_are_counted():
    n = circuit.SHOWN + 4
    effect = np.arange(n, dtype=float)[:, None] * [0.0, -1.0, 0.5]
    filters = table(layer=np.ones(n, int), filter=np.arange(n), effect_curve=effect)
    assert filters["filter"][circuit.shown_filters(filters, 1)].tolist() == list(range(n - 1, n - 1 - circuit.SHOWN, -1))
    summary = table(n_kept=[[n, 0, 0, 0, 0]], n_filters=[[40, 1, 1, 1, 1]])
    none = table(layer=np.empty(0, int), filter=np.empty(0, int), input=np.empty(0, int), weight=np.empty(0))
    ax = circuit.plot_circuit(full_student((40, 1, 1, 1, 1)), summary, filters, none)
    assert ax.texts[0].get_text() == f"layer 1: {n} of 40\n{circuit.SHOWN} shown"
    assert len(ax.images) == circuit.SHOWN


def test_connections_are_as_wide_as_their_share_of_the_strongest_and_weak_ones_are_left_out():
    n = 5
    filters = table(layer=np.repeat([1, 2], n), filter=np.tile(np.arange(n), 2), effect_curve=np.ones((2 * n, 3)))
    pairs = [(2, k, i, 1.0 + 5 * k + i) for k in range(n) for i in range(n)]
    names = ("layer", "filter", "input", "weight")
    connections = table(**dict(zip(names, map(list, zip(*pairs, strict=True)), strict=True)))
    summary = table(n_kept=[[n, n, 0, 0, 0]], n_filters=[[n, n, 1, 1, 1]])
    ax = circuit.plot_circuit(full_student((n, n, 1, 1, 1)), summary, filters, connections)
    widths = sorted(line.get_linewidth() for line in ax.lines if line.get_zorder() == 2)
    assert len(widths) == circuit.LINES
    np.testing.assert_allclose(widths[-1] - widths[-2], 2.2 / 25)
    assert "widest: 25.00" in [text.get_text() for text in ax.texts]


def test_a_readout_that_is_a_product_is_drawn_like_one_that_is_not():
    dense = full_student((1, 1, 1, 1, 2))
    weight, space = np.array([1.0, -2.0], np.float32), dense.arrays["readout.weight"][0]
    arrays = {name: array for name, array in dense.arrays.items() if name != "readout.weight"}
    factored = StudentWeights(arrays | {"readout.filter": weight, "readout.space": space})
    product = StudentWeights(arrays | {"readout.weight": weight[:, None, None] * space})
    np.testing.assert_array_equal(circuit._picture(factored, 5, 1), circuit._picture(product, 5, 1))


def test_kernels_that_the_run_does_not_hold_leave_their_frame_empty(make_fit):
    tables, student = example_tables((0,)), make_fit(1)[0].students[0]
    parts = (tables[name] for name in ("circuits", "circuit_filters", "circuit_connections"))
    assert len(circuit.plot_circuit(student, *parts).images) == 2  # of layer 1


def test_a_circuit_of_the_whole_student_shows_a_picture_of_each_filter():
    tables = example_tables((0,))
    parts = (tables[name] for name in ("circuits", "circuit_filters", "circuit_connections"))
    assert len(circuit.plot_circuit(full_student(WIDTHS), *parts).images) == 10
