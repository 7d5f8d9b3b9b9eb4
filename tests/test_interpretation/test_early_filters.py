import numpy as np
import pytest

from nwb_compact.interpretation.early_filters import FIT_COLUMNS, NO_CLUSTER, clustered, early_filters, gabor_fit
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student
from nwb_compact_conversion.sources.cowley_v4_model_files import find_models
from nwb_compact_conversion.sources.cowley_v4_networks import compact_network

GREY = np.ones(3)


def student(kernels):
    return StudentWeights({"layer1.kernel": np.asarray(kernels, np.float32)})


def coloured(profile, colour=GREY):
    """One kernel (1 3 5 5) that has a profile in each colour."""
    return np.multiply.outer(np.asarray(colour, float), np.asarray(profile, float))[None]


def drawn(orientation_deg, frequency, phase_deg, size):
    """A Gabor, place by place: bars along the orientation, counted counter-clockwise from the right, rows going down."""
    picture = np.zeros((5, 5))
    for row in range(5):
        for column in range(5):
            place = complex(column - 2, 2 - row)
            turned = place * np.exp(-1j * np.deg2rad(orientation_deg))
            wave = np.cos(2 * np.pi * frequency * turned.imag + np.deg2rad(phase_deg))
            picture[row, column] = np.exp(-abs(place) ** 2 / (2 * size**2)) * wave
    return picture


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3, 5, 5))


# The fit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 1.5, 2.5, 5.0])
@pytest.mark.parametrize("frequency", [0.15, 0.25, 0.35])
def test_a_gabor_is_found_again(frequency, size):
    for orientation in range(0, 180, 15):
        for phase in (-150, -90, 0, 40, 120, 180):
            found = gabor_fit(7.0 * coloured(drawn(orientation, frequency, phase, size), (0.5, 0.8, 0.1)))
            told = [found[name][0] for name in ("orientation_deg", "frequency_cpp", "size_px", "gabor_r2", "colour_share")]
            np.testing.assert_allclose(told, [orientation, frequency, size, 1, 1], atol=1e-6)
            assert -180 <= found["phase_deg"] <= 180
            assert np.cos(np.deg2rad(found["phase_deg"][0] - phase)) == pytest.approx(1, abs=1e-9)
            np.testing.assert_allclose(found["colour"][0], np.array([0.5, 0.8, 0.1]) / np.sqrt(0.9), atol=1e-9)


@pytest.mark.parametrize(("picture", "orientation", "phase", "odd_share"), [
    (["+++++", "+++++", "00000", "-----", "-----"], 0, -90, 1),      # light above
    (["++0--", "++0--", "++0--", "++0--", "++0--"], 90, -90, 1),     # light to the left
    (["--0++", "--0++", "--0++", "--0++", "--0++"], 90, 90, 1),
    (["-----", "00000", "+++++", "00000", "-----"], 0, 0, 0),        # a light bar
    (["+0-0+", "+0-0+", "+0-0+", "+0-0+", "+0-0+"], 90, 180, 0),     # a dark one
    (["--00+", "-00+0", "00+00", "0+00-", "+00--"], 45, 0, 0),       # from the lower left to the upper right
    (["++00-", "+00-0", "00-00", "0-00+", "-00++"], 45, 180, 0),
])
def test_orientation_and_phase_are_as_one_sees_them(picture, orientation, phase, odd_share):
    profile = [[{"+": 1, "0": 0, "-": -1}[sign] for sign in row] for row in picture]
    found = gabor_fit(coloured(profile))
    told = [found[name][0] for name in ("orientation_deg", "phase_deg", "odd_share")]
    np.testing.assert_allclose(told, [orientation, phase, odd_share], atol=1e-6)
    assert found["gabor_r2"] > 0.7


@pytest.mark.parametrize(("sign", "phase"), [(1, 0), (-1, 180)])
def test_a_blob_has_no_orientation(sign, phase):
    found = gabor_fit(sign * coloured(drawn(0, 0, 0, 1.5)))
    assert np.isnan(found["orientation_deg"])
    told = [found[name][0] for name in ("frequency_cpp", "phase_deg", "odd_share", "size_px", "gabor_r2")]
    np.testing.assert_allclose(told, [0, phase, 0, 1.5, 1], atol=1e-9)


@pytest.mark.parametrize(("colour", "opponency"), [((1, 1, 1), 0), ((-2, -2, -2), 0), ((1, -1, 0), 1), ((1, 1, -2), 1), ((1, 0, 0), 2 / 3)])
def test_colour_opponency_is_the_share_that_grey_does_not_reach(colour, opponency):
    profile = np.random.default_rng(0).normal(size=(5, 5))
    found = gabor_fit(coloured(profile, colour))
    np.testing.assert_allclose(found["colour_opponency"], opponency, atol=1e-12)
    along = found["colour"][0] @ np.array(colour) / np.linalg.norm(colour)
    assert abs(along) == pytest.approx(1)
    assert found["colour"].sum() > -1e-9


def test_opponent_profiles_are_opponent_also_where_each_place_has_one_colour():
    """Red to the left and green to the right: at no place are they opposed, and grey is answered at all."""
    kernel = np.zeros((1, 3, 5, 5))
    kernel[0, 0, :, :2], kernel[0, 1, :, 3:] = 1, 1
    found = gabor_fit(kernel)
    np.testing.assert_allclose([found["colour_opponency"][0], found["colour_share"][0]], [2 / 3, 0.5])


def test_noise_reaches_what_is_told_of_it():
    found = gabor_fit(noise(3000))
    np.testing.assert_allclose(np.quantile(found["gabor_r2"], [0.5, 0.95]), [0.32, 0.48], atol=0.02)
    np.testing.assert_allclose(found["colour_opponency"].mean(), 2 / 3, atol=0.01)


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e30])
def test_the_size_of_the_weights_does_not_matter(factor):
    kernels = noise(20).astype(np.float32)
    for one, other in zip(gabor_fit(kernels).values(), gabor_fit(kernels * np.float32(factor)).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_kernels_without_a_pattern_are_unknown_and_leave_others_alone(broken):
    whole = noise(4).astype(np.float32)
    kernels = whole.copy()
    kernels[1] = 0
    kernels[1, 0, 2, 2] = broken
    filters, clusters = early_filters([student(kernels[:2]), student(kernels[2:]), student(kernels[1:2])])
    alone, _ = early_filters([student(whole[:2]), student(whole[2:])])
    for name in FIT_COLUMNS:
        assert np.isnan(filters[name][[1, 4]]).all()
        np.testing.assert_array_equal(filters[name][[0, 2, 3]], alone[name][[0, 2, 3]])
    assert filters["cluster"].tolist() == [0, NO_CLUSTER, 1, 2, NO_CLUSTER]
    assert np.isnan(filters["cosine"][[1, 4]]).all()
    assert (clusters["n_filters"].tolist(), clusters["n_units"].tolist()) == ([1, 1, 1], [1, 1, 1])
    assert clusters["filter_share"].tolist() == [0.2] * 3


# Clusters -------------------------------------------------------------------------------------------------------------


def largest_neighbourhoods(vectors, alike):
    """The rows alike a row, itself among them, of those rows that have most."""
    cosine = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    near = [set(np.flatnonzero(of_one >= alike).tolist()) for of_one in cosine]
    return [rows for rows in near if len(rows) == max(map(len, near))]


@pytest.mark.parametrize("alike", [0.6, 0.8, 0.95])
def test_clusters_are_those_of_the_rule(alike):
    """Kernels about a few patterns; where several have equally many near them, any of them may be the first."""
    rng = np.random.default_rng(0)
    kernels = noise(5)[rng.choice(5, 60, p=[0.4, 0.25, 0.2, 0.1, 0.05])] + rng.uniform(0.1, 1.2, (60, 1, 1, 1)) * noise(60, seed=1)
    cluster, leader = clustered(kernels, alike)
    found = {frozenset(np.flatnonzero(cluster == number).tolist()) for number in range(len(leader))}
    assert len(found) == len(leader) > 5
    assert set(np.flatnonzero(cluster == 0).tolist()) in largest_neighbourhoods(kernels.reshape(60, -1), alike)
    directions = kernels.reshape(60, -1) / np.linalg.norm(kernels.reshape(60, -1), axis=1, keepdims=True)
    assert ((directions * directions[leader][cluster]).sum(axis=1) >= alike - 1e-6).all()
    assert (directions[leader] @ directions[leader].T - np.eye(len(leader)) < alike).all(), "a leader is in no other cluster"
    sizes = np.bincount(cluster)
    assert (np.diff(sizes) <= 0).all()
    assert sizes[0] > 3


def test_clusters_do_not_depend_on_the_order_of_units():
    kernels = np.concatenate([noise(3)[[0, 1, 2, 0, 1, 0]] + 0.4 * noise(6, seed=1), noise(8, seed=2)])
    order = np.random.default_rng(0).permutation(14)
    one, other = clustered(kernels, 0.7)[0], clustered(kernels[order], 0.7)[0]
    assert len(set(one)) < 14
    np.testing.assert_array_equal(one[order][:, None] == one[order], other[:, None] == other)


@pytest.mark.parametrize("alike", [0.7, 1.0, 1.1])
def test_equal_filters_are_one_wherever_they_are(alike):
    """However rounding falls, and in whichever unit; a unit that has a filter twice counts once."""
    kernels = noise(40).astype(np.float32)
    kernels[7, 0, 0, 0] = 0.0
    again = kernels[7:8].copy()
    again[0, 0, 0, 0] = -0.0
    twice = np.concatenate([again, again, kernels[3:4]])
    filters, clusters = early_filters([student(kernels), student(twice), student(noise(2, seed=5))], alike=alike)
    cluster = filters["cluster"]
    assert cluster[7] == cluster[40] == cluster[41] == 0
    assert cluster[3] == cluster[42] == 1
    assert len(np.unique(cluster)) == len(clusters) == 42
    assert clusters["n_filters"][:3].tolist() == [3, 2, 1]
    assert clusters["n_units"][:3].tolist() == [2, 2, 1]
    np.testing.assert_allclose(clusters["unit_share"][0], 2 / 3)


def test_students_that_share_a_layer_all_count():
    shared = example_student(6)
    students = [StudentWeights(shared.arrays | {"readout.bias": np.full(1, unit, np.float32)}) for unit in range(50)]
    filters, clusters = early_filters(students)
    assert (len(filters), len(clusters)) == (300, 6)
    assert set(clusters["n_units"]) == set(clusters["n_filters"]) == {50}
    assert filters["unit"].tolist() == np.repeat(np.arange(50), 6).tolist()
    assert filters["filter"].tolist() == list(range(6)) * 50
    np.testing.assert_allclose(filters["cosine"], 1)


def test_filters_of_opposite_sign_are_not_alike_and_louder_ones_are():
    kernel = noise(1)
    filters, clusters = early_filters([student(kernel), student(-kernel), student(9 * kernel)])
    assert filters["cluster"].tolist() == [0, 1, 0]
    assert clusters["n_units"].tolist() == [2, 1]
    np.testing.assert_allclose(np.linalg.norm(clusters["kernel"].reshape(2, -1), axis=1), 1)
    np.testing.assert_allclose(clusters["kernel"][1], -clusters["kernel"][0], atol=1e-6)


@pytest.mark.parametrize("students", [[], [student(np.zeros((2, 3, 5, 5)))]])
def test_nothing_to_cluster(students):
    filters, clusters = early_filters(students)
    assert len(filters) == 2 * len(students)
    assert len(clusters) == 0
    assert set(filters["cluster"]) <= {NO_CLUSTER}


def test_the_published_models_have_edge_filters_in_common(published_v4):
    """Of 50 of them, most have an edge of each polarity, although each was trained by itself."""
    students = [compact_network(path).students[0] for path in list(find_models(published_v4).compact.values())[::4][:50]]
    filters, clusters = early_filters(students)
    assert (clusters["unit_share"][:2] > 0.5).all()
    assert (clusters["kernel"][0] * clusters["kernel"][1]).sum() < -0.6
    for number in (0, 1):
        chosen = filters["cluster"] == number
        assert 75 <= np.median(filters["orientation_deg"][chosen]) <= 105
        assert np.median(filters["odd_share"][chosen]) > 0.9
    assert np.median(filters["gabor_r2"]) > 0.6
