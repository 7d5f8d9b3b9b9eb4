"""Images as models take them: square, colour, 112 px; and which of them show the same."""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
import torch
from jaxtyping import Bool, Float32, Integer, UInt8, UInt64
from PIL import Image
from torch.nn import functional

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Pixels
from nwb_compact.student import IMAGE_PX

CHUNK = 256
SAME_LEVELS = 12.0
"""Grey levels by which resizing or saving a picture again may move a block; another picture moves some block by more."""
RGB_SHAPE = (IMAGE_PX, IMAGE_PX, 3)
GREY_LEVELS = 3
"""Largest difference of two channels of a grey image: what JPEG leaves of one that was saved in colour."""


def as_rgb(pixels: Pixels) -> UInt8[np.ndarray, "image 112 112 3"]:
    """Square images of any size, grey or colour, as RGB at 112 px (bilinear, antialiased); read in parts where they lie on disk.

    Parameters
    ----------
    pixels
        uint8, (image height width) or (image height width 3).

    Raises
    ------
    NwbCompactError
        If the images are not square: stretching or cropping would change what the animal saw.

    Examples
    --------
    >>> as_rgb(np.full((2, 64, 64), 7, np.uint8)).shape
    (2, 112, 112, 3)
    """
    n, height, width = pixels.shape[:3]
    if height != width:
        found, next_step = f"images of {height} x {width} px", "crop or pad them before the session is written"
        raise NwbCompactError("images", found=found, expected="square images", next_step=next_step)
    rgb = np.empty((n, IMAGE_PX, IMAGE_PX, 3), np.uint8)
    for start in range(0, n, CHUNK):
        part = pixels[start : start + CHUNK]
        colour = part if part.ndim == 4 else np.repeat(part[..., None], 3, axis=3)
        rgb[start : start + CHUNK] = colour if height == IMAGE_PX else _resized(colour)
    return rgb


def same_picture(images: UInt8[np.ndarray, "image 112 112 3"], others: UInt8[np.ndarray, "other 112 112 3"]) -> Bool[np.ndarray, "image"]:
    """Which images show the same as one of the others, though saved, resized or coloured differently.

    Two pictures are the same when no 4 x 4 px block of their luminance differs by more than `SAME_LEVELS` grey levels. Hashes tell only
    whether every pixel is the same; this keeps a scored image out even when its file was made again.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    >>> again = images // 2 * 2
    >>> same_picture(again, images[:2])
    array([ True,  True, False])
    """
    return same_as_any(others)(images)


def same_as_any(others: UInt8[np.ndarray, "other 112 112 3"]) -> Callable[[np.ndarray], np.ndarray]:
    """`same_picture` for many images in parts: the others are looked at once."""
    known = _blocks(others)
    square = (known**2).sum(axis=1)

    def same(images: UInt8[np.ndarray, "image 112 112 3"]) -> Bool[np.ndarray, "image"]:
        found = np.zeros(len(images), bool)
        for start in range(0, len(images), CHUNK):
            blocks = _blocks(images[start : start + CHUNK])
            # Only pairs that are near on average are compared block by block.
            near = (blocks**2).sum(axis=1)[:, None] + square - 2 * blocks @ known.T < SAME_LEVELS**2 * known.shape[1]
            for row in np.flatnonzero(near.any(axis=1)):
                found[start + row] = bool((np.abs(known[near[row]] - blocks[row]).max(axis=1) <= SAME_LEVELS).any())
        return found

    return same


def square_rgb(image: Image.Image, *, coloured: bool = True) -> UInt8[np.ndarray, "112 112 3"]:
    """The centre square of an image of any size and mode, RGB, 112 px (bilinear, antialiased).

    Parameters
    ----------
    image
        Transparency is left out; of several frames the first is taken.
    coloured
        Off: only its luminance, in all three channels.

    Examples
    --------
    >>> square_rgb(Image.new("RGB", (300, 200), (10, 20, 30)))[0, 0]
    array([10, 20, 30], dtype=uint8)
    """
    if "transparency" in image.info:  # PIL warns where a palette is made RGB at once
        image = image.convert("RGBA")
    image = image.convert("RGB") if coloured else image.convert("RGB").convert("L")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.array(small.convert("RGB"))


def is_grey(images: UInt8[np.ndarray, "image 112 112 3"]) -> Bool[np.ndarray, "image"]:
    """Which images have, everywhere, channels that differ by no more than `GREY_LEVELS`.

    Examples
    --------
    >>> is_grey(np.stack([np.full((112, 112, 3), 9, np.uint8), np.full((112, 112, 3), [9, 0, 0], np.uint8)]))
    array([ True, False])
    """
    red, green, blue = np.moveaxis(images, -1, 0)
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return (most - least).max(axis=(1, 2)) <= GREY_LEVELS


def pixel_digests(images: UInt8[np.ndarray, "image 112 112 3"]) -> UInt64[np.ndarray, "image"]:
    """The first 8 bytes of the SHA-256 of each image's pixels: of 12 million, two share them with a chance of 4 in a million.

    Examples
    --------
    >>> digests = pixel_digests(np.zeros((2, 112, 112, 3), np.uint8))
    >>> bool(digests[0] == digests[1])
    True
    """
    prefixes = b"".join(sha256(np.ascontiguousarray(image).data).digest()[:8] for image in images)
    return np.frombuffer(prefixes, "<u8").astype(np.uint64)


def distinct_rows(images: UInt8[np.ndarray, "image 112 112 3"]) -> Integer[np.ndarray, "distinct"]:
    """Row of the first of each different image, ascending.

    Examples
    --------
    >>> black, white = np.zeros((1, 112, 112, 3), np.uint8), np.full((1, 112, 112, 3), 255, np.uint8)
    >>> distinct_rows(np.concatenate([white, black, white])).tolist()
    [0, 1]
    """
    _, first = np.unique(pixel_digests(images), return_index=True)
    return np.sort(first)


def _resized(images: UInt8[np.ndarray, "image height width 3"]) -> UInt8[np.ndarray, "image 112 112 3"]:
    floats = torch.tensor(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(floats, size=(IMAGE_PX, IMAGE_PX), mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _blocks(images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "image block"]:
    """Mean luminance of each 4 x 4 px block."""
    blocks = np.empty((len(images), (IMAGE_PX // 4) ** 2), np.float32)
    for start in range(0, len(images), CHUNK):
        luminance = images[start : start + CHUNK].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        means = luminance.reshape(-1, IMAGE_PX // 4, 4, IMAGE_PX // 4, 4).mean(axis=(2, 4))
        blocks[start : start + CHUNK] = means.reshape(-1, blocks.shape[1])
    return blocks
