from functools import partial

import numpy as np
import pytest

from nwb_compact import baselines, config
from nwb_compact.bank import BankShape
from nwb_compact.baselines import coarse_pixels, direct, linear_nonlinear, meanings, output_nonlinearity, ridge, shifted
from nwb_compact.ridge import ridge_predictions

N, FIT, HELD, SCORED = 130, np.arange(70), np.arange(70, 85), np.arange(85, 130)
BOTH = np.concatenate([FIT, HELD])
SETTINGS = config.Baselines(epochs=4, least_steps=1, shift_px=0, learning_rate=0.01)
SHAPE = partial(BankShape, widths=(4, 4, 3, 3, 3), shared_layers=5)
"""As the fit has it: all layers are shared."""


@pytest.fixture(scope="module")
def images():
    """Patchwork: 4 x 4 patches of any colour."""
    patches = np.random.default_rng(3).integers(0, 256, (N, 4, 4, 3), np.uint8)
    return patches.repeat(28, axis=1).repeat(28, axis=2)


@pytest.fixture(scope="module")
def drive(images):
    """A neuron's filter: the upper left quarter brighter than the lower right one; mean 0, standard deviation 1."""
    grey = images.astype(float).mean(axis=3)
    drive = grey[:, :56, :56].mean(axis=(1, 2)) - grey[:, 56:, 56:].mean(axis=(1, 2))
    return (drive - drive.mean()) / drive.std()


def one_of(model, images, mean, **more):
    """The prediction of a model by name."""
    if model == "direct":
        return direct(images, mean, FIT, HELD, SHAPE(mean.shape[1]), SETTINGS, seed=0, **more)
    return {"ridge": ridge, "ln": linear_nonlinear}[model](images, mean, FIT, HELD, pixels_px=14)


def correlation(prediction, mean):
    return np.corrcoef(prediction[SCORED], mean[SCORED])[0, 1]


# What each can find ---------------------------------------------------------------------------------------------------
def test_ridge_on_features_is_ridge_regression_on_all_of_them(images):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(N, 3, 2, 2)).astype(np.float16)
    mean = maps.reshape(N, 12).astype(float) @ rng.normal(size=(12, 2))
    expected = ridge_predictions(maps.reshape(N, 12), mean, FIT, HELD).prediction
    np.testing.assert_array_equal(ridge(maps, mean, FIT, HELD, pixels_px=14), expected.astype(np.float32))


def test_a_linear_neuron_is_found_on_pixels_and_a_rectified_one_better_with_a_nonlinearity(images, drive):
    mean = np.stack([5 + drive, np.maximum(drive, 0) * 3], axis=1)
    linear, rectified = (one_of(model, images, mean) for model in ("ridge", "ln"))
    assert correlation(linear[:, 0], mean[:, 0]) > 0.8
    assert correlation(rectified[:, 0], mean[:, 0]) > correlation(linear[:, 0], mean[:, 0]) - 0.02
    assert correlation(rectified[:, 1], mean[:, 1]) > correlation(linear[:, 1], mean[:, 1]) + 0.05
    assert rectified[:, 1].min() > linear[:, 1].min() + 0.5, "the threshold keeps expected counts from falling below their floor"


@pytest.mark.parametrize("shape", [SHAPE, partial(SHAPE, shared_layers=2)], ids=["shared", "own layers"])
def test_the_direct_fit_finds_what_no_linear_filter_does(shape):
    grey = np.full((N, 112, 112), 110.0)
    rng = np.random.default_rng(1)
    contrast = rng.choice([-90.0, 0.0, 90.0], N)
    grey[:, 30:80, 30:80] += contrast[:, None, None]
    shown = np.repeat(grey[..., None], 3, axis=3).astype(np.uint8)
    mean = np.abs(contrast)[:, None] / 30
    longer = SETTINGS.model_copy(update={"epochs": 12})  # after 4 it depends on the order of sums
    found = direct(shown, mean, FIT, HELD, shape(1), longer, seed=0)
    assert correlation(found[:, 0], mean[:, 0]) > 0.9
    assert abs(correlation(one_of("ridge", shown, mean)[:, 0] + 1e-9 * contrast, mean[:, 0])) < 0.5


def test_the_nonlinearity_is_fitted_on_answers_to_images_the_filter_has_not_seen(images, drive, monkeypatch):
    """On images it has seen a filter is too good, and the threshold would be fitted to its noise."""
    mean = (5 + drive + 2 * np.random.default_rng(2).normal(size=N))[:, None]
    seen = []
    monkeypatch.setattr(baselines, "output_nonlinearity", lambda drive, answer: seen.append((drive, answer)) or (lambda x: x))
    one_of("ln", images, mean)
    ((filtered, answer),) = seen
    np.testing.assert_array_equal(answer, mean[FIT, 0])
    left_out = np.arange(70) % baselines.FOLDS == 2
    expected = ridge_predictions(coarse_pixels(images, 14), mean, FIT[~left_out], HELD).prediction[FIT[left_out], 0]
    np.testing.assert_allclose(filtered[left_out], expected)


# What all must bear ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", ["ridge", "ln", "direct"])
def test_answers_to_scored_images_are_never_read_and_the_seed_decides_all(model, images, drive):
    mean = np.stack([5 + drive, 3 - drive], axis=1)
    lies = mean.copy()
    lies[SCORED] = np.nan
    np.testing.assert_array_equal(one_of(model, images, mean), one_of(model, images, lies))


@pytest.mark.parametrize("model", ["ridge", "ln", "direct"])
def test_units_that_cannot_be_fitted_get_their_mean_and_the_others_are_fitted(model, images, drive):
    mean = np.tile(5 + drive[:, None], (1, 5))
    whole = one_of(model, images, mean)
    mean[:, 0] = 2.5                                 # constant
    mean[:, 1] = np.nan                              # no answers
    mean[FIT, 2] = 0.0                               # silent while fitting
    mean[FIT[::3], 3] = np.nan                       # some missing
    found = one_of(model, images, mean)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    for unit, constant in ((0, 2.5), (1, 0.0), (2, mean[BOTH, 2].mean())):
        np.testing.assert_allclose(found[:, unit], constant, rtol=1e-6)
        assert np.ptp(found[:, unit]) == 0
    assert np.ptp(found[:, 3]) > 0
    assert np.ptp(found[:, 4]) > 0
    if model != "direct":  # there shared layers learn from other units, too
        np.testing.assert_allclose(found[:, 4], whole[:, 4], rtol=1e-5)


@pytest.mark.parametrize("model", ["ridge", "ln", "direct"])
def test_nothing_to_fit_at_all(model, images):
    np.testing.assert_array_equal(one_of(model, images, np.full((N, 2), np.nan)), np.zeros((N, 2)))


@pytest.mark.parametrize("n_fit", [1, 2, 8])
def test_the_smallest_sessions(n_fit, images, drive):
    mean, fit, held = (5 + drive)[:20, None], np.arange(n_fit), np.arange(n_fit, n_fit + 1)
    few = images[:20]
    assert linear_nonlinear(few, mean, fit, held, pixels_px=14).shape == (20, 1)
    assert np.isfinite(direct(few, mean, fit, held, SHAPE(1), SETTINGS, seed=0)).all()


# The direct fit -------------------------------------------------------------------------------------------------------
def test_the_epoch_that_errs_least_on_validation_images_is_kept(images, drive, monkeypatch):
    mean = (5 + drive)[:, None]
    scores = []
    wrapped = baselines.train

    def train(task, plan, **more):
        best = wrapped(task, plan, **more)
        scores.append((best, task.validate()))
        return best

    monkeypatch.setattr(baselines, "train", train)
    prediction = one_of("direct", images, mean)[:, 0]
    ((best, left),) = scores
    assert left == pytest.approx(best)
    z = (np.stack([prediction, mean[:, 0]]) - mean[FIT].mean()) / mean[FIT].std()
    assert best == pytest.approx(-((z[0, HELD] - z[1, HELD]) ** 2).mean(), rel=1e-3)


def test_another_seed_gives_another_fit(images, drive):
    mean = (5 + drive)[:, None]
    settings = config.Baselines(epochs=1, least_steps=1)
    one, other = (direct(images, mean, FIT, HELD, SHAPE(1), settings, seed=seed) for seed in (0, 1))
    assert (one != other).any()


def test_few_images_are_passed_over_more_often(images, drive):
    told = []
    settings = SETTINGS.model_copy(update={"least_steps": 30})
    direct(images, (5 + drive)[:, None], FIT, HELD, SHAPE(1), settings, seed=0, advance=lambda n=1, note="": told.append(n))
    assert sum(told) == 8, "70 images are 4 steps of an epoch"
    assert baselines.direct_epochs(70, settings) == 8
    assert baselines.direct_epochs(1000, settings) == 4


def test_a_direct_fit_that_was_stopped_goes_on_to_the_same_prediction(images, drive, tmp_path):
    mean, told = (5 + drive)[:, None], []

    def stop_in_the_third(n=1, note=""):
        told.append(n)
        if len(told) == 3:
            raise KeyboardInterrupt

    whole = one_of("direct", images, mean)
    with pytest.raises(KeyboardInterrupt):
        one_of("direct", images, mean, checkpoint=tmp_path / "direct.pt", advance=stop_in_the_third)
    resumed = one_of("direct", images, mean, checkpoint=tmp_path / "direct.pt", advance=lambda n=1, note="": told.append(n))
    np.testing.assert_array_equal(resumed, whole)
    assert told == [1, 1, 1, 3, 1]


# Parts ----------------------------------------------------------------------------------------------------------------
def test_coarse_pixels_are_block_averages_of_three_signals():
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    signals = coarse_pixels(images, 28).reshape(2, 3, 28, 28)
    red, green, blue = images[1, 4:8, 20:24].reshape(-1, 3).mean(axis=0)
    expected = [0.299 * red + 0.587 * green + 0.114 * blue, red - green, blue - (red + green) / 2]
    np.testing.assert_allclose(signals[1, :, 1, 5], expected, rtol=1e-5, atol=1e-4)


def test_a_known_softplus_is_found():
    drive = np.random.default_rng(0).normal(3.0, 2.0, 400)
    output = output_nonlinearity(drive, 2.0 * np.log1p(np.exp(1.5 * (drive - 4))) + 0.5)
    asked = np.array([-2.0, 3.0, 6.0])
    np.testing.assert_allclose(output(asked), 2.0 * np.log1p(np.exp(1.5 * (asked - 4))) + 0.5, atol=0.02)


@pytest.mark.parametrize("drive", [np.linspace(1, 0, 30), np.ones(30)], ids=["falls", "constant"])
def test_an_output_that_does_not_rise_with_the_drive_leaves_it_alone(drive):
    output = output_nonlinearity(drive, np.linspace(0, 1, 30))
    np.testing.assert_array_equal(output(drive), drive)


def test_shifted_images_are_windows_of_the_mirrored_image():
    image = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    moved = shifted(np.repeat(image, 40, axis=0), 3, np.random.default_rng(1))
    padded = np.pad(image[0], ((3, 3), (3, 3), (0, 0)), mode="reflect")
    windows = {padded[row : row + 112, column : column + 112].tobytes() for row in range(7) for column in range(7)}
    assert {one.tobytes() for one in moved} <= windows
    assert len({one.tobytes() for one in moved}) > 10


def test_what_ridge_stands_on_is_said():
    settings = config.Baselines(pixels_px=14)
    assert meanings(settings, frozen_backbone=True)["ridge"] == "ridge regression on the features of the backbone"
    assert meanings(settings, frozen_backbone=True)["ln"] == "linear filter on pixels (14 x 14, colour), then a fitted nonlinearity"
    assert meanings(settings, frozen_backbone=False)["ridge"].startswith("ridge regression on pixels (14 x 14, colour)")
