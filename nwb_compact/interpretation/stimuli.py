"""Made images of the classical families, drawn about a receptive field: gratings, edges, bars, dots, curves, angles, crossed lines, colour.

Everything lies on one grey and is drawn smooth, so that no neuron is driven by the staircase of a pixel grid.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from jaxtyping import Float, UInt8

from nwb_compact.interpretation.tables import Column
from nwb_compact.results import IMAGE_PX

GREY = 112.0
"""Level of the background: about the mean of the study's images over pixels and colours."""
CONTRAST = 0.8
"""Largest contrast of achromatic stimuli: they reach at most GREY x (1 + contrast) and GREY x (1 - contrast)."""
RMS_CONTRAST = 0.25
"""Standard deviation over GREY of what fills its aperture: gratings, crossed lines and edges. It is equal, so that none drives by contrast
alone, and somewhat below that of natural images. Single elements have CONTRAST."""
APERTURE_PX = 64.0
"""Diameter in which gratings, edges and crossed lines are shown; beyond it they fade out over `FADE_PX`."""
FADE_PX = 4.0
ORIENTATIONS_DEG = tuple(15.0 * step for step in range(12))
DIRECTIONS_DEG = tuple(22.5 * step for step in range(16))
WAVELENGTHS_PX = (5.0, 7.0, 10.0, 14.0, 20.0)
PHASES_DEG = (0.0, 90.0, 180.0, 270.0)
DOT_PX = (4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 32.0, 40.0, 48.0, 64.0)
CONTRASTS = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Shares of RMS_CONTRAST."""
SURROUND_PX = (8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0)
POLARITIES = (1.0, -1.0)
OFFSETS_PX = (-24.0, -12.0, 0.0, 12.0, 24.0)
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (80.0, -40.7, 0.0), "green": (-80.0, 40.7, 0.0), "blue": (-12.9, -12.9, 100.0), "yellow": (12.9, 12.9, -100.0),
    "white": (90.0, 90.0, 90.0), "black": (-90.0, -90.0, -90.0),
}
"""What is added to the grey, grey levels of red, green and blue. The first four leave luma (0.299 R + 0.587 G + 0.114 B) as it is."""

Plane = Float[np.ndarray, "row column"]


@dataclass(frozen=True)
class Stimulus:
    """One made image; what does not apply is NaN. Angles count counter-clockwise from the right."""

    family: str
    orientation_deg: float = np.nan
    """Of bars, lines and the stripes of gratings: 0 lies along the horizontal. Of curves, angles and edges: where the brighter or
    marked side faces."""
    wavelength_px: float = np.nan
    phase_deg: float = np.nan
    """0: a bright stripe in the middle of the aperture."""
    size_px: float = np.nan
    """Diameter of dots, apertures and circles that curves are part of; width of bars; opening of angles in degrees."""
    polarity: float = np.nan
    """1: brighter than the background, -1: darker."""
    colour: str = "grey"
    second_orientation_deg: float = np.nan
    row_offset_px: float = 0.0
    """Of a single element from the centre of the receptive field, downwards; the next one to the right."""
    column_offset_px: float = 0.0
    contrast: float = 1.0
    """Share of the full contrast of its family."""


def battery() -> tuple[Stimulus, ...]:
    """All made images, about 1,000; `drawn` draws them.

    Examples
    --------
    >>> sorted({stimulus.family for stimulus in battery()})
    ['angle', 'bar', 'blank', 'colour', 'contrast', 'curve', 'dot', 'edge', 'grating', 'lines', 'surround']
    """
    return tuple(_all())


def columns_of(stimuli: Sequence[Stimulus]) -> dict[str, Column]:
    """The stimuli as columns of a table, one row each."""
    meanings = {
        "family": "kind of stimulus",
        "orientation_deg": "of stripes and bars, or side that an edge, curve or angle faces, degrees counter-clockwise from the right",
        "wavelength_px": "of a grating, pixels",
        "phase_deg": "of a grating, degrees; 0: bright stripe in the middle",
        "size_px": "diameter of dot, circle or aperture, or width of a bar, pixels; opening of an angle, degrees",
        "polarity": "1 brighter, -1 darker than the background",
        "colour": "what is added to the grey",
        "second_orientation_deg": "of crossed lines, degrees",
        "row_offset_px": "downwards from the centre of the receptive field, pixels",
        "column_offset_px": "to the right, pixels",
        "contrast": "share of the full contrast of its family",
    }
    return {item.name: Column(meanings[item.name], np.array([getattr(stimulus, item.name) for stimulus in stimuli]))
            for item in fields(Stimulus)}


def drawn(stimuli: Sequence[Stimulus], row_px: float = 0.0, column_px: float = 0.0) -> UInt8[np.ndarray, "stimulus 112 112 3"]:
    """Draw stimuli about a place.

    Parameters
    ----------
    stimuli
        What to draw.
    row_px, column_px
        Centre of the receptive field from the centre of the image, pixels downwards and to the right.

    Examples
    --------
    >>> dot = drawn([Stimulus("dot", size_px=20.0, polarity=1.0)])[0]
    >>> dot[56, 56].tolist(), dot[0, 0].tolist()
    ([202, 202, 202], [112, 112, 112])
    """
    images = np.empty((len(stimuli), IMAGE_PX, IMAGE_PX, 3), np.uint8)
    place = np.arange(IMAGE_PX) - (IMAGE_PX - 1) / 2
    for image, stimulus in zip(images, stimuli, strict=True):
        down = (place - row_px - stimulus.row_offset_px)[:, None]
        right = (place - column_px - stimulus.column_offset_px)[None, :]
        opacity = stimulus.contrast * _DRAW[stimulus.family](stimulus, *np.broadcast_arrays(-down, right))
        added = np.array(COLOURS[stimulus.colour]) if stimulus.colour in COLOURS else np.full(3, GREY * CONTRAST)
        image[:] = np.clip(np.rint(GREY + opacity[:, :, None] * added), 0, 255)
    return images


def _all() -> Iterator[Stimulus]:
    yield Stimulus("blank")
    yield from _stripes()
    yield from _elements()
    for colour, size in product(COLOURS, (24.0, 56.0)):
        yield Stimulus("colour", size_px=size, colour=colour)


def _stripes() -> Iterator[Stimulus]:
    for orientation, wavelength, phase in product(ORIENTATIONS_DEG, WAVELENGTHS_PX, PHASES_DEG):
        yield Stimulus("grating", orientation, wavelength, phase, APERTURE_PX)
    for colour, orientation, wavelength, phase in product(("red", "blue"), ORIENTATIONS_DEG[::3], (10.0, 20.0), (0.0, 180.0)):
        yield Stimulus("grating", orientation, wavelength, phase, APERTURE_PX, colour=colour)
    for orientation, wavelength, phase, size in product(ORIENTATIONS_DEG[::3], (7.0, 14.0), PHASES_DEG, SURROUND_PX):
        yield Stimulus("surround", orientation, wavelength, phase, size)
    for orientation, wavelength, phase, contrast in product(ORIENTATIONS_DEG[::3], (7.0, 14.0), PHASES_DEG, CONTRASTS):
        yield Stimulus("contrast", orientation, wavelength, phase, APERTURE_PX, contrast=contrast)
    for first, turn, wavelength in product(ORIENTATIONS_DEG[::2], (45.0, 90.0), (5.0, 7.0, 10.0)):
        yield Stimulus("lines", first, wavelength, size_px=APERTURE_PX, second_orientation_deg=(first + turn) % 180)
    for direction in DIRECTIONS_DEG:
        yield Stimulus("edge", direction, size_px=APERTURE_PX)
    for orientation, width, polarity in product(ORIENTATIONS_DEG[::2], (3.0, 6.0, 12.0), POLARITIES):
        yield Stimulus("bar", orientation, size_px=width, polarity=polarity)


def _elements() -> Iterator[Stimulus]:
    for size, polarity in product(DOT_PX, POLARITIES):
        yield Stimulus("dot", size_px=size, polarity=polarity)
    for down, right, polarity in product(OFFSETS_PX, OFFSETS_PX, POLARITIES):
        if down or right:  # the one in the middle is among those above
            yield Stimulus("dot", size_px=12.0, polarity=polarity, row_offset_px=down, column_offset_px=right)
    for direction, size, polarity in product(DIRECTIONS_DEG, (12.0, 16.0, 24.0), POLARITIES):
        yield Stimulus("curve", direction, size_px=size, polarity=polarity)
    for direction, opening, polarity in product(DIRECTIONS_DEG[::2], (45.0, 90.0, 135.0), POLARITIES):
        yield Stimulus("angle", direction, size_px=opening, polarity=polarity)


# How much of what is added each place gets, -1 to 1, from its distance up and to the right of the centre --------------------------------


def _grating(stimulus: Stimulus, up: Plane, right: Plane) -> Plane:
    across = _across(stimulus.orientation_deg, up, right)
    wave = np.cos(2 * np.pi * across / stimulus.wavelength_px + np.deg2rad(stimulus.phase_deg))
    return RMS_CONTRAST / CONTRAST * np.sqrt(2) * wave * inside(stimulus.size_px / 2 - np.hypot(up, right), FADE_PX)


def _lines(stimulus: Stimulus, up: Plane, right: Plane) -> Plane:
    both = [np.cos(2 * np.pi * _across(angle, up, right) / stimulus.wavelength_px)
            for angle in (stimulus.orientation_deg, stimulus.second_orientation_deg)]
    return RMS_CONTRAST / CONTRAST * sum(both) * inside(stimulus.size_px / 2 - np.hypot(up, right), FADE_PX)


def _edge(stimulus: Stimulus, up: Plane, right: Plane) -> Plane:
    """Brighter on the side it faces."""
    side = 2 * inside(_along(stimulus.orientation_deg, up, right)) - 1
    return RMS_CONTRAST / CONTRAST * side * inside(stimulus.size_px / 2 - np.hypot(up, right), FADE_PX)


def _bar(stimulus: Stimulus, up: Plane, right: Plane) -> Plane:
    angle = stimulus.orientation_deg
    bar = inside(stimulus.size_px / 2 - np.abs(_across(angle, up, right)))
    return stimulus.polarity * bar * inside(APERTURE_PX / 2 - np.abs(_along(angle, up, right)))


def _dot(stimulus: Stimulus, up: Plane, right: Plane) -> Plane:
    polarity = 1.0 if np.isnan(stimulus.polarity) else stimulus.polarity
    return polarity * inside(stimulus.size_px / 2 - np.hypot(up, right))


def _curve(stimulus: Stimulus, up: Plane, right: Plane) -> Plane:
    """The half of a disk's outline that faces a direction; towards the other half the disk fades into the background."""
    radius = stimulus.size_px / 2
    fading = np.clip(0.5 + 0.75 * _along(stimulus.orientation_deg, up, right) / radius, 0, 1)
    return stimulus.polarity * fading * inside(radius - np.hypot(up, right))


def _angle(stimulus: Stimulus, up: Plane, right: Plane) -> Plane:
    """A wedge whose corner lies in the middle and points in a direction."""
    behind, half = -_along(stimulus.orientation_deg, up, right), np.deg2rad(stimulus.size_px / 2)
    sideways = np.abs(_across(stimulus.orientation_deg, up, right))
    wedge = inside(behind * np.sin(half) - sideways * np.cos(half))
    return stimulus.polarity * wedge * inside(APERTURE_PX / 2 - np.hypot(up, right), FADE_PX)


def _along(angle_deg: float, up: Plane, right: Plane) -> Plane:
    return right * np.cos(np.deg2rad(angle_deg)) + up * np.sin(np.deg2rad(angle_deg))


def _across(angle_deg: float, up: Plane, right: Plane) -> Plane:
    return up * np.cos(np.deg2rad(angle_deg)) - right * np.sin(np.deg2rad(angle_deg))


def inside(distance_px: Float[np.ndarray, "*places"], fade_px: float = 1.0) -> Float[np.ndarray, "*places"]:
    """1 inside an outline and 0 outside, linear in between, from the signed distance to it."""
    return np.clip(0.5 + distance_px / fade_px, 0, 1)


def _blank(_: Stimulus, up: Plane, right: Plane) -> Plane:
    return np.zeros(np.broadcast(up, right).shape)


_DRAW: Mapping[str, Callable[[Stimulus, Plane, Plane], Plane]] = {
    "blank": _blank, "grating": _grating, "surround": _grating, "contrast": _grating, "lines": _lines, "edge": _edge, "bar": _bar,
    "dot": _dot, "curve": _curve, "angle": _angle, "colour": _dot,
}
