"""Baselines: three plain models beside teacher and students, so that a table tells what a deep teacher and distillation are worth.

Each takes images or features, repeat averages and the rows it may learn from, and predicts expected counts for all images. Only the
fitting and validation rows of the repeat averages are read. A unit that cannot be fitted (no answers, or the same answer to every fitting
image) is predicted by its mean, which explains nothing; the scores say why.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Integer, UInt8
from scipy.optimize import least_squares
from torch import Tensor

from nwb_compact import config
from nwb_compact.bank import SCALED_BY, BankShape, new_bank
from nwb_compact.bank_training import WARM_UP_STEPS, parameter_groups, standardised_answers
from nwb_compact.progress import Advance, silent
from nwb_compact.reliability import mean_of_known, standardising, varies
from nwb_compact.ridge import ridge_predictions
from nwb_compact.streaming import as_tensor, to_device
from nwb_compact.training import Batch, Plan, Task, derived_seed, train

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""
FOLDS = 5
"""Parts of the fitting images, each of which in turn the filter of `ln` does not see; its nonlinearity is fitted on such answers."""
FEWEST_FOR_OUTPUT = 20
"""Fitting images below which `ln` stays linear: its nonlinearity has four numbers of its own."""


def ridge(
    seen: Float[np.ndarray, "image channel row column"] | UInt8[np.ndarray, "image 112 112 3"], mean: Float[np.ndarray, "image unit"],
    fit_images: Integer[np.ndarray, "fit"], validation_images: Integer[np.ndarray, "held"], *, pixels_px: int,
) -> Float32[np.ndarray, "image unit"]:
    """Ridge regression from the backbone's features, as task-driven networks are compared with neurons (Yamins et al. 2014).

    Parameters
    ----------
    seen
        Features of a frozen backbone, or the images themselves where there is none (`conv`): then on their coarse pixels.
    mean
        Repeat averages, NaN where there is none.
    fit_images, validation_images
        Rows to fit on and rows that choose each unit's penalty, on which it is then fitted, too.
    pixels_px
        Side of the coarse images.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (30, 112, 112, 3), np.uint8)
    >>> ridge(images, np.ones((30, 2)), np.arange(20), np.arange(20, 25), pixels_px=14).shape
    (30, 2)
    """
    flat = coarse_pixels(seen, pixels_px) if seen.dtype == np.uint8 else seen.reshape(len(seen), -1)
    return ridge_predictions(flat, mean, fit_images, validation_images).prediction.astype(np.float32)


def linear_nonlinear(
    images: UInt8[np.ndarray, "image 112 112 3"], mean: Float[np.ndarray, "image unit"], fit_images: Integer[np.ndarray, "fit"],
    validation_images: Integer[np.ndarray, "held"], *, pixels_px: int,
) -> Float32[np.ndarray, "image unit"]:
    """A linear filter on pixels and a pointwise nonlinearity (Chichilnisky 2001; regularised for natural images: David & Gallant 2005).

    The filter is ridge regression from luminance and two colour-opponent signals on a coarse grid. The nonlinearity is
    ``gain x log(1 + exp(slope x drive + shift)) + base``, fitted by least squares to what filters answered to fitting images that they
    had not seen (a fitted filter's answers to its own images are too good). A unit whose filters predict nothing of unseen images,
    or with fewer than `FEWEST_FOR_OUTPUT` fitting images, stays linear.

    Parameters
    ----------
    images, mean, fit_images, validation_images, pixels_px
        As for `ridge`.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (30, 112, 112, 3), np.uint8)
    >>> linear_nonlinear(images, np.ones((30, 2)), np.arange(20), np.arange(20, 25), pixels_px=14).shape
    (30, 2)
    """
    pixels = coarse_pixels(images, pixels_px)
    prediction = ridge_predictions(pixels, mean, fit_images, validation_images).prediction
    # In single precision, which forgets in what order sums were made: where a unit is nearly linear many nonlinearities fit about alike,
    # and that order, which threads and the other units decide, would choose among them.
    unseen = np.empty((len(fit_images), mean.shape[1]), np.float32)
    part_of_image = np.arange(len(fit_images)) % FOLDS
    for part in np.unique(part_of_image):
        left_out = part_of_image == part
        filtered = ridge_predictions(pixels, mean, fit_images[~left_out], validation_images).prediction
        unseen[left_out] = filtered[fit_images[left_out]]
    for unit, fitted in enumerate(varies(mean[fit_images])):
        known = np.isfinite(mean[fit_images, unit])
        if fitted and known.sum() >= FEWEST_FOR_OUTPUT:
            output = output_nonlinearity(unseen[known, unit].astype(np.float64), mean[fit_images[known], unit])
            prediction[:, unit] = output(prediction[:, unit])
    return prediction.astype(np.float32)


def direct(
    images: UInt8[np.ndarray, "image 112 112 3"], mean: Float[np.ndarray, "image unit"], fit_images: Integer[np.ndarray, "fit"],
    validation_images: Integer[np.ndarray, "held"], shape: BankShape, settings: config.Baselines, *, seed: int, device: str = "cpu",
    checkpoint: Path | None = None, advance: Advance = silent,
) -> Float32[np.ndarray, "image unit"]:
    """The students' network fitted to the responses themselves, without a teacher (the study's "direct fit").

    A bank of unpruned students learns z-scored repeat averages by mean squared error, missing ones left out; the epoch that errs least
    on the validation images is kept.

    Parameters
    ----------
    images, mean, fit_images, validation_images
        As for `ridge`.
    shape
        The bank's; that of the students.
    settings
        Length, rates, shifts.
    seed
        Source of all randomness.
    device, checkpoint, advance
        As in `training.train`.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (30, 112, 112, 3), np.uint8)
    >>> shape, settings = BankShape(2, (3, 3, 2, 2, 2), 2), config.Baselines(epochs=1, least_steps=1)
    >>> direct(images, images[:, :2, 0, 0].astype(float), np.arange(20), np.arange(20, 25), shape, settings, seed=0).shape
    (30, 2)
    """
    both = mean[np.concatenate([fit_images, validation_images])]
    fitted, (offset, scale) = varies(mean[fit_images]), standardising(mean[fit_images])
    target = np.where(fitted, (mean - offset) / scale, np.nan).astype(np.float32)
    bank = to_device(new_bank(shape, as_tensor(images[fit_images[:SCALED_BY]], "cpu"), seed=derived_seed(seed, "weights")), device)

    def error(predicted: Tensor, rows: np.ndarray) -> Tensor:
        wanted = torch.from_numpy(target[rows]).to(device)
        return torch.where(torch.isfinite(wanted), (predicted.float() - torch.nan_to_num(wanted)) ** 2, 0.0).mean()

    def batches(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(derived_seed(seed, "batches", epoch))
        order = rng.permutation(fit_images)
        for rows in np.array_split(order, _steps(len(order), settings)):
            yield rows, shifted(images[rows], settings.shift_px, rng)

    def loss(part: Batch) -> Tensor:
        rows, views, share = part
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            predicted = bank(as_tensor(views, device))
        return share * error(predicted, rows)

    def validate() -> float:
        return -float(error(torch.from_numpy(standardised_answers(bank, images[validation_images], device)).to(device), validation_images))

    if fitted.any():
        task = Task(bank, parameter_groups(bank), batches, loss, validate=validate)
        plan = Plan(direct_epochs(len(fit_images), settings), settings.learning_rate, WARM_UP_STEPS)
        train(task, plan, seed=seed, checkpoint=checkpoint, advance=advance)
    prediction = standardised_answers(bank, images, device) * scale + offset
    return np.where(fitted, prediction, np.nan_to_num(mean_of_known(both))).astype(np.float32)


def direct_epochs(n_images: int, settings: config.Baselines) -> int:
    """Epochs of the direct fit of so many fitting images.

    Examples
    --------
    >>> settings = config.Baselines(epochs=12, least_steps=300, batch_images=16)
    >>> direct_epochs(510, settings), direct_epochs(85, settings)
    (12, 60)
    """
    return max(settings.epochs, -(-settings.least_steps // _steps(n_images, settings)))


def _steps(n_images: int, settings: config.Baselines) -> int:
    """Of an epoch."""
    return max(1, round(n_images / settings.batch_images))


def meanings(settings: config.Baselines, *, frozen_backbone: bool) -> dict[str, str]:
    """What each baseline is, in words for the provenance.

    Examples
    --------
    >>> meanings(config.Baselines(), frozen_backbone=False)["ridge"]
    'ridge regression on pixels (28 x 28, colour), since there is no frozen backbone'
    """
    grid = f"{settings.pixels_px} x {settings.pixels_px}, colour"
    on_pixels = f"ridge regression on pixels ({grid}), since there is no frozen backbone"
    return {
        "ridge": "ridge regression on the features of the backbone" if frozen_backbone else on_pixels,
        "direct": "the students' network before pruning, fitted to the responses without a teacher",
        "ln": f"linear filter on pixels ({grid}), then a fitted nonlinearity",
    }


# Parts ------------------------------------------------------------------------------------------------------------------


def coarse_pixels(images: UInt8[np.ndarray, "image 112 112 3"], side_px: int) -> Float32[np.ndarray, "image pixel"]:
    """Luminance, red against green and blue against yellow on a grid of `side_px` x `side_px` block averages.

    Examples
    --------
    >>> coarse_pixels(np.full((1, 112, 112, 3), [10, 20, 30], np.uint8), 14)[0, [0, 196, 392]].round(2)
    array([ 18.15, -10.  ,  15.  ], dtype=float32)
    """
    block = images.shape[1] // side_px
    coarse = np.stack([image.reshape(side_px, block, side_px, block, 3).mean(axis=(1, 3), dtype=np.float32) for image in images])
    red, green, blue = np.moveaxis(coarse, -1, 0)
    signals = np.stack([coarse @ LUMINANCE, red - green, blue - (red + green) / 2], axis=1)
    return signals.reshape(len(images), -1)


def output_nonlinearity(
    drive: Float64[np.ndarray, "n"], answer: Float[np.ndarray, "n"]
) -> Callable[[Float64[np.ndarray, "_"]], Float64[np.ndarray, "_"]]:
    """The smooth threshold that turns a filter's output into expected counts; the identity where they do not rise together.

    Examples
    --------
    >>> drive = np.linspace(-2.0, 2.0, 50)
    >>> output = output_nonlinearity(drive, np.maximum(drive, 0))
    >>> output(np.array([-2.0, 2.0])).round(1) + 0.0
    array([0., 2.])
    """
    centre, spread = drive.mean(), drive.std()
    if spread < 1e-9 or np.corrcoef(drive, answer)[0, 1] <= 0:
        return lambda x: x

    def predicted(x: Float64[np.ndarray, "_"], numbers: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "_"]:
        gain, slope, shift, base = numbers
        return gain * np.logaddexp(0.0, slope * (x - centre) / spread + shift) + base

    start = np.array([answer.std(), 1.0, 0.0, answer.min()])
    bounds = ([0.0, 0.0, -20.0, -np.inf], [np.inf, 20.0, 20.0, np.inf])
    best = least_squares(lambda numbers: predicted(drive, numbers) - answer, start, bounds=bounds, x_scale=[start[0], 1.0, 1.0, start[0]]).x
    return lambda x: predicted(x, best)


def shifted(
    images: UInt8[np.ndarray, "image height width 3"], most_px: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "image height width 3"]:
    """Each image moved by up to `most_px` along both axes, its border mirrored; small moves, since a neuron answers a place.

    Examples
    --------
    >>> image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    >>> bool((shifted(image, 0, np.random.default_rng(0)) == image).all())
    True
    """
    if most_px == 0:
        return images
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (most_px, most_px), (most_px, most_px), (0, 0)), mode="reflect")
    corners = rng.integers(0, 2 * most_px + 1, (len(images), 2))
    return np.stack([image[row : row + height, column : column + width] for image, (row, column) in zip(padded, corners, strict=True)])
