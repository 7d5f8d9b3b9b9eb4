"""Anything that SpikeInterface reads or saved, with digital events from a CSV."""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.nwb_io import open_hdf5
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.reading import check_ascending, ends_early, existing_file, from_zero, name_channels, read_by, reading
from nwb_compact_conversion.text_table import read_known_columns

EXPECTED = "a folder or .zarr that SpikeInterface saved, an .nwb with voltage, or a path and --format"
EVENTS_EXPECTED = "a CSV with columns time_s, code and perhaps channel"
NEXT_EVENTS = "correct the file of events"
ONE_LINE = "events"
"""Name of the events of a CSV without channels."""
PICKLED = (".pkl", ".pickle")
READABLE_CLASS = re.compile(r"spikeinterface\.[\w.]+\.\w*Recording\w*")
"""Classes that a saved recording may name. SpikeInterface would call whatever a file names, with whatever arguments."""
ZARR_METADATA = (".zarray", ".zmetadata", "zarr.json")
"""Where a .zarr says how its arrays are stored; .zmetadata, which is read before the others, repeats them all."""
PICKLE_CODECS = ("pickle", "numcodecs.pickle")
OBJECT = re.compile(r"[|<>=]?O\d*")
"""Type of an array of Python objects."""
OBJECT_CODECS = ("vlen-utf8", "vlen-bytes", "vlen-array", "json", "json2", "msgpack", "msgpack2")
"""Ways to store such an array that give only text, numbers and lists when they are read."""


def read_recording(path: Path, *, format_name: str | None = None, events_csv: Path | None = None) -> Recorded:
    """One recording that SpikeInterface knows.

    Parameters
    ----------
    path
        Without `format_name`: a folder or .zarr from `recording.save`, a .json from `recording.dump`, or an .nwb with one
        ElectricalSeries. With it: what that reader takes.
    format_name
        A reader of `spikeinterface.extractors`, without read_: mcsraw, neuralynx, tdt, ...
    events_csv
        Columns time_s (seconds on the clock by which the recording tells its times), code (a whole number) and, where there are
        several lines, channel.

    Raises
    ------
    NwbCompactError
        If a file is absent or damaged, holds pickled objects, which are never read, or is no recording; or if a time goes back.

    Examples
    --------
    >>> read_recording(Path("recording.pkl"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: recording.pkl: found pickled Python objects (not read: unpickling can run code),
    expected a folder or .zarr that SpikeInterface saved, an .nwb with voltage, or a path and --format.
    Next: load it where you trust it and save it with recording.save(folder=...)
    """
    if path.suffix.lower() in PICKLED:
        raise _pickled(path)
    if not path.exists():
        raise NwbCompactError(path, found="no such file or folder", expected=EXPECTED, next_step="correct the path")
    with reading(path, EXPECTED):
        recording, reader = _loaded(path) if format_name is None else _by_reader(path, format_name)
        for segment in range(recording.get_num_segments()):
            n = recording.get_num_samples(segment)
            recording.get_traces(segment, start_frame=n - 1, end_frame=n)  # so that a file that is cut is told now
        start_s = from_zero(name_channels(recording), path)
        start_time = _start_of_nwb(path, start_s) if path.suffix.lower() == ".nwb" else None
    events = {} if events_csv is None else read_events(events_csv, start_s)
    read = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return Recorded(
        files=tuple(read) if events_csv is None else (*read, events_csv),
        reader=reader,
        start_time=start_time,
        recording=recording,
        events=events,
    )


def read_events(events_csv: Path, start_s: float = 0.0) -> dict[str, Events]:
    """Digital events by their channel; times are counted from `start_s`.

    Raises
    ------
    NwbCompactError
        If the file is absent, lacks a column, or has a value that is no number or a time that goes back. Rows are counted from 1,
        without the header.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "events.csv")
    ...     _ = file.write_text("time_s,code,channel\\n0.5,7,words\\n0.6,1,reward\\n0.75,8,words\\n")
    ...     read_events(file)["words"].code.tolist()
    [7, 8]
    """
    existing_file(events_csv, EVENTS_EXPECTED, (".csv",))
    table = read_known_columns(events_csv, ["time_s", "code"], ["channel"], expected=EVENTS_EXPECTED, next_step=NEXT_EVENTS)
    rows: dict[str, list[tuple[float, int]]] = {}
    channels = table.get("channel", ("",) * len(table["code"]))
    for number, (time, code, channel) in enumerate(zip(table["time_s"], table["code"], channels, strict=True), 1):
        pair = _number(events_csv, number, "time_s", time), int(_number(events_csv, number, "code", code))
        rows.setdefault(channel or ONE_LINE, []).append(pair)
    events = {}
    for name, pairs in rows.items():
        told_s = check_ascending(events_csv, f"events of {name}", np.array([time for time, _ in pairs], float))
        events[name] = Events(told_s - start_s, np.array([code for _, code in pairs], np.int64))
    return events


def _number(events_csv: Path, row: int, column: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number) or (column == "code" and number != round(number)):
        expected = "a whole number" if column == "code" else "seconds, with a decimal point"
        raise NwbCompactError(events_csv, found=f"{value!r} as {column} in row {row}", expected=expected, next_step=NEXT_EVENTS)
    return number


def _pickled(path: Path) -> NwbCompactError:
    next_step = "load it where you trust it and save it with recording.save(folder=...)"
    found = "pickled Python objects (not read: unpickling can run code)"
    return NwbCompactError(path, found=found, expected=EXPECTED, next_step=next_step)


# What SpikeInterface saved --------------------------------------------------------------------------------------------


def _loaded(path: Path) -> tuple[BaseRecording, str]:
    from spikeinterface import load

    if path.suffix.lower() == ".nwb":
        return _by_reader(path, "nwb_recording")
    if path.is_file() and path.suffix.lower() != ".json":
        next_step = "name the reader with --format, for example --format neuralynx"
        raise NwbCompactError(path, found=f"a file that ends in '{path.suffix}'", expected=EXPECTED, next_step=next_step)
    _check_trusted(path)
    loaded = load(path, **({"base_folder": path.parent} if path.is_file() else {}))
    if not isinstance(loaded, BaseRecording):
        next_step = "use convert sorted for units, and the recording for voltage"
        raise NwbCompactError(path, found=f"a {type(loaded).__name__}", expected="a recording", next_step=next_step)
    return loaded, read_by("spikeinterface", "load")


def _check_trusted(path: Path) -> None:
    """Refuse what would run code: pickles, and names of classes that are no recording; and voltage that ends within a sample."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        if file.suffix in PICKLED and file.stem == "cached":
            raise _pickled(file)
        if file.suffix == ".npy":
            with file.open("rb") as opened:
                magic = np.lib.format.read_magic(opened)
                header = np.lib.format.read_array_header_1_0 if magic == (1, 0) else np.lib.format.read_array_header_2_0
                if header(opened)[2].hasobject:
                    raise _pickled(file)
        if file.suffix == ".json" or file.name in (".zattrs", *ZARR_METADATA):
            for told in _objects(json.loads(file.read_text("utf-8"))):
                if "class" in told:
                    _check_saved(file, told)
                if file.name in ZARR_METADATA:
                    _check_stored(file, told)


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON tree."""
    if isinstance(content, dict):
        yield content
    for one in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _objects(one)


def _check_stored(file: Path, told: dict[str, Any]) -> None:
    """Zarr unpickles where a filter or the compressor of an array says so, whatever its type; numcodecs asks back only of late."""
    filters = told.get("filters") or [{}]
    codec = filters[0].get("id") if isinstance(filters[0], dict) else None
    if {told.get("id"), told.get("name")} & set(PICKLE_CODECS) or (_holds_objects(told.get("dtype")) and codec not in OBJECT_CODECS):
        raise _pickled(file)


def _holds_objects(dtype: Any) -> bool:
    """A type is a string, or a list of fields with their names and types."""
    if isinstance(dtype, list):
        return any(_holds_objects(one) for one in dtype)
    return isinstance(dtype, str) and OBJECT.fullmatch(dtype) is not None


def _check_saved(file: Path, told: dict[str, Any]) -> None:
    if not READABLE_CLASS.fullmatch(str(told["class"])):
        next_step = "use it only if you trust it: load it with SpikeInterface and save the recording again"
        raise NwbCompactError(file, found=f"class {told['class']!r}", expected="a recording of SpikeInterface", next_step=next_step)
    known = told.get("kwargs", {})
    for value in known.values():
        if isinstance(value, str) and ((elsewhere := file.parent / value) / ".zgroup").is_file() and elsewhere not in file.parents:
            _check_trusted(elsewhere)
    if not {"file_paths", "num_channels", "dtype"} <= set(known):
        return
    sample_bytes = known["num_channels"] * np.dtype(known["dtype"]).itemsize
    for one in known["file_paths"]:
        data = file.parent / one
        size = data.stat().st_size
        if rest := (size - (known.get("file_offset") or 0)) % sample_bytes:
            raise ends_early(data, size, size + sample_bytes - rest)


# Other readers --------------------------------------------------------------------------------------------------------


def _by_reader(path: Path, format_name: str) -> tuple[BaseRecording, str]:
    import spikeinterface.extractors as extractors

    known = sorted(name.removeprefix("read_") for name in dir(extractors) if name.startswith("read_"))
    if format_name not in known:
        found, expected = f"format {format_name!r}", f"a reader of spikeinterface.extractors ({nearest(format_name, known)})"
        raise NwbCompactError("--format", found=found, expected=expected, next_step="correct the name")
    recording = getattr(extractors, f"read_{format_name}")(path)
    if not isinstance(recording, BaseRecording):
        found, next_step = f"format {format_name!r}, which reads a {type(recording).__name__}", "name the reader of a recording"
        raise NwbCompactError("--format", found=found, expected="a reader of voltage", next_step=next_step)
    return recording, read_by("spikeinterface", f"read_{format_name}")


def _start_of_nwb(path: Path, start_s: float) -> datetime | None:
    """When the first sample was recorded, `start_s` after the moment from which the file counts its times."""
    with open_hdf5(path, locking=None) as file:  # SpikeInterface has it open
        told = next((file[name][()] for name in ("timestamps_reference_time", "session_start_time") if name in file), None)
    if told is None:
        return None
    return datetime.fromisoformat(told.decode() if isinstance(told, bytes) else str(told)) + timedelta(seconds=start_s)
