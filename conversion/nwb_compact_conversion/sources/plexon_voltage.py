"""The continuous channels of a .plx as the file has them; what Neo 0.14 gets wrong is put right."""

from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.extractors.extractor_classes import PlexonRecordingExtractor

from nwb_compact.errors import NwbCompactError

MICROVOLTS = 1000.0
"""The file's scales give millivolts (Plexon's description of .plx; python-neo issue 372)."""
NEXT = "export the file again"


class MendedPlexonRecordingExtractor(PlexonRecordingExtractor):
    """SpikeInterface's reader with samples in place and in microvolts; a class, so that worker processes read the same.

    Neo counts where a block begins by its own length instead of that of the one before, which misplaces samples as soon as blocks
    differ in length. Asked for the very last sample it gives zeros for the whole last block; leave that sample out.

    Raises
    ------
    NwbCompactError
        If channels pause at different times, or have no gain.
    """

    def __init__(self, file_path: str | Path, stream_id: str):
        super().__init__(file_path=file_path, stream_id=stream_id)
        self._kwargs = {"file_path": str(Path(file_path).absolute()), "stream_id": stream_id}
        channels = self.neo_reader.header["signal_channels"]
        numbers = channels[channels["stream_id"] == stream_id]["id"]
        blocks = [self.neo_reader._data_blocks[5][int(number)] for number in numbers]
        for one in blocks:
            one["cumsum"] = np.concatenate([[0], np.cumsum(one["size"][:-1] // 2)])
            if not np.array_equal(one["timestamp"], blocks[0]["timestamp"]):
                found = f"channels of stream {stream_id} that pause at different times"
                raise NwbCompactError(file_path, found=found, expected="one clock for all of them", next_step=NEXT)
        gains = self.get_channel_gains() * MICROVOLTS
        if not np.isfinite(gains).all():
            raise NwbCompactError(file_path, found="a gain of 0", expected="the gain of every channel", next_step=NEXT)
        self.set_channel_gains(gains)
        self.blocks = blocks[0]
        """Time stamp, size in bytes and first sample (cumsum) of every block, the same for all channels."""

    @classmethod
    def map_to_neo_kwargs(cls, file_path: str | Path) -> dict[str, Any]:
        """For Neo, without its progress bar."""
        return {"filename": str(file_path), "progress_bar": False}
