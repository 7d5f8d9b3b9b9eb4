"""The interval holds the truth as often as it says, on neurons of known r2."""

import numpy as np
import pytest

from nwb_compact.credible import r2_er_ecci
from nwb_compact.reliability import RepeatStatistics, snr_standard_error
from nwb_compact.scores import r2_er, r2_er_interval

N_UNITS = 200
CHANCE = 3 * np.sqrt(0.9 * 0.1 / N_UNITS)
"""Three binomial standard errors of a share of 0.9."""


def gaussian_units(true_r2, *, snr, n_images=120, repeats=(5,), n_units=N_UNITS, seed=0):
    """A prediction whose r2 with the true means is exactly `true_r2`, and statistics of noisy repeats (noise variance 1)."""
    rng = np.random.default_rng(seed)
    signal, other = rng.gamma(2.0, 1.0, (n_images, n_units)), rng.normal(size=(n_images, n_units))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    other -= other.mean(axis=0)
    other -= signal * (signal * other).mean(axis=0)
    prediction = np.sqrt(true_r2) * signal + np.sqrt(1 - true_r2) * other / other.std(axis=0)
    n = rng.choice(repeats, n_images)
    trials = [np.sqrt(snr) * mean + rng.normal(size=(times, n_units)) for mean, times in zip(signal, n, strict=True)]
    mean = np.array([repeated.mean(axis=0) for repeated in trials])
    squares = np.array([((repeated - repeated.mean(axis=0)) ** 2).sum(axis=0) for repeated in trials])
    return prediction, RepeatStatistics(np.arange(n_images), n.astype(float), mean, squares)


def simulated_interval(prediction, repeats, n_worlds, rng, level=0.9):
    """The same interval for one unit, by simulating every image and trying every true r2 on a grid; the posterior is its peak."""
    x = prediction[:, 0] - prediction[:, 0].mean()
    n, m = repeats.n_repeats[0], len(x)
    noise = repeats.squares.sum() / (m * (n - 1))
    y = repeats.mean[:, 0] - repeats.mean[:, 0].mean()
    signal = np.sqrt(np.sum(y**2) - (m - 1) * noise / n)
    along, other = x / np.linalg.norm(x), rng.normal(size=m)
    other -= other.mean()
    other -= along * (along @ other)
    share = []
    grid = np.linspace(0, 1, 201)
    draws, chi2 = rng.normal(size=(n_worlds, m)) * np.sqrt(noise / n), rng.chisquare(m * (n - 1), n_worlds) * noise / (m * (n - 1)) / n
    for r2 in grid:
        means = signal * (np.sqrt(r2) * along + np.sqrt(1 - r2) * other / np.linalg.norm(other)) + draws
        means -= means.mean(axis=1, keepdims=True)
        estimates = ((means @ along) ** 2 - chi2) / ((means**2).sum(axis=1) - (m - 1) * chi2)
        share.append(np.mean(estimates < r2_er(prediction, repeats)[0]))
    return tuple(grid[np.argmin(np.abs(np.array(share) - tail))] for tail in ((1 + level) / 2, (1 - level) / 2))


# Coverage -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("true_r2", [0.2, 0.55, 0.9])
@pytest.mark.parametrize(("snr", "repeats"), [(0.15, (5,)), (0.5, (5,)), (4.0, (5,)), (0.5, (2, 3, 12, 14))])
def test_it_holds_the_truth_as_often_as_it_says(true_r2, snr, repeats):
    prediction, statistics = gaussian_units(true_r2, snr=snr, repeats=repeats, seed=1)
    low, high = r2_er_ecci(prediction, statistics, seed=0)
    assert np.mean((low <= true_r2) & (true_r2 <= high)) == pytest.approx(0.9, abs=CHANCE)


def test_it_holds_the_truth_of_a_perfect_model_more_often_as_no_end_lies_above_1():
    prediction, statistics = gaussian_units(1.0, snr=1.0)
    low, high = r2_er_ecci(prediction, statistics, seed=0)
    assert np.mean(high == 1.0) == pytest.approx(0.95, abs=CHANCE)
    assert np.mean(low == 1.0) == pytest.approx(0.05, abs=CHANCE)


def test_a_model_that_explains_nothing_is_known_to():
    prediction, statistics = gaussian_units(0.0, snr=1.0)
    low, high = r2_er_ecci(prediction, statistics, seed=0)
    assert np.mean(low == 0.0) == pytest.approx(0.95, abs=CHANCE)
    assert np.median(high) < 0.05


@pytest.mark.parametrize(("n_images", "repeats"), [(60, (5,)), (320, (8,)), (600, (2,))])
def test_at_the_floor_of_the_snr_it_is_about_half_of_the_range_wide(n_images, repeats):
    """Whatever the session: which is why the floor is told in standard errors."""
    snr = 5 * snr_standard_error(np.full(n_images, float(repeats[0])))
    prediction, statistics = gaussian_units(0.5, snr=snr, n_images=n_images, repeats=repeats)
    low, high = r2_er_ecci(prediction, statistics, seed=0)
    assert np.median(high - low) == pytest.approx(0.47, abs=0.08)


# Against other ways ---------------------------------------------------------------------------------------------------
def test_it_is_that_of_a_simulation_image_by_image():
    prediction, statistics = gaussian_units(0.55, snr=2.0, n_units=1, seed=3)
    (low,), (high,) = r2_er_ecci(prediction, statistics, seed=0)
    expected = simulated_interval(prediction, statistics, 4000, np.random.default_rng(0))
    assert (low, high) == pytest.approx(expected, abs=0.02)


def test_it_is_narrower_than_the_bootstrap_which_also_tells_of_other_images():
    prediction, statistics = gaussian_units(0.55, snr=2.0)
    low, high = r2_er_ecci(prediction, statistics, seed=0)
    boot_low, boot_high = r2_er_interval(prediction, statistics, n_bootstraps=100, seed=0)
    assert np.median(high - low) < 0.75 * np.median(boot_high - boot_low)


# What it is -----------------------------------------------------------------------------------------------------------
def test_it_holds_the_estimate_and_narrows_with_the_level():
    prediction, statistics = gaussian_units(0.55, snr=0.5)
    estimate = r2_er(prediction, statistics)
    low, high = r2_er_ecci(prediction, statistics, seed=0)
    inner_low, inner_high = r2_er_ecci(prediction, statistics, seed=0, level=0.5)
    assert ((low < estimate) & (estimate < high)).all()
    assert ((low < inner_low) & (inner_low < inner_high) & (inner_high < high)).all()
    assert ((low >= 0) & (high <= 1)).all()


def test_it_depends_on_the_seed_alone_and_a_unit_not_on_the_others():
    prediction, statistics = gaussian_units(0.55, snr=0.5, n_units=5)
    first, again, other = (np.array(r2_er_ecci(prediction, statistics, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_allclose(first, other, atol=0.04)
    alone = RepeatStatistics(statistics.image, statistics.n_repeats, statistics.mean[:, 3:4], statistics.squares[:, 3:4])
    np.testing.assert_array_equal(np.ravel(r2_er_ecci(prediction[:, 3:4], alone, seed=1)), first[:, 3])


def test_it_is_blind_to_gain_offset_and_sign_as_the_estimate_is():
    prediction, statistics = gaussian_units(0.55, snr=0.5, n_units=5)
    np.testing.assert_allclose(r2_er_ecci(3 - 7 * prediction, statistics, seed=0), r2_er_ecci(prediction, statistics, seed=0), atol=1e-3)


def test_it_is_not_known_where_the_estimate_is_not():
    prediction, statistics = gaussian_units(0.55, snr=0.5, n_units=3)
    prediction[:, 1] = 0.1
    low, high = r2_er_ecci(prediction, statistics, seed=0)
    np.testing.assert_array_equal(np.isnan(low), [False, True, False])
    np.testing.assert_array_equal(np.isnan(high), [False, True, False])
    once = RepeatStatistics(statistics.image, np.ones(120), statistics.mean, np.zeros_like(statistics.squares))
    assert np.isnan(r2_er_ecci(prediction, once, seed=0)).all()


def test_three_images_are_too_few():
    prediction, statistics = gaussian_units(0.55, snr=5.0, n_images=3, n_units=2)
    assert np.isnan(r2_er_ecci(prediction, statistics, seed=0)).all()


def test_without_noise_it_is_the_estimate():
    prediction, statistics = gaussian_units(0.55, snr=5.0, n_units=2)
    exact = RepeatStatistics(statistics.image, statistics.n_repeats, statistics.mean, statistics.squares * [1, 0])
    low, high = r2_er_ecci(prediction, exact, seed=0)
    assert low[0] < high[0]
    assert low[1] == high[1] == r2_er(prediction, exact)[1]
