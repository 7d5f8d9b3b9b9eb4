"""What a source holds, before anything is done with it: voltage, sorted spikes, events, and when they were recorded.

All times are seconds on the recording's own clock, 0 at its first sample. What a source does not hold is None or empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float
from spikeinterface import BaseRecording

from nwb_compact.session import Device, Electrodes, Events, Units

__all__ = ["Events", "Recorded", "observed_s"]


@dataclass(frozen=True, eq=False)
class Recorded:
    """One recording as its source gives it."""

    files: tuple[Path, ...]
    """All files that were read; their hashes go into the session."""
    reader: str
    """What read them, for example `NeuroConv 0.10.2 BlackrockRecordingInterface`."""
    start_time: datetime | None = None
    """When the recording began, as the source says; without a time zone where the source gives none."""
    device: Device | None = None
    recording: BaseRecording | None = None
    """The voltage of the electrodes, unfiltered; one segment for each stretch without a gap. Its channel properties are as NeuroConv
    writes them: channel_name, group_name, brain_area, and, with a geometry, its contact locations."""
    units: Units | None = None
    """Spikes that came sorted; `electrode_index` counts rows of `electrodes`."""
    electrodes: Electrodes | None = None
    """Where the source has spikes but no voltage; otherwise None and told by `recording`."""
    events: Mapping[str, Events] = field(default_factory=dict)
    """Digital events by the name of their line or port."""
    analog: Mapping[str, BaseRecording] = field(default_factory=dict)
    """Single channels, by name, that may hold a photodiode or a sync signal; on the same clock as `recording`."""


def observed_s(recording: BaseRecording) -> Float[np.ndarray, "interval 2"]:
    """When the recording ran, a row for each segment.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> observed_s(NumpyRecording([np.zeros((3000, 1))], sampling_frequency=30_000.0))
    array([[0. , 0.1]])
    """
    starts = [recording.get_start_time(segment_index=segment) for segment in range(recording.get_num_segments())]
    lengths = [recording.get_num_samples(segment) / recording.sampling_frequency for segment in range(recording.get_num_segments())]
    return np.array([[start, start + length] for start, length in zip(starts, lengths, strict=True)], float)
