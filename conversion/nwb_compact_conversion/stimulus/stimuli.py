"""The images of a session from a folder, a zip or a .npy stack, as a lab keeps them.

Nothing is repaired: an image that would have to be cropped, flattened or cut to 8 bits is not the one that was shown.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nwb_compact.errors import NwbCompactError, one_line
from nwb_compact.image_files import IMAGE_ENDINGS, ImageFile, decoded, image_files
from nwb_compact.session import Images, image_sha256
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.sources.source_files import read_array

NAME_ANOTHER = "name a folder, a .zip or a .npy stack under stimuli.images"
GREY_MODES, COLOUR_MODES = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA")
"""PIL's modes of 8 bits a channel or less that mean grey levels, or red, green and blue."""


def read_stimuli(settings: Stimuli) -> Images:
    """The images that `settings.images` names, in natural order of their file names (image2 before image10).

    Names are file names with their ending and without folders; those of a stack are image00001 and so on, from `first_number`. Two
    files may differ in their ending alone (a.png, a.jpg): a log that then leaves the ending out is refused where the two are joined.

    Returns
    -------
    Images
        Pixels uint8, (image height width) if all images are grey, else (image height width 3); a stack stays on disk. None
        where `keep_pixels` is off. Bilevel images become grey, palettes become RGB, an alpha channel without effect is dropped.

    Raises
    ------
    NwbCompactError
        If there is no such path or no image, two images have one name, or an image is damaged, transparent, animated, of another
        size than the first, of more than 8 bits a channel or in other colours than RGB. A zip must stay below the limits of
        `nwb_compact.image_files`.

    Examples
    --------
    >>> read_stimuli(Stimuli(images=Path("absent")))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: absent: found no such file or folder, expected the images.
    Next: name a folder, a .zip or a .npy stack under stimuli.images
    """
    place = settings.images
    if place is None or not place.exists():
        found = "nothing" if place is None else "no such file or folder"
        raise NwbCompactError(place or "stimuli.images", found=found, expected="the images", next_step=NAME_ANOTHER)
    return images_of(*(_stack(place, settings.first_number) if place.suffix.lower() == ".npy" else _files(place)), settings)


def images_of(name: tuple[str, ...], pixels: UInt8[np.ndarray, "image height width *channel"], settings: Stimuli) -> Images:
    """Named pixels with what the settings tell of all of them; hashes alone where `keep_pixels` is off."""

    def all_alike(told: str | None) -> tuple[str, ...] | None:
        return None if told is None else (told,) * len(name)

    return Images(
        name=name,
        sha256=tuple(image_sha256(image) for image in pixels),
        pixels=pixels if settings.keep_pixels else None,
        kind=all_alike(settings.kind),
        source=all_alike(settings.source),
        licence=all_alike(settings.licence),
    )


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key that sorts names as people do: numbers by value, letters whatever their case.

    Examples
    --------
    >>> sorted(["image10.png", "image2.png", "Image1.png"], key=natural_order)
    ['Image1.png', 'image2.png', 'image10.png']
    """
    # Every second part is digits; Python turns no more than 4,300 of them into a number.
    return [int(part) if place % 2 else part.casefold() for place, part in enumerate(re.split(r"([0-9]{1,300})", name))], name


def _stack(place: Path, first_number: int) -> tuple[tuple[str, ...], UInt8[np.ndarray, "image height width *channel"]]:
    pixels = read_array(place, mapped=True)
    # Three dimensions that end in 3 are one colour image, not a stack of grey ones 3 px wide.
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.shape[-1] == 3) != (pixels.ndim == 4) or not pixels.size:
        found, expected = f"{pixels.dtype} of shape {pixels.shape}", "uint8 of shape (image height width) or (image height width 3)"
        raise NwbCompactError(place, found=found, expected=expected, next_step="make 8-bit images of them and save the stack again")
    return tuple(f"image{number:05d}" for number in range(first_number, first_number + len(pixels))), pixels


def _files(place: Path) -> tuple[tuple[str, ...], UInt8[np.ndarray, "image height width *channel"]]:
    paths: list[str] = []

    def ordered(found: Sequence[str]) -> Sequence[str]:
        paths.extend(_ordered(place, found))
        return paths

    # Filled as the images are decoded, so that they are not in memory twice.
    stack = np.empty((0, 0, 0), np.uint8)
    for row, file in enumerate(image_files(place, next_step=NAME_ANOTHER, ordered=ordered)):
        image = _pixels(file)
        if row == 0:
            stack = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape[:2] != stack.shape[1:3]:
            found, expected = (f"{height} x {width} px" for height, width in (image.shape[:2], stack.shape[1:3]))
            expected += f" (height x width) as in {PurePosixPath(paths[0]).name!r}"
            raise NwbCompactError(file.where, found=found, expected=expected, next_step="use images of one size")
        if image.ndim == 3 and stack.ndim == 3:
            stack = np.repeat(stack[..., None], 3, axis=3)
        stack[row] = image[..., None] if image.ndim < stack.ndim - 1 else image
    if not paths:
        expected = f"files ending in {', '.join(IMAGE_ENDINGS)}"
        raise NwbCompactError(place, found="no image", expected=expected, next_step=NAME_ANOTHER)
    return tuple(PurePosixPath(path).name for path in paths), stack


def _ordered(place: Path, paths: Sequence[str]) -> list[str]:
    known: dict[str, str] = {}
    for path in paths:
        name = PurePosixPath(path).name
        if name in known:
            found = f"two images named {name!r} ({known[name]!r}, {path!r})"
            raise NwbCompactError(place, found=found, expected="each name once", next_step="rename one of them, and in the log too")
        known[name] = path
    return [known[name] for name in sorted(known, key=natural_order)]


def _pixels(file: ImageFile) -> UInt8[np.ndarray, "height width *channel"]:
    image = decoded(file)
    if (n_frames := _n_frames(image, file.where)) > 1:
        raise NwbCompactError(file.where, found=f"{n_frames} frames", expected="a still image", next_step="save the frame that was shown")
    if image.mode not in (*GREY_MODES, *COLOUR_MODES):
        found, next_step = f"a {image.mode} image", "convert it as it was shown"
        raise NwbCompactError(file.where, found=found, expected="an 8-bit grey or RGB image", next_step=next_step)
    grey = image.mode in GREY_MODES
    if image.mode.endswith("A") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            next_step = "save it on the background that it was shown on"
            raise NwbCompactError(file.where, found="transparent pixels", expected="an opaque image", next_step=next_step)
    return np.asarray(image.convert("L" if grey else "RGB"))


def _n_frames(image: Image.Image, where: str) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # damaged frames make PIL raise many
        found = f"damaged frames ({one_line(error)})"
        raise NwbCompactError(where, found=found, expected="a still image", next_step="save the frame that was shown") from error
