"""Neurons whose wiring is known: each consolidates a few channels of the shared first stage in its own way.

    drive(image)  = sum over places x of RF(x) * max(0, sum_k weight_k * channel_k(x + offset_k) - threshold)
    count(image)  = baseline + peak * d / (1 + d),    d = gain * drive(image)

RF is a Gaussian receptive field of total 1. A neuron is exactly its rows of wiring: `wiring_rows` and
`neurons_from_wiring` are inverse, so whoever reads a simulated file can ask the true neuron about any image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

from nwb_compact.errors import NwbCompactError
from nwb_compact.natural_images import natural_images
from nwb_compact.session import WiringRow
from nwb_compact.simulated_filters import DIRECTIONS_DEG, ORIENTATIONS_DEG, STRIDE_PX, channel_maps

ROLES = ("dot", "edge", "colour", "curvature", "texture")
"""The first four units of a simulation have the first four roles in this order."""
LATER_ROLES = ("texture", "edge", "colour", "dot", "curvature")
"""Units after those cycle through these."""
PARAMETERS = ("threshold", "rf_sigma_px", "gain", "peak", "baseline")
"""Rows of wiring whose `channel` is one of these hold that number as their weight; offsets of `rf_sigma_px` are the RF's centre."""
CALIBRATION_IMAGES, CALIBRATION_SEED = 150, 2**31 - 1
CHUNK = 32


@dataclass(frozen=True)
class Connection:
    """A neuron reads `weight` x the `channel` at an offset, in pixels: rows count downwards, columns to the right."""

    channel: str
    weight: float
    row_offset_px: float = 0.0
    column_offset_px: float = 0.0


@dataclass(frozen=True)
class Neuron:
    """A simulated neuron; see the top of this module for what the numbers do."""

    name: str
    role: str
    connections: tuple[Connection, ...]
    threshold: float
    """In units of the weighted sum of channels."""
    rf_sigma_px: float
    rf_row_px: float
    """Centre of the receptive field relative to the image centre, downwards; the next one to the right."""
    rf_column_px: float
    gain: float
    peak: float
    """Spikes in the counting window that an infinite drive would add."""
    baseline: float
    """Spikes in a counting window without any drive."""


def expected_counts(neurons: Sequence[Neuron], images: UInt8[np.ndarray, "image height width 3"]) -> Float[np.ndarray, "image unit"]:
    """Ask true neurons about any images.

    Parameters
    ----------
    neurons
        From `simulated_neurons` or `neurons_from_wiring(session.wiring)`.
    images
        RGB, 0 to 255, of any even height and width; receptive fields lie about the image centre.

    Returns
    -------
    Float[np.ndarray, "image unit"]
        Expected spikes in the counting window (100 ms): the mean of the Poisson counts of the session.

    Examples
    --------
    >>> neurons = simulated_neurons(2, seed=0)
    >>> expected_counts(neurons, natural_images(3, seed=0)).shape
    (3, 2)
    """
    channels = sorted({connection.channel for neuron in neurons for connection in neuron.connections})
    counts = np.empty((len(images), len(neurons)))
    for start in range(0, len(images), CHUNK):
        maps = channel_maps(images[start:start + CHUNK], channels)
        for column, neuron in enumerate(neurons):
            counts[start:start + CHUNK, column] = _response(neuron, _drive(neuron, maps))
    return counts


def wiring_rows(neurons: Sequence[Neuron]) -> tuple[WiringRow, ...]:
    """Every number of every neuron as rows of the wiring table: connections first, then `PARAMETERS`.

    Examples
    --------
    >>> neurons = simulated_neurons(1, seed=0)
    >>> neurons_from_wiring(wiring_rows(neurons)) == neurons
    True
    """
    return tuple(row for neuron in neurons for row in _rows_of(neuron))


def neurons_from_wiring(wiring: Sequence[WiringRow]) -> tuple[Neuron, ...]:
    """Rebuild the neurons of a simulated session, in the order of its units.

    Parameters
    ----------
    wiring
        `Session.wiring`.

    Raises
    ------
    NwbCompactError
        If the wiring lacks one of `PARAMETERS` for a unit, or is empty as in every real recording.
    """
    rows: dict[str, list[WiringRow]] = {}
    for row in wiring:
        rows.setdefault(row.unit, []).append(row)
    if not rows:
        raise NwbCompactError("session.wiring", found="no rows", expected="the wiring of simulated neurons",
                              next_step="use a file that `nwb-compact simulate` wrote")
    return tuple(_neuron_of(name, unit_rows) for name, unit_rows in rows.items())


def simulated_neurons(n_units: int, *, seed: int) -> tuple[Neuron, ...]:
    """Draw neurons: a dot detector, an edge-only, a colour and a curvature neuron, then others of these kinds and of texture.

    Parameters
    ----------
    n_units
        How many. Neuron i depends on `seed` and i only.
    seed
        Non-negative.

    Notes
    -----
    Threshold, gain and peak are set on `CALIBRATION_IMAGES` natural images of a fixed seed, so that mean counts lie
    between 0.5 and 9 spikes in 100 ms, as in the study's sessions (data/README.md), and no neuron is driven by a handful
    of images only. The dot detector is wired as the one of the study: its four sides excite, large edges inhibit.

    Examples
    --------
    >>> [(neuron.name, neuron.role) for neuron in simulated_neurons(4, seed=0)]
    [('unit-001', 'dot'), ('unit-002', 'edge'), ('unit-003', 'colour'), ('unit-004', 'curvature')]
    """
    drafts = [_draft(index, np.random.default_rng([seed, 1, index])) for index in range(n_units)]
    images = _calibration_images()
    channels = sorted({connection.channel for draft in drafts for connection in draft.connections})
    parts = [channel_maps(images[start:start + CHUNK], channels) for start in range(0, len(images), CHUNK)]
    maps = {channel: np.concatenate([part[channel] for part in parts]) for channel in channels}
    return tuple(_calibrated(draft, maps, np.random.default_rng([seed, 2, index])) for index, draft in enumerate(drafts))


# From channels to counts -------------------------------------------------------------------------------------------

Maps = Mapping[str, Float[np.ndarray, "image row column"]]


def _response(neuron: Neuron, drive: Float[np.ndarray, "image"]) -> Float[np.ndarray, "image"]:
    scaled = neuron.gain * drive
    return neuron.baseline + neuron.peak * scaled / (1 + scaled)


def _drive(neuron: Neuron, maps: Maps) -> Float[np.ndarray, "image"]:
    selected = np.maximum(_weighted_sum(neuron, maps) - neuron.threshold, 0)
    return np.einsum("irc,rc->i", selected, _receptive_field(neuron, selected.shape[1:]))


def _weighted_sum(neuron: Neuron, maps: Maps) -> Float[np.ndarray, "image row column"]:
    total = np.zeros_like(maps[neuron.connections[0].channel])
    for connection in neuron.connections:
        _add_shifted(total, maps[connection.channel], connection)
    return total


def _add_shifted(total: Float[np.ndarray, "image row column"], channel: Float[np.ndarray, "image row column"],
                 connection: Connection) -> None:
    """total(x) += weight * channel(x + offset); nothing comes from outside the image."""
    (to_rows, from_rows), (to_columns, from_columns) = (
        _overlap(size, round(offset_px / STRIDE_PX))
        for size, offset_px in zip(total.shape[1:], (connection.row_offset_px, connection.column_offset_px), strict=True))
    total[:, to_rows, to_columns] += connection.weight * channel[:, from_rows, from_columns]


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size - max(0, -shift))


def _receptive_field(neuron: Neuron, shape: tuple[int, ...]) -> Float[np.ndarray, "row column"]:
    profiles = []
    for size, centre_px in zip(shape, (neuron.rf_row_px, neuron.rf_column_px), strict=True):
        places_px = (np.arange(size) - (size - 1) / 2) * STRIDE_PX - centre_px
        profiles.append(np.exp(-(places_px**2) / (2 * neuron.rf_sigma_px**2)))
    field = np.outer(*profiles)
    return field / field.sum()


# Between neurons and rows ------------------------------------------------------------------------------------------


def _rows_of(neuron: Neuron) -> Iterator[WiringRow]:
    for connection in neuron.connections:
        yield WiringRow(neuron.name, neuron.role, connection.channel, connection.weight,
                        connection.row_offset_px, connection.column_offset_px)
    for parameter in PARAMETERS:
        is_field = parameter == "rf_sigma_px"
        yield WiringRow(neuron.name, neuron.role, parameter, getattr(neuron, parameter),
                        neuron.rf_row_px if is_field else 0.0, neuron.rf_column_px if is_field else 0.0)


def _neuron_of(name: str, rows: Sequence[WiringRow]) -> Neuron:
    values = {row.channel: row for row in rows if row.channel in PARAMETERS}
    missing = [parameter for parameter in PARAMETERS if parameter not in values]
    if missing:
        raise NwbCompactError(f"wiring of {name}", found=f"no row for {', '.join(missing)}",
                              expected=f"one row each for {', '.join(PARAMETERS)}", next_step="simulate the file again with this version")
    connections = tuple(Connection(row.channel, row.weight, row.row_offset_px, row.column_offset_px)
                        for row in rows if row.channel not in PARAMETERS)
    field = values["rf_sigma_px"]
    numbers = {parameter: values[parameter].weight for parameter in PARAMETERS}
    return Neuron(name, rows[0].role, connections, rf_row_px=field.row_offset_px, rf_column_px=field.column_offset_px, **numbers)


# Drawing neurons ---------------------------------------------------------------------------------------------------


def _draft(index: int, rng: np.random.Generator) -> Neuron:
    """A neuron without threshold, gain and peak."""
    role = ROLES[index] if index < 4 else LATER_ROLES[(index - 4) % len(LATER_ROLES)]
    row, column = rng.uniform(-8, 8, 2)
    return Neuron(f"unit-{index + 1:03d}", role, _CONNECT[role](rng), threshold=0.0, rf_sigma_px=float(rng.uniform(10, 16)),
                  rf_row_px=float(row), rf_column_px=float(column), gain=1.0, peak=1.0, baseline=0.0)


_CLEAN = (Connection("spot-bright", -1.0), Connection("spot-dark", -1.0))
"""Grain in the middle inhibits: else a dot detector is driven by the chance dots of any rough texture."""


def _dot(rng: np.random.Generator) -> tuple[Connection, ...]:
    """The four sides of a small disk excite; large edges through its centre inhibit (see docs/methods.md)."""
    radius, inwards = float(rng.choice((6, 8))), 180 * int(rng.integers(2))  # 180: brighter inside
    sides = [_side("fine", outwards, radius, inwards, 1.0) for outwards in (0.0, 90.0, 180.0, 270.0)]
    large = [Connection(f"edge-coarse-{direction:05.1f}", -0.8) for direction in (0.0, 90.0, 180.0, 270.0)]
    return (*sides, *large, *_CLEAN)


def _curvature(rng: np.random.Generator) -> tuple[Connection, ...]:
    """A half ring of edges that all rise towards its middle (or away from it).

    A straight edge along the apex, large edges across the ring and the closed ring's other side inhibit.
    """
    radius, inwards, facing = 8.0, 180 * int(rng.integers(2)), float(rng.choice(DIRECTIONS_DEG))
    arc = [_side("fine", facing + turn, radius, inwards, 1.0) for turn in (-67.5, -22.5, 22.5, 67.5)]
    straight = _side("coarse", facing, radius, inwards, -0.8)
    across = [Connection(f"edge-coarse-{(facing + turn) % 360:05.1f}", -0.8) for turn in (90, 270)]
    return (*arc, straight, *across, _side("fine", facing + 180, radius, inwards, -0.5), *_CLEAN)


def _edge(rng: np.random.Generator) -> tuple[Connection, ...]:
    """One orientation, either polarity; the orthogonal orientation inhibits."""
    scale, direction = str(rng.choice(("fine", "coarse"))), float(rng.choice(ORIENTATIONS_DEG))
    along = [Connection(f"edge-{scale}-{(direction + turn) % 360:05.1f}", 1.0) for turn in (0, 180)]
    across = [Connection(f"edge-{scale}-{(direction + turn) % 360:05.1f}", -0.9) for turn in (90, 270)]
    line = [Connection(f"line-{scale}-{sign}-{(direction + 90) % 180:05.1f}", 0.5) for sign in ("bright", "dark")]
    return (*along, *across, *line)


def _colour(rng: np.random.Generator) -> tuple[Connection, ...]:
    """One pole of an opponent axis; achromatic grain inhibits."""
    pole = str(rng.choice(("red", "green", "blue", "yellow")))
    return (Connection(f"colour-{pole}", 1.0), *_CLEAN)


def _texture(rng: np.random.Generator) -> tuple[Connection, ...]:
    """Fine lines of two orientations at once; coarse edges inhibit."""
    first = float(rng.choice(ORIENTATIONS_DEG))
    second = (first + float(rng.choice((45.0, 67.5, 90.0)))) % 180
    fine = [Connection(f"line-fine-{sign}-{angle:05.1f}", 1.0) for angle in (first, second) for sign in ("bright", "dark")]
    coarse = [Connection(f"edge-coarse-{angle:05.1f}", -0.8) for angle in (first, (first + 180) % 360)]
    return (*fine, *coarse)


_CONNECT = {"dot": _dot, "edge": _edge, "colour": _colour, "curvature": _curvature, "texture": _texture}


def _side(scale: str, outwards_deg: float, radius_px: float, inwards_deg: int, weight: float) -> Connection:
    """The piece of a circle's outline that lies in one direction from its centre, as the nearest edge channel."""
    angle = np.deg2rad(outwards_deg)
    return Connection(f"edge-{scale}-{(outwards_deg + inwards_deg) % 360:05.1f}", weight,
                      _even(-radius_px * np.sin(angle)), _even(radius_px * np.cos(angle)))


def _even(offset_px: float) -> float:
    """Offsets are whole steps of the maps."""
    return float(STRIDE_PX * round(float(offset_px) / STRIDE_PX))


# Setting threshold, gain and peak on natural images ----------------------------------------------------------------

SELECTED_SHARE = {"dot": 0.03, "edge": 0.3, "colour": 0.4, "curvature": 0.06, "texture": 0.4}
"""Share of places in natural images that pass the threshold. Chosen so that a fit of about 1000 images can find the neuron."""


def _calibrated(draft: Neuron, maps: Maps, rng: np.random.Generator) -> Neuron:
    total = _weighted_sum(draft, maps)
    chance = _receptive_field(draft, total.shape[1:])
    threshold = _weighted_quantile(total, np.broadcast_to(chance, total.shape), 1 - SELECTED_SHARE[draft.role])
    selective = replace(draft, threshold=threshold)
    drive = _drive(selective, maps)
    mean_count = np.exp(rng.uniform(np.log(1.5), np.log(6.0)))
    saturating = replace(selective, gain=float(1 / np.quantile(drive, 0.9)))
    peak = 0.92 * mean_count / _response(saturating, drive).mean()
    return replace(saturating, peak=float(peak), baseline=float(0.08 * mean_count))


def _weighted_quantile(values: Float[np.ndarray, "*any"], weights: Float[np.ndarray, "*any"], share: float) -> float:
    order = np.argsort(values, axis=None)
    passed = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order][np.searchsorted(passed, share * passed[-1])])


@lru_cache(maxsize=1)
def _calibration_images() -> UInt8[np.ndarray, "image height width 3"]:
    return natural_images(CALIBRATION_IMAGES, seed=CALIBRATION_SEED)
