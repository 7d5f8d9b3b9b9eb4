"""Images as models take them: colour, 112 px, and shifted or mirrored views of them that are natural images too."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image
from torch.nn import functional

from nwb_compact.errors import NwbCompactError
from nwb_compact.image_files import IMAGE_ENDINGS, ImageFile, decoded, image_files
from nwb_compact.session import Pixels
from nwb_compact.student import IMAGE_PX
from nwb_compact.training import derived_seed

ZOOM = 1.25
"""Most a view is enlarged; the smallest is the whole image."""
CHUNK = 256
SAME_LEVELS = 12.0
"""Grey levels by which resizing or saving a picture again may move a block; another picture moves some block by more."""


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
    if len(others) == 0:
        return np.zeros(len(images), bool)
    blocks, known = _blocks(images), _blocks(others)
    square = (known**2).sum(axis=1)
    same = np.zeros(len(images), bool)
    for row, block in enumerate(blocks):
        # Only pairs that are near on average are compared block by block.
        near = np.flatnonzero((block**2).sum() + square - 2 * known @ block < SAME_LEVELS**2 * len(block))
        same[row] = bool((np.abs(known[near] - block).max(axis=1) <= SAME_LEVELS).any())
    return same


def view(images: UInt8[np.ndarray, "image 112 112 3"], number: int, *, shift_px: int, seed: int) -> UInt8[np.ndarray, "image 112 112 3"]:
    """One augmented view of each image: shifted, enlarged and mirrored at random; view 0 is the image itself.

    Whatever a view shows, the teacher answers it itself, so any view that is still a natural image is a valid question. Borders are
    mirrored, which keeps edges continuous.

    Parameters
    ----------
    images
        The images.
    number
        Which view; the same number and seed give the same views.
    shift_px
        Largest shift along each axis.
    seed
        Source of the random choices.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    >>> bool((view(images, 0, shift_px=8, seed=0) == images).all()), bool((view(images, 1, shift_px=8, seed=0) == images).all())
    (True, False)
    """
    if number == 0:
        return images
    rng = np.random.default_rng(derived_seed(seed, "view", number))
    n = len(images)
    scale = (1 / rng.uniform(1.0, ZOOM, n)).astype(np.float32)
    shift = rng.uniform(-shift_px, shift_px, (n, 2)).astype(np.float32) * 2 / IMAGE_PX
    mirror = rng.choice(np.array([-1.0, 1.0], np.float32), n)
    affine = np.zeros((n, 2, 3), np.float32)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale * mirror, scale, shift
    views = np.empty_like(images)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        floats = torch.from_numpy(images[part]).permute(0, 3, 1, 2).float()
        grid = functional.affine_grid(torch.from_numpy(affine[part]), list(floats.shape), align_corners=False)
        moved = functional.grid_sample(floats, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        views[part] = moved.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return views


def read_images(place: Path) -> UInt8[np.ndarray, "image 112 112 3"]:
    """All images of a folder or zip (any depth, sorted by name), centre-cropped to a square, RGB, 112 px.

    Raises
    ------
    NwbCompactError
        If there is no image, or one cannot be read: the line names it.
    """
    pixels = [_square(file) for file in image_files(place, next_step="check --images")]
    if not pixels:
        expected = f"files ending in {', '.join(IMAGE_ENDINGS)}"
        raise NwbCompactError(place, found="no image", expected=expected, next_step="name a folder or zip of images")
    return np.stack(pixels)


def _resized(images: UInt8[np.ndarray, "image height width 3"]) -> UInt8[np.ndarray, "image 112 112 3"]:
    floats = torch.tensor(images).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(floats, size=(IMAGE_PX, IMAGE_PX), mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _blocks(images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "image block"]:
    """Mean luminance of each 4 x 4 px block."""
    side = IMAGE_PX // 4
    luminance = [images[start : start + CHUNK].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
                 for start in range(0, len(images), CHUNK)]
    return np.concatenate([part.reshape(-1, side, 4, side, 4).mean(axis=(2, 4)).reshape(len(part), -1) for part in luminance])


def _square(file: ImageFile) -> UInt8[np.ndarray, "112 112 3"]:
    image = decoded(file).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)))
