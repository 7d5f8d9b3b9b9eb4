"""Headers of Blackrock .nsX and .nev files, and whether the data that they announce are all there.

Layouts: Blackrock Neurotech, "NEV and NSx file specification" 2.1 to 3.0.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.reading import COPY_AGAIN, ends_early

_NSX_21 = np.dtype("S8, S16, <u4, <u4")
_NSX_21.names = ("id", "label", "period", "channels")
_NSX_22 = np.dtype("S8, 2u1, <u4, S16, S256, <u4, <u4, (8,)<u2, <u4")
_NSX_22.names = ("id", "spec", "header_bytes", "label", "comment", "period", "ticks_per_s", "time", "channels")
_NSX_CHANNEL = np.dtype("S2, <u2, S16, V10, S16, V20")
_NSX_CHANNEL.names = ("type", "electrode", "label", "connector_and_range", "units", "filters")
_NEV = np.dtype("S8, 2u1, <u2, <u4, <u4, <u4, <u4, (8,)<u2, S32, S256, <u4")
_NEV.names = (
    *("id", "spec", "flags", "header_bytes", "packet_bytes", "ticks_per_s", "samples_per_s"),
    *("time", "application", "comment", "extended"),
)
_ANALOG_INPUTS_21 = 128
"""In specification 2.1 electrodes have numbers up to this and analog inputs the numbers above."""
_EVERY_SAMPLE_STAMPED = 1_000_000_000
"""Ticks a second of files whose every sample has its own timestamp (precision time protocol, specification 3.0)."""


@dataclass(frozen=True)
class NsxHeader:
    """What the start of a .nsX tells."""

    spec: str
    """Version of the file specification, such as 2.3."""
    start: datetime | None
    """In UTC, without saying so; specification 2.1 does not tell it."""
    has_analog_inputs: bool


@dataclass(frozen=True)
class NevHeader:
    """What the start of a .nev tells."""

    start: datetime | None
    """Local time of where it was recorded."""
    ticks_per_s: int
    application: str


def read_nsx_header(file_path: Path) -> NsxHeader:
    """The header of a .nsX whose data are complete.

    Raises
    ------
    NwbCompactError
        If it is no .nsX, or ends before the last sample that it announces.
    """
    size = file_path.stat().st_size
    with file_path.open("rb") as file:
        name = file.read(8)
    if name == b"NEURALSG":
        basic = _record(file_path, _NSX_21)
        n = int(basic["channels"])
        electrodes = np.fromfile(file_path, "<u4", n, offset=_NSX_21.itemsize)
        if rest := (size - _NSX_21.itemsize - 4 * n) % (2 * n):
            raise ends_early(file_path, size, size - rest + 2 * n)
        return NsxHeader("2.1", None, bool((electrodes > _ANALOG_INPUTS_21).any()))
    if name not in (b"NEURALCD", b"BRSMPGRP"):
        raise NwbCompactError(file_path, found=f"a file that begins with {name!r}", expected="a Blackrock .nsX file", next_step=COPY_AGAIN)
    basic = _record(file_path, _NSX_22)
    channels = np.fromfile(file_path, _NSX_CHANNEL, int(basic["channels"]), offset=_NSX_22.itemsize)
    _check_blocks(file_path, basic)
    analog = any(one["label"].startswith(b"ainp") or one["units"] == b"mV" for one in channels)
    return NsxHeader(f"{basic['spec'][0]}.{basic['spec'][1]}", _moment(basic["time"]), analog)


def read_nev_header(file_path: Path) -> NevHeader:
    """The header of a .nev that ends with a whole packet.

    Raises
    ------
    NwbCompactError
        If it is no .nev, or ends within a packet.
    """
    basic = _record(file_path, _NEV)
    if basic["id"] not in (b"NEURALEV", b"BREVENTS"):
        raise NwbCompactError(
            file_path, found=f"a file that begins with {bytes(basic['id'])!r}", expected="a Blackrock .nev file", next_step=COPY_AGAIN
        )
    size, packet = file_path.stat().st_size, int(basic["packet_bytes"])
    rest = size - int(basic["header_bytes"])
    if rest < 0 or rest % packet:
        raise ends_early(file_path, size, size + (-rest if rest < 0 else packet - rest % packet))
    application = bytes(basic["application"]).split(b"\0")[0].decode("latin-1").strip()
    return NevHeader(_moment(basic["time"]), int(basic["ticks_per_s"]), application)


def _record(file_path: Path, layout: np.dtype) -> np.void:
    size = file_path.stat().st_size
    if size < layout.itemsize:
        raise ends_early(file_path, size, layout.itemsize)
    return np.fromfile(file_path, layout, 1)[0]


def _moment(time: np.ndarray) -> datetime | None:
    year, month, _, day, hour, minute, second, millisecond = (int(part) for part in time)
    return datetime(year, month, day, hour, minute, second, 1000 * millisecond) if year else None


def _check_blocks(file_path: Path, basic: np.void) -> None:
    """Walk from data block to data block: the last one must end where the file does."""
    size, at, sample_bytes = file_path.stat().st_size, int(basic["header_bytes"]), 2 * int(basic["channels"])
    stamp = "<u8" if basic["spec"][0] >= 3 else "<u4"
    block = np.dtype([("flag", "u1"), ("stamp", stamp), ("samples", "<u4")])
    if basic["ticks_per_s"] == _EVERY_SAMPLE_STAMPED and np.fromfile(file_path, block, 1, offset=at)["samples"] == 1:
        packet = block.itemsize + sample_bytes
        if (size - at) % packet:
            raise ends_early(file_path, size, size + packet - (size - at) % packet)
        return
    while at < size:
        if at + block.itemsize > size:
            raise ends_early(file_path, size, at + block.itemsize)
        at += block.itemsize + sample_bytes * int(np.fromfile(file_path, block, 1, offset=at)["samples"][0])
    if at != size:
        raise ends_early(file_path, size, at)
