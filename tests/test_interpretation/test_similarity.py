import numpy as np
import pytest
import torch

from nwb_compact.interpretation import similarity as room
from nwb_compact.interpretation.open_student import open_student
from nwb_compact.interpretation.similarity import early_late_test, output_similarity, similarity, u_centred
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student

N_IMAGES = 12
WIDTHS = (6, 5, 4, 4, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 7, 7, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)


def of_song(one_gram, other_gram):
    """The unbiased HSIC as Song et al. (2012, equation 5) write it: three sums over matrices without diagonals."""
    n, ones = len(one_gram), np.ones(len(one_gram))
    k, m = (gram - np.diag(np.diag(gram)) for gram in (one_gram, other_gram))
    three = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (ones @ k @ m @ ones)
    return three / (n * (n - 3))


def cka_of_song(x, y):
    k, m = x @ x.T, y @ y.T
    return of_song(k, m) / np.sqrt(of_song(k, k) * of_song(m, m))


def changed(student, **arrays):
    return StudentWeights(student.arrays | {name.replace("_", "."): np.asarray(array, np.float32) for name, array in arrays.items()})


# Alignment ------------------------------------------------------------------------------------------------------------


def test_each_layer_is_compared_by_the_maps_it_gives():
    """By block averages and the formula of Song et al., apart from what is tested."""
    students = [example_student(WIDTHS, seed) for seed in (0, 1, 2)]
    found = similarity(students, IMAGES)
    maps = [open_student(student).maps(torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()) for student in students]
    for layer in range(5):
        pooled = []
        for of_student in maps:
            of_layer = of_student[layer].double().numpy()
            side = of_layer.shape[2] // 7
            pooled.append(of_layer.reshape(N_IMAGES, -1, 7, side, 7, side).mean(axis=(3, 5)).reshape(N_IMAGES, -1))
        expected = [[cka_of_song(x, y) for y in pooled] for x in pooled]
        np.testing.assert_allclose(found["cka"][layer], expected, atol=1e-4)
        pairs = [expected[0][1], expected[0][2], expected[1][2]]
        assert found["median_cka"][layer] == pytest.approx(np.median(pairs), abs=1e-4)
    assert found["layer"].tolist() == [1, 2, 3, 4, 5]
    assert np.ptp(found["median_cka"]) > 0.05, "or layers could be mixed up"


def test_few_images_of_many_unrelated_features_are_not_alike():
    """The biased estimate of the same features is near 1."""
    rng = np.random.default_rng(0)
    debiased, biased = [], []
    for _ in range(40):
        x, y = rng.normal(size=(2, 20, 500))
        debiased.append(u_centred(x) @ u_centred(y))
        k, m = (of @ of.T for of in (x - x.mean(axis=0), y - y.mean(axis=0)))
        biased.append((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    assert abs(np.mean(debiased)) < 4 * np.std(debiased) / np.sqrt(40) < 0.1
    assert np.mean(biased) > 0.9


def test_filters_in_another_order_and_of_another_loudness_are_the_same():
    student, order = example_student(WIDTHS), np.array([3, 5, 0, 1, 4, 2])
    same = changed(
        student, layer1_kernel=4 * student.arrays["layer1.kernel"][order], layer1_bias=4 * student.arrays["layer1.bias"][order],
        layer2_depthwise=student.arrays["layer2.depthwise"][order], layer2_pointwise=student.arrays["layer2.pointwise"][:, order] / 4,
    )
    other = changed(student, layer1_kernel=example_student(WIDTHS, seed=5).arrays["layer1.kernel"])
    cka = similarity([student, same, other], IMAGES)["cka"]
    np.testing.assert_allclose(cka[:, 0, 1], 1, atol=1e-5)
    assert (cka[:, 0, 2] < 0.99).all()


def test_what_filters_see_at_another_place_is_something_else():
    """Two students with one layer 1, of which later layers of the second look far to the right of those of the first."""
    student = example_student(WIDTHS)
    left, right = (np.zeros((6, 5, 5)) for _ in range(2))
    left[:, 2, 0], right[:, 2, 4] = 1, 1
    students = [changed(student, layer2_depthwise=kernel, layer3_depthwise=kernel[:5]) for kernel in (left, right)]
    at_places, anywhere = (similarity(students, IMAGES, places=places)["cka"][:, 0, 1] for places in (14, 1))
    assert at_places[0] == pytest.approx(1, abs=1e-5)
    assert at_places[2] < anywhere[2] - 0.02


def test_shared_layers_are_computed_once_and_are_equal(monkeypatch):
    opened = []
    monkeypatch.setattr(room, "open_student", lambda student: (opened.append(student), open_student(student))[1])
    first = example_student(WIDTHS)
    readouts = [changed(first, readout_bias=[float(unit)]) for unit in range(3)]
    above = changed(first, layer4_bias=np.full(4, 0.7))
    steps = []
    found = similarity([readouts[0], above, *readouts[1:]], IMAGES, advance=lambda n=1, note="": steps.append(n))
    assert (len(opened), steps) == (2, [1, 1, 1, 1])
    np.testing.assert_allclose(found["cka"][:3], 1, atol=1e-5)
    np.testing.assert_allclose(found["cka"][:, 0, 2:], 1, atol=1e-5)
    assert (found["cka"][3:, 1, [0, 2, 3]] < 0.9999).all()


@pytest.mark.parametrize(("broken", "first_unknown"), [
    ({"layer4_bias": np.full(4, -1e6)}, 4),          # silent from there on
    ({"layer2_depthwise": np.zeros((6, 5, 5)), "layer2_bias": np.full(5, 3.3)}, 2),   # the same to all images, but not 0
    ({"layer3_bias": np.full(4, np.nan)}, 3),
    ({"layer1_kernel": np.full((6, 3, 5, 5), np.inf)}, 1),
])
def test_a_layer_that_does_not_vary_is_unknown_and_leaves_other_units_alone(broken, first_unknown):
    students = [example_student(WIDTHS, seed) for seed in (0, 1, 2)]
    whole = similarity(students, IMAGES)
    found = similarity([students[0], changed(students[1], **broken), students[2]], IMAGES)
    unknown = found["layer"] >= first_unknown
    assert np.isnan(found["cka"][unknown, 1]).all()
    assert np.isnan(found["cka"][unknown][:, :, 1]).all()
    np.testing.assert_allclose(found["cka"][:, 0, 2], whole["cka"][:, 0, 2], atol=1e-6)
    np.testing.assert_allclose(found["cka"][~unknown], whole["cka"][~unknown], atol=0 if first_unknown < 4 else 1e-6)
    assert np.isfinite(found["median_cka"]).all()


def test_one_student_has_no_pair():
    found = similarity([example_student(WIDTHS)], IMAGES)
    np.testing.assert_allclose(found["cka"], 1, atol=1e-5)
    assert np.isnan(found["median_cka"]).all()
    assert np.isnan(early_late_test(found)["p"]).all()


def test_too_few_images_are_told():
    with pytest.raises(ValueError, match="found 3, expected at least 4"):
        similarity([example_student(WIDTHS)], IMAGES[:3])


# Outputs --------------------------------------------------------------------------------------------------------------


def test_answers_are_compared_as_numpy_does_and_broken_ones_leave_others_alone():
    answers = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    answers[:, 1] -= answers[:, 0]
    expected = np.corrcoef(answers, rowvar=False) ** 2
    found = output_similarity(answers)
    np.testing.assert_allclose(found["r2"], expected, atol=1e-6)
    np.testing.assert_allclose(found["mean_r2"], (expected.sum(axis=0) - 1) / 4, atol=1e-6)
    assert expected[0, 1] > 0.2
    answers[:, 2], answers[7, 4] = 3.0, np.nan
    found, known = output_similarity(answers), np.array([0, 1, 3])
    np.testing.assert_allclose(found["r2"][np.ix_(known, known)], expected[np.ix_(known, known)], atol=1e-6)
    assert np.isnan(found["r2"][[2, 4]]).all()
    assert np.isnan(found["r2"][:, [2, 4]]).all()
    np.testing.assert_array_equal(np.isnan(found["mean_r2"]), [False, False, True, False, True])


@pytest.mark.parametrize("n_units", [0, 1])
def test_fewer_than_two_units_have_no_others(n_units):
    found = output_similarity(np.arange(4.0 * n_units).reshape(4, n_units))
    assert found["r2"].shape == (n_units, n_units)
    assert np.isnan(found["mean_r2"]).all()


# The test -------------------------------------------------------------------------------------------------------------


def similar(n_units, early, late, noise=0.1, seed=0):
    """CKA of units that are near or far from all others by nature, the same in early and late layers but for what is asked for."""
    rng = np.random.default_rng(seed)
    cka = np.empty((5, n_units, n_units))
    for layer, level in enumerate((early, early, 0.5, late, late)):
        of_unit = rng.normal(0, noise, n_units)
        cka[layer] = level + of_unit[:, None] + of_unit
        np.fill_diagonal(cka[layer], 1)
    return Table("made", {"layer": Column("", np.arange(1, 6)), "cka": Column("", cka)})


def test_early_above_late_is_found_and_the_other_way_round_not():
    found = early_late_test(similar(41, 0.7, 0.3), n_permutations=999)
    assert found["n_pairs"] == 20
    assert found["p"] == 0.001
    assert found["median_early"] == pytest.approx(0.7, abs=0.1)
    assert found["median_late"] == pytest.approx(0.3, abs=0.1)
    assert early_late_test(similar(41, 0.3, 0.7), n_permutations=999)["p"] == 1
    assert early_late_test(similar(41, 0.7, 0.3), early=(4, 5), late=(1, 2), n_permutations=999)["p"] == 1


def test_units_that_resemble_all_others_do_not_make_chance_certain():
    """Where nothing tells early from late, each unit's own level is in all its pairs; only pairs without a common unit keep the level."""
    p = np.array([early_late_test(similar(30, 0.5, 0.5, seed=seed), n_permutations=99, seed=seed)["p"][0] for seed in range(300)])
    assert np.mean(p <= 0.05) < 0.09
    assert 0.4 < np.mean(p <= 0.5) < 0.6


def test_units_that_are_unknown_in_a_layer_are_left_out():
    table = similar(12, 0.7, 0.3)
    cka = table["cka"].copy()
    cka[4, 3], cka[4, :, 3] = np.nan, np.nan
    cka[2, 5], cka[2, :, 5] = np.nan, np.nan  # layer 3 is not asked for
    found = early_late_test(Table("made", {**table.columns, "cka": Column("", cka)}), n_permutations=99)
    kept = np.delete(np.arange(12), 3)
    expected = np.median(cka[:2, kept][:, :, kept].mean(axis=0)[np.triu_indices(11, 1)])
    assert (found["n_pairs"], found["median_early"]) == (5, pytest.approx(expected))
    assert found["p"] < 0.1
