"""A session: what was shown to the animal and how its neurons answered, as frozen values without any file behind them.

Axes are named the same everywhere: presentation, image, repeat, unit, channel, height, width. What a source did not
record is `None` here and absent in the file; nothing is filled in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt, UInt8

BLANK = "blank"
"""Kind of the one image that stands for presentations in which nothing was shown."""


@runtime_checkable
class Pixels(Protocol):
    """Pixels that may still lie on disk: anything that has a shape and can be sliced along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(image height width) or (image height width channel)."""

    def __getitem__(self, index: Any) -> np.ndarray:
        """The pixels of some images, read now."""


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a session, in the order that `image_index` counts."""

    name: tuple[str, ...]
    sha256: tuple[str, ...]
    """Identity of each image, see `image_sha256`. The same picture shown in two sessions has the same hash."""
    pixels: Pixels | None = None
    """uint8, (image height width channel) in RGB or (image height width) in grey; None where only hashes may be kept."""
    kind: tuple[str, ...] | None = None
    """natural, gaudy, maximizing, artificial, ...: what the source says, else None. Likewise the three below."""
    source: tuple[str, ...] | None = None
    licence: tuple[str, ...] | None = None
    split: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.sha256)

    @property
    def is_picture(self) -> Bool[np.ndarray, "image"]:
        """Whether it is one, and not the placeholder of presentations in which nothing was shown."""
        return np.array([kind != BLANK for kind in self.kind or ("",) * len(self)], dtype=bool)


@dataclass(frozen=True, eq=False)
class Presentations:
    """What was shown when: one row for each time an image was on the screen."""

    image_index: UInt[np.ndarray, "presentation"]
    repeat: UInt[np.ndarray, "presentation"]
    """Counts from 0 within an image."""
    is_valid: Bool[np.ndarray, "presentation"]
    """False where fixation broke or the trial failed; such a row stays in the table and its responses are not used."""
    start_time_s: Float[np.ndarray, "presentation"] | None = None
    stop_time_s: Float[np.ndarray, "presentation"] | None = None
    """Both None when the source gave no times."""
    alignment_residual_s: Float[np.ndarray, "presentation"] | None = None
    """Onset marked in the recording minus onset computed from the stimulus clock; NaN where the onset was not marked."""

    def __len__(self) -> int:
        return len(self.image_index)


@dataclass(frozen=True, eq=False)
class Electrodes:
    """Where the voltage was recorded: one row an electrode."""

    name: tuple[str, ...]
    """Name of its channel in the recording."""
    group: tuple[str, ...]
    """Array, probe or shank it belongs to; electrodes of one group are sorted together."""
    location: tuple[str, ...]
    """Brain area, `unknown` where nobody said: NWB requires a text."""
    rel_x_um: Float[np.ndarray, "electrode"] | None = None
    rel_y_um: Float[np.ndarray, "electrode"] | None = None
    """Position on its array or probe, micrometres; None where no geometry was given."""

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class Device:
    """What recorded."""

    name: str
    description: str | None = None
    manufacturer: str | None = None


@dataclass(frozen=True, eq=False)
class Waveforms:
    """The mean spike of each unit on its electrode."""

    mean_v: Float[np.ndarray, "unit sample"]
    """Volts."""
    sd_v: Float[np.ndarray, "unit sample"] | None
    rate_hz: float
    before_peak_s: float
    """Time of the peak after the first sample."""


@dataclass(frozen=True, eq=False)
class Events:
    """What happened on one digital line or word port of the recording."""

    time_s: Float[np.ndarray, "event"]
    """Ascending."""
    code: Integer[np.ndarray, "event"]
    """The word that was sent; on a single line 1 where it rose and 0 where it fell."""


@dataclass(frozen=True, eq=False)
class Units:
    """The recorded neurons."""

    name: tuple[str, ...]
    spike_times_s: tuple[Float[np.ndarray, "_"], ...] | None = None
    """One ascending array a unit (of its own length, hence no axis name); None for all of them when the source kept only counts."""
    obs_intervals_s: Float[np.ndarray, "interval 2"] | None = None
    """When the recording ran, a row for each stretch without a gap; None unless the source says so."""
    resolution_s: float | None = None
    """Smallest difference between two spike times: one sample."""
    electrode_index: UInt[np.ndarray, "unit"] | None = None
    """Row in `Electrodes` of the electrode where the unit is largest."""
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further columns, one value a unit: quality metrics under their usual names, sort codes, labels."""
    waveforms: Waveforms | None = None

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, eq=False)
class ResponseUnits:
    """How the responses were counted; entry j describes column j of the counts or means."""

    unit_index: UInt[np.ndarray, "response_unit"]
    """Row in `Units`."""
    window_start_s: Float[np.ndarray, "response_unit"] | None
    """Counting window relative to image onset. A source may give only its length: then both ends are None."""
    window_stop_s: Float[np.ndarray, "response_unit"] | None
    latency_s: Float[np.ndarray, "response_unit"] | None = None
    reliability: Float[np.ndarray, "response_unit"] | None = None
    snr: Float[np.ndarray, "response_unit"] | None = None


@dataclass(frozen=True, eq=False)
class SpikeCounts:
    """Single-trial responses in long form: one row a presentation, since repeats are unequal in every real session."""

    presentation_index: UInt[np.ndarray, "counted"]
    """Row in `Presentations`."""
    count: UInt[np.ndarray, "counted response_unit"]
    description: str = "spike counts"


@dataclass(frozen=True, eq=False)
class MeanResponses:
    """Repeat averages, for sources that kept nothing else. Noise ceilings cannot be computed from them."""

    mean: Float[np.ndarray, "image response_unit"]
    """Mean spike count over repeats; NaN where a unit was not held for an image."""
    n_repeats: Float[np.ndarray, "image"] | None = None
    """Repeats behind each mean; None when the source does not say."""
    description: str = "mean spike counts over repeats"


@dataclass(frozen=True)
class Subject:
    """The animal, as far as the source tells. Fields as in NWB; `date_of_birth` or `age` (ISO 8601 duration)."""

    subject_id: str | None = None
    species: str | None = None
    sex: str | None = None
    age: str | None = None
    date_of_birth: datetime | None = None
    description: str | None = None
    weight: str | None = None
    strain: str | None = None
    genotype: str | None = None


@dataclass(frozen=True)
class About:
    """What names and dates the session."""

    identifier: str
    session_description: str
    session_start_time: datetime
    """With a time zone. NWB requires it: where the source gives only a date the description says so."""
    session_id: str | None = None
    experimenter: tuple[str, ...] | None = None
    institution: str | None = None
    lab: str | None = None
    keywords: tuple[str, ...] | None = None
    related_publications: tuple[str, ...] | None = None
    experiment_description: str | None = None
    notes: str | None = None
    source_script: str | None = None
    """What wrote the file: key: value lines, the program and its version first."""


@dataclass(frozen=True)
class WiringRow:
    """One connection of a simulated neuron: `unit` sums `weight` x the `channel` of the shared filters at an offset.

    The neuron's other numbers (threshold, receptive field, gain, peak, baseline) are rows too: see `simulated_neurons.PARAMETERS`.
    """

    unit: str
    role: str
    channel: str
    weight: float
    row_offset_px: float
    column_offset_px: float


@dataclass(frozen=True, eq=False)
class Session:
    """Everything of one session that fitting needs, with no file behind it except `images.pixels` where those are lazy."""

    about: About
    subject: Subject | None
    images: Images
    presentations: Presentations | None
    units: Units
    response_units: ResponseUnits
    counts: SpikeCounts | None
    mean_responses: MeanResponses | None
    wiring: tuple[WiringRow, ...] = field(default=())
    """Empty for every real recording."""
    electrodes: Electrodes | None = None
    device: Device | None = None
    """What the electrodes belong to; both None where the source tells nothing of them."""
    events: Mapping[str, Events] = field(default_factory=dict)
    """Digital events by the name of their line or port."""


def image_sha256(pixels: UInt8[np.ndarray, "*image_shape"]) -> str:
    """Identity of one image: SHA-256 over its shape and decoded pixels, so a re-saved file keeps it only if no pixel moved.

    Parameters
    ----------
    pixels
        (height width channel) or (height width), uint8.

    Examples
    --------
    >>> grey = np.zeros((4, 4), np.uint8)
    >>> image_sha256(grey) == image_sha256(grey.copy()), image_sha256(grey) == image_sha256(grey + np.uint8(1))
    (True, False)
    """
    shape = "x".join(str(size) for size in pixels.shape)
    return sha256(f"{shape}:".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def counted_repeats(image_index: UInt[np.ndarray, "presentation"]) -> UInt[np.ndarray, "presentation"]:
    """How often the image of each presentation had been shown before, broken trials included.

    Examples
    --------
    >>> counted_repeats(np.array([4, 2, 4, 4, 2], np.uint32))
    array([0, 0, 1, 2, 1], dtype=uint16)
    """
    order = np.argsort(image_index, kind="stable")
    _, first, how_often = np.unique(image_index[order], return_index=True, return_counts=True)
    repeat = np.empty(len(image_index), np.uint16 if len(image_index) <= 65536 else np.uint32)
    repeat[order] = np.arange(len(image_index)) - np.repeat(first, how_often)
    return repeat


def kept_presentations(session: Session) -> Integer[np.ndarray, "kept"]:
    """Rows of `session.counts` whose presentation is valid.

    Raises
    ------
    ValueError
        If the session has no counts (then use `mean_responses`).
    """
    if session.counts is None or session.presentations is None:
        raise ValueError("the session keeps repeat averages only, so there are no single presentations to choose from")
    return np.flatnonzero(session.presentations.is_valid[session.counts.presentation_index])


def example_session(n_images: int = 24, n_units: int = 2, *, height_px: int = 8) -> Session:
    """A small, made-up session for documentation and tests, with unequal repeats and without times; its numbers mean nothing.

    Examples
    --------
    >>> session = example_session()
    >>> session.counts.count.shape, session.images.pixels.shape
    ((60, 2), (24, 8, 8, 3))
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n_images, height_px, height_px, 3), dtype=np.uint8)
    repeats = 2 + np.arange(n_images) % 2
    image_index = np.repeat(np.arange(n_images, dtype=np.uint32), repeats)
    count = rng.poisson(rng.gamma(2.0, 1.5, (n_images, n_units))[image_index]).astype(np.uint16)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return Session(
        about=About("example", "a made-up session", start, session_id="example"),
        subject=Subject(subject_id="example", species="Macaca mulatta", sex="U", age="P8Y"),
        images=Images(
            name=tuple(f"image {index}.png" for index in range(n_images)),
            sha256=tuple(image_sha256(image) for image in pixels),
            pixels=pixels,
        ),
        presentations=Presentations(
            image_index=image_index,
            repeat=np.concatenate([np.arange(n, dtype=np.uint32) for n in repeats]),
            is_valid=np.ones(len(image_index), bool),
        ),
        units=Units(tuple(f"unit-{index + 1}" for index in range(n_units))),
        response_units=ResponseUnits(np.arange(n_units, dtype=np.uint32), np.full(n_units, 0.05), np.full(n_units, 0.15)),
        counts=SpikeCounts(np.arange(len(image_index), dtype=np.uint32), count),
        mean_responses=None,
    )
