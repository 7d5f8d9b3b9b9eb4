import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwb_compact.reliability import noise_variance, repeat_statistics
from nwb_compact.scores import feve, r2, r2_er, r2_er_interval, single_trial_correlation

MIXED_REPEATS = (2, 3, 12, 14)


def oracle_r2_er(x, y):
    """Pospisil & Bair 2021 as printed, for one unit: x (image,), y (repeat image)."""
    x, mean, over_n = x - x.mean(), y.mean(axis=0) - y.mean(), y.var(axis=0, ddof=1).mean() / len(y)
    return (np.sum(x * mean) ** 2 - over_n * np.sum(x**2)) / (np.sum(x**2) * (np.sum(mean**2) - (len(x) - 1) * over_n))


def poisson_units(rate, n_repeats, seed=0):
    """Counts in long form of Poisson units with given rates (image unit), and the image of each row."""
    image = np.repeat(np.arange(len(rate)), n_repeats)
    return np.random.default_rng(seed).poisson(rate[image]).astype(np.uint16), image


def models_of(rate, true_r2, rng, *, exactly):
    """Predictions whose squared correlation with the rates is `true_r2`: in this sample, or in the population."""
    z = (rate - rate.mean(axis=0)) / rate.std(axis=0)
    other = rng.normal(size=rate.shape)
    if exactly:
        other -= other.mean(axis=0)
        other -= z * (z * other).mean(axis=0)
        other /= other.std(axis=0)
    return np.sqrt(true_r2) * z + np.sqrt(1 - true_r2) * other


@pytest.fixture(scope="module")
def mixed():
    """Gamma-tuned Poisson units seen 2, 3, 12 or 14 times an image: rates (image unit), counts, images of rows."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(2.0, 1.0, (500, 240))
    return rate, *poisson_units(rate, rng.permutation(np.repeat(MIXED_REPEATS, 125)))


# r2_ER ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_repeats", [2, 5, 11])
def test_with_equal_repeats_r2_er_is_the_published_formula(n_repeats):
    rng = np.random.default_rng(n_repeats)
    rate = rng.gamma(2.0, 2.0, (80, 6))
    x = rate + rng.normal(size=rate.shape)
    count, image = poisson_units(rate, n_repeats)
    y = count.reshape(80, n_repeats, 6).swapaxes(0, 1).astype(float)
    expected = [oracle_r2_er(x[:, unit], y[:, :, unit]) for unit in range(6)]
    np.testing.assert_allclose(r2_er(x, repeat_statistics(count, image)), expected, rtol=1e-9)


def test_a_perfect_model_scores_1_with_unequal_repeats_where_the_shortcut_does_not(mixed):
    rate, count, image = mixed
    repeats = repeat_statistics(count, image)
    assert np.median(r2_er(rate, repeats)) == pytest.approx(1.0, abs=0.01)
    assert np.median(_shortcut(rate, repeats)) < 0.95, "or this test could not tell the two apart"


def test_a_model_of_true_r2_055_scores_055_with_unequal_repeats(mixed):
    rate, count, image = mixed
    model = models_of(rate, 0.55, np.random.default_rng(1), exactly=True)
    repeats = repeat_statistics(count, image)
    assert np.median(r2_er(model, repeats)) == pytest.approx(0.55, abs=0.01)
    assert np.median(r2(model, repeats.mean)) < 0.48, "plain r2 is pulled down by noise"


def test_images_shown_once_may_be_among_the_others(mixed):
    rate, _, _ = mixed
    count, image = poisson_units(rate, np.random.default_rng(2).choice((1, 2, 8), 500))
    assert np.median(r2_er(rate, repeat_statistics(count, image))) == pytest.approx(1.0, abs=0.015)


@given(gain=st.one_of(st.floats(-50, -0.02), st.floats(0.02, 50)), offset=st.floats(-100, 100))
@settings(deadline=None)
def test_r2_er_is_blind_to_gain_offset_and_sign(mixed, gain, offset):
    rate, count, image = (mixed[0][:60, :3], mixed[1][mixed[2] < 60, :3], mixed[2][mixed[2] < 60])
    repeats = repeat_statistics(count, image)
    np.testing.assert_allclose(r2_er(gain * rate + offset, repeats), r2_er(rate, repeats), rtol=1e-6)


def test_without_repeats_r2_er_is_not_known():
    count, image = poisson_units(np.random.default_rng(0).gamma(2.0, 2.0, (50, 2)), 1)
    repeats = repeat_statistics(count, image)
    low, high = r2_er_interval(repeats.mean, repeats, n_bootstraps=20, seed=0)
    assert np.isnan([*r2_er(repeats.mean, repeats), *low, *high]).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 5.3, 777.7])
def test_a_model_that_never_varies_has_no_r2_er(mixed, constant):
    rate, count, image = mixed
    repeats = repeat_statistics(count, image)
    flat = np.full_like(rate, constant)
    low, high = r2_er_interval(flat, repeats, n_bootstraps=20, seed=0)
    assert np.isnan([*r2_er(flat, repeats), *low, *high]).all()


def test_responses_without_signal_have_no_r2_er():
    count = np.tile(np.array([[0], [2]], np.uint8), (30, 1))  # every image 0 once and 2 once: all averages are equal
    repeats = repeat_statistics(count, np.repeat(np.arange(30), 2))
    assert np.isnan(r2_er(np.arange(30.0)[:, None], repeats)).all()


# Its interval ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("true_r2", [0.55, 0.9])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(true_r2):
    rng = np.random.default_rng(3)
    rate = rng.gamma(2.0, 2.0, (200, 240))
    count, image = poisson_units(rate, rng.choice(MIXED_REPEATS, 200))
    model = models_of(rate, true_r2, rng, exactly=False)
    low, high = r2_er_interval(model, repeat_statistics(count, image), n_bootstraps=200, seed=0)
    assert 0.80 < np.mean((low < true_r2) & (true_r2 < high)) < 0.98


def test_the_interval_holds_the_estimate_and_narrows_with_the_level(mixed):
    rate, count, image = mixed
    repeats = repeat_statistics(count, image)
    model = models_of(rate, 0.55, np.random.default_rng(1), exactly=True)
    low, high = r2_er_interval(model, repeats, n_bootstraps=100, seed=0)
    inner_low, inner_high = r2_er_interval(model, repeats, n_bootstraps=100, seed=0, level=0.5)
    assert ((low < r2_er(model, repeats)) & (r2_er(model, repeats) < high)).all()
    assert ((low < inner_low) & (inner_low < inner_high) & (inner_high < high)).all()


def test_the_interval_depends_on_the_seed_alone(mixed):
    rate, count, image = mixed
    repeats = repeat_statistics(count, image)
    first, again, other = (r2_er_interval(rate, repeats, n_bootstraps=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# The others -----------------------------------------------------------------------------------------------------------
def test_r2_is_the_square_of_the_correlation():
    a, b = np.random.default_rng(0).random((2, 40, 3))
    np.testing.assert_allclose(r2(a, b), [np.corrcoef(a[:, unit], b[:, unit])[0, 1] ** 2 for unit in range(3)])


def test_feve_of_the_overall_mean_is_0_and_of_noise_free_counts_is_1():
    rng = np.random.default_rng(0)
    count, image = poisson_units(rng.gamma(2.0, 2.0, (60, 4)), 5)
    repeats = repeat_statistics(count, image)
    flat = np.broadcast_to(count.mean(axis=0), (60, 4)).copy()
    np.testing.assert_allclose(feve(flat, count, image, repeats), np.zeros(4), atol=1e-9)
    exact = np.repeat(np.arange(60, dtype=np.uint16), 3)[:, None]
    rows = np.repeat(np.arange(60), 3)
    np.testing.assert_allclose(feve(np.arange(60.0)[:, None], exact, rows, repeat_statistics(exact, rows)), [1.0])


def test_feve_of_the_averages_themselves_exceeds_1_by_the_noise_they_share():
    """Their squared error is s2 (n - 1) / n, so 1 - (MSE - s2) / (Var - s2) = 1 + (s2 / n) / (Var - s2)."""
    count, image = poisson_units(np.random.default_rng(0).gamma(2.0, 2.0, (60, 4)), 5)
    repeats = repeat_statistics(count, image)
    noise = noise_variance(repeats)
    expected = 1 + noise / 5 / (count.var(axis=0) - noise)
    np.testing.assert_allclose(feve(repeats.mean, count, image, repeats), expected)


def test_feve_is_that_of_cadena_2019_counted_trial_by_trial():
    rng = np.random.default_rng(4)
    rate = rng.gamma(2.0, 2.0, (60, 3))
    count, image = poisson_units(rate, 5)
    model = rate + rng.normal(size=rate.shape)
    trials = count.reshape(60, 5, 3).astype(float)
    noise = trials.var(axis=1, ddof=1).mean(axis=0)
    residual = sum((trials[:, repeat] - model) ** 2 for repeat in range(5)).sum(axis=0) / 300
    expected = 1 - (residual - noise) / (trials.reshape(300, 3).var(axis=0) - noise)
    np.testing.assert_allclose(feve(model, count, image, repeat_statistics(count, image)), expected)


def test_feve_charges_a_wrong_gain_that_r2_er_forgives(mixed):
    rate, count, image = mixed
    repeats = repeat_statistics(count, image)
    assert np.median(feve(rate, count, image, repeats)) == pytest.approx(1.0, abs=0.02)
    assert np.median(feve(2 * rate, count, image, repeats)) < 0.0
    assert np.median(r2_er(2 * rate, repeats)) == pytest.approx(1.0, abs=0.01)


def test_feve_is_not_known_without_explainable_variance():
    count = np.tile(np.array([[0], [2]], np.uint8), (30, 1))
    image = np.repeat(np.arange(30), 2)
    assert np.isnan(feve(np.ones((30, 1)), count, image, repeat_statistics(count, image))).all()


def test_the_single_trial_correlation_is_that_over_all_rows(mixed):
    rate, count, image = mixed
    expected = [np.corrcoef(rate[image, unit], count[:, unit])[0, 1] for unit in range(5)]
    np.testing.assert_allclose(single_trial_correlation(rate[:, :5], count[:, :5], image), expected)


def _shortcut(x, repeats):
    """With the median number of repeats for all images, as in the released code of the study."""
    m, over_n = len(x), noise_variance(repeats) / np.median(repeats.n_repeats)
    x, y = x - x.mean(axis=0), repeats.mean - repeats.mean.mean(axis=0)
    xx = np.sum(x**2, axis=0)
    return (np.sum(x * y, axis=0) ** 2 - over_n * xx) / (xx * (np.sum(y**2, axis=0) - (m - 1) * over_n))
