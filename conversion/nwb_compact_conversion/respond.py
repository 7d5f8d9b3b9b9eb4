"""How the units answered: spikes in a window after each onset, the same for all units or from each unit's own latency."""

from collections import Counter
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from nwb_compact.counting import count_spikes, count_spikes_after
from nwb_compact.latency import Latencies, response_quality, unit_latencies
from nwb_compact.session import Presentations, ResponseUnits, SpikeCounts, Units
from nwb_compact_conversion.session_yaml import Responses


def respond(
    units: Units, presentations: Presentations | None, settings: Responses, *, seed: int,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[ResponseUnits, SpikeCounts | None]:
    """Counts of every unit in every presentation, valid or not, and how they were counted.

    Parameters
    ----------
    units
        With spike times on the clock of the presentations.
    presentations
        None where nothing was shown: then there are no counts.
    settings
        The window, or where latencies are looked for. A unit whose repeats do not tell a latency keeps the window.
    seed
        For the random halves of reliabilities, which valid presentations of repeated images give.
    report
        Called with a line on the latencies.

    Returns
    -------
    ResponseUnits, SpikeCounts
        Latency, reliability and signal-to-noise ratio are None where no unit has one.

    Examples
    --------
    >>> onset_s = np.array([1.0, 2.0])
    >>> shown = Presentations(np.array([0, 1], np.uint32), np.zeros(2, np.uint32), np.ones(2, bool), onset_s, onset_s + 0.1)
    >>> respond(Units(("a",), (np.array([1.06, 1.14, 2.2]),)), shown, Responses(), seed=0)[1].count.ravel().tolist()
    [2, 0]
    """
    rows = np.arange(len(units), dtype=np.uint32)
    if presentations is None or presentations.start_time_s is None or units.spike_times_s is None or not len(units):
        return ResponseUnits(rows, None, None), None
    onset_s, image_index, is_valid = presentations.start_time_s, presentations.image_index, presentations.is_valid
    start_s, stop_s = settings.window_s
    starts_s, latency_s = np.full(len(units), start_s), None
    if settings.latency == "fixed":
        count = count_spikes(units.spike_times_s, onset_s + start_s, onset_s + stop_s)
    else:
        latencies = unit_latencies(
            units.spike_times_s, onset_s, image_index, is_valid,
            window_length_s=stop_s - start_s, range_s=settings.latency_range_s, step_s=settings.latency_step_s, seed=seed,
        )
        latency_s = latencies.latency_s
        report(_latency_line(latencies))
        starts_s = np.where(np.isnan(latency_s), start_s, latency_s)
        count = count_spikes_after(units.spike_times_s, onset_s, starts_s, starts_s + (stop_s - start_s))
    reliability, snr = (_told(values) for values in response_quality(count, image_index, is_valid, seed=seed))
    window = f"from {1e3 * start_s:g} to {1e3 * stop_s:g} ms after image onset"
    if latency_s is not None:
        window = f"in {1e3 * (stop_s - start_s):g} ms from each unit's latency on"
    response_units = ResponseUnits(rows, starts_s, starts_s + (stop_s - start_s), _told(latency_s), reliability, snr)
    return response_units, SpikeCounts(np.arange(len(onset_s), dtype=np.uint32), count, f"spikes {window}")


def _latency_line(latencies: Latencies) -> str:
    found = np.isfinite(latencies.latency_s)
    line = f"latency: {found.sum()} of {len(found)} units"
    if found.any():
        line += f", median {1e3 * np.median(latencies.latency_s[found]):g} ms"
    why = Counter(reason for reason in latencies.reason if reason)
    return "; ".join([line, *(f"{n} keep the window: {reason}" for reason, n in why.items())])


def _told(values: Float[np.ndarray, "unit"] | None) -> Float[np.ndarray, "unit"] | None:
    """None where no unit has a value: what could not be computed is absent."""
    return None if values is None or np.isnan(values).all() else values
