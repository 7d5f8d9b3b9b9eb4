"""The clock of a .nsX, on which everything of a Blackrock recording is told: seconds by the count of its samples.

In file specification 3.0 with the precision time protocol (PTP) every sample has a stamp in nanoseconds, and so have the packets of the
.nev. The amplifier's own clock may be faster or slower than those: at 30 parts in a million a spike, placed by its sample, would be
216 ms away from a word of the same moment after 2 h. The stamps of the samples say which sample was taken when a word came.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.reading import TWO_SESSIONS, from_zero

NS = 1_000_000_000
KNOT_S = 1.0
"""The stamp of one sample in so many seconds is read: between them two clocks run evenly, to a microsecond."""
JUMP_NS = 500_000
"""Stamps that differ by so much more or less than their samples do between two knots are read one by one. It is ten times what two
uncalibrated crystals do in a second, and half of what any two clocks of a session may be apart."""


@dataclass(frozen=True, eq=False)
class SampleClock:
    """What the files tell as seconds, and the same by the count of samples; straight lines between, both equally fast beyond."""

    told_s: Float[np.ndarray, "knot"]
    time_s: Float[np.ndarray, "knot"]

    def of(self, told_s: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Moments by the count of samples, 0 at the first.

        Examples
        --------
        >>> clock = SampleClock(np.array([100.0, 200.0]), np.array([0.0, 100.003]))
        >>> clock.of(np.array([99.0, 150.0, 201.0])).round(4)
        array([ -1.    ,  50.0015, 101.003 ])
        """
        within = np.clip(told_s, self.told_s[0], self.told_s[-1])
        return np.interp(within, self.told_s, self.time_s) + (told_s - within)


def clock_of(nsx: Path, recording: BaseRecording) -> SampleClock:
    """The clock of a recording that was just read, which is put on it: its first sample at 0, its gaps as long as the file tells them.

    Raises
    ------
    NwbCompactError
        If time goes back.
    """
    segments = list(_stamps(nsx, recording))
    if not segments:
        return SampleClock(np.array([from_zero(recording, nsx)]), np.zeros(1))
    stamps_ns: list[np.ndarray] = []
    times_s: list[np.ndarray] = []
    for index, stamp in enumerate(segments):
        sample = _knots(nsx, stamp, recording.sampling_frequency)
        at_ns = stamp[sample].astype(np.int64)
        begins_s = times_s[-1][-1] + (at_ns[0] - stamps_ns[-1][-1]) / NS if index else 0.0
        recording.shift_times(begins_s - recording.get_start_time(segment_index=index), segment_index=index)
        stamps_ns.append(at_ns)
        times_s.append(begins_s + sample / recording.sampling_frequency)
    return SampleClock(np.concatenate(stamps_ns) / NS, np.concatenate(times_s))


def put_on(clock: SampleClock, recording: BaseRecording) -> None:
    """Place another recording of the same amplifier, whose times are as its file tells them."""
    for index in range(recording.get_num_segments()):
        begins = np.array([recording.get_start_time(segment_index=index)], float)
        recording.shift_times(float((clock.of(begins) - begins)[0]), segment_index=index)


def _stamps(nsx: Path, recording: BaseRecording) -> Iterator[UInt[np.ndarray, "sample"]]:
    """The stamps of the samples of each segment, on disk; nothing where a block of samples has only one."""
    told: list[dict[str, Any]] = recording.neo_reader._nsx_data_header[int(nsx.suffix[-1])]
    for segment in told:
        if "timestamps_memmap_kwargs" in segment:
            where = segment["timestamps_memmap_kwargs"]
            packet = np.dtype({"names": ["stamp"], "formats": [where["dtype"]], "offsets": [where["item_offset"]],
                               "itemsize": where["packet_size"]})
            yield np.memmap(nsx, packet, "r", where["offset"], (int(where["num_samples"]),))["stamp"]


def _knots(nsx: Path, stamp: UInt[np.ndarray, "sample"], rate_hz: float) -> Int[np.ndarray, "knot"]:
    """Samples between which stamps and samples go on evenly: one a second, and both sides of every jump."""
    step, period_ns = max(1, int(KNOT_S * rate_hz)), NS / rate_hz
    knots = np.unique(np.append(np.arange(0, len(stamp), step), len(stamp) - 1))
    too_much = np.diff(stamp[knots].astype(np.int64)) - np.diff(knots) * period_ns
    more = [knots]
    for index in np.flatnonzero(np.abs(too_much) > JUMP_NS):
        between = np.diff(stamp[knots[index] : knots[index + 1] + 1].astype(np.int64))
        if (between <= 0).any():
            at = int(knots[index] + np.flatnonzero(between <= 0)[0])
            found = f"a clock that goes back by {-int(between.min()) / NS:.6f} s after sample {at:,}"
            raise NwbCompactError(nsx, found=found, expected="timestamps that only increase", next_step=TWO_SESSIONS)
        jump = knots[index] + np.flatnonzero(between > round(1.5 * period_ns))
        more += [jump, jump + 1]
    return np.unique(np.concatenate(more))
