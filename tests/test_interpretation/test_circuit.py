import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nwb_compact.interpretation.ablation import filters
from nwb_compact.interpretation.circuit import only, smallest_circuit
from nwb_compact.interpretation.tables import stacked
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student, predict

WIDTHS = (5, 4, 4, 3, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 14, 14, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
DIAMETERS = (0, 4, 8, 12, 20, 32, 48, 70)
DRIVING, SUPPRESSING = 0, 2
"""Channels of the hand-built detector; 1 is read by nothing, 3 adds next to nothing."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with threadpool_limits(1, user_api="openmp"):
        yield


def dots():
    """White dots on grey 116 in the middle of the image."""
    row, column = np.mgrid[:112, :112] - 55.5
    inside = np.hypot(row, column) < np.array(DIAMETERS)[:, None, None] / 2
    return np.where(inside[..., None], 255, 116).repeat(3, axis=3).astype(np.uint8)


def dot_detector():
    """Channels that hand on what is brighter than grey, each to itself; the answer is driven by one and suppressed by another, which in
    layer 4 also reads the driving one.
    """
    n, centre = 4, np.zeros((5, 5), np.float32)
    centre[2, 2] = 1
    arrays = {"input.mean": np.zeros(3, np.float32), "layer1.kernel": np.tile(centre / 3, (n, 3, 1, 1))}
    for layer in range(2, 6):
        arrays |= {f"layer{layer}.depthwise": np.tile(centre, (n, 1, 1)), f"layer{layer}.pointwise": np.eye(n, dtype=np.float32)}
    arrays |= {f"layer{layer}.bias": np.full(n, -117 if layer == 1 else 0, np.float32) for layer in range(1, 6)}
    arrays["layer3.pointwise"] = arrays["layer3.pointwise"] * np.float32(2)
    arrays["layer4.pointwise"][SUPPRESSING, DRIVING] = 0.5
    weight = np.zeros((n, 28, 28), np.float32)
    weight[DRIVING, 13:15, 13:15] = 1e-2
    weight[SUPPRESSING] = -1e-4
    weight[3] = 1e-7
    return StudentWeights(arrays | {"readout.weight": weight, "readout.bias": np.ones(1, np.float32)})


def separable(student):
    rng, n = np.random.default_rng(1), len(student.arrays["readout.weight"])
    kept = {name: array for name, array in student.arrays.items() if name != "readout.weight"}
    space = rng.normal(size=(28, 28)).astype(np.float32)
    return StudentWeights(kept | {"readout.filter": rng.normal(size=n).astype(np.float32), "readout.space": space})


def muted(student, kept):
    """The student with all but these filters silenced: no weights and a negative bias, so that nothing is left after rectification."""
    arrays = {name: array.copy() for name, array in student.arrays.items()}
    for layer, k in np.transpose(filters(student))[~kept]:
        arrays["layer1.kernel" if layer == 1 else f"layer{layer}.pointwise"][k] = 0
        arrays[f"layer{layer}.bias"][k] = -1
    return StudentWeights(arrays)


def share(curve, intact):
    return 1 - np.var(curve - intact + 0.0) / np.var(intact) - (curve - intact).mean() ** 2 / np.var(intact)


def kept_of(student, circuit):
    rows = set(zip(circuit.filters["layer"].tolist(), circuit.filters["filter"].tolist(), strict=True))
    return np.array([which in rows for which in zip(*(part.tolist() for part in filters(student)), strict=True)])


@pytest.fixture(scope="module")
def detected():
    return smallest_circuit(dot_detector(), dots())


@pytest.mark.parametrize("student", [example_student(WIDTHS), separable(example_student(WIDTHS))])
def test_what_is_left_answers_as_with_the_others_silenced(student):
    kept = np.random.default_rng(3).random(sum(WIDTHS)) < 0.6
    kept[[4, 8, 12, 15, 18]], kept[[0, 5, 9, 13, 16]] = True, False  # the last of each layer moves to another place
    answers = predict(only(student, kept), IMAGES)
    assert answers.std() > 0
    np.testing.assert_allclose(answers, predict(muted(student, kept), IMAGES), rtol=1e-4, atol=1e-4 * answers.std())


def test_of_the_hand_built_detector_the_two_channels_that_make_it_are_left(detected):
    assert detected.filters["layer"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert detected.filters["filter"].tolist() == [DRIVING, SUPPRESSING] * 5
    assert detected.filters["sign"].tolist() == [1, -1] * 5
    assert detected.summary["n_kept"].tolist() == [[2] * 5]
    assert detected.summary["n_filters"].tolist() == [[4] * 5]
    assert 0.99 < detected.summary["explained"][0] < 1
    np.testing.assert_allclose(detected.summary["curve_intact"][0], predict(dot_detector(), dots()), rtol=1e-5)


def test_effects_are_what_silencing_takes_away(detected):
    student = dot_detector()
    intact = predict(student, dots())
    for layer, k, effect, curve in zip(*(detected.filters[name] for name in ("layer", "filter", "effect", "effect_curve")), strict=True):
        one = ~((filters(student)[0] == layer) & (filters(student)[1] == k))
        np.testing.assert_allclose(curve, intact - predict(muted(student, one), dots()), rtol=1e-4, atol=1e-5)
        assert effect == curve[intact.argmax()]


def test_a_connection_does_not_depend_on_where_the_sign_stands(detected):
    """A kernel and the weights that read it may both be negative: that is the same student."""
    arrays = {name: array.copy() for name, array in dot_detector().arrays.items()}
    arrays["layer4.depthwise"][SUPPRESSING] *= -1
    arrays["layer4.pointwise"][:, SUPPRESSING] *= -1
    found = smallest_circuit(StudentWeights(arrays), dots())
    np.testing.assert_allclose(found.connections["weight"], detected.connections["weight"], rtol=1e-4)


def test_connections_are_weights_times_what_they_weigh_varies(detected):
    """Kernels that take one pixel: a layer of stride 2 takes those of odd number, see `student.border`."""
    brighter = np.maximum(dots()[..., 0].astype(float) - 117, 0)
    second = brighter[:, 1::2, 1::2]
    third = second[:, 1::2, 1::2]
    expected = {(layer, k, i): 0.0 for layer in (2, 3, 4, 5) for k in (DRIVING, SUPPRESSING) for i in (DRIVING, SUPPRESSING)}
    expected |= {(2, k, k): second.std() for k in (DRIVING, SUPPRESSING)}
    expected |= {(layer, k, k): 2 * third.std() for layer in (3, 4, 5) for k in (DRIVING, SUPPRESSING)}
    expected |= {(4, SUPPRESSING, DRIVING): third.std(), (5, SUPPRESSING, SUPPRESSING): 3 * third.std()}
    rows = zip(*(detected.connections[name].tolist() for name in ("layer", "filter", "input", "weight")), strict=True)
    assert {tuple(which): weight for *which, weight in rows} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_the_circuit_explains_enough_and_no_filter_of_it_could_go(keep):
    student = example_student((10, 8, 4, 4, 3), seed=2)  # more than one in ten at a time
    circuit = smallest_circuit(student, IMAGES, keep)
    kept, intact = kept_of(student, circuit), predict(student, IMAGES).astype(float)
    assert kept.sum() == len(circuit.filters) < len(kept)
    explained = share(predict(muted(student, kept), IMAGES), intact)
    assert explained >= keep - 1e-5
    assert circuit.summary["explained"][0] == pytest.approx(explained, abs=1e-4)
    for which in np.flatnonzero(kept):
        fewer = kept.copy()
        fewer[which] = False
        assert share(predict(muted(student, fewer), IMAGES), intact) < keep + 1e-5


@pytest.mark.parametrize("readout", [0.0, np.nan, np.inf])
def test_a_student_without_a_curve_has_no_circuit(readout, detected):
    student = dot_detector()
    broken = StudentWeights(student.arrays | {"readout.weight": np.full((4, 28, 28), readout, np.float32)})
    found = smallest_circuit(broken, dots())
    assert len(found.filters) == len(found.connections) == 0
    assert np.isnan(found.summary["explained"]).all()
    assert found.summary["n_kept"].tolist() == [[0] * 5]
    for name in ("filters", "connections", "summary"):  # beside that of another unit
        both = stacked([getattr(detected, name), getattr(found, name)])
        assert len(both) == len(getattr(detected, name)) + len(getattr(found, name))


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.1, float("nan")])
def test_only_shares_can_be_kept(keep):
    with pytest.raises(ValueError, match="keep"):
        smallest_circuit(dot_detector(), dots(), keep)
