"""SpikeInterface's sorters, run on one array in silence; what they need and what they may be told."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from spikeinterface import BaseRecording, BaseSorting, NumpySorting, concatenate_recordings

from nwb_compact import __version__
from nwb_compact.errors import NwbCompactError, nearest, one_line
from nwb_compact_conversion.session_yaml import Sorting
from nwb_compact_conversion.sources.reading import channel_names
from nwb_compact_conversion.spikes.filtering import WIDE_UM, Array, check_positions, pitch_um, prepared
from nwb_compact_conversion.spikes.jobs import job_kwargs, silence
from nwb_compact_conversion.spikes.threshold import crossings, noise_sd
from nwb_compact_conversion.spikes.unit_quality import Measured, joined, measure_sorted

INSTALL = {"kilosort4": "pip install kilosort"}
"""What to install for a sorter that this program does not bring along; others come with its dependencies."""
SEAM_S = 0.002
"""A spike so near to where two stretches were joined is seen with a piece of either: sorters look at 1 to 2.5 ms around a peak."""
SAVED_AT_A_TIME = "32M"
"""Bytes of filtered voltage that a thread writes at a time: SpikeInterface collects garbage after each piece, which takes 0.2 s."""
QUIET_SD, QUIET_HZ = 5.0, 0.1
"""A channel where fewer crossings a second are deeper than so many robust standard deviations holds no unit: sorters look no higher, and
spykingcircus2 keeps no unit that fires less. Noise alone crosses 0.013 times a second (Rice 1944: 3550 Hz exp(-5^2 / 2) in this band)."""
OURS: Mapping[str, dict[str, Any]] = {
    # The band and the reference are ours already; whitening is theirs. Nothing is kept in memory or written twice.
    "spykingcircus2": {"apply_preprocessing": False, "cache_preprocessing": {"mode": "no-cache"}},
    "lupin": {"preprocessing_dict": {}, "cache_preprocessing_mode": "no-cache", "save_array": False, "seed": 0},
    "tridesclous2": {"preprocessing_dict": {}, "cache_preprocessing_mode": "no-cache", "save_array": False, "seed": 0},
    "kilosort4": {"do_CAR": False},
}
"""What differs from a sorter's defaults unless sorting.sorter_params says otherwise."""


def check_sorter(settings: Sorting) -> None:
    """Raise `NwbCompactError` where the sorter is not installed or does not know a parameter, naming the nearest it knows."""
    if settings.sorter == "threshold":
        known: Mapping[str, Any] = {}
    else:
        _check_installed(settings.sorter)
        known = _defaults(settings.sorter)
    for name, value in settings.sorter_params.items():
        _check_parameter(settings, name, known)
        if isinstance(value, dict):
            for inner in value:
                _check_parameter(settings, f"{name}.{inner}", {f"{name}.{one}": None for one in known[name] or {}})


def sorter_parameters(settings: Sorting) -> dict[str, str]:
    """Every parameter of the sorting and its value, nested names joined by dots."""
    if settings.sorter == "threshold":
        depth = "threshold_mad" if settings.threshold_uv is None else "threshold_uv"
        return {name: f"{getattr(settings, name):g}" for name in (depth, "dead_time_s")}
    return {name: str(value) for name, value in _flat(_parameters(settings)).items()}


def sorter_version(settings: Sorting) -> str:
    """The sorter's own version; `threshold` is part of this program."""
    return __version__ if settings.sorter == "threshold" else str(_sorter(settings.sorter).get_sorter_version())


def run_array(array: Array, settings: Sorting, scratch: Path, n_jobs: int, report: Callable[[str], None]) -> Measured:
    """Units of one array. Where contacts are so far apart that none shares spikes with another, each channel is sorted alone.

    Raises
    ------
    NwbCompactError
        If positions of contacts are not known, the sorter fails or finds nothing (`NoUnits`), or there is too little space for the
        filtered voltage.
    """
    check_positions([array], settings)
    pitch, n = pitch_um(array.recording), array.recording.get_num_channels()
    wide = pitch >= WIDE_UM
    if wide and settings.sorter == "kilosort4":
        found = "a single contact" if n == 1 else f"contacts that are {pitch:g} um apart"
        next_step = "choose spykingcircus2 or threshold"
        raise NwbCompactError("kilosort4", found=found, expected="the contacts of a dense probe", next_step=next_step)
    if wide and n > 1:
        of = "" if array.name is None else f"array {array.name}: "
        report(f"{of}contacts {pitch:g} um apart share no spikes: each of {n} channels is sorted by itself")
    with _saved(array, settings, scratch, n_jobs) as voltage:
        seams = _seams(array.recording)
        if wide:
            return _each_channel(voltage, seams, settings, scratch, n_jobs, report)
        return _run(voltage, seams, settings, scratch, n_jobs)


class SorterFailed(NwbCompactError):
    """A sorter raised an exception."""


class NoUnits(SorterFailed):
    """A sorter found nothing, or failed on voltage in which there is nothing to find."""


# Running --------------------------------------------------------------------------------------------------------------


@contextmanager
def _saved(array: Array, settings: Sorting, scratch: Path, n_jobs: int) -> Iterator[BaseRecording]:
    """The prepared voltage as a file, which sorters need, in one stretch; gone afterwards."""
    recorded_as = array.recording.get_dtype()
    # Whole steps are fine enough: they are far smaller than the noise in any recording of spikes.
    dtype = str(recorded_as) if recorded_as.kind == "i" else "float32"
    filtered = prepared(array, settings, dtype)
    whole = filtered if filtered.get_num_segments() == 1 else concatenate_recordings([filtered])
    needed = whole.get_num_samples() * whole.get_num_channels() * np.dtype(dtype).itemsize
    free = shutil.disk_usage(scratch).free
    if needed > free:
        found, expected = f"{free / 1e9:.1f} GB free", f"{needed / 1e9:.1f} GB for the filtered voltage"
        raise NwbCompactError(scratch, found=found, expected=expected, next_step="free some, or name another folder with --scratch")
    folder = scratch / "filtered"
    try:
        yield _written(whole, folder, n_jobs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _written(recording: BaseRecording, folder: Path, n_jobs: int) -> BaseRecording:
    try:
        with silence():
            return recording.save(folder=folder, format="binary", overwrite=True, **job_kwargs(n_jobs, chunk_memory=SAVED_AT_A_TIME))
    except OSError as error:
        next_step = "name a folder with more space with --scratch, or look whether the recording can be read"
        raise NwbCompactError(folder, found=one_line(error), expected="the filtered voltage", next_step=next_step) from error


def _each_channel(
    voltage: BaseRecording, seams: Integer[np.ndarray, "seam"], settings: Sorting, scratch: Path, n_jobs: int,
    report: Callable[[str], None],
) -> Measured:
    found, failed = [], []
    for row, (channel, name) in enumerate(zip(voltage.channel_ids, channel_names(voltage), strict=True)):
        alone = voltage.select_channels([channel])
        alone.set_dummy_probe_from_locations(np.zeros((1, 2)))
        try:
            units = _run(alone, seams, settings, scratch, n_jobs)
        except SorterFailed as error:
            # A channel without a neuron is common, and some sorters raise an exception where they find nothing.
            failed.append(error)
            report(f"channel {name}: {error.fault.found}")
            continue
        found.append(replace(units, channel=np.full(len(units.channel), row)))
    if not found:
        raise next((error for error in failed if not isinstance(error, NoUnits)), failed[-1])
    return joined(found)


def _run(voltage: BaseRecording, seams: Integer[np.ndarray, "seam"], settings: Sorting, scratch: Path, n_jobs: int) -> Measured:
    folder = scratch / "sorter"
    try:
        from spikeinterface.sorters import run_sorter

        with silence():
            sorting = run_sorter(
                settings.sorter, voltage, folder=folder, remove_existing_folder=True, verbose=False,
                **_parameters(settings) | _jobs(settings.sorter, n_jobs),
            )
            trains, dropped = _without_seams(sorting, seams, round(SEAM_S * voltage.sampling_frequency))
            if not trains:
                raise _no_units(settings, "no unit")
            kept = NumpySorting.from_unit_dict([trains], voltage.sampling_frequency)
            return replace(measure_sorted(kept, voltage, n_jobs=n_jobs), at_seams=dropped)
    except NwbCompactError:
        raise
    except Exception as error:
        said = _last_line(folder, error)
        if _is_quiet(voltage, settings, n_jobs):  # most sorters raise an exception where there is nothing to cluster
            raise _no_units(settings, f"no unit and hardly a spike deeper than {QUIET_SD:g} standard deviations; {said}") from error
        next_step = "correct sorting.sorter_params, or choose another sorter"
        raise SorterFailed(settings.sorter, found=said, expected="units", next_step=next_step) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_units(settings: Sorting, found: str) -> NoUnits:
    next_step = "lower its detection threshold in sorting.sorter_params, look at the voltage, or try threshold"
    return NoUnits(settings.sorter, found=found, expected="at least one", next_step=next_step)


def _is_quiet(voltage: BaseRecording, settings: Sorting, n_jobs: int) -> bool:
    """Whether no channel has spikes that a sorter could find."""
    noise = noise_sd(voltage)
    deep = crossings(voltage, QUIET_SD * noise, settings.dead_time_s, noise, n_jobs=n_jobs)
    return max(len(frames) for frames in deep.frames) < QUIET_HZ * voltage.get_total_duration()


def _last_line(folder: Path, error: Exception) -> str:
    """What the sorter itself said last."""
    log = folder / "spikeinterface_log.json"
    trace = json.loads(log.read_text(encoding="utf-8")).get("error_trace") if log.is_file() else None
    return f"a failure ({one_line(trace[-1] if trace else error)})"


def _seams(recording: BaseRecording) -> Integer[np.ndarray, "seam"]:
    """First sample of each stretch but the first, once they are joined."""
    return np.cumsum([recording.get_num_samples(segment) for segment in range(recording.get_num_segments())])[:-1]


def _without_seams(
    sorting: BaseSorting, seams: Integer[np.ndarray, "seam"], window: int
) -> tuple[dict[int, Integer[np.ndarray, "_"]], int]:
    """Spike trains that have a spike, numbered from 0, and how many spikes were too near to a seam."""
    trains: dict[int, Integer[np.ndarray, "_"]] = {}
    dropped = 0
    for unit in sorting.unit_ids:
        frames = np.sort(sorting.get_unit_spike_train(unit_id=unit))
        near = np.zeros(len(frames), bool)
        for seam in seams:
            near |= np.abs(frames - seam) <= window
        dropped += int(near.sum())
        if not near.all():
            trains[len(trains)] = frames[~near]
    return trains, dropped


# Parameters -----------------------------------------------------------------------------------------------------------


def _parameters(settings: Sorting) -> dict[str, Any]:
    """The sorter's defaults, what this program changes, what the settings change; a dict changes single entries."""
    parameters = _defaults(settings.sorter)
    for change in (OURS[settings.sorter], settings.sorter_params):
        for name, value in change.items():
            inner = parameters[name]
            parameters[name] = {**inner, **value} if isinstance(value, dict) and isinstance(inner, dict) else value
    return parameters


def _defaults(sorter: str) -> dict[str, Any]:
    """Without those that say how the work is spread."""
    from spikeinterface.core.job_tools import job_keys

    every = _sorter(sorter).default_params()
    return {name: value for name, value in every.items() if name not in (*job_keys, "job_kwargs")}


def _jobs(sorter: str, n_jobs: int) -> dict[str, Any]:
    return {"job_kwargs": job_kwargs(n_jobs)} if "job_kwargs" in _sorter(sorter).default_params() else job_kwargs(n_jobs)


def _sorter(name: str) -> Any:
    from spikeinterface.sorters import sorter_dict

    return sorter_dict[name]


def _check_installed(sorter: str) -> None:
    if not _sorter(sorter).is_installed():
        next_step = f"{INSTALL.get(sorter, 'install nwb-compact again')}, or choose spykingcircus2"
        found = f"{sorter}, which is not installed"
        raise NwbCompactError("sorting.sorter", found=found, expected="an installed sorter", next_step=next_step)


def _check_parameter(settings: Sorting, name: str, known: Mapping[str, Any]) -> None:
    if name in known:
        return
    next_step = nearest(name, list(known)) if known else "remove it; threshold_mad and dead_time_s are settings of sorting itself"
    raise NwbCompactError(
        f"sorting.sorter_params.{name}", found=f"no such parameter of {settings.sorter}", expected="one that it has", next_step=next_step
    )


def _flat(parameters: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) and value else {f"{above}{name}": value}
    return flat
