"""Spikes counted in windows: many units, many presentations, one look at every spike."""

import inspect
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt, UInt32

from nwb_compact.errors import NwbCompactError

Counter = Callable[..., None]
"""`_count_ranks`, compiled."""

COMPILED_FROM = 1_000_000
"""Window edges times units from which the compiled pass is worth the third of a second that compiling takes. NumPy's binary search takes
about 20 ns an edge and unit, so what a process counts once does not gain by it, and a search over latencies does."""
BUCKETS_AN_EDGE = 4
"""Size of the compiled pass's table: with windows of equal length no bucket then holds two edges; 2 to 16 were equally fast."""
SHORTEST_S = 1e-3
"""Length that the table covers at least, so that the length of a bucket stays a number when all edges fall together."""
MOST_THREADS = 8
"""Memory, not arithmetic, limits more."""


def count_spikes(
    spike_times_s: tuple[Float[np.ndarray, "_"], ...], start_s: Float[np.ndarray, "presentation"], stop_s: Float[np.ndarray, "presentation"]
) -> UInt[np.ndarray, "presentation unit"]:
    """How many spikes of each unit fall into each window, start <= t < stop.

    Parameters
    ----------
    spike_times_s
        Ascending times, one array a unit.
    start_s, stop_s
        Windows on the same clock, in any order; they may touch, overlap and be empty. Fastest in ascending order without overlap.

    Returns
    -------
    (presentation, unit), uint16, or uint32 where windows may hold more than 65,535 spikes. The counts of a unit lie together in memory.

    Raises
    ------
    NwbCompactError
        If a window stops before it starts or has no finite ends.

    Examples
    --------
    >>> spikes = (np.array([0.1, 0.2, 0.2, 0.5]), np.array([]))
    >>> count_spikes(spikes, np.array([0.2, 0.0]), np.array([0.5, 1.0])).tolist()
    [[2, 0], [4, 0]]
    """
    _require_windows(start_s, stop_s)
    count = np.zeros((len(spike_times_s), len(start_s)), np.uint32 if _may_exceed_uint16(spike_times_s, start_s, stop_s) else np.uint16)
    if count.size > 0:
        windows = _Windows.of(start_s, stop_s)
        compiled = _compiled() if len(windows.edge_s) * len(count) >= COMPILED_FROM else None
        threads = 1 if compiled is None else min(MOST_THREADS, os.cpu_count() or 1)

        def count_some(units: Sequence[int]) -> None:
            for unit in units:
                count[unit] = windows.count(spike_times_s[unit], compiled)

        with ThreadPoolExecutor(threads) as pool:  # NumPy and the compiled pass let other threads run
            list(pool.map(count_some, (range(first, len(count), threads) for first in range(threads))))
    return count.T


def count_spikes_after(
    spike_times_s: tuple[Float[np.ndarray, "_"], ...], onset_s: Float[np.ndarray, "presentation"],
    window_start_s: Float[np.ndarray, "unit"], window_stop_s: Float[np.ndarray, "unit"],
) -> UInt[np.ndarray, "presentation unit"]:
    """How many spikes follow each onset, in a window of each unit's own: onset + window start <= t < onset + window stop.

    Parameters
    ----------
    spike_times_s
        Ascending times, one array a unit.
    onset_s
        Image onsets on the same clock.
    window_start_s, window_stop_s
        After the onset. Units of the same window are counted together, so few distinct windows are fast.

    Returns
    -------
    As `count_spikes`.

    Raises
    ------
    NwbCompactError
        As `count_spikes`.

    Examples
    --------
    >>> spikes = (np.array([0.06, 1.06]), np.array([0.06, 1.16]))
    >>> count_spikes_after(spikes, np.array([0.0, 1.0]), np.array([0.05, 0.1]), np.array([0.15, 0.2])).tolist()
    [[1, 0], [1, 1]]
    """
    windows, window_of = np.unique(np.stack([window_start_s, window_stop_s]), axis=1, return_inverse=True)
    count = np.zeros((len(spike_times_s), len(onset_s)), np.uint16)
    for window, (opens_s, closes_s) in enumerate(windows.T):
        units = np.flatnonzero(window_of == window)
        found = count_spikes(tuple(spike_times_s[unit] for unit in units), onset_s + opens_s, onset_s + closes_s)
        count = count.astype(np.promote_types(count.dtype, found.dtype), copy=False)
        count[units] = found.T
    return count.T


def _require_windows(start_s: Float[np.ndarray, "presentation"], stop_s: Float[np.ndarray, "presentation"]) -> None:
    is_bad = ~(np.isfinite(start_s) & np.isfinite(stop_s) & (start_s <= stop_s))
    if is_bad.any():
        first = int(np.argmax(is_bad))
        raise NwbCompactError(f"window {first + 1} of {len(start_s)}", found=f"from {start_s[first]} s to {stop_s[first]} s",
                              expected="finite times, and no window that stops before it starts",
                              next_step="correct the onsets or the window")


def _may_exceed_uint16(
    spike_times_s: tuple[Float[np.ndarray, "_"], ...], start_s: Float[np.ndarray, "presentation"], stop_s: Float[np.ndarray, "presentation"]
) -> bool:
    """Of so many consecutive spikes two lie at multiples of half as many: only those need a look, and only in units that have as many."""
    most, longest_s = np.iinfo(np.uint16).max, np.max(stop_s - start_s, initial=0.0)
    return any(bool(np.any(np.diff(times_s[:: (most + 1) // 2]) <= longest_s)) for times_s in spike_times_s if len(times_s) > most)


@dataclass(frozen=True, eq=False)
class _Windows:
    """The edges of all windows in ascending order. The rank of a spike is the number of edges at or before it."""

    edge_s: Float[np.ndarray, "edge"]
    start: Integer[np.ndarray, "presentation"]
    """Edge that each window starts with."""
    stop: Integer[np.ndarray, "presentation"]
    """Edge that it stops with."""
    in_order: bool
    """Whether edges are start, stop, start, stop, ...: then the spikes of window 0 are those of rank 1, of window 1 of rank 3."""
    rank_before: UInt32[np.ndarray, "_"]
    """Edges before each bucket. Time is cut into buckets of equal length, so that one multiplication finds the bucket of a spike."""
    buckets_per_s: float
    is_crowded: bool
    """Whether a bucket holds more than one edge."""

    @classmethod
    def of(cls, start_s: Float[np.ndarray, "presentation"], stop_s: Float[np.ndarray, "presentation"]) -> "_Windows":
        edge_s = np.stack([start_s, stop_s], axis=1).astype(np.float64).ravel()
        in_order = bool(np.all(edge_s[1:] >= edge_s[:-1]))
        edge_s = edge_s if in_order else np.sort(edge_s)
        buckets_per_s = float(BUCKETS_AN_EDGE * len(edge_s) / max(edge_s[-1] - edge_s[0], SHORTEST_S))
        # The bucket of a spike is computed alike, so an edge in an earlier bucket is earlier, however the product is rounded.
        in_bucket = np.bincount(((edge_s - edge_s[0]) * buckets_per_s).astype(np.int64))
        rank_before = np.concatenate([[0], np.cumsum(in_bucket)]).astype(np.uint32)
        start, stop = np.arange(len(edge_s)).reshape(-1, 2).T if in_order else np.searchsorted(edge_s, np.stack([start_s, stop_s]))
        return cls(edge_s, start, stop, in_order, rank_before, buckets_per_s, bool(in_bucket.max() > 1))

    def count(self, times_s: Float[np.ndarray, "_"], compiled: Counter | None) -> Integer[np.ndarray, "presentation"]:
        """Spikes of one unit in every window, searched for by NumPy or counted in one pass."""
        if compiled is None:
            before = np.searchsorted(times_s, self.edge_s)
        else:
            of_rank = np.zeros(len(self.edge_s), np.uint32)
            compiled(times_s, self.edge_s, self.rank_before, self.buckets_per_s, self.is_crowded, of_rank)
            if self.in_order:
                return of_rank[1::2]
            before = np.cumsum(of_rank, dtype=np.int64)
        return before[self.stop] - before[self.start]


@cache
def _compiled() -> Counter:
    """Compile at the first need, not at import. numba's cache on disk would not save half of the time, and writes beside the source."""
    import numba

    return numba.njit(nogil=True)(inspect.unwrap(_count_ranks))  # without the shape check that tests put around every function


def _count_ranks(times_s: Any, edge_s: Any, rank_before: Any, buckets_per_s: Any, is_crowded: Any, of_rank: Any) -> None:
    """Count the spikes of each rank. None before the first edge and after the last is of interest.

    What makes it fast is that nothing branches on a spike: its rank is the number of edges before its bucket, and one more if the next
    edge is not after the spike. Only where buckets are crowded is the rest of them searched. Unsigned numbers spare numba its look for
    negative indices.
    """
    one, first_s = np.uint32(1), edge_s[0]
    for time_s in times_s[np.searchsorted(times_s, first_s) : np.searchsorted(times_s, edge_s[-1])]:
        bucket = np.uint64(np.int64((time_s - first_s) * buckets_per_s))
        rank = rank_before[bucket]
        rank += np.uint32(edge_s[rank] <= time_s)
        if is_crowded:
            high = rank_before[bucket + np.uint64(1)]
            while rank < high:
                middle = (rank + high) >> one
                if edge_s[middle] <= time_s:
                    rank = middle + one
                else:
                    high = middle
        of_rank[rank] += one
