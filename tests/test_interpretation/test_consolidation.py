from itertools import product

import numpy as np
import pytest

from nwb_compact.interpretation.consolidation import consolidation, drop_test, sign_flip_p
from nwb_compact.student import example_student, filters_per_layer
from nwb_compact_conversion.sources.cowley_v4_model_files import find_models
from nwb_compact_conversion.sources.cowley_v4_networks import compact_network


@pytest.mark.parametrize(("filters", "after_layer", "drop", "drop_3_to_4"), [
    ([47, 47, 57, 3, 7], 3, 54, 54),
    ([50, 50, 20, 40, 8], 4, 32, -20),
    ([30, 20, 10, 0, 0], 1, 10, 10),   # of equals the first
    ([3, 3, 4, 4, 9], 0, 0, 0),        # never falls
    ([200, 3, 3, 100, 100], 1, 197, -97),
])
@pytest.mark.parametrize("stored_as", [np.int64, np.uint8])
def test_the_largest_drop_is_found(filters, after_layer, drop, drop_3_to_4, stored_as):
    """Also in counts without a sign, of which the difference would be huge."""
    found = consolidation(np.array([[9, 9, 8, 3, 3], filters], stored_as))
    assert found["unit"].tolist() == [0, 1]
    assert (found["largest_drop_after_layer"][1], found["largest_drop"][1], found["drop_3_to_4"][1]) == (after_layer, drop, drop_3_to_4)
    assert drop_test(np.array([filters], stored_as))["median_drop"] == [drop_3_to_4]


def test_kernels_are_counted_not_maps():
    """A student with 40 maps of layer 2 and 3 of layer 3 has 40 kernels in layer 3: they fall after layer 3, not after layer 2."""
    counted = filters_per_layer(example_student((12, 40, 3, 5, 3)))
    assert counted.tolist() == [12, 12, 40, 3, 5]
    assert consolidation(counted[None])["largest_drop_after_layer"].tolist() == [3]


def test_p_nears_that_of_all_sign_flips():
    differences = np.random.default_rng(0).normal(0.6, 1.0, 10)
    sums = [np.dot(signs, differences) for signs in product((1, -1), repeat=10)]
    exact = np.mean(np.array(sums) >= differences.sum() - 1e-9)
    assert 0.01 < exact < 0.3
    assert sign_flip_p(differences, 20_000, seed=1) == pytest.approx(exact, abs=0.01)


def test_p_of_differences_about_zero_is_uniform():
    """The level is kept: about one in twenty below 0.05, half below 0.5."""
    rng = np.random.default_rng(0)
    p = np.array([sign_flip_p(rng.standard_t(2, 12), 199, seed) for seed in range(400)])
    assert 0.02 < np.mean(p <= 0.05) < 0.08
    assert 0.43 < np.mean(p <= 0.5) < 0.57


@pytest.mark.parametrize(("differences", "expected"), [
    ([], np.nan), ([1.0, np.nan], np.nan), ([np.inf, 1.0], np.nan), ([0.0, 0.0, 0.0], 1.0),
    ([0.1, 0.2, -0.3], 1.0 * 5 / 8),   # five of eight sums reach 0, two of them only but for rounding
])
def test_p_of_few_or_broken_differences(differences, expected):
    assert sign_flip_p(np.array(differences), 20_000) == pytest.approx(expected, abs=0.02, nan_ok=True)


def test_p_is_never_0_and_repeats_with_its_seed():
    assert sign_flip_p(np.ones(200), 99) == 0.01
    one, same, other = (sign_flip_p(np.arange(-9.0, 11), 50, seed) for seed in (1, 1, 2))
    assert one == same != other


def test_another_layer_can_be_tested():
    filters = np.array([[9, 9, 20, 19, 3]] * 30)
    found = drop_test(filters, layer=4, n_permutations=99)
    assert (found["after_layer"], found["n_units"], found["median_drop"], found["p"]) == (4, 30, 16, 0.01)
    assert drop_test(filters, layer=2, n_permutations=99)["p"] == 1
    for layer in (0, 5):
        with pytest.raises(ValueError, match=f"found {layer}, expected 1 to 4"):
            drop_test(filters, layer=layer)


def test_the_consolidation_of_the_published_models_is_found(published_v4):
    """The study: a fall after layer 3, paired permutation test p < 0.001; the counts were made from the published weights."""
    networks = [compact_network(path) for path in find_models(published_v4).compact.values()]
    filters = np.stack([filters_per_layer(network.students[0]) for network in networks])
    found = consolidation(filters)
    assert np.bincount(found["largest_drop_after_layer"]).tolist() == [0, 0, 19, 198, 2]
    test = drop_test(filters, seed=0)
    assert (test["n_units"], test["median_drop"]) == (219, 50)
    assert test["p"] < 0.001
