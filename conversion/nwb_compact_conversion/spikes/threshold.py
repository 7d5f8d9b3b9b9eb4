"""Multi-unit activity: the minima of each channel that are deeper than a threshold, found in one pass over a filtered recording.

For arrays whose contacts do not share spikes (Utah arrays, 400 um), where a channel's crossings are the usual unit of analysis.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer, Num
from spikeinterface import BaseRecording

CHUNK_S = 1.0
"""Voltage that is held in memory at a time, by each thread."""
NOISE_CHUNK_S, NOISE_CHUNKS = 0.1, 40
"""Stretches, spread evenly over the recording, that the noise is estimated on: to 1 %, in 200 MB for 384 channels."""
MAD_OF_NORMAL = 0.6744897501960817
"""Median absolute value of a standard normal variable."""
PENDING = 2
"""Chunks that are read or wait to be added up, for each thread; with all of them waiting, none would ever be thrown away."""
BEFORE_S, AFTER_S = 0.001, 0.002
"""What of a spike's shape is kept around its minimum; SpikeInterface's default."""


@dataclass(frozen=True, eq=False)
class Crossings:
    """What was found on each channel."""

    frames: tuple[Integer[np.ndarray, "_"], ...]
    """Ascending; the samples of all segments are counted through."""
    depth: tuple[Float[np.ndarray, "_"], ...]
    """Value of the recording at each minimum, below zero."""
    mean: Float[np.ndarray, "channel sample"]
    """The mean spike of each channel, over all whose shape lies within its segment; NaN where there is none."""
    sd: Float[np.ndarray, "channel sample"]
    before: int
    """Samples before the minimum."""
    noise: Float[np.ndarray, "channel"]
    """Standard deviation of the noise, as `noise_sd` estimates it."""


def noise_sd(recording: BaseRecording) -> Float[np.ndarray, "channel"]:
    """Standard deviation of the noise of each channel: median(|x|) / 0.6745, which spikes hardly change.

    Parameters
    ----------
    recording
        Filtered, so that its mean is zero; in any unit, which is also that of the result.

    Notes
    -----
    Quiroga, Nadasdy & Ben-Shaul 2004, Neural Computation 16:1661, equation 3.1. Estimated on 4 s, spread evenly.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> voltage = np.random.default_rng(0).normal(0, 5, (30_000, 2))
    >>> noise_sd(NumpyRecording([voltage], sampling_frequency=30_000.0)).round(1)
    array([5., 5.])
    """
    length = int(NOISE_CHUNK_S * recording.sampling_frequency)
    stops = np.cumsum([recording.get_num_samples(segment) for segment in range(recording.get_num_segments())])
    if stops[-1] <= length * NOISE_CHUNKS:
        pieces = [(segment, 0, int(n)) for segment, n in enumerate(np.diff(stops, prepend=0))]
    else:
        pieces = [_piece(stops, int(first), length) for first in np.linspace(0, stops[-1] - length, NOISE_CHUNKS)]
    read = [np.abs(recording.get_traces(segment, start_frame=first, end_frame=stop)) for segment, first, stop in pieces]
    return np.median(np.concatenate(read), axis=0, overwrite_input=True).astype(np.float64) / MAD_OF_NORMAL


def crossings(
    recording: BaseRecording, threshold: Float[np.ndarray, "channel"], dead_time_s: float,
    noise: Float[np.ndarray, "channel"], *, n_jobs: int = 1, chunk_s: float = CHUNK_S,
) -> Crossings:
    """The minima of each channel below -threshold: samples with none deeper within the dead time before and after.

    Parameters
    ----------
    recording
        Filtered.
    threshold
        Depth below zero, in the unit of the recording.
    dead_time_s
        Of two minima that are not further apart the deeper one is kept; of two equal ones the first.
    noise
        What `noise_sd` gives; passed on.
    n_jobs
        Threads that filter and search.
    chunk_s
        Voltage held in memory at a time. It has no influence on the result.

    Notes
    -----
    The same as SpikeInterface's detect_peaks(method="by_channel"), which takes four times as long and keeps no shapes. What is held of a
    chunk once it was searched is 16 bytes a minimum; the result has 12.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> voltage = np.zeros((3000, 1))
    >>> voltage[[500, 510, 2000], 0] = -60, -90, -70
    >>> found = crossings(NumpyRecording([voltage], sampling_frequency=30_000.0), np.array([50.0]), 0.001, np.array([10.0]))
    >>> found.frames[0].tolist(), float(found.mean[0, found.before])
    ([510, 2000], -80.0)
    """
    rate = recording.sampling_frequency
    search = _Search(recording, threshold, round(dead_time_s * rate), round(BEFORE_S * rate), round(AFTER_S * rate))
    found = _Sums.empty(len(noise), search.before + search.after)
    with ThreadPoolExecutor(n_jobs) as pool:
        for part in _in_order(pool, search, _chunks(recording, max(1, int(chunk_s * rate))), PENDING * n_jobs):
            found.add(part)
    return found.crossings(noise, search.before)


def _piece(stops: Integer[np.ndarray, "segment"], first: int, length: int) -> tuple[int, int, int]:
    segment = int(np.searchsorted(stops, first, side="right"))
    start = int(stops[segment - 1]) if segment else 0
    return segment, first - start, min(first + length, int(stops[segment])) - start


def _chunks(recording: BaseRecording, length: int) -> Iterator[tuple[int, int, int, int]]:
    """Segment, first and last sample in it, and how many samples came before the segment."""
    before = 0
    for segment in range(recording.get_num_segments()):
        n = recording.get_num_samples(segment)
        for first in range(0, n, length):
            yield segment, first, min(first + length, n), before
        before += n


def _in_order(
    pool: ThreadPoolExecutor, search: "_Search", chunks: Iterable[tuple[int, int, int, int]], ahead: int
) -> Iterator["_Part"]:
    """As `pool.map`, which would begin all chunks at once and keep what is finished until it is asked for."""
    pending: deque[Future[_Part]] = deque()
    for chunk in chunks:
        if len(pending) == ahead:
            yield pending.popleft().result()
        pending.append(pool.submit(search, chunk))
    while pending:
        yield pending.popleft().result()


@dataclass(frozen=True, eq=False)
class _Part:
    """Minima of one chunk, by channel and then by time, and sums over their shapes."""

    frame: Integer[np.ndarray, "spike"]
    channel: Integer[np.ndarray, "spike"]
    depth: Float[np.ndarray, "spike"]
    n_shapes: Integer[np.ndarray, "channel"]
    total: Float[np.ndarray, "channel sample"]
    squares: Float[np.ndarray, "channel sample"]


@dataclass(frozen=True, eq=False)
class _Search:
    recording: BaseRecording
    threshold: Float[np.ndarray, "channel"]
    dead: int
    before: int
    after: int

    def __call__(self, chunk: tuple[int, int, int, int]) -> _Part:
        segment, first, stop, counted = chunk
        n = self.recording.get_num_samples(segment)
        margin = max(self.dead, self.before, self.after)
        low, high = max(0, first - margin), min(n, stop + margin)
        voltage = self.recording.get_traces(segment, start_frame=low, end_frame=high).astype(np.float32, copy=False)
        # Zeros where the segment has ended: no minimum of it is shallower.
        voltage = np.pad(voltage, ((margin - (first - low), margin - (high - stop)), (0, 0)))
        sample, channel = minima(voltage, self.threshold, self.dead, margin)
        order = np.lexsort((sample, channel))
        sample, channel = sample[order], channel[order]
        frame = sample + (first - margin)
        whole = (frame >= self.before) & (frame + self.after <= n)
        sums = self._shapes(voltage, sample[whole], channel[whole])
        return _Part(frame + counted, channel, voltage[sample, channel], *sums)

    def _shapes(
        self, voltage: Num[np.ndarray, "time channel"], sample: Integer[np.ndarray, "_"], channel: Integer[np.ndarray, "_"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        here, first, n = np.unique(channel, return_index=True, return_counts=True)
        shapes = voltage[sample[:, None] + np.arange(-self.before, self.after), channel[:, None]].astype(np.float64)
        count = np.zeros(voltage.shape[1], np.int64)
        total, squares = np.zeros((2, voltage.shape[1], self.before + self.after))
        if len(here):
            count[here], total[here] = n, np.add.reduceat(shapes, first, axis=0)
            squares[here] = np.add.reduceat(shapes**2, first, axis=0)
        return count, total, squares


def minima(
    voltage: Num[np.ndarray, "time channel"], threshold: Float[np.ndarray, "channel"], dead: int, margin: int
) -> tuple[Integer[np.ndarray, "spike"], Integer[np.ndarray, "spike"]]:
    """Sample and channel of minima that lie at least `margin` samples from both ends; `dead` is at most `margin`."""
    sample, channel = np.nonzero(voltage[margin : len(voltage) - margin] < -threshold)
    sample = sample + margin
    # Few samples cross the threshold, and fewer after each comparison; so this is much faster than comparing whole arrays.
    for offset in range(1, dead + 1):
        value = voltage[sample, channel]
        deepest = (value < voltage[sample - offset, channel]) & (value <= voltage[sample + offset, channel])
        sample, channel = sample[deepest], channel[deepest]
    return sample, channel


@dataclass(eq=False)
class _Sums:
    """What was found so far: the minima of each chunk, and the sums of all shapes."""

    n_shapes: Integer[np.ndarray, "channel"]
    total: Float[np.ndarray, "channel sample"]
    squares: Float[np.ndarray, "channel sample"]
    minima: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=deque)
    """Frame, channel and depth, of chunks in order of time; by channel and then by time within each."""

    @classmethod
    def empty(cls, n_channels: int, n_samples: int) -> "_Sums":
        return cls(np.zeros(n_channels, np.int64), *np.zeros((2, n_channels, n_samples)))

    def add(self, part: _Part) -> None:
        self.n_shapes += part.n_shapes
        self.total += part.total
        self.squares += part.squares
        if len(part.frame):
            self.minima.append((part.frame, part.channel.astype(np.int32), part.depth))

    def crossings(self, noise: Float[np.ndarray, "channel"], before: int) -> Crossings:
        n = self.n_shapes[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.total / n
            sd = np.sqrt(np.maximum(self.squares / n - mean**2, 0.0))
        return Crossings(*self._by_channel(len(noise)), mean, sd, before, noise)

    def _by_channel(self, n_channels: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Frames and depths. Each chunk is put in its place and thrown away, so that there is no third copy of the whole."""
        n = np.zeros(n_channels, np.int64)
        for _, channel, _ in self.minima:
            n += np.bincount(channel, minlength=n_channels)
        frame, depth = np.empty(n.sum(), np.int64), np.empty(n.sum(), np.float32)
        ends = np.cumsum(n)
        free = ends - n
        while self.minima:
            frames, channel, depths = self.minima.popleft()
            of_channel = np.bincount(channel, minlength=n_channels)
            at = np.arange(len(channel)) + np.repeat(free - (np.cumsum(of_channel) - of_channel), of_channel)
            frame[at], depth[at] = frames, depths
            free += of_channel
        return tuple(np.split(frame, ends[:-1])), tuple(np.split(depth, ends[:-1]))
