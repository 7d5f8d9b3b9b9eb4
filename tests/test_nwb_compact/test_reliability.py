import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwb_compact.reliability import (
    RepeatStatistics,
    correlation,
    noise_variance,
    repeat_statistics,
    signal_to_noise,
    snr_standard_error,
    split_half_reliability,
)

LONG_FORM = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), min_size=1, max_size=40)


def long_form(rows):
    return np.array([[count] for _, count in rows], np.uint16), np.array([image for image, _ in rows], np.int64)


def gaussian_like(signal_sd, noise_sd, *, n_images, n_repeats, seed=0):
    """Counts around 1000, so that any mean and variance can be set; (row unit), images of the rows."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(n_images), n_repeats)
    rate = 1000 + signal_sd * rng.normal(size=n_images)
    return np.rint(rate[image] + noise_sd * rng.normal(size=len(image))).astype(np.uint16)[:, None], image


@given(LONG_FORM)
def test_repeat_statistics_are_those_of_a_loop(rows):
    count, image = long_form(rows)
    found = repeat_statistics(count, image)
    by_image = {number: [c for i, c in rows if i == number] for number in sorted({i for i, _ in rows})}
    np.testing.assert_array_equal(found.image, list(by_image))
    np.testing.assert_array_equal(found.n_repeats, [len(counts) for counts in by_image.values()])
    np.testing.assert_allclose(found.mean[:, 0], [np.mean(counts) for counts in by_image.values()])
    np.testing.assert_allclose(found.squares[:, 0], [np.var(counts) * len(counts) for counts in by_image.values()], atol=1e-9)


def test_with_equal_repeats_the_noise_variance_is_the_mean_of_the_images_variances():
    count, image = gaussian_like(30, 20, n_images=50, n_repeats=4)
    expected = np.var(count.reshape(50, 4).astype(float), axis=1, ddof=1).mean()
    np.testing.assert_allclose(noise_variance(repeat_statistics(count, image)), [expected])


def test_images_shown_once_say_nothing_about_noise():
    count, image = gaussian_like(30, 20, n_images=50, n_repeats=4)
    more, once = np.vstack([count, count[:9] + 5]), np.concatenate([image, np.arange(50, 59)])
    np.testing.assert_allclose(noise_variance(repeat_statistics(more, once)), noise_variance(repeat_statistics(count, image)))


def test_without_any_repeat_the_noise_is_not_known():
    statistics = repeat_statistics(np.array([[1, 2], [3, 4]], np.uint8), np.array([0, 1]))
    assert np.isnan(noise_variance(statistics)).all()
    assert np.isnan(signal_to_noise(statistics)).all()


@pytest.mark.parametrize(("signal_sd", "noise_sd"), [(20, 40), (40, 20), (0, 30)])
def test_signal_to_noise_recovers_the_ratio_of_variances_with_unequal_repeats(signal_sd, noise_sd):
    rng = np.random.default_rng(1)
    image = np.repeat(np.arange(4000), rng.integers(2, 9, 4000))
    rate = 1000 + signal_sd * rng.normal(size=4000)
    count = np.rint(rate[image] + noise_sd * rng.normal(size=len(image))).astype(np.uint16)[:, None]
    expected = (signal_sd / noise_sd) ** 2
    assert signal_to_noise(repeat_statistics(count, image))[0] == pytest.approx(expected, rel=0.1, abs=0.02)


def test_noise_free_repeats_are_perfectly_reliable_and_have_no_finite_ratio():
    counts = np.repeat(np.arange(10, dtype=np.uint8), 3)[:, None]
    image = np.repeat(np.arange(10), 3)
    np.testing.assert_allclose(split_half_reliability(counts, image), [1.0])
    assert np.isnan(signal_to_noise(repeat_statistics(counts, image))).all()


@pytest.mark.parametrize("repeats", [(5,), (2,), (1, 2, 3, 12, 14)])
def test_the_snr_of_units_without_signal_scatters_by_its_standard_error(repeats):
    rng = np.random.default_rng(0)
    n = rng.choice(repeats, 200).astype(float)
    mean = rng.normal(size=(200, 2000)) / np.sqrt(n)[:, None]
    squares = np.where(n[:, None] > 1, rng.chisquare(np.maximum(n - 1, 1)[:, None], mean.shape), 0.0)
    snr = signal_to_noise(RepeatStatistics(np.arange(200), n, mean, squares))
    assert snr.std() == pytest.approx(snr_standard_error(n), rel=0.06)
    assert abs(snr.mean()) < 0.1 * snr.std()


def test_with_equal_repeats_the_standard_error_is_a_simple_formula():
    assert snr_standard_error(np.full(320, 8.0)) == pytest.approx(np.sqrt(2 / (320 * 8 * 7)))
    assert np.isnan(snr_standard_error(np.ones(320)))


@pytest.mark.parametrize(("signal_sd", "noise_sd", "n_repeats"), [(30, 30, 2), (30, 60, 4), (30, 60, 8)])
def test_reliability_is_the_share_of_signal_in_the_averages(signal_sd, noise_sd, n_repeats):
    """Of averages over n repeats: S / (S + N / n), what Spearman and Brown correct to."""
    count, image = gaussian_like(signal_sd, noise_sd, n_images=20_000, n_repeats=n_repeats)
    expected = signal_sd**2 / (signal_sd**2 + noise_sd**2 / n_repeats)
    assert split_half_reliability(count, image, n_splits=5)[0] == pytest.approx(expected, abs=0.025)


def test_noise_alone_is_not_reliable():
    count, image = gaussian_like(0, 40, n_images=4000, n_repeats=4)
    assert abs(split_half_reliability(count, image)[0]) < 0.03


def test_images_shown_once_do_not_change_the_reliability():
    count, image = gaussian_like(30, 20, n_images=50, n_repeats=3)
    more, once = np.vstack([count, count[:9]]), np.concatenate([image, np.arange(50, 59)])
    np.testing.assert_array_equal(split_half_reliability(more, once), split_half_reliability(count, image))


def test_reliability_depends_on_the_seed_alone():
    count, image = gaussian_like(30, 40, n_images=50, n_repeats=3)
    first = split_half_reliability(count, image, seed=1)
    np.testing.assert_array_equal(first, split_half_reliability(count, image, seed=1))
    assert first[0] != split_half_reliability(count, image, seed=2)[0]


@pytest.mark.parametrize(("image", "why"), [([0, 1, 2, 3], "no repeat"), ([0, 0, 1, 1], "two images correlate by force")])
def test_reliability_is_not_known(image, why):
    assert np.isnan(split_half_reliability(np.array([[1], [2], [3], [5]], np.uint8), np.array(image))).all(), why


def test_a_silent_unit_has_no_reliability_and_does_not_disturb_the_others():
    counts = np.repeat(np.arange(10, dtype=np.uint8), 4)[:, None]
    beside = np.hstack([counts, np.zeros_like(counts)])
    np.testing.assert_allclose(split_half_reliability(beside, np.repeat(np.arange(10), 4)), [1.0, np.nan])


def test_halves_that_oppose_each_other_perfectly_have_no_corrected_correlation():
    """Spearman and Brown divide by 1 + r: at r = -1 there is no answer."""
    count, image = np.array([[0], [2], [2], [0], [1], [1]], np.uint8), np.array([0, 0, 1, 1, 2, 2])
    assert np.isnan(split_half_reliability(count, image)).all()


@given(st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 2), min_size=3, max_size=30))
def test_correlation_is_that_of_numpy(pairs):
    a, b = np.array(pairs).T
    if a.std() > 1e-3 and b.std() > 1e-3:
        np.testing.assert_allclose(correlation(a[:, None], b[:, None]), [np.corrcoef(a, b)[0, 1]], atol=1e-7)


@pytest.mark.parametrize("constant", [0.0, 0.1, 5.3])
def test_what_never_varies_has_no_correlation(constant):
    assert np.isnan(correlation(np.full((500, 1), constant), np.random.default_rng(0).random((500, 1)))).all()
