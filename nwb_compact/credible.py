"""An interval of r2_ER for the images that were shown: the estimate-centred credible interval of Pospisil & Bair 2021.

The bootstrap of `scores` asks what other images would have given; this asks which true r2 on these images would make the estimate unusual.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nwb_compact.reliability import RepeatStatistics, noise_variance
from nwb_compact.scores import r2_er

N_DRAWS = 2000
"""Draws from the posterior; the share of 0.05 they find at either end is known to 0.005."""
N_HALVINGS = 14
"""Halvings of [0, 1] in the search for an end, which is then known to 0.0001."""


def r2_er_ecci(
    prediction: Float[np.ndarray, "shown unit"], repeats: RepeatStatistics, *, seed: int, level: float = 0.90
) -> tuple[Float[np.ndarray, "unit"], Float[np.ndarray, "unit"]]:
    """Estimate-centred credible interval of `scores.r2_er` (Pospisil & Bair 2021, PLoS Comput Biol 17:e1009212, "ECCI").

    The ends are the true r2 for which the estimate falls on the (1 + level) / 2 and the (1 - level) / 2 quantile of all estimates that the
    same images could have given, at noise and signal variances drawn from their posterior. Nothing is simulated image by image. In units of
    the noise of a repeat average, with signal d, m images and f degrees of freedom of the noise, the averages along the prediction are
    (sqrt(r2) d + z)^2, those across it (sqrt(1 - r2) d + z)^2 + chi2(m - 3), and the estimate of the noise is chi2(f) / f. The posterior is
    that of the prior 1 / s2 for the noise; d solves (d + z)^2 + chi2(m - 2) = the observed sum of squares, 0 where nothing solves it.
    With unequal repeats the harmonic mean of their numbers stands for them, and chi2 is as wide as sums of unequal noise are.

    Equal Gaussian noise is assumed. Measured coverage of 90 % intervals, 600 simulated units a condition (60 to 600 images, 2 to 14 repeats
    or mixed ones, true r2 0.2 to 0.9): 0.88 to 0.95 where the SNR is at least four of its standard errors
    (`reliability.snr_standard_error`), down to 0.84 at two. Counts of Poisson units (gamma-distributed rates
    of mean 0.3 to 4, 5 to 14 repeats) are noisier where the rate is high, which is not in the model: coverage 0.83 to 0.90, median 0.88.

    Parameters
    ----------
    prediction
        Expected counts on the images of `repeats`, in its order.
    repeats
        Statistics of the single trials of the scored images.
    seed
        Of the draws; all units and all candidates share them, so that the search for an end is not disturbed by chance.
    level
        Share of intervals that are to hold the truth.

    Returns
    -------
    low, high
        Each (unit,), from 0 to 1, as a true r2 is: the estimate itself may lie outside, and both ends are 1 (or 0) where even a perfect
        model (one that explains nothing) would seldom give an estimate as high (low). NaN where it is, and for fewer than four images.

    Examples
    --------
    >>> from nwb_compact.reliability import repeat_statistics
    >>> rng = np.random.default_rng(1)
    >>> rate = rng.gamma(2.0, 2.0, (300, 1))
    >>> image = np.repeat(np.arange(300), 5)
    >>> repeats = repeat_statistics(rng.poisson(rate[image]).astype(np.uint16), image)
    >>> low, high = r2_er_ecci(rate + rng.normal(0, 3, rate.shape), repeats, seed=0)
    >>> bool(0.3 < low[0] < 0.47 < high[0] < 0.6)
    True
    """
    estimate = r2_er(prediction, repeats)
    known, m = np.isfinite(estimate), len(repeats.n_repeats)
    if m < 4 or not known.any():
        return np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    noise = noise_variance(repeats) * np.mean(1 / repeats.n_repeats)
    total = ((repeats.mean - repeats.mean.mean(axis=0)) ** 2).sum(axis=0)
    exact = known & (noise == 0)  # repeats agree to the last spike: the estimate is the truth
    in_noise = np.divide(total, noise, out=np.ones_like(total), where=known & ~exact)
    draws = _drawn(in_noise, repeats.n_repeats, np.random.default_rng(seed))
    ends = [_r2_with_share_below(share, estimate, draws) for share in ((1 + level) / 2, (1 - level) / 2)]
    low, high = (np.where(exact, np.clip(estimate, 0, 1), np.where(known, end, np.nan)) for end in ends)
    return low, high


@dataclass(frozen=True, eq=False)
class _Draws:
    """Everything random, in units of the noise variance of a repeat average."""

    signal: Float[np.ndarray, "draw unit"]
    """Root of the summed squares of the true responses, from their posterior."""
    along: Float[np.ndarray, "draw 1"]
    across: Float[np.ndarray, "draw 1"]
    """Noise of the averages along the prediction, and along what the prediction lacks."""
    rest: Float[np.ndarray, "draw 1"]
    """Squared noise in all other directions."""
    noise: Float[np.ndarray, "draw 1"]
    """What the repeats would tell of the noise, which is 1."""
    n_free: int
    """Directions that noise has: images - 1."""


def _drawn(total: Float[np.ndarray, "unit"], n_repeats: Float[np.ndarray, "shown"], rng: np.random.Generator) -> _Draws:
    size, m, freedom = (N_DRAWS, 1), len(n_repeats), np.sum(n_repeats - 1)
    alike = np.mean(1 / n_repeats) ** 2 / np.mean(1 / n_repeats**2)  # 1 if all images have as many repeats; less makes sums vary more

    def squares(n: int) -> Float[np.ndarray, "draw 1"]:
        return rng.chisquare(n * alike, size) / alike

    remaining = total * rng.chisquare(freedom, size) / freedom - squares(m - 2)
    signal = np.where(remaining > 0, np.maximum(np.sqrt(np.maximum(remaining, 0)) - rng.standard_normal(size), 0), 0)
    along, across = rng.standard_normal((2, *size))
    return _Draws(signal, along, across, squares(m - 3), rng.chisquare(freedom, size) / freedom, m - 1)


def _r2_with_share_below(share: float, estimate: Float[np.ndarray, "unit"], draws: _Draws) -> Float[np.ndarray, "unit"]:
    """The true r2 of which `share` of the estimates fall below the one there is; 0 or 1 where it would lie beyond them."""
    low, high = np.zeros_like(estimate), np.ones_like(estimate)
    too_low = _share_below(high, estimate, draws) > share
    too_high = _share_below(low, estimate, draws) <= share
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        above = _share_below(middle, estimate, draws) > share
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(too_high, 0.0, np.where(too_low, 1.0, (low + high) / 2))


def _share_below(r2: Float[np.ndarray, "unit"], estimate: Float[np.ndarray, "unit"], draws: _Draws) -> Float[np.ndarray, "unit"]:
    """How many of the estimates that a true r2 could have given are below the one there is, of those that can be computed."""
    along = (np.sqrt(r2) * draws.signal + draws.along) ** 2
    explainable = along + (np.sqrt(1 - r2) * draws.signal + draws.across) ** 2 + draws.rest - draws.n_free * draws.noise
    computed = explainable > 0
    below = computed & (along - draws.noise < estimate * explainable)
    return below.sum(axis=0) / np.maximum(computed.sum(axis=0), 1)
