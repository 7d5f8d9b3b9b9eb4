"""What the readers of recordings share: faults told in one line, one clock that starts at 0, edges of digital lines, gaps kept as gaps."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from spikeinterface import BaseRecording, append_recordings

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError, one_line
from nwb_compact_conversion.recorded import Events

COPY_AGAIN = "copy the recording again from where it was made"
TWO_SESSIONS = "convert the parts before and after that as two sessions"
AROUND_RESET = "convert the parts before and after the reset as two sessions"
CHUNK_SAMPLES = 2_000_000
"""Samples of a digital channel, or numbers of samples, that are read at a time: some 50 MB while they are compared."""
CLOCK_TOLERANCE = 1e-3
"""A stretch may seem longer than the time until the next one by this share: hardware clocks differ by less, a reset by far more."""


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a third-party reader raises into one line about `path`.

    Its warnings are not passed on: what they tell (gaps, missing scale, streams left out) is checked by our readers themselves.

    Raises
    ------
    NwbCompactError
        Instead of any exception of the body.

    Examples
    --------
    >>> with reading(Path("a.nev"), "a Blackrock file"):
    ...     raise ValueError("version 2.9")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: a.nev: found unreadable content (version 2.9), expected a Blackrock file.
    Next: copy the recording again from where it was made
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except NwbCompactError:
        raise
    except Exception as error:
        found = f"unreadable content ({one_line(error)})"
        raise NwbCompactError(path, found=found, expected=expected, next_step=COPY_AGAIN) from error


def existing_file(file_path: Path, expected: str, suffixes: Sequence[str]) -> Path:
    """The path itself, where it is a file of one of these suffixes (in any case).

    Raises
    ------
    NwbCompactError
        If it is absent, a folder or of another suffix.
    """
    if not file_path.exists():
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step="correct the path")
    if file_path.is_dir():
        raise NwbCompactError(file_path, found="a folder", expected=expected, next_step="name the file in it")
    if file_path.suffix.lower() not in suffixes:
        found = f"a file that ends in '{file_path.suffix}'"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step="name the recording, or use its own source")
    return file_path


def existing_folder(folder: Path, expected: str) -> Path:
    """The path itself, where it is a folder.

    Raises
    ------
    NwbCompactError
        If it is absent or a file.
    """
    if not folder.exists():
        raise NwbCompactError(folder, found="no such folder", expected=expected, next_step="correct the path")
    if not folder.is_dir():
        raise NwbCompactError(folder, found="a file", expected=expected, next_step="name the folder that holds the recording")
    return folder


def ends_early(file_path: Path, stored: int, needed: int) -> NwbCompactError:
    """The fault of a truncated file, to be raised."""
    found = f"{stored:,} bytes: the file ends in the middle of its data"
    return NwbCompactError(file_path, found=found, expected=f"{needed:,} bytes as its headers say", next_step=COPY_AGAIN)


def read_by(package: str, name: str) -> str:
    """What read a recording, for the record.

    Examples
    --------
    >>> read_by("numpy", "fromfile").startswith("numpy ")
    True
    """
    shown = {"neuroconv": "NeuroConv", "spikeinterface": "SpikeInterface", "neo": "Neo"}.get(package, package)
    return f"{shown} {version(package)} {name}"


def from_zero(recording: BaseRecording, path: Path) -> float:
    """Shift the times of a recording that was just read so that its first sample is at 0; what they began at, seconds.

    Raises
    ------
    NwbCompactError
        If a later stretch begins before an earlier one ends: a reset clock.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> recording = NumpyRecording([np.zeros((30, 1))], sampling_frequency=1000.0, t_starts=[12.5])
    >>> from_zero(recording, Path("a.ns5")), recording.get_start_time()
    (12.5, 0.0)
    """
    starts = [float(recording.get_start_time(segment_index=index)) for index in range(recording.get_num_segments())]
    for index in range(1, len(starts)):
        length = recording.get_num_samples(index - 1) / recording.sampling_frequency
        if starts[index] - starts[index - 1] < length * (1 - CLOCK_TOLERANCE):
            ended = starts[index - 1] + length
            found = f"a reset clock: a stretch that begins at {starts[index]:.3f} s after one that ends at {ended:.3f} s"
            raise NwbCompactError(path, found=found, expected="timestamps that only increase", next_step=AROUND_RESET)
    recording.shift_times(-starts[0])
    return starts[0]


def stretch_starts(
    path: Path, pieces: Iterable[Integer[np.ndarray, "_"]]
) -> tuple[Integer[np.ndarray, "stretch"], Integer[np.ndarray, "stretch"]]:
    """Where samples begin whose numbers do not follow the one before, the first included; and their numbers.

    Parameters
    ----------
    path
        Named where a number goes back.
    pieces
        What the hardware counted for each sample, a piece after the other as `in_pieces` gives them, so that memory stays small.

    Raises
    ------
    NwbCompactError
        If numbers do not increase.

    Examples
    --------
    >>> stretch_starts(Path("a.rhd"), [np.array([7, 8]), np.array([9, 20, 21])])
    (array([0, 3]), array([ 7, 20]))
    """
    starts, numbers = [], []
    n, before = 0, None
    for piece in pieces:
        part = piece.astype(np.int64)
        step = np.diff(part, prepend=part[0] - 2 if before is None else before)
        if (step <= 0).any():
            at = int(np.flatnonzero(step <= 0)[0])
            found = f"sample {part[at]:,} after sample {part[at] - step[at]:,}"
            raise NwbCompactError(path, found=found, expected="sample numbers that only increase", next_step=TWO_SESSIONS)
        begins = np.flatnonzero(step != 1)
        starts.append(n + begins)
        numbers.append(part[begins])
        n, before = n + len(part), part[-1]
    return np.concatenate(starts), np.concatenate(numbers)


def in_pieces(numbers: Integer[np.ndarray, "..."]) -> Iterator[Integer[np.ndarray, "_"]]:
    """An array on disk in its order, `CHUNK_SAMPLES` at a time.

    Examples
    --------
    >>> [piece.tolist() for piece in in_pieces(np.array([[1, 2], [3, 4]]))]
    [[1, 2, 3, 4]]
    """
    rows = max(1, CHUNK_SAMPLES // int(np.prod(numbers.shape[1:])))
    for first in range(0, len(numbers), rows):
        yield np.asarray(numbers[first : first + rows]).reshape(-1)


def in_stretches(
    recording: BaseRecording,
    first_frames: Integer[np.ndarray, "stretch"],
    last_frames: Integer[np.ndarray, "stretch"],
    starts_s: Float[np.ndarray, "stretch"],
) -> BaseRecording:
    """A recording of one segment cut into stretches, each with its own start time; `last_frames` are exclusive.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> recording = NumpyRecording([np.arange(30.0)[:, None]], sampling_frequency=1000.0)
    >>> cut = in_stretches(recording, np.array([0, 20]), np.array([20, 30]), np.array([0.0, 5.0]))
    >>> cut.get_num_samples(1), cut.get_start_time(1), int(cut.get_traces(1)[0, 0])
    (10, 5.0, 20)
    """
    pieces = [recording.frame_slice(int(first), int(last)) for first, last in zip(first_frames, last_frames, strict=True)]
    for piece, start in zip(pieces, starts_s, strict=True):
        piece.shift_times(float(start) - piece.get_start_time())
    return pieces[0] if len(pieces) == 1 else append_recordings(pieces)


def check_ascending(path: Path, what: str, time_s: Float[np.ndarray, "_"]) -> Float[np.ndarray, "_"]:
    """The times themselves.

    Raises
    ------
    NwbCompactError
        If they go back at any point.

    Examples
    --------
    >>> check_ascending(Path("a.nev"), "spikes of ch1", np.array([0.1, 0.3, 0.2]))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: a.nev: found spikes of ch1 that go back from 0.300 s to 0.200 s,
    expected timestamps that only increase. Next: convert the parts before and after that as two sessions
    """
    back = np.flatnonzero(np.diff(time_s) < 0)
    if len(back):
        found = f"{what} that go back from {time_s[back[0]]:.3f} s to {time_s[back[0] + 1]:.3f} s"
        raise NwbCompactError(path, found=found, expected="timestamps that only increase", next_step=TWO_SESSIONS)
    return time_s


def line_events(recording: BaseRecording, channel_id: Any, lines: Mapping[str, int], *, above: float | None = None) -> dict[str, Events]:
    """The edges of digital lines that are the bits of one recorded word; a line without an edge is left out.

    Parameters
    ----------
    recording
        Holds the word as one of its channels.
    channel_id
        Which one.
    lines
        Bit of each line, by its name.
    above
        With an analog channel: the stored value above which it counts as 1, and as 0 elsewhere.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> words = np.array([0, 1, 1, 3, 2, 0], np.int16)[:, None]
    >>> events = line_events(NumpyRecording([words], sampling_frequency=1000.0), 0, {"XD0": 0, "XD1": 1, "XD2": 2})
    >>> {name: (one.time_s.tolist(), one.code.tolist()) for name, one in events.items()}
    {'XD0': ([0.001, 0.004], [1, 0]), 'XD1': ([0.003, 0.005], [1, 0])}
    """
    found = [_changes(recording, channel_id, segment, above) for segment in range(recording.get_num_segments())]
    events = {}
    for name, bit in lines.items():
        times, codes = [], []
        for time_s, before, after in found:
            was, became = before >> bit & 1, after >> bit & 1
            times.append(time_s[was != became])
            codes.append(became[was != became])
        if sum(len(part) for part in times):
            events[name] = Events(np.concatenate(times), np.concatenate(codes))
    return events


def _changes(
    recording: BaseRecording, channel_id: Any, segment: int, above: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When a word changed, and the words before and after; read in chunks since a session's words may not fit in memory."""
    frames, before, after = [], [], []
    last = None
    for first in range(0, recording.get_num_samples(segment), CHUNK_SAMPLES):
        stop = min(first + CHUNK_SAMPLES, recording.get_num_samples(segment))
        words = recording.get_traces(segment, start_frame=first, end_frame=stop, channel_ids=[channel_id])[:, 0]
        words = (words if above is None else words > above).astype(np.int64)
        whole = words if last is None else np.concatenate([[last], words])
        at = np.flatnonzero(np.diff(whole))
        frames.append(first + at + (1 if last is None else 0))
        before.append(whole[at])
        after.append(whole[at + 1])
        last = words[-1]
    if not frames:
        return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    time_s = np.asarray(recording.sample_index_to_time(np.concatenate(frames), segment_index=segment), np.float64)
    return time_s, np.concatenate(before), np.concatenate(after)


def single_channels(recording: BaseRecording) -> dict[str, BaseRecording]:
    """Each channel by itself, by its name; all on the clock of `recording`."""
    named = zip(channel_names(recording), recording.channel_ids, strict=True)
    return {name: recording.select_channels([channel]) for name, channel in named}


def channel_names(recording: BaseRecording) -> list[str]:
    """The name of each channel as its source gives it; its id where names are absent or not unique."""
    named = recording.get_property(c.CHANNEL_NAME)
    names = [] if named is None else [str(name) for name in named]
    return names if len(set(names)) == recording.get_num_channels() else [str(channel) for channel in recording.channel_ids]


def name_channels(recording: BaseRecording) -> BaseRecording:
    """The same recording, whose property `channel_name` is there and unique."""
    recording.set_property(c.CHANNEL_NAME, np.array(channel_names(recording)))
    return recording
