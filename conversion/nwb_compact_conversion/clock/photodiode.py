"""When the screen became light and dark: edges of one analog channel, read chunk by chunk.

The channel counts as light once it passes three quarters of the way from dark to light, and as dark once it is back to one quarter (a
Schmitt trigger), so noise makes no second edge. A screen that flickers is dark between its frames; therefore darkness counts only after
it has lasted one video frame. Two flashes with less than a frame of darkness between them are one.

An edge is where the channel crossed the threshold, halfway unless told otherwise, on the straight line between two samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.recorded import Events
from nwb_compact_conversion.session_yaml import Alignment

CHUNK_SAMPLES = 1_000_000
"""Samples in memory at a time."""
LEVEL_SAMPLES = 2_000_000
"""Samples, evenly spaced over the recording, that the dark and the light level are taken from."""
ARTEFACTS = 1e-5
"""Share of samples at either end that no level is taken from, so that single artefacts set none."""
CONTRAST = 8.0
"""Light and dark differ by at least so many robust standard deviations of the noise within a level."""
HYSTERESIS = 0.5
"""How far from the threshold to a level the channel must come to count as having reached it."""


def photodiode_edges(recording: BaseRecording, settings: Alignment) -> Events:
    """Rises (code 1) and falls (code 0) of a photodiode, on the recording's clock.

    Where light lowers the voltage, its onset is a fall: `settings.edge: falling`.

    Parameters
    ----------
    recording
        One channel, any number of segments. No edge is made between segments.
    settings
        `threshold` in the channel's unit (microvolts where the channel has gains, as read otherwise), and `frame_rate_hz`.

    Raises
    ------
    NwbCompactError
        If there is more than one channel, the channel is flat, or the threshold is not between dark and light.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> trace = np.repeat([0.0, 5.0, 0.0], [500, 200, 300])[:, None]
    >>> edges = photodiode_edges(NumpyRecording([trace], sampling_frequency=1000.0), Alignment())
    >>> edges.time_s, edges.code
    (array([0.4995, 0.6995]), array([1, 0]))
    """
    if recording.get_num_channels() != 1:
        raise NwbCompactError(
            "photodiode", found=f"{recording.get_num_channels()} channels", expected="one", next_step="name it as alignment.channel"
        )
    dark, light = _levels(recording)
    threshold = (dark + light) / 2 if settings.threshold is None else settings.threshold
    if not dark < threshold < light:
        raise NwbCompactError(
            "alignment.threshold", found=f"{threshold:g}", expected=f"a level between dark ({dark:.5g}) and light ({light:.5g})",
            next_step="give one in the unit of the channel, or leave it out",
        )
    levels = _Levels(threshold - HYSTERESIS * (threshold - dark), threshold, threshold + HYSTERESIS * (light - threshold))
    found = [_edges(recording, segment, levels, settings.frame_rate_hz) for segment in range(recording.get_num_segments())]
    return Events(np.concatenate([time_s for time_s, _ in found]), np.concatenate([code for _, code in found]))


@dataclass(frozen=True)
class _Levels:
    low: float
    middle: float
    high: float


def _levels(recording: BaseRecording) -> tuple[float, float]:
    """Dark and light: two medians, on either side of the point halfway between them, starting from the extremes.

    Started there they find flashes that are rare, where a split by the size of the two groups would cut the noise in half.
    """
    total = sum(recording.get_num_samples(segment) for segment in range(recording.get_num_segments()))
    step = max(1, total // LEVEL_SAMPLES)
    parts = [trace[::step].copy() for segment in range(recording.get_num_segments()) for _, trace in _chunks(recording, segment)]
    level = np.concatenate([part[np.isfinite(part)] for part in parts]) if parts else np.zeros(0)
    if not len(level):
        raise _flat("no samples")
    dark, light = (float(value) for value in np.quantile(level, [ARTEFACTS, 1 - ARTEFACTS]))
    for _ in range(20):
        below = level <= (dark + light) / 2
        if below.all() or not below.any():
            break
        before, (dark, light) = (dark, light), (float(np.median(level[below])), float(np.median(level[~below])))
        if before == (dark, light):
            break
    below = level <= (dark + light) / 2
    noise = 1.4826 * float(np.median(np.abs(level - np.where(below, dark, light))))
    if light - dark <= CONTRAST * noise or light == dark:
        raise _flat(f"levels {dark:.5g} and {light:.5g} with noise of {noise:.3g}")
    return dark, light


def _flat(found: str) -> NwbCompactError:
    return NwbCompactError(
        "photodiode", found=f"a flat channel ({found})", expected="a dark and a light level",
        next_step="name another channel as alignment.channel, or align with method: events",
    )


def _chunks(recording: BaseRecording, segment: int) -> Iterator[tuple[int, Float[np.ndarray, "sample"]]]:
    """First sample and voltage of each chunk."""
    scaled = recording.has_scaleable_traces()
    for start in range(0, recording.get_num_samples(segment), CHUNK_SAMPLES):
        trace = recording.get_traces(segment_index=segment, start_frame=start, end_frame=start + CHUNK_SAMPLES, return_in_uV=scaled)
        yield start, trace[:, 0].astype(np.float64)


def _edges(
    recording: BaseRecording, segment: int, levels: _Levels, frame_rate_hz: float
) -> tuple[Float[np.ndarray, "edge"], Integer[np.ndarray, "edge"]]:
    """Times and codes of one segment."""
    sample, code = _crossings(_chunks(recording, segment), levels)
    # A fall that is followed by a rise within a frame was a flicker: neither counts.
    short = np.zeros(len(sample), bool)
    short[:-1] = (code[:-1] == 0) & (np.diff(sample) < recording.sampling_frequency / frame_rate_hz)
    kept = ~(short | np.roll(short, 1))
    sample, code = sample[kept], code[kept]
    whole = np.floor(sample).astype(np.int64)
    start_s = np.asarray(recording.sample_index_to_time(whole, segment_index=segment), np.float64)
    return start_s + (sample - whole) / recording.sampling_frequency, code


def _crossings(
    chunks: Iterator[tuple[int, Float[np.ndarray, "sample"]]], levels: _Levels
) -> tuple[Float[np.ndarray, "edge"], Integer[np.ndarray, "edge"]]:
    """Where the trigger switched, as fractions of samples: for each switch the last crossing of the middle before it."""
    sample, code = [np.zeros(0)], [np.zeros(0, np.int64)]
    last, is_light, crossed = np.zeros(0), False, {0: np.zeros(0), 1: np.zeros(0)}
    for start, trace in chunks:
        if not len(last):
            is_light = bool(trace[0] > levels.middle)
        joined = np.concatenate([last, trace])
        first = start - len(last)
        above = joined > levels.middle
        for way, switched in ((1, ~above[:-1] & above[1:]), (0, above[:-1] & ~above[1:])):
            at = np.flatnonzero(switched)
            part = (levels.middle - joined[at]) / (joined[at + 1] - joined[at])
            crossed[way] = np.concatenate([crossed[way][-1:], first + at + part])
        # +1 at or over the upper level, 0 at or under the lower, between them what was last.
        told = np.where(trace >= levels.high, 1, np.where(trace <= levels.low, 0, -1))
        told = np.concatenate([[int(is_light)], told])
        state = told[np.maximum.accumulate(np.where(told >= 0, np.arange(len(told)), 0))]
        at = np.flatnonzero(np.diff(state))
        became = state[at + 1]
        where = np.empty(len(at))
        for way in (0, 1):
            before = np.searchsorted(crossed[way], start + at[became == way], side="right") - 1
            where[became == way] = crossed[way][before]
        sample.append(where)
        code.append(became)
        last, is_light = joined[-1:], bool(state[-1])
    return np.concatenate(sample), np.concatenate(code)
