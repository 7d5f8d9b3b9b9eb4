"""Spikes of many units in the windows of many presentations: ours against pynapple and SpikeInterface, each at its best, same counts.

    pip install pynapple
    python benchmarks/counting.py

Every library gets its own objects before the clock starts, and one call to compile or cache what it wants to. Then all take turns,
so that what else the machine does falls on all of them. SpikeInterface counts in samples; spikes lie between two samples here, so that
rounding and whether a window includes its end change nothing. It has no function that counts in windows: the three ways below are
what a sorting of its offers, and the one that asks for every window of every unit is timed on a few units only. Exit status 1 if counts
differ or the fastest other way is less than `--at-least` times as slow as ours.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import click
import numpy as np
import pynapple
from spikeinterface import NumpySorting

from nwb_compact import counting
from nwb_compact.counting import count_spikes

SAMPLES_HZ = 30_000
WINDOW_S, SPACING_S = 0.1, 0.2
FEW_UNITS = 2
"""For the way that takes minutes with all of them; its time is scaled up."""


@click.command()
@click.option("--spikes", default=10_000_000, show_default=True)
@click.option("--units", default=200, show_default=True)
@click.option("--presentations", default=20_000, show_default=True)
@click.option("--turns", default=15, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--at-least", default=5.0, show_default=True)
def main(spikes: int, units: int, presentations: int, turns: int, seed: int, at_least: float) -> None:
    """Print one row a way of counting and, last, the ratio."""
    rng = np.random.default_rng(seed)
    onset_s = 1 + SPACING_S * np.arange(presentations) + np.cumsum(rng.uniform(0, 0.0005, presentations))
    frames = some_spikes(rng, spikes, units, int((onset_s[-1] + 1) * SAMPLES_HZ))
    times_s = tuple((unit + 0.5) / SAMPLES_HZ for unit in frames)
    print(f"{sum(map(len, frames)):,} spikes, {units} units, {presentations:,} presentations, median of {turns} turns")

    ways = {"ours": partial(count_spikes, times_s, onset_s, onset_s + WINDOW_S), "ours, one thread": partial(one_thread, times_s, onset_s)}
    ways |= pynapple_ways(times_s, onset_s) | spikeinterface_ways(frames, onset_s)
    expected = np.stack([np.searchsorted(unit, onset_s + WINDOW_S) - np.searchsorted(unit, onset_s) for unit in times_s], axis=1)
    durations = {name: np.array([]) for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            duration_s, count = timed(way)
            if turn > 0:  # the first compiles and caches
                durations[name] = np.append(durations[name], duration_s * units / count.shape[1])
            elif not np.array_equal(count, expected[:, : count.shape[1]]):
                sys.exit(f"{name} counts otherwise")
    sys.exit(0 if table(durations) >= at_least else 1)


def table(durations: dict[str, np.ndarray]) -> float:
    """The ratio of the fastest other way to ours, from medians over turns; each way's own ratio is the median of its turns' ratios."""
    for name, taken_s in durations.items():
        print(f"{name:55s} {1e3 * np.median(taken_s):9.1f} ms {np.median(taken_s / durations['ours']):8.1f}")
    others = {name: float(np.median(taken_s / durations["ours"])) for name, taken_s in durations.items() if not name.startswith("ours")}
    fastest = min(others, key=lambda name: others[name])
    print(f"ours is {others[fastest]:.1f} times as fast as the fastest other way, {fastest}")
    return others[fastest]


def some_spikes(rng: np.random.Generator, n_spikes: int, n_units: int, n_frames: int) -> list[np.ndarray]:
    """Rates over units are log-normal, as in cortex (Buzsaki & Mizuseki 2014). No unit fires twice in a sample."""
    rate = rng.lognormal(0, 1, n_units)
    return [np.unique(rng.integers(0, n_frames, n)) for n in rng.multinomial(n_spikes, rate / rate.sum())]


def one_thread(times_s: tuple[np.ndarray, ...], onset_s: np.ndarray) -> np.ndarray:
    threads, counting.MOST_THREADS = counting.MOST_THREADS, 1
    try:
        return count_spikes(times_s, onset_s, onset_s + WINDOW_S)
    finally:
        counting.MOST_THREADS = threads


def pynapple_ways(times_s: tuple[np.ndarray, ...], onset_s: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    units = pynapple.TsGroup({unit: pynapple.Ts(times) for unit, times in enumerate(times_s)})
    windows = pynapple.IntervalSet(onset_s, onset_s + WINDOW_S)
    return {
        "pynapple TsGroup.count(ep=)": lambda: units.count(ep=windows).values,
        "pynapple TsGroup.count(ep=, dtype=uint16)": lambda: units.count(ep=windows, dtype=np.uint16).values,
        "pynapple TsGroup.restrict(ep).count()": lambda: units.restrict(windows).count().values,
    }


def spikeinterface_ways(frames: list[np.ndarray], onset_s: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    sorting = NumpySorting.from_unit_dict([dict(enumerate(frames))], SAMPLES_HZ)
    first, last = (np.ceil(edge_s * SAMPLES_HZ - 0.5).astype(np.int64) for edge_s in (onset_s, onset_s + WINDOW_S))
    n_units = len(frames)

    def spike_vector() -> np.ndarray:
        begin, end = sorting.search_cached_spikes_sorted(first), sorting.search_cached_spikes_sorted(last)
        unit_index, count = sorting.to_spike_vector()["unit_index"], np.empty((len(onset_s), n_units), np.uint16)
        for window, (a, b) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
            count[window] = np.bincount(unit_index[a:b], minlength=n_units)
        return count

    def spike_trains() -> np.ndarray:
        trains = (sorting.get_unit_spike_train(unit, segment_index=0) for unit in sorting.unit_ids)
        return np.stack([np.searchsorted(train, last) - np.searchsorted(train, first) for train in trains], axis=1)

    def each_window() -> np.ndarray:
        windows = list(zip(first.tolist(), last.tolist(), strict=True))
        return np.array([[len(sorting.get_unit_spike_train(unit, 0, a, b)) for unit in range(min(FEW_UNITS, n_units))] for a, b in windows])

    return {
        "SpikeInterface to_spike_vector, bincount of each window": spike_vector,
        "SpikeInterface get_unit_spike_train, searchsorted": spike_trains,
        "SpikeInterface get_unit_spike_train(unit, start, end)": each_window,
    }


def timed(way: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    begin = time.perf_counter()
    count = way()
    return time.perf_counter() - begin, count


if __name__ == "__main__":
    main()
