"""How much of a response is signal: the noise of single trials, what repeats agree on, and the ratio of the two.

Responses come in long form (one row a presentation), because repeats are unequal in every real session. All sums over repeats weight
images by what they know: an image shown once says nothing about noise.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt


@dataclass(frozen=True, eq=False)
class RepeatStatistics:
    """What the repeats of each image tell, for every unit; images without a presentation are left out."""

    image: Integer[np.ndarray, "shown"]
    """Index of each image that was shown at least once."""
    n_repeats: Float[np.ndarray, "shown"]
    mean: Float[np.ndarray, "shown unit"]
    squares: Float[np.ndarray, "shown unit"]
    """Sum over repeats of (count - mean of the image) squared."""


def repeat_statistics(count: UInt[np.ndarray, "kept unit"], image: Integer[np.ndarray, "kept"]) -> RepeatStatistics:
    """Collect number, mean and sum of squares over the repeats of each image.

    Examples
    --------
    >>> repeat_statistics(np.array([[1], [3], [5]], np.uint8), np.array([4, 4, 7])).squares.ravel()
    array([2., 0.])
    """
    shown, row = np.unique(image, return_inverse=True)
    n = np.bincount(row).astype(float)
    total = np.zeros((len(shown), count.shape[1]))
    np.add.at(total, row, count)
    mean = total / n[:, None]
    squares = np.zeros_like(total)
    np.add.at(squares, row, (count - mean[row]) ** 2)
    return RepeatStatistics(shown, n, mean, squares)


def noise_variance(statistics: RepeatStatistics) -> Float[np.ndarray, "unit"]:
    """Trial-to-trial variance of a single presentation, pooled over images by their degrees of freedom; NaN without repeats.

    Pospisil & Bair 2021 average the variances of the images, which is the same when all have equally many repeats.

    Examples
    --------
    >>> noise_variance(repeat_statistics(np.array([[1], [3], [5]], np.uint8), np.array([0, 0, 1])))
    array([2.])
    """
    freedom = np.sum(statistics.n_repeats - 1)
    return statistics.squares.sum(axis=0) / freedom if freedom > 0 else np.full(statistics.squares.shape[1], np.nan)


def signal_to_noise(statistics: RepeatStatistics) -> Float[np.ndarray, "unit"]:
    """Variance of the true response over images / noise variance of one presentation (Pospisil & Bair 2021, their SNR estimate).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(4.0, 1.0, 4000)                               # variance 4, and Poisson noise of variance 4
    >>> counts = rng.poisson(np.repeat(rate, 5))[:, None].astype(np.uint8)
    >>> round(float(signal_to_noise(repeat_statistics(counts, np.repeat(np.arange(4000), 5)))[0]), 1)
    1.0
    """
    noise, m = noise_variance(statistics), len(statistics.n_repeats)
    centred = statistics.mean - statistics.mean.mean(axis=0)
    signal = ((centred**2).sum(axis=0) - (m - 1) * noise * np.mean(1 / statistics.n_repeats)) / m
    return np.divide(signal, noise, out=np.full_like(noise, np.nan), where=noise > 0)


def snr_standard_error(n_repeats: Float[np.ndarray, "shown"]) -> float:
    """Standard error of `signal_to_noise` of a unit that answers all images alike: what SNR such a unit may show by chance.

    The averages of m images then scatter by the noise s2 / n_j alone, and that SNR is sum y^2 / (m s2) minus its expectation. Both sums of
    squares are of Gaussian noise, so its variance is 2 mean(1/n_j^2) / m + 2 mean(1/n_j)^2 / sum(n_j - 1). NaN without repeats.

    Examples
    --------
    >>> round(snr_standard_error(np.full(320, 8.0)), 4)                 # about sqrt(2 / (m n (n - 1)))
    0.0106
    """
    freedom = np.sum(n_repeats - 1)
    if freedom < 1:
        return float("nan")
    return float(np.sqrt(2 * np.mean(1 / n_repeats**2) / len(n_repeats) + 2 * np.mean(1 / n_repeats) ** 2 / freedom))


def split_half_reliability(
    count: UInt[np.ndarray, "kept unit"], image: Integer[np.ndarray, "kept"], *, n_splits: int = 20, seed: int = 0
) -> Float[np.ndarray, "unit"]:
    """Correlation between the means of two random halves of the repeats, Spearman-Brown corrected to all repeats, averaged over splits.

    Images with one repeat are left out. With an odd number the odd one falls on either half by chance.

    Returns
    -------
    (unit,), at most 1; NaN where fewer than three images were repeated, or the halves of a split do not vary or oppose each other fully.

    Examples
    --------
    >>> counts = np.repeat(np.arange(10, dtype=np.uint8), 4)[:, None]   # no noise at all
    >>> split_half_reliability(counts, np.repeat(np.arange(10), 4))
    array([1.])
    """
    rng = np.random.default_rng(seed)
    repeats = np.bincount(image)
    used = repeats[image] >= 2
    _, row = np.unique(image[used], return_inverse=True)
    count = count[used].astype(float)
    if len(row) == 0 or row.max() < 2:
        return np.full(count.shape[1], np.nan)
    halves = [_half_means(count, row, rng) for _ in range(n_splits)]
    r = np.array([correlation(first, second) for first, second in halves])
    return np.mean(np.divide(2 * r, 1 + r, out=np.full_like(r, np.nan), where=1 + r > 1e-9), axis=0)


def varies(answer: Float[np.ndarray, "image unit"]) -> Bool[np.ndarray, "unit"]:
    """Which units have more than one answer to these images; NaN is none.

    Examples
    --------
    >>> varies(np.array([[1.0, 2.0, np.nan], [1.0, 3.0, 1.0]]))
    array([False,  True, False])
    """
    known = np.isfinite(answer)
    highest = np.where(known, answer, -np.inf).max(axis=0, initial=-np.inf)
    return highest - np.where(known, answer, np.inf).min(axis=0, initial=np.inf) > 1e-9


def mean_of_known(answer: Float[np.ndarray, "image unit"]) -> Float[np.ndarray, "unit"]:
    """Mean over the images that a unit has an answer to; NaN where it has none.

    Examples
    --------
    >>> mean_of_known(np.array([[1.0, np.nan], [3.0, np.nan]]))
    array([ 2., nan])
    """
    known = np.isfinite(answer)
    n = known.sum(axis=0)
    return np.divide(np.where(known, answer, 0).sum(axis=0), n, out=np.full(answer.shape[1], np.nan), where=n > 0)


def standardising(answer: Float[np.ndarray, "image unit"]) -> tuple[Float[np.ndarray, "unit"], Float[np.ndarray, "unit"]]:
    """Offset and scale that z-score each unit's answers: mean and standard deviation over the images it has an answer to.

    Returns
    -------
    Offset, 0 for a unit without any, and scale, 1 for one that never varies.

    Examples
    --------
    >>> standardising(np.array([[1.0, 2.0, np.nan], [3.0, 2.0, np.nan]]))
    (array([2., 2., 0.]), array([1., 1., 1.]))
    """
    scale, varied = np.ones(answer.shape[1]), varies(answer)
    scale[varied] = np.nanstd(answer[:, varied], axis=0)
    return np.nan_to_num(mean_of_known(answer)), scale


def correlation(a: Float[np.ndarray, "image unit"], b: Float[np.ndarray, "image unit"]) -> Float[np.ndarray, "unit"]:
    """Pearson correlation of each column of `a` with the same column of `b`; NaN where either does not vary.

    Examples
    --------
    >>> correlation(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]))
    array([1.])
    """
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    product = (a * b).sum(axis=0)
    return np.divide(product, scale, out=np.full_like(product, np.nan), where=scale > 1e-12)


def correlation_where_known(
    predicted: Float[np.ndarray, "image unit"], measured: Float[np.ndarray, "image unit"], *, fewest: int = 1
) -> Float[np.ndarray, "unit"]:
    """Correlation of each column over the images that it was measured with; NaN where they are fewer than `fewest`.

    Examples
    --------
    >>> correlation_where_known(np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([[5.0], [3.0], [1.0], [np.nan]]))
    array([-1.])
    """
    r = np.full(predicted.shape[1], np.nan)
    for unit, rows in enumerate(np.isfinite(measured).T):
        if rows.sum() >= fewest:
            r[unit] = correlation(predicted[rows, unit : unit + 1].astype(float), measured[rows, unit : unit + 1])[0]
    return r


def _half_means(
    count: Float[np.ndarray, "kept unit"], row: Integer[np.ndarray, "kept"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "shown unit"], Float[np.ndarray, "shown unit"]]:
    order = np.lexsort((rng.random(len(row)), row))  # shuffled within each image
    n = np.bincount(row)
    place = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
    swap = rng.integers(0, 2, len(n))
    first = (place + np.repeat(swap, n)) % 2 == 0
    means = []
    for half in (first, ~first):
        chosen = order[half]  # image by image, and at least one of each
        n_chosen = np.bincount(row[chosen])
        total = np.add.reduceat(count[chosen], np.cumsum(n_chosen) - n_chosen, axis=0)
        means.append(total / n_chosen[:, None])
    return means[0], means[1]
