"""Ridge regression from features to repeat averages: the quickest baseline, and the yardstick by which a backbone's layer is chosen.

All units and all penalties share one eigendecomposition: of the images' kernel where there are more features than images, else of the
features' covariance. A feature x feature matrix is never made when features outnumber images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer
from scipy import linalg

from nwb_compact.reliability import correlation, mean_of_known, varies

PENALTIES = np.logspace(-4, 5, 28)
"""Penalties tried for each unit, three a decade, as multiples of the mean squared length of an image's standardised features. On 190923
(EfficientNet-Lite0, 8,000 features) the best lie between 0.1 and 2; both ends stand for "none" and "only the mean"."""
FEATURES_A_STEP = 4096
"""Columns that are standardised at a time, so that 100,000 float16 features on disk need little memory."""


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """What ridge regression predicts, and how well it did where it chose."""

    prediction: Float64[np.ndarray, "image unit"]
    """Expected count of every unit on every image, fitted on the fitting and validation images."""
    validation_r2: Float64[np.ndarray, "unit"]
    """Squared correlation on the validation images of the fit that has not seen them (0 where the correlation is negative); NaN where a
    unit does not vary there or could not be fitted. It is the score of the best penalty, so slightly high."""
    penalty: Float64[np.ndarray, "unit"]
    """The best of `PENALTIES`; NaN for a unit that is predicted by its mean."""


def ridge_predictions(
    features: Float[np.ndarray, "image feature"], mean: Float[np.ndarray, "image unit"], fit_images: Integer[np.ndarray, "fit"],
    validation_images: Integer[np.ndarray, "held"],
) -> RidgeFit:
    """Predict every unit from features, linearly; the penalty is each unit's own, chosen on the validation images.

    Features are standardised by the fitting images. Each unit is fitted on the fitting images, the penalty with the smallest squared
    error on the validation images is kept, and with it the unit is fitted again on both. A missing answer is left out for that unit;
    units with the same missing images share a decomposition.

    Parameters
    ----------
    features
        One row an image, finite; float16 is enough and may lie on disk.
    mean
        Repeat averages; NaN where there is none. Only those of `fit_images` and `validation_images` are read.
    fit_images, validation_images
        Rows; no image of both.

    Returns
    -------
    Predictions for all images. A unit that is constant over its fitting images, or has no answer on a side, is predicted by its mean over
    both sides (0 without any answer).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(60, 20))
    >>> mean = features @ rng.normal(size=(20, 2)) + 5
    >>> found = ridge_predictions(features, mean, np.arange(40), np.arange(40, 50))
    >>> found.prediction.shape, bool((found.validation_r2 > 0.9).all())
    ((60, 2), True)
    """
    both = np.concatenate([fit_images, validation_images])
    answer = mean[both].astype(np.float64)
    n_units = mean.shape[1]
    prediction = np.tile(np.nan_to_num(mean_of_known(answer)), (len(features), 1))
    validation_r2, penalty = np.full(n_units, np.nan), np.full(n_units, np.nan)
    known = np.isfinite(answer)
    units = np.flatnonzero(varies(answer[: len(fit_images)]) & known[len(fit_images) :].any(axis=0))
    if len(units) == 0:
        return RidgeFit(prediction, validation_r2, penalty)
    decompose = _decomposition(features, fit_images, len(both))
    for pattern, group in _groups(known, units):
        is_fit = np.arange(len(both)) < len(fit_images)
        fitting, held = pattern & is_fit, pattern & ~is_fit
        first = decompose(both[fitting]).fit(answer[np.ix_(fitting, group)])
        chosen, validation_r2[group] = _best_penalty(first, both[held], answer[np.ix_(held, group)])
        again = decompose(both[pattern]).fit(answer[np.ix_(pattern, group)])
        prediction[:, group], penalty[group] = again.predict(slice(None), chosen), chosen
    return RidgeFit(prediction, validation_r2, penalty)


# Choosing ---------------------------------------------------------------------------------------------------------------


def _groups(
    known: Bool[np.ndarray, "seen unit"], units: Integer[np.ndarray, "fitted"]
) -> Iterator[tuple[Bool[np.ndarray, "seen"], Integer[np.ndarray, "group"]]]:
    """Units that have answers to the same images; one group where the data are complete."""
    patterns, group_of_unit = np.unique(known[:, units].T, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        yield pattern, units[group_of_unit.ravel() == number]


def _best_penalty(
    fitted: "_Fitted", images: Integer[np.ndarray, "held"], answer: Float64[np.ndarray, "held unit"]
) -> tuple[Float64[np.ndarray, "unit"], Float64[np.ndarray, "unit"]]:
    """The penalty of least squared error for each unit, and its r2."""
    n_units = answer.shape[1]
    tried = np.stack([fitted.predict(images, np.full(n_units, penalty)) for penalty in PENALTIES])
    best = ((tried - answer) ** 2).sum(axis=1).argmin(axis=0)
    return PENALTIES[best], _r2(tried[best, :, np.arange(n_units)].T, answer)


def _r2(predicted: Float64[np.ndarray, "held unit"], answer: Float64[np.ndarray, "held unit"]) -> Float64[np.ndarray, "unit"]:
    r = np.nan_to_num(correlation(predicted, answer))
    return np.where(answer.var(axis=0) > 0, np.maximum(r, 0) ** 2, np.nan)


# Algebra ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Predictions of all penalties: ``onto @ (loading / (eigenvalue + penalty)) + offset``."""

    onto: Float64[np.ndarray, "image direction"]
    eigenvalue: Float64[np.ndarray, "direction"]
    unit_penalty: float
    """Mean squared length of a row: what a penalty of 1 stands for."""
    loading: Float64[np.ndarray, "direction unit"]
    offset: Float64[np.ndarray, "unit"]

    def predict(
        self, images: Integer[np.ndarray, "asked"] | slice, penalty: Float64[np.ndarray, "unit"]
    ) -> Float64[np.ndarray, "_ unit"]:
        weight = self.loading / (self.eigenvalue[:, None] + penalty * self.unit_penalty)
        return self.onto[images] @ weight + self.offset


@dataclass(frozen=True, eq=False)
class _Decomposed:
    """Everything of a fit on some images that does not depend on the answers."""

    onto: Float64[np.ndarray, "image direction"]
    eigenvalue: Float64[np.ndarray, "direction"]
    unit_penalty: float
    project: Float64[np.ndarray, "direction row"]

    def fit(self, answer: Float64[np.ndarray, "row unit"]) -> _Fitted:
        offset = answer.mean(axis=0)
        return _Fitted(self.onto, self.eigenvalue, self.unit_penalty, self.project @ (answer - offset), offset)


def _decomposition(
    features: Float[np.ndarray, "image feature"], fit_images: Integer[np.ndarray, "fit"], n_seen: int
) -> Callable[[np.ndarray], _Decomposed]:
    """How to prepare a fit on any rows: by kernel or by covariance, whichever is smaller."""
    if features.shape[1] > n_seen:
        kernel = np.zeros((len(features), len(features)))
        for part in _standardised(features, fit_images):
            kernel += part @ part.T
        return lambda rows: _by_kernel(kernel, rows)
    standardised = np.concatenate(list(_standardised(features, fit_images)), axis=1).astype(np.float64)
    return lambda rows: _by_covariance(standardised, rows)


def _standardised(features: Float[np.ndarray, "image feature"], fit_images: Integer[np.ndarray, "fit"]) -> Iterator[np.ndarray]:
    """float32 columns with mean 0 and standard deviation 1 over the fitting images; a feature that is constant there becomes 0."""
    for start in range(0, features.shape[1], FEATURES_A_STEP):
        part = np.asarray(features[:, start : start + FEATURES_A_STEP], np.float32)
        fitting = part[fit_images]
        centre, spread = fitting.mean(axis=0, dtype=np.float64), fitting.std(axis=0, dtype=np.float64)
        varies = spread > 1e-6 * np.abs(centre)
        factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
        yield (part - centre.astype(np.float32)) * factor.astype(np.float32)


def _by_kernel(kernel: Float64[np.ndarray, "image image"], rows: Integer[np.ndarray, "row"]) -> _Decomposed:
    """Ridge in its dual form; the kernel is centred on the rows, which stands for the intercept."""
    of_rows = kernel[:, rows]
    each, of_all = of_rows.mean(axis=1), of_rows[rows].mean()
    centred = of_rows - each[:, None] - each[rows] + of_all
    eigenvalue, direction = linalg.eigh(centred[rows])
    return _Decomposed(centred @ direction, np.maximum(eigenvalue, 0), _unit(eigenvalue, rows), direction.T)


def _by_covariance(standardised: Float64[np.ndarray, "image feature"], rows: Integer[np.ndarray, "row"]) -> _Decomposed:
    """Ridge in its primal form."""
    centred = standardised - standardised[rows].mean(axis=0)
    eigenvalue, direction = linalg.eigh(centred[rows].T @ centred[rows])
    onto = centred @ direction
    return _Decomposed(onto, np.maximum(eigenvalue, 0), _unit(eigenvalue, rows), onto[rows].T)


def _unit(eigenvalue: Float64[np.ndarray, "direction"], rows: Integer[np.ndarray, "row"]) -> float:
    """The mean squared length of a row; 1 where all rows are alike, so that nothing is divided by zero."""
    return float(eigenvalue.sum() / len(rows)) or 1.0
