"""How well a prediction matches responses, each number with its paper. Definitions are never mixed in one column.

All functions take held-out images only: a prediction that was fitted to the very responses it is scored on biases every one of them.
"""

import numpy as np
from jaxtyping import Float, Integer, UInt

from nwb_compact.reliability import RepeatStatistics, correlation, noise_variance


def r2(prediction: Float[np.ndarray, "image unit"], mean: Float[np.ndarray, "image unit"]) -> Float[np.ndarray, "unit"]:
    """Squared Pearson correlation of prediction and repeat average: blind to sign, gain and offset, and pulled down by noise.

    Examples
    --------
    >>> r2(np.array([[1.0], [2.0], [3.0]]), np.array([[6.0], [4.0], [2.0]]))
    array([1.])
    """
    return correlation(prediction, mean) ** 2


def r2_er(prediction: Float[np.ndarray, "shown unit"], repeats: RepeatStatistics) -> Float[np.ndarray, "unit"]:
    """Noise-corrected r2 between a model and the true mean response, r2_ER of Pospisil & Bair 2021 (PLoS Comput Biol 17:e1009212).

    With x the prediction and y the repeat averages, both centred over the m images, s2 the noise variance of one presentation and n_j
    the repeats of image j,

        r2_ER = ((sum x y)^2 - s2 sum x_j^2 / n_j)  /  (sum x^2 (sum y^2 - s2 (m-1)/m sum 1/n_j)).

    Numerator and denominator are each unbiased. With n_j = n this is the published formula; with unequal repeats it needs no common n
    (the median repeat number of one neuron, used elsewhere, gives 0.889 for a perfect model).

    Parameters
    ----------
    prediction
        Expected counts on the images of `repeats`, in its order.
    repeats
        Statistics of the single trials of the scored images.

    Returns
    -------
    (unit,). Not bounded: half of the estimates of a perfect model exceed 1. NaN without repeats or where noise leaves no signal.

    Examples
    --------
    >>> from nwb_compact.reliability import repeat_statistics
    >>> rng = np.random.default_rng(1)
    >>> rate = rng.gamma(2.0, 2.0, (500, 1))
    >>> image = np.repeat(np.arange(500), rng.integers(2, 12, 500))
    >>> counts = rng.poisson(rate[image]).astype(np.uint16)
    >>> float(r2_er(rate, repeat_statistics(counts, image))[0].round(1))
    1.0
    """
    weight = np.ones((1, len(repeats.n_repeats)))
    return _weighted_r2_er(prediction, repeats, weight)[0]


def r2_er_interval(
    prediction: Float[np.ndarray, "shown unit"], repeats: RepeatStatistics, *, n_bootstraps: int, seed: int, level: float = 0.90
) -> tuple[Float[np.ndarray, "unit"], Float[np.ndarray, "unit"]]:
    """Percentile bootstrap interval of `r2_er` over images: what other images of the same kind would have given.

    Returns
    -------
    low, high
        Each (unit,); NaN where `r2_er` is.

    Examples
    --------
    >>> from nwb_compact.reliability import repeat_statistics
    >>> rng = np.random.default_rng(1)
    >>> rate = rng.gamma(2.0, 2.0, (300, 1))
    >>> image = np.repeat(np.arange(300), 5)
    >>> repeats = repeat_statistics(rng.poisson(rate[image]).astype(np.uint16), image)
    >>> low, high = r2_er_interval(rate, repeats, n_bootstraps=100, seed=0)
    >>> bool(low[0] < 1.0 < high[0])
    True
    """
    m = len(repeats.n_repeats)
    weight = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), n_bootstraps).astype(float)
    estimates = _weighted_r2_er(prediction, repeats, weight)
    measurable = np.isfinite(estimates).mean(axis=0) > 0.5
    estimates = np.where(measurable, estimates, 0.0)
    tails = np.nanquantile(estimates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = np.where(measurable, tails, np.nan)
    return low, high


def feve(
    prediction: Float[np.ndarray, "image unit"], count: UInt[np.ndarray, "kept unit"], image: Integer[np.ndarray, "kept"],
    repeats: RepeatStatistics,
) -> Float[np.ndarray, "unit"]:
    """Fraction of explainable variance explained (Cadena et al. 2019, PLoS Comput Biol 15:e1006897): 1 - (MSE - s2) / (Var - s2).

    Unlike r2 it charges a wrong gain or offset. At most about 1, without lower bound.

    Parameters
    ----------
    prediction
        Expected counts, indexed by `image`.
    count, image
        Single trials in long form.
    repeats
        Their statistics.

    Examples
    --------
    >>> from nwb_compact.reliability import repeat_statistics
    >>> rng = np.random.default_rng(1)
    >>> rate = rng.gamma(2.0, 2.0, (2000, 1))
    >>> image = np.repeat(np.arange(2000), 5)
    >>> count = rng.poisson(rate[image]).astype(np.uint16)
    >>> feve(rate, count, image, repeat_statistics(count, image)).round(1)
    array([1.])
    """
    noise = noise_variance(repeats)
    error = ((count - prediction[image]) ** 2).mean(axis=0)
    explainable = count.var(axis=0) - noise
    return 1 - np.divide(error - noise, explainable, out=np.full_like(noise, np.nan), where=explainable > 0)


def single_trial_correlation(
    prediction: Float[np.ndarray, "image unit"], count: UInt[np.ndarray, "kept unit"], image: Integer[np.ndarray, "kept"]
) -> Float[np.ndarray, "unit"]:
    """Pearson correlation of the prediction with single counts over all presentations; bounded by the noise of one trial.

    Examples
    --------
    >>> single_trial_correlation(np.array([[1.0], [3.0]]), np.array([[1], [1], [3]], np.uint8), np.array([0, 0, 1])).round(6)
    array([1.])
    """
    return correlation(prediction[image], count.astype(float))


def _weighted_r2_er(
    prediction: Float[np.ndarray, "shown unit"], repeats: RepeatStatistics, weight: Float[np.ndarray, "resample shown"]
) -> Float[np.ndarray, "resample unit"]:
    """`r2_er` with each image counted `weight` times: every sum is one matrix product, so 500 resamples cost little more than one."""
    # r2_ER is blind to offsets; centred first, a prediction that never varies gives 0 below and not what rounding leaves of it.
    x, y, n = prediction - prediction.mean(axis=0), repeats.mean - repeats.mean.mean(axis=0), repeats.n_repeats[:, None]
    m = weight.sum(axis=1, keepdims=True)
    freedom = weight @ (n - 1)
    noise = np.divide(weight @ repeats.squares, freedom, out=np.full((len(weight), x.shape[1]), np.nan), where=freedom > 0)
    mean_x, mean_y = weight @ x / m, weight @ y / m
    xy = weight @ (x * y) - m * mean_x * mean_y
    xx, yy = weight @ x**2 - m * mean_x**2, weight @ y**2 - m * mean_y**2
    inverse_n = weight @ (1 / n)
    xx_over_n = weight @ (x**2 / n) - 2 * mean_x * (weight @ (x / n)) + mean_x**2 * inverse_n
    numerator = xy**2 - noise * xx_over_n
    denominator = xx * (yy - noise * (m - 1) / m * inverse_n)
    # A denominator near 0 or below it means that noise alone explains the variance of the averages.
    usable = (denominator > 1e-9 * np.maximum(xx * yy, 1e-300)) & (xx > 1e-12)
    return np.divide(numerator, denominator, out=np.full_like(noise, np.nan), where=usable)
