"""The images inside an NWB file of another program: `Images`, or the frames of a series.

Pixels are taken as rows and columns, as everybody stores them; the schema says x and y, which nobody means.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.session import Images
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.stimulus.stimuli import images_of, natural_order

NEXT = "give the images as stimuli.images"
WHITE = 255
NUMBERED = "image "
"""What an image is called whose name in the file is a bare number."""


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images, and what numbers in a log mean of them."""

    where: str
    """What an error calls them."""
    images: Images
    is_ordered: bool
    """Whether the file says which is the first."""
    first_number: int
    """Number of the first."""


def read_file_images(nwbfile: Any, stimuli: Stimuli, file_path: Path, indexed: Any = None) -> FileImages:
    """The images that `stimuli.templates` names, else those that an IndexSeries points at, else the only ones of the file.

    Returns
    -------
    FileImages
        Pixels uint8, grey unless one is in colour. Levels from 0 to 1 become 0 to 255. Names are those of `Images` objects, a
        series' `control_description` where it has one text a frame, else image00000 and so on.

    Raises
    ------
    NwbCompactError
        If there are no such images, or they lie in other files, differ in size, are transparent or of other levels.
    """
    found = _chosen(nwbfile, stimuli.templates, file_path, indexed)
    where = f"{file_path}: {found.name}"
    # `first_number` is 1 unless told, as in logs of MATLAB; indices within an NWB file start at 0.
    first = stimuli.first_number if "first_number" in stimuli.model_fields_set else 0
    is_series = found.neurodata_type != "Images"
    name, pixels = _of_series(found, where, first) if is_series else _of_objects(found, where)
    if len(set(name)) != len(name):
        raise NwbCompactError(where, found="two images of one name", expected="each name once", next_step=NEXT)
    return FileImages(where, images_of(name, pixels, stimuli), is_series or found.order_of_images is not None, first)


def _chosen(nwbfile: Any, wanted: str | None, file_path: Path, indexed: Any) -> Any:
    if wanted is None and indexed is not None:
        return indexed
    there = {one.name: one for one in (*nwbfile.stimulus.values(), *nwbfile.stimulus_template.values()) if _holds_images(one)}
    if wanted in there:
        return there[wanted]
    if wanted is None and len(there) == 1:
        return next(iter(there.values()))
    found = f"{len(there) or 'no'} sets of images" if wanted is None else f"no images '{wanted}'"
    expected = "one" if wanted is None or not there else f"a set of images ({nearest(wanted, list(there))})"
    next_step = "name the right one as stimuli.templates" if there else NEXT
    raise NwbCompactError(file_path, found=f"{found} (there: {', '.join(there) or 'none'})", expected=expected, next_step=next_step)


def _holds_images(one: Any) -> bool:
    if one.neurodata_type == "Images":
        return True
    return one.neurodata_type != "IndexSeries" and hasattr(one, "external_file")


def _of_objects(images: Any, where: str) -> tuple[tuple[str, ...], UInt8[np.ndarray, "image height width *channel"]]:
    if images.order_of_images is None:
        objects = [images.images[name] for name in sorted(images.images, key=natural_order)]
    else:
        objects = list(images.order_of_images.data[:])
    outside = [image.name for image in objects if not hasattr(image, "data") or isinstance(image.data, str)]
    if outside or not objects:
        found = f"image '{outside[0]}' that lies in another file" if outside else "no image"
        raise NwbCompactError(where, found=found, expected="pixels", next_step=NEXT)
    # A bare number would be taken for a place in the order.
    names = tuple(f"{NUMBERED}{image.name}" if image.name.isdecimal() else str(image.name) for image in objects)
    return names, _stacked(names, (_eight_bits(np.asarray(image.data[:]), f"{where}/{image.name}") for image in objects), where)


def _of_series(series: Any, where: str, first: int) -> tuple[tuple[str, ...], UInt8[np.ndarray, "image height width *channel"]]:
    if series.external_file is not None or len(np.shape(series.data)) not in (3, 4):
        found = "frames in other files" if series.external_file is not None else f"data of shape {np.shape(series.data)}"
        raise NwbCompactError(where, found=found, expected="frames of (height width) or (height width 3)", next_step=NEXT)
    n = len(series.data)
    said = () if series.control_description is None else tuple(str(one) for one in series.control_description[:])
    names = said if len(said) == n else tuple(f"image{number:05d}" for number in range(first, first + n))
    return names, _stacked(names, (_eight_bits(np.asarray(series.data[index]), f"{where}, frame {index}") for index in range(n)), where)


def _eight_bits(pixels: np.ndarray, where: str) -> UInt8[np.ndarray, "height width *channel"]:
    if pixels.dtype.kind == "f" and np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.rint(pixels * WHITE).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 4 and (pixels[..., 3] == WHITE).all():
        pixels = pixels[..., :3]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        levels = f"{np.min(pixels):g} to {np.max(pixels):g}" if pixels.dtype.kind in "iuf" and pixels.size else "no numbers"
        found, expected = f"{pixels.dtype} of shape {pixels.shape}, {levels}", "opaque grey or RGB, 8 bits or levels from 0 to 1"
        raise NwbCompactError(where, found=found, expected=expected, next_step=NEXT)
    return pixels


def _stacked(names: tuple[str, ...], images: Iterable[np.ndarray], where: str) -> UInt8[np.ndarray, "image height width *channel"]:
    every = list(images)
    for name, image in zip(names, every, strict=True):
        if image.shape[:2] != every[0].shape[:2]:
            found, expected = f"{image.shape[:2]} px", f"{every[0].shape[:2]} px as in '{names[0]}'"
            raise NwbCompactError(f"{where}/{name}", found=found, expected=expected, next_step="use images of one size")
    if any(image.ndim == 3 for image in every):
        every = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in every]
    return np.stack(every)
