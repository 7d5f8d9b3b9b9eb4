"""From voltage to units: each array is prepared, sorted by SpikeInterface or by threshold, measured and curated.

Spike times come back on the recording's clock, with its gaps as gaps.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from spikeinterface import BaseRecording

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Units, Waveforms
from nwb_compact_conversion.recorded import observed_s
from nwb_compact_conversion.session_yaml import Sorting
from nwb_compact_conversion.sources.reading import channel_names
from nwb_compact_conversion.spikes.filtering import (
    ORDER,
    Array,
    arrays_of,
    check_bad_channels,
    check_band,
    check_positions,
    prepared,
    reference_of,
    without_bad_channels,
)
from nwb_compact_conversion.spikes.sorters import NoUnits, check_sorter, run_array, sorter_parameters, sorter_version
from nwb_compact_conversion.spikes.threshold import crossings, noise_sd
from nwb_compact_conversion.spikes.unit_quality import Measured, check_volts, joined, measure_crossings, meets

MIN_S = 1.0
"""Least voltage that noise can be told from."""


@dataclass(frozen=True, eq=False)
class Sorted:
    """What sorting gave."""

    units: Units
    record: Mapping[str, str]
    """What was done, as keys and values for the file."""


def sort_units(
    recording: BaseRecording, settings: Sorting, *, scratch: Path, n_jobs: int = 1, report: Callable[[str], None] = lambda line: None
) -> Sorted:
    """The units of a recording.

    Parameters
    ----------
    recording
        The voltage, unfiltered; a segment for each stretch without a gap. Channels of one `group_name` are sorted together.
    settings
        How; `sorter` other than none.
    scratch
        An existing folder with room for a filtered copy of the largest array; `threshold` writes nothing.
    n_jobs
        Threads.
    report
        Called with a line on each step.

    Returns
    -------
    Sorted
        Units named array-1, array-2, ... (unit-1, ... in a recording of one array), by `threshold` as their channel; with spike times
        (seconds, 0 at the first sample of the recording), quality metrics, mean waveforms (volts) and electrodes (rows of `recording`).

    Raises
    ------
    NwbCompactError
        If settings do not fit, a sorter other than `threshold` is not told where contacts are, the sorter is not installed or fails,
        or no unit is found or kept.

    Notes
    -----
    A recording with gaps is sorted as one, without its gaps, so that a unit keeps its name across them. Spikes within 2 ms of such a
    seam are artefacts and dropped.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> voltage = np.random.default_rng(0).normal(0, 5, (60_000, 1)).astype("float32")
    >>> voltage[500:60_000:1000] -= 80
    >>> recording = NumpyRecording([voltage], sampling_frequency=30_000.0)
    >>> found = sort_units(recording, Sorting(sorter="threshold", threshold_mad=8), scratch=Path())
    >>> len(found.units), len(found.units.spike_times_s[0]), found.record["sorting.units_kept"]
    (1, 60, '1')
    """
    check_settings(settings)
    _check_recording(recording, settings)
    bad: list[str] = []
    references: set[str] = set()
    names: list[str] = []
    measured: list[Measured] = []
    arrays = arrays_of(recording)
    check_positions(arrays, settings)
    for array in arrays:
        good, bad_here = without_bad_channels(array, settings)
        bad += bad_here
        references.add(reference_of(good, settings))
        try:
            found = _on_whole(_found(good, settings, scratch, n_jobs, report), good)
        except NoUnits as error:
            if array is arrays[-1] and not measured:
                raise
            report(f"array {array.name}: {error.fault.found}")
            continue
        report(_said(array, good, bad_here, found, settings))
        measured.append(found)
        names += _names(found, array, recording, settings)
    found, kept_names, dropped = _curated(joined(measured), names, settings, report)
    return Sorted(_units(found, kept_names, recording), _record(settings, bad, references) | dropped)


def check_settings(settings: Sorting) -> None:
    """Raise `NwbCompactError` where a sorting with these settings cannot begin: nothing to sort with, unknown parameters."""
    if settings.sorter == "none":
        found, expected = "none", "a sorter, since the recording has no sorted units"
        raise NwbCompactError("sorting.sorter", found=found, expected=expected, next_step="choose spykingcircus2 or threshold")
    check_sorter(settings)


# Stages ---------------------------------------------------------------------------------------------------------------


def _check_recording(recording: BaseRecording, settings: Sorting) -> None:
    check_band(recording, settings)
    check_bad_channels(recording, settings)
    duration_s = float(np.diff(observed_s(recording)).sum())
    if duration_s < MIN_S:
        found, next_step = f"{duration_s:.3g} s of voltage", "convert the whole recording"
        raise NwbCompactError("the recording", found=found, expected=f"at least {MIN_S:g} s", next_step=next_step)
    if settings.threshold_uv is not None and not recording.has_scaleable_traces():
        found, next_step = "a recording that does not say how many microvolts a step is", "use sorting.threshold_mad"
        raise NwbCompactError("sorting.threshold_uv", found=found, expected="a scale of the voltage", next_step=next_step)


def _found(array: Array, settings: Sorting, scratch: Path, n_jobs: int, report: Callable[[str], None]) -> Measured:
    if settings.sorter == "threshold":
        return _by_threshold(array, settings, n_jobs)
    return run_array(array, settings, scratch, n_jobs, report)


def _by_threshold(array: Array, settings: Sorting, n_jobs: int) -> Measured:
    filtered = prepared(array, settings)
    noise = noise_sd(filtered)
    fixed = settings.threshold_uv
    threshold = settings.threshold_mad * noise if fixed is None else fixed / filtered.get_channel_gains().astype(np.float64)
    return measure_crossings(crossings(filtered, threshold, settings.dead_time_s, noise, n_jobs=n_jobs), filtered)


def _on_whole(found: Measured, array: Array) -> Measured:
    return replace(found, channel=array.channel[found.channel])


def _names(found: Measured, array: Array, recording: BaseRecording, settings: Sorting) -> list[str]:
    if settings.sorter == "threshold":
        known = channel_names(recording)
        return [known[channel] for channel in found.channel]
    return [f"{array.name or 'unit'}-{number + 1}" for number in range(len(found.channel))]


def _curated(
    found: Measured, names: list[str], settings: Sorting, report: Callable[[str], None]
) -> tuple[Measured, list[str], dict[str, str]]:
    """The units that meet the criteria, their names, and what was dropped."""
    n = len(names)
    keep, missed = meets(found.metrics, settings.curation)
    why = ", ".join(f"{count} by {criterion}" for criterion, count in missed.items())
    if not keep.any():
        found_text = f"{n} units, of which none was kept ({why})" if n else "no unit"
        next_step = "relax sorting.curation, lower the threshold, or look at the voltage"
        raise NwbCompactError("sorting", found=found_text, expected="at least one unit", next_step=next_step)
    if found.mean_v is not None:
        check_volts(found.mean_v)
    report(f"units: {keep.sum()} of {n} kept" + (f"; dropped {why}" if why else ""))
    kept_names = [name for name, one in zip(names, keep, strict=True) if one]
    return found.part(keep), kept_names, {
        "sorting.units_found": str(n),
        "sorting.units_kept": str(len(kept_names)),
        "sorting.units_dropped": why or "none",
        "sorting.spikes_dropped_at_gaps": str(found.at_seams),
    }


def _units(found: Measured, names: Sequence[str], recording: BaseRecording) -> Units:
    rate_hz, channels = recording.sampling_frequency, np.array(channel_names(recording))
    return Units(
        name=tuple(names),
        spike_times_s=tuple(_seconds(frames, recording) for frames in found.frames),
        obs_intervals_s=observed_s(recording),
        resolution_s=1 / rate_hz,
        electrode_index=found.channel.astype(np.uint32),
        properties={**found.metrics, c.CHANNEL_NAME: channels[found.channel]},
        waveforms=None if found.mean_v is None else Waveforms(found.mean_v, found.sd_v, rate_hz, found.before / rate_hz),
    )


def _seconds(frames: Integer[np.ndarray, "_"], recording: BaseRecording) -> Float[np.ndarray, "_"]:
    """Samples counted through all segments, on the clock of the recording."""
    first = np.cumsum([0] + [recording.get_num_samples(segment) for segment in range(recording.get_num_segments() - 1)])
    segment = np.searchsorted(first, frames, side="right") - 1
    return observed_s(recording)[segment, 0] + (frames - first[segment]) / recording.sampling_frequency


# What was done --------------------------------------------------------------------------------------------------------


def _said(array: Array, good: Array, bad: Sequence[str], found: Measured, settings: Sorting) -> str:
    where = "" if array.name is None else f"array {array.name}: "
    without = f" without {', '.join(bad)}" if bad else ""
    return f"{where}{settings.sorter} found {len(found.channel)} units on {len(good.channel)} channels{without}"


def _record(settings: Sorting, bad: Sequence[str], references: Collection[str]) -> dict[str, str]:
    upper = "no upper edge" if settings.freq_max_hz is None else f"{settings.freq_max_hz:g} Hz"
    return {
        "sorting.sorter": settings.sorter,
        "sorting.sorter_version": sorter_version(settings),
        "sorting.spikeinterface": version("spikeinterface"),
        "sorting.filter": f"{settings.filter} Butterworth of order {ORDER[settings.filter]}, {settings.freq_min_hz:g} Hz to {upper}",
        "sorting.common_reference": ", ".join(sorted(references)),
        "sorting.bad_channels": ", ".join(bad) or "none",
        **{f"sorting.parameters.{name}": value for name, value in sorter_parameters(settings).items()},
    }
