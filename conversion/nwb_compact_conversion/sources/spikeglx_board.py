"""The NI-DAQ of a SpikeGLX run: its digital lines and analog channels, by themselves or on the clock of a probe."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface import BaseRecording, NumpyRecording

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.reading import from_zero, line_events, read_by, single_channels
from nwb_compact_conversion.sources.shared_clock import Clock, shared_clock, within

SYNC_OF_PROBE = "SY0"
"""Name of the events of a probe's sync input."""
WORD_BITS = 16
Info = dict[str, Any]
"""What Neo tells of one pair of files."""


@dataclass(frozen=True)
class Wave:
    """Where a NI-DAQ has the sync wave, as its .meta tells."""

    channel: str
    threshold_v: float | None
    """Of an analog channel; None for a digital line."""
    period_s: float


def board_alone(files: tuple[Path, ...], board: BaseRecording, infos: list[Info], folder: Path) -> Recorded:
    """A run without a probe, on the NI-DAQ's own clock."""
    from_zero(board, folder)
    meta = infos[0]["meta"]
    start = meta.get("fileCreateTime", "0000-00-00")
    return Recorded(
        files=files,
        reader=read_by("spikeinterface", "SpikeGLXRecordingExtractor"),
        start_time=None if start.startswith("0000-00-00") else datetime.fromisoformat(start),
        device=Device("NI-DAQ", meta.get("niDev1ProductName"), "National Instruments"),
        events=_lines(folder, board, infos[0]),
        analog=_analog(board),
    )


def on_the_probes_clock(
    folder: Path, board: BaseRecording, infos: list[Info], sync: dict[str, Events], duration_s: float
) -> tuple[dict[str, Events], dict[str, BaseRecording]]:
    """Events and analog channels of a run with a probe, whose recording lasts `duration_s` and whose sync input is `sync`.

    The times of `board` are those of its own clock, counted from the probe's first sample as far as start samples tell.
    """
    lines, wave = _lines(folder, board, infos[0]), _wave(infos[0]["meta"])
    if not lines and not _analog_ids(board):
        return sync, {}
    clock = None
    if wave is not None and SYNC_OF_PROBE in sync:
        clock = shared_clock(_rises(board, lines, wave), _risen(sync[SYNC_OF_PROBE]), wave.period_s)
    if clock is None:
        within(duration_s, folder, "the NI-DAQ's clock and the probe's without the sync wave on both")
        return sync | lines, _analog(board)
    events = {name: Events(clock.of(one.time_s), one.code) for name, one in lines.items() if wave is None or name != wave.channel}
    return events, _analog_on(clock, board, infos)


def _lines(folder: Path, board: BaseRecording, info: Info) -> dict[str, Events]:
    """A line's bit is its number; where there are more than 16 lines nobody has seen in which order words hold them."""
    numbers = [int(str(name).removeprefix("XD")) for name in info["digital_channels"]]
    words = [channel for channel in board.channel_ids if "#XD" in str(channel)]
    if not words or not numbers:
        return {}
    if len(words) > 1 or max(numbers) >= WORD_BITS:
        found, next_step = f"digital lines up to XD{max(numbers)}", "report it with the .meta file, so that it can be supported"
        raise NwbCompactError(folder, found=found, expected=f"no more than {WORD_BITS} lines in one word", next_step=next_step)
    return line_events(board, words[0], {f"XD{number}": number for number in numbers})


def _analog_ids(board: BaseRecording) -> list[str]:
    return [channel for channel in board.channel_ids if "#XD" not in str(channel)]


def _analog(board: BaseRecording) -> dict[str, BaseRecording]:
    channels = _analog_ids(board)
    return single_channels(board.select_channels(channels)) if channels else {}


def _wave(meta: dict[str, str]) -> Wave | None:
    if "syncNiChan" not in meta or meta.get("syncSourceIdx") == "0":
        return None
    is_analog = meta.get("syncNiChanType") == "1"
    threshold = float(meta.get("syncNiThresh", 1.1)) if is_analog else None
    return Wave(f"{'XA' if is_analog else 'XD'}{meta['syncNiChan']}", threshold, float(meta.get("syncSourcePeriod", 1)))


def _risen(events: Events) -> np.ndarray:
    return events.time_s[events.code == 1]


def _rises(board: BaseRecording, lines: dict[str, Events], wave: Wave) -> np.ndarray:
    if wave.threshold_v is None:
        return _risen(lines[wave.channel]) if wave.channel in lines else np.zeros(0)
    channels = [channel for channel in _analog_ids(board) if str(channel).endswith(f"#{wave.channel}")]
    if not channels:
        return np.zeros(0)
    steps = wave.threshold_v * 1e6 / board.get_channel_gains(channels)[0]
    found = line_events(board, channels[0], {wave.channel: 0}, above=steps)
    return _risen(found[wave.channel]) if found else np.zeros(0)


def _analog_on(clock: Clock, board: BaseRecording, infos: list[Info]) -> dict[str, BaseRecording]:
    """Each analog channel with the sampling rate that it has by the probe's clock; its samples stay on disk."""
    infos = sorted(infos, key=lambda info: info["seg_index"])
    stored = [np.memmap(info["bin_file"], np.int16, "r").reshape(-1, info["num_chan"]) for info in infos]
    starts = clock.of(np.array([board.get_start_time(index) for index in range(len(infos))])).tolist()
    channels = {}
    for channel in _analog_ids(board):
        name, column = str(channel).split("#")[1], list(board.channel_ids).index(channel)
        segments = [segment[:, column : column + 1] for segment in stored]
        one = NumpyRecording(segments, board.sampling_frequency / clock.rate, t_starts=starts)
        one.set_channel_gains(board.get_channel_gains([channel]))
        one.set_channel_offsets(board.get_channel_offsets([channel]))
        one.set_property(c.CHANNEL_NAME, np.array([name]))
        channels[name] = one
    return channels
