import numpy as np
import pytest

from nwb_compact.natural_images import KINDS, natural_image_kind, natural_images

N = 60


@pytest.fixture(scope="module")
def images():
    return natural_images(N, seed=3)


def spectrum_slope(grey):
    """Slope of log amplitude against log frequency, 3 to 40 cycles an image: numpy only, nothing of the package."""
    size = grey.shape[1]
    window = np.outer(np.hanning(size), np.hanning(size))
    power = (np.abs(np.fft.fft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    cycles = np.fft.fftfreq(size) * size
    radius = np.rint(np.hypot(cycles[:, None], cycles))
    frequencies = np.arange(3, 41)
    amplitude = np.sqrt([power[radius == frequency].mean() for frequency in frequencies])
    return np.polyfit(np.log(frequencies), np.log(amplitude), 1)[0]


def test_amplitude_falls_about_as_one_over_frequency(images):
    slope = spectrum_slope(images.mean(axis=3))
    print(f"slope of the amplitude spectrum: {slope:.2f}")  # Caltech-101 at 112 px, same measure: -1.20
    assert -1.6 < slope < -0.9


def test_white_noise_fails_the_same_measure():
    noise = np.random.default_rng(0).normal(size=(20, 112, 112))
    assert abs(spectrum_slope(noise)) < 0.1


def test_colours_are_like_those_of_photographs(images):
    pixels = images.reshape(-1, 3).astype(float)
    correlation = np.corrcoef(pixels.T)
    saturation = (pixels.max(axis=1) - pixels.min(axis=1)) / np.maximum(pixels.max(axis=1), 1)
    assert np.all(np.abs(pixels.mean(axis=0) - 110) < 12)
    assert correlation[np.triu_indices(3, 1)].min() > 0.75
    assert 0.1 < saturation.mean() < 0.35
    assert ((pixels == 0) | (pixels == 255)).mean() < 0.04


def test_contrast_varies_between_images(images):
    contrast = images.mean(axis=3).std(axis=(1, 2))
    assert contrast.min() > 12
    assert contrast.std() > 5


def test_an_image_depends_on_seed_and_place_only(images):
    np.testing.assert_array_equal(natural_images(4, seed=3), images[:4])
    assert not np.array_equal(natural_images(4, seed=4), images[:4])


def test_no_image_comes_twice(images):
    assert len({image.tobytes() for image in images}) == N


def test_every_kind_is_there():
    assert {natural_image_kind(index) for index in range(5)} == set(KINDS)
    assert natural_images(1, seed=0, size_px=64).shape == (1, 64, 64, 3)
