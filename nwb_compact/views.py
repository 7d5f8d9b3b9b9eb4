"""Views of images that are natural images too: shifted, enlarged, mirrored, of other contrast and brightness, mixed with another image.

Whatever a view shows, the teacher answers it itself, so any view that is still a natural image is a valid question. What happens to a
picture in a view follows from the seed, the number of the view and the picture's row alone: any batch gives what all at once would.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Integer, UInt8, UInt64

from nwb_compact.config import Distill
from nwb_compact.student import IMAGE_PX
from nwb_compact.training import derived_seed

BLEND_MOST = 0.5
"""Largest weight of the other image in a blend: with more, it would be the view of that one."""
PASTE_SIDES = (0.25, 0.6)
"""Sides of a pasted rectangle over those of the image: from 6 to 36 % of it is another image. Ours, not tuned."""
FINENESS = 64
"""Views are sampled at multiples of 1/64 px, so that all sums are exact in float32 and no order of them can change a pixel."""
TOGETHER = 8
"""Images that are moved at a time: they stay in the processor's cache, which halved the time."""
DRAWS = ("zoom", "mirror", "down", "right", "contrast", "brightness", "mix", "partner", "weight", "height", "width", "top", "left")
"""What is drawn for each view, in this order; what is added must stand last, since a name's place decides its numbers."""
ODD = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: the step of SplitMix64 (Steele, Lea & Flood 2014)."""


@runtime_checkable
class Pictures(Protocol):
    """Images that are read when they are needed."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, rows: Integer[np.ndarray, "row"]) -> UInt8[np.ndarray, "row 112 112 3"]:
        """Some of them, in the order asked for; an array that the caller may change."""


def views(
    pictures: Pictures, rows: Integer[np.ndarray, "row"], number: int | Integer[np.ndarray, "row"], settings: Distill, *, seed: int
) -> UInt8[np.ndarray, "row 112 112 3"]:
    """One view of each of some pictures; view 0 is the picture itself.

    First another picture may be blended in or a rectangle of it pasted, then the whole is shifted, enlarged and mirrored (borders are
    reflected, which keeps edges continuous), then contrast and brightness change.

    Parameters
    ----------
    pictures
        All pictures that may be shown: the partner of a mix is any of them.
    rows
        Which to show.
    number
        Which view of them: one for all, or one for each.
    settings
        What a view may do, and how far.
    seed
        Source of the random choices.

    Examples
    --------
    >>> class Plain:
    ...     def __len__(self): return 3
    ...     def read(self, rows): return np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)[rows]
    >>> all_at_once = views(Plain(), np.arange(3), 1, Distill(), seed=0)
    >>> bool((views(Plain(), np.array([2]), 1, Distill(), seed=0) == all_at_once[2:]).all())
    True
    """
    pixels = pictures.read(rows)
    numbers = np.broadcast_to(np.asarray(number), rows.shape)
    changed = np.flatnonzero(numbers)
    if len(changed) == 0:
        return pixels
    random = _draws(rows[changed], numbers[changed], seed)
    shown = _mixed(pixels[changed], rows[changed], pictures, random, settings)
    down, right = _places(random, settings)
    gain, offset = _light(shown, random, settings)
    for start in range(0, len(changed), TOGETHER):
        part = slice(start, start + TOGETHER)
        moved = _sampled(_sampled(torch.from_numpy(shown[part]).float(), down[part]).transpose(1, 2).contiguous(), right[part])
        lit = moved.mul_(gain[part]).add_(offset[part]).round_().clamp_(0, 255)
        pixels[changed[part]] = lit.transpose(1, 2).to(torch.uint8).numpy()
    return pixels


def _draws(rows: Integer[np.ndarray, "row"], numbers: Integer[np.ndarray, "row"], seed: int) -> Mapping[str, Float64[np.ndarray, "row"]]:
    """Numbers from 0 to 1 by what they are for: a hash that counts, so that any row can be drawn without those before it."""
    start = np.full(1, derived_seed(seed, "views"), np.uint64)
    each = _scattered(_scattered(start + numbers.astype(np.uint64) * ODD) + rows.astype(np.uint64) * ODD)
    drawn = _scattered(each + np.arange(1, len(DRAWS) + 1, dtype=np.uint64)[:, None] * ODD)
    return dict(zip(DRAWS, (drawn >> 11) * 2.0**-53, strict=True))


def _scattered(x: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """The output function of SplitMix64: neighbours become unrelated."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


def _mixed(
    pixels: UInt8[np.ndarray, "row 112 112 3"], rows: Integer[np.ndarray, "row"], pictures: Pictures, random: Mapping[str, np.ndarray],
    settings: Distill,
) -> UInt8[np.ndarray, "row 112 112 3"]:
    """Pictures of which some are blended with another one, and others have a rectangle of it."""
    blended, pasted = random["mix"] < settings.blend, random["mix"] >= 1 - settings.paste
    if not (blended | pasted).any():
        return pixels
    n = len(pictures)
    partner = (rows + 1 + (random["partner"] * max(n - 1, 1)).astype(np.int64)) % n
    for row, other in zip(np.flatnonzero(blended), pictures.read(partner[blended]), strict=True):
        weight = np.float32(random["weight"][row] * BLEND_MOST)
        pixels[row] = np.rint(pixels[row] + weight * (other.astype(np.float32) - pixels[row]))
    sides = [np.rint(IMAGE_PX * (PASTE_SIDES[0] + random[side] * np.diff(PASTE_SIDES))).astype(int) for side in ("height", "width")]
    corners = [((IMAGE_PX + 1 - side) * random[edge]).astype(int) for side, edge in zip(sides, ("top", "left"), strict=True)]
    for row, other in zip(np.flatnonzero(pasted), pictures.read(partner[pasted]), strict=True):
        inside = tuple(slice(corner[row], corner[row] + side[row]) for corner, side in zip(corners, sides, strict=True))
        pixels[row][inside] = other[inside]
    return pixels


def _places(
    random: Mapping[str, np.ndarray], settings: Distill
) -> tuple[Float64[np.ndarray, "row 112"], Float64[np.ndarray, "row 112"]]:
    """Row and column of the picture, pixels, that each row and column of its view shows."""
    scale = 1 / (1 + random["zoom"] * (settings.zoom - 1))
    from_centre = np.arange(IMAGE_PX) - (IMAGE_PX - 1) / 2

    def along(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        place = scale[:, None] * from_centre + ((2 * shift - 1) * settings.shift_px)[:, None] + IMAGE_PX / 2
        place = np.abs(place)  # from the upper edge on, so that a place before it is reflected
        place = np.minimum(place, 2 * IMAGE_PX - place) - 0.5
        return np.rint(np.clip(place, 0, IMAGE_PX - 1) * FINENESS) / FINENESS

    return along(scale, random["down"]), along(np.where(random["mirror"] < settings.mirror, -scale, scale), random["right"])


def _sampled(images: torch.Tensor, places: Float64[np.ndarray, "row 112"]) -> torch.Tensor:
    """Images (row side other colour) with the lines at `places` of their first side, interpolated between the two next to each."""
    first = np.minimum(places.astype(np.int64), IMAGE_PX - 2)
    weight = torch.from_numpy((places - first).astype(np.float32)).reshape(-1, 1)
    line = torch.from_numpy((first + np.arange(len(images))[:, None] * IMAGE_PX).reshape(-1))
    lines = images.reshape(len(images) * IMAGE_PX, -1)
    return lines.index_select(0, line).lerp_(lines.index_select(0, line + 1), weight).view(images.shape)


def _light(
    pixels: UInt8[np.ndarray, "row 112 112 3"], random: Mapping[str, np.ndarray], settings: Distill
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each picture is multiplied with, and what is then added: contrast about its own mean, and brightness."""
    gain = (1 + settings.contrast) ** (2 * random["contrast"] - 1)
    offset = (2 * random["brightness"] - 1) * settings.brightness
    if settings.contrast > 0:
        offset = offset + (1 - gain) * pixels.mean(axis=(1, 2, 3))
    both = torch.from_numpy(np.stack([gain, offset]).astype(np.float32))[:, :, None, None, None]
    return both[0], both[1]
