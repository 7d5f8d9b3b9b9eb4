"""When a unit answers: the delay after image onset at which its spike counts agree best between repeats of an image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt

from nwb_compact.counting import count_spikes
from nwb_compact.reliability import repeat_statistics, signal_to_noise, split_half_reliability

FEWEST_REPEATED_IMAGES = 20
"""Below it, a correlation over images is noise: its standard error exceeds 0.2."""
N_SPLITS = 5
"""Random halves a delay. All delays are compared on the same halves."""
N_SHUFFLES = 20
"""Times the images are shuffled: a unit without a signal exceeds all of them once in 21."""


@dataclass(frozen=True, eq=False)
class Latencies:
    """The delay of each unit's counting window; `response_quality` tells of the counts in it."""

    latency_s: Float[np.ndarray, "unit"]
    """From image onset to the start of the window; NaN where repeats do not tell."""
    reason: tuple[str, ...]
    """Why a unit has no latency, empty where it has one."""


def unit_latencies(
    spike_times_s: tuple[Float[np.ndarray, "_"], ...], onset_s: Float[np.ndarray, "presentation"],
    image_index: Integer[np.ndarray, "presentation"], is_valid: Bool[np.ndarray, "presentation"], *,
    window_length_s: float, range_s: tuple[float, float], step_s: float, seed: int,
) -> Latencies:
    """Choose for each unit the window of the largest split-half reliability, as dicarlo-lab-to-nwb does.

    A largest value exists in noise too. So the search is repeated with shuffled images, and a unit that is not more reliable than in
    every one of these has no latency: its window stays the caller's choice.

    The choice uses responses and no model. Still, responses on which a model is scored later took part in choosing the window they are
    counted in, and the largest of several noisy reliabilities is a little too large. Who wants neither passes `is_valid` False for the
    scored images and asks `response_quality` about these afterwards. Repeats that follow each other at once share slow changes of the
    recording, which look like reliability at every delay and which shuffling does not reveal.

    Parameters
    ----------
    spike_times_s
        Ascending times, one array a unit.
    onset_s
        Image onsets on the same clock.
    image_index
        Image of each presentation.
    is_valid
        Presentations to use. Of these, only images with two or more count.
    window_length_s
        Length of the counting window.
    range_s, step_s
        First and last delay that are tried, and the step between them.
    seed
        Of the halves and of the shuffles.

    Returns
    -------
    Latencies
        NaN for all units where fewer than 20 images were repeated.

    Raises
    ------
    NwbCompactError
        If an onset is not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> image, onset_s = rng.permutation(np.repeat(np.arange(40), 6)), np.arange(240.0)
    >>> n_spikes = rng.poisson(image % 8)                                 # all of them from 50 to 150 ms after the onset
    >>> spikes = np.sort(np.repeat(onset_s, n_spikes) + rng.uniform(0.05, 0.15, n_spikes.sum()))
    >>> search = dict(window_length_s=0.1, range_s=(0.01, 0.15), step_s=0.02)
    >>> unit_latencies((spikes,), onset_s, image, np.full(240, True), **search, seed=0).latency_s
    array([0.05])
    """
    used = is_valid & (np.bincount(image_index[is_valid], minlength=image_index.max(initial=0) + 1)[image_index] >= 2)
    onset_s, image = onset_s[used], image_index[used].astype(np.int64)
    n_units, n_images = len(spike_times_s), len(np.unique(image))
    if n_images < FEWEST_REPEATED_IMAGES:
        why = f"{n_images} images were shown twice or more often, {FEWEST_REPEATED_IMAGES} are needed"
        return Latencies(np.full(n_units, np.nan), (why,) * n_units)

    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(image) for _ in range(N_SHUFFLES)]
    latency_s, best, by_chance = (np.full(n_units, start) for start in (np.nan, -np.inf, -np.inf))
    for delay_s in _delays_s(range_s, step_s):
        count = count_spikes(spike_times_s, onset_s + delay_s, onset_s + delay_s + window_length_s)
        found = split_half_reliability(count, image, n_splits=N_SPLITS, seed=seed)
        latency_s[found > best] = delay_s  # the earliest, where delays are equal
        best = np.fmax(best, found)
        for labels in shuffled:
            by_chance = np.fmax(by_chance, split_half_reliability(count, labels, n_splits=N_SPLITS, seed=seed))

    reason = tuple(_reason(*pair) for pair in zip(best.tolist(), by_chance.tolist(), strict=True))
    latency_s[[why != "" for why in reason]] = np.nan
    return Latencies(latency_s, reason)


def response_quality(
    count: UInt[np.ndarray, "presentation unit"], image_index: Integer[np.ndarray, "presentation"],
    is_valid: Bool[np.ndarray, "presentation"], *, seed: int,
) -> tuple[Float[np.ndarray, "unit"], Float[np.ndarray, "unit"]]:
    """Split-half reliability and signal-to-noise ratio of counts, from the valid presentations.

    Returns
    -------
    reliability, snr
        As `nwb_compact.reliability` defines them; NaN where the repeats do not tell.

    Examples
    --------
    >>> count = np.array([[1], [2], [5], [6], [9], [9], [0]], np.uint16)
    >>> is_valid = np.array([True] * 6 + [False])
    >>> reliability, snr = response_quality(count, np.array([0, 0, 1, 1, 2, 2, 2]), is_valid, seed=0)
    >>> reliability.round(2), snr.round(1)
    (array([0.99]), array([27.8]))
    """
    count, image = count[is_valid], image_index[is_valid].astype(np.int64)
    return split_half_reliability(count, image, seed=seed), signal_to_noise(repeat_statistics(count, image))


def _delays_s(range_s: tuple[float, float], step_s: float) -> Float[np.ndarray, "delay"]:
    steps = int((range_s[1] - range_s[0]) / step_s + 1e-6)  # the last delay belongs to the range, however 0.14 / 0.01 is rounded
    return np.round(range_s[0] + step_s * np.arange(steps + 1), 9)


def _reason(best: float, by_chance: float) -> str:
    if best == -np.inf:
        return "too few spikes to compare repeats"
    if best <= by_chance:
        return f"reliability {best:.3f} at best, {by_chance:.3f} with shuffled images"
    return ""
