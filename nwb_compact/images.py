"""Images as models take them: colour, 112 px, and shifted or mirrored views of them that are natural images too."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch.nn import functional

from nwb_compact.errors import NwbCompactError
from nwb_compact.student import IMAGE_PX
from nwb_compact.training import derived_seed

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
ZOOM = 1.25
"""Most a view is enlarged; the smallest is the whole image."""
CHUNK = 256


def as_rgb(pixels: np.ndarray) -> UInt8[np.ndarray, "image 112 112 3"]:
    """Images of any size, grey or colour, as RGB at 112 px (area-averaged or bilinear).

    Parameters
    ----------
    pixels
        uint8, (image height width) or (image height width 3).

    Examples
    --------
    >>> as_rgb(np.full((2, 64, 64), 7, np.uint8)).shape
    (2, 112, 112, 3)
    """
    colour = pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, axis=3)
    if colour.shape[1:3] == (IMAGE_PX, IMAGE_PX):
        return np.ascontiguousarray(colour)
    resized = []
    for start in range(0, len(colour), CHUNK):
        floats = torch.from_numpy(colour[start : start + CHUNK]).permute(0, 3, 1, 2).float()
        smaller = functional.interpolate(floats, size=(IMAGE_PX, IMAGE_PX), mode="bilinear", antialias=True, align_corners=False)
        resized.append(smaller.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.ascontiguousarray(np.concatenate(resized))


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
    pixels = [_square(name, data) for name, data in _encoded(place)]
    if not pixels:
        expected = f"files ending in {', '.join(IMAGE_ENDINGS)}"
        raise NwbCompactError(place, found="no image", expected=expected, next_step="name a folder or zip of images")
    return np.stack(pixels)


def _encoded(place: Path) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() in IMAGE_ENDINGS and path.is_file():
                yield str(path), path.read_bytes()
        return
    try:
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                if name.lower().endswith(IMAGE_ENDINGS) and "__MACOSX" not in name:
                    yield f"{place}:{name}", archive.read(name)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: encrypted
        raise NwbCompactError(place, found=str(error), expected="a folder or a zip of images", next_step="check --images") from error


def _square(name: str, data: bytes) -> UInt8[np.ndarray, "112 112 3"]:
    try:
        opened = Image.open(io.BytesIO(data))
        if opened.mode in ("I", "F") or opened.mode.startswith("I;"):
            raise ValueError(f"more than 8 bits a channel (mode {opened.mode}), which would be cut off at 255")
        image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        found = f"{type(error).__name__}: {error}"
        raise NwbCompactError(name, found=found, expected="a readable image", next_step="remove or repair it") from error
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)))
