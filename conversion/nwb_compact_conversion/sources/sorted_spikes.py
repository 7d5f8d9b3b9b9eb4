"""Units that come sorted, of the programs that sorters and their users leave their work in.

Phy and Kilosort folders are read by NeuroConv, what SpikeInterface saved by SpikeInterface, .nev and .plx files by the
modules of those devices. Nothing is unpickled, and a params.py is only read where it holds plain values: its readers run it.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer
from spikeinterface import BaseRecording, BaseSorting

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.session import Units
from nwb_compact_conversion.electrodes import electrodes_of
from nwb_compact_conversion.recorded import Recorded, observed_s
from nwb_compact_conversion.sources.phy_folder import electrodes_of_phy, read_kilosort, read_phy
from nwb_compact_conversion.sources.recording import read_events

NOT_PROPERTIES = {"id", "electrode_group", "waveforms", c.UNIT_NAME, c.SPIKE_TIMES, c.OBS_INTERVALS, c.ELECTRODES}
NOT_PROPERTIES |= {c.WAVEFORM_MEAN, c.WAVEFORM_SD}
"""Names that mean something else in an NWB units table."""
LABELS = ("quality", "KSLabel")
"""Where readers put the label of a unit: what a person said in phy, then what Kilosort said."""
NO_LABEL = ("", "nan", "None")


def read_sorted(
    path: Path, *, format: str | None, sampling_frequency_hz: float | None, exclude_labels: tuple[str, ...] = ("noise",),
    keep_unsorted: bool = True, events_csv: Path | None = None,
) -> Recorded:
    """Units that were sorted before, on the clock of the recording they were found in.

    Parameters
    ----------
    path
        A phy or Kilosort folder, a folder of SpikeInterface's `sorting.save` (or a SortingAnalyzer's), its .npz file, a .nev or
        a .plx.
    format
        One of `FORMATS`; None tells by what the path holds.
    sampling_frequency_hz
        In place of the rate that a folder or .npz gives, for example a calibrated one; .nev and .plx tell their own clock.
    exclude_labels
        Units that a person (phy's group) or else Kilosort (KSLabel) labelled so are left out; the other labels are the units'
        property `label`, `unsorted` where nobody gave one.
    keep_unsorted
        Whether threshold crossings that nobody sorted (sort code 0 of a .nev or .plx) are a unit of their channel.
    events_csv
        Digital events, as of `read_recording`: columns time_s (seconds from the first sample of the recording that was sorted), code
        and, where there are several lines, channel.

    Returns
    -------
    Recorded
        Units in the order of the source, with their further columns as properties. Of phy and Kilosort also the channels as
        electrodes, with position and shank, and each unit's electrode, from the column `ch` or its template.

    Raises
    ------
    NwbCompactError
        If the source is none of these or damaged, tells no rate, has a unit twice, a spike before the recording's first
        sample, several segments (their distance in time is not told), or spikes of clusters that its tables leave out; if the
        file of events is no such table, or is given for a .nev or .plx that has its own.

    Notes
    -----
    Spikes that are not in order are put in order; spikes behind the end of the recording are kept, since these sources do not
    tell the end. Kilosort writes both.

    Examples
    --------
    >>> read_sorted(Path("no-such-folder"), format=None, sampling_frequency_hz=None)
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-folder: found no such file or folder, expected sorted units. Next: correct the path
    """
    if not path.exists():
        raise NwbCompactError(path, found="no such file or folder", expected="sorted units", next_step="correct the path")
    name = format or _format_of(path)
    if name not in FORMATS:
        known = list(FORMATS)
        raise NwbCompactError(path, found=f"format '{name}'", expected=f"one of {', '.join(known)}", next_step=nearest(name, known))
    if name in DEVICES:
        if sampling_frequency_hz is not None:
            found, expected = "a sampling frequency for it", f"none: a {path.suffix} file tells its clock"
            raise NwbCompactError(path, found=found, expected=expected, next_step="leave it out")
        return _with_events(_of_device(path, name, keep_unsorted=keep_unsorted), events_csv)
    reader, sorting = _opened(path, name)
    units = _units(path, sorting, sampling_frequency_hz or float(sorting.sampling_frequency))
    files = (path,) if path.is_file() else tuple(sorted(file for file in path.rglob("*") if _is_kept(file)))
    recorded = Recorded(files=files, reader=reader, units=units)
    if name in ("phy", "kilosort"):
        recorded = electrodes_of_phy(path, recorded)
    return _with_events(_without(recorded, exclude_labels), events_csv)


def _with_events(recorded: Recorded, events_csv: Path | None) -> Recorded:
    if events_csv is None:
        return recorded
    if recorded.events:
        found, expected = "events beside a recording that has its own", f"those of {recorded.files[0].name}"
        raise NwbCompactError(events_csv, found=found, expected=expected, next_step="leave --events out")
    return replace(recorded, files=(*recorded.files, events_csv), events=read_events(events_csv))


def _format_of(path: Path) -> str:
    by_suffix = {".nev": "blackrock", ".plx": "plexon", ".npz": "npz"}
    if path.is_file():
        if path.suffix.lower() not in by_suffix:
            expected = "a phy, Kilosort or SpikeInterface folder, or a .nev, .plx or .npz file"
            raise NwbCompactError(path, found=f"a {path.suffix or 'file without suffix'}", expected=expected, next_step="correct the path")
        return by_suffix[path.suffix.lower()]
    marks = {"spike_clusters.npy": "phy", "spike_templates.npy": "kilosort", "spike_times.npy": "kilosort"}
    marks |= {"numpysorting_info.json": "spikeinterface", "npz.json": "spikeinterface", "sorting": "spikeinterface"}
    for mark, name in marks.items():
        if (path / mark).exists():
            return name
    found = f"a folder without {', '.join(marks)}"
    raise NwbCompactError(path, found=found, expected="a phy, Kilosort or SpikeInterface folder", next_step="correct the path")


# Opening ----------------------------------------------------------------------------------------------------------------


def _opened(path: Path, name: str) -> tuple[str, BaseSorting]:
    """The sorting, and what read it. A reader may fail in any way on a file that is not its own."""
    try:
        return FORMATS[name](path)
    except NwbCompactError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        found = f"what its reader cannot read ({type(error).__name__}: {said})"
        raise NwbCompactError(path, found=found, expected=f"whole {name} files", next_step="export or copy them again") from error


def _spikeinterface(path: Path) -> tuple[str, BaseSorting]:
    # Not `spikeinterface.load`: it imports and runs whatever class a file names.
    from spikeinterface.core import NumpyFolderSorting
    from spikeinterface.core.core_tools import load_properties_from_folder

    folder = path / "sorting" if (path / "sorting").is_dir() else path
    for file_path in (folder / "properties").glob("*.npy"):
        try:
            np.load(file_path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:  # SpikeInterface would unpickle it, which can run code
            next_step = "remove that file, or save the property as text or numbers"
            raise NwbCompactError(file_path, found="a pickled property", expected="text or numbers", next_step=next_step) from error
    if (folder / "numpysorting_info.json").is_file():
        return f"SpikeInterface {version('spikeinterface')} NumpyFolderSorting", NumpyFolderSorting(folder)
    reader, sorting = _npz(folder / "sorting_cached.npz")
    load_properties_from_folder(folder / "properties", sorting)
    return reader, sorting


def _npz(path: Path) -> tuple[str, BaseSorting]:
    """The arrays that SpikeInterface's NpzSortingExtractor writes; its own reader leaves the file open for good."""
    from spikeinterface import NumpySorting

    with np.load(path, allow_pickle=False) as kept:
        segments = range(int(kept["num_segment"][0]))
        sample, label = ([kept[f"spike_{of}_seg{segment}"] for segment in segments] for of in ("indexes", "labels"))
        sorting = NumpySorting.from_samples_and_labels(sample, label, float(kept["sampling_frequency"][0]), unit_ids=kept["unit_ids"])
    return f"SpikeInterface {version('spikeinterface')} NumpySorting", sorting


def _of_device(path: Path, name: str, *, keep_unsorted: bool) -> Recorded:
    recorded = DEVICES[name](path, keep_unsorted)
    if recorded.units is None or not len(recorded.units):
        next_step = "sort it, or convert its voltage" + ("" if keep_unsorted else ", or set sorting.curation.keep_unsorted: true")
        raise NwbCompactError(path, found="no sorted unit", expected="at least one", next_step=next_step)
    return recorded if recorded.recording is None else _without_voltage(recorded, recorded.units, recorded.recording)


def _without_voltage(recorded: Recorded, units: Units, recording: BaseRecording) -> Recorded:
    """Who converts sorted units wants neither to sort the voltage beside them nor to keep it."""
    observed = observed_s(recording) if units.obs_intervals_s is None else units.obs_intervals_s
    return replace(recorded, recording=None, electrodes=electrodes_of(recording), units=replace(units, obs_intervals_s=observed))


def _blackrock(path: Path, keep_unsorted: bool) -> Recorded:
    from nwb_compact_conversion.sources.blackrock import read_blackrock

    return read_blackrock(path, keep_unsorted=keep_unsorted)


def _plexon(path: Path, keep_unsorted: bool) -> Recorded:
    from nwb_compact_conversion.sources.plexon import read_plexon

    return read_plexon(path, keep_unsorted=keep_unsorted)


DEVICES: dict[str, Callable[[Path, bool], Recorded]] = {"blackrock": _blackrock, "plexon": _plexon}
FORMATS: dict[str, Callable] = {"phy": read_phy, "kilosort": read_kilosort, "spikeinterface": _spikeinterface, "npz": _npz, **DEVICES}
"""Format names and what reads them."""


def _is_kept(file: Path) -> bool:
    """Whether a file of the folder belongs to the record: not caches, which viewers write."""
    return file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in file.parts[-3:])


# Units ------------------------------------------------------------------------------------------------------------------


def _units(path: Path, sorting: BaseSorting, rate_hz: float) -> Units:
    if sorting.get_num_segments() != 1:
        found = f"{sorting.get_num_segments()} segments, whose distance in time is not told"
        raise NwbCompactError(path, found=found, expected="one", next_step="convert from the recording, or sort it as one segment")
    name = tuple(str(unit) for unit in sorting.unit_ids)
    if twice := sorted({one for one in name if name.count(one) > 1}):
        raise NwbCompactError(path, found=f"unit '{twice[0]}' twice", expected="each unit once", next_step="rename one of the two")
    if not name:
        raise NwbCompactError(path, found="no unit", expected="at least one", next_step="sort the recording again")
    given = {key: np.asarray(sorting.get_property(key)) for key in sorting.get_property_keys()}
    properties = {key: _plain(values) for key, values in given.items() if values.ndim == 1 and key not in NOT_PROPERTIES}
    if labels := [properties.pop(key).astype(str) for key in LABELS if key in properties]:
        properties["label"] = _first_label(labels)
    spikes = tuple(np.sort(train) / rate_hz for train in _trains(path, sorting))
    return Units(name, spikes, resolution_s=1 / rate_hz, properties=properties)


def _trains(path: Path, sorting: BaseSorting) -> list[Integer[np.ndarray, "_"]]:
    """Samples of each unit's spikes, all units in one pass: reading them one by one passes over all spikes for every unit."""
    spikes = sorting.to_spike_vector()
    sample = np.asarray(spikes["sample_index"])
    if len(sample) and sample.min() < 0:
        found = f"a spike {-sample.min()} samples before the first sample of the recording"
        raise NwbCompactError(path, found=found, expected="spikes within the recording", next_step="export the sorting again")
    by_unit = np.argsort(spikes["unit_index"], kind="stable")
    ends = np.cumsum(np.bincount(spikes["unit_index"], minlength=len(sorting.unit_ids)))
    return np.split(sample[by_unit], ends[:-1])


def _plain(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind in "biuf" else values.astype(str)


def _first_label(labels: list[np.ndarray]) -> np.ndarray:
    """The first label of each unit that says something."""
    said = [[one for one in of_unit if one not in NO_LABEL] for of_unit in zip(*labels, strict=True)]
    return np.array([one[0] if one else "unsorted" for one in said])


def _without(recorded: Recorded, labels: tuple[str, ...]) -> Recorded:
    units = recorded.units
    if units is None or units.spike_times_s is None or "label" not in units.properties:
        return recorded
    kept = ~np.isin(units.properties["label"], labels)
    if not kept.any():
        found = f"{len(kept)} units, all labelled {' or '.join(labels)}"
        raise NwbCompactError(recorded.files[0].parent, found=found, expected="another label", next_step="label the units, or keep these")
    return replace(recorded, units=_subset(units, kept))


def _subset(units: Units, kept: Bool[np.ndarray, "unit"]) -> Units:
    assert units.spike_times_s is not None
    spikes: tuple[Float[np.ndarray, "_"], ...] = tuple(train for train, keep in zip(units.spike_times_s, kept, strict=True) if keep)
    return replace(
        units,
        name=tuple(name for name, keep in zip(units.name, kept, strict=True) if keep),
        spike_times_s=spikes,
        electrode_index=None if units.electrode_index is None else units.electrode_index[kept],
        properties={key: values[kept] for key, values in units.properties.items()},
    )
