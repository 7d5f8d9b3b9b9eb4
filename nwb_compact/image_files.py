"""Encoded images in a folder or zip, opened without trusting them.

Only raster formats are tried, so that no file can start another program, and nothing is unpacked to disk.
"""

import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from nwb_compact.errors import NwbCompactError, one_line

# For good: a filter that is put on and taken off again would harm other threads, and images are decoded in several.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP")
LARGEST_FILE_BYTES = 256_000_000
"""A file in a zip that says it is larger is not unpacked: no stimulus is, and a zip of a few kilobytes can say so."""
ZIP_FAULTS = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What a damaged zip makes zipfile raise; RuntimeError where it is encrypted."""


class UnusableImage(NwbCompactError):
    """One image that cannot be used; `reason` says why in a word that can be counted.

    Examples
    --------
    >>> fault = UnusableImage("broken", "a.png", found="nothing", expected="a readable image", next_step="remove or repair it")
    >>> fault.reason, fault.fault.where
    ('broken', 'a.png')
    """

    def __init__(self, reason: str, where: object, *, found: str, expected: str, next_step: str):
        self.reason = reason
        super().__init__(where, found=found, expected=expected, next_step=next_step)


@dataclass(frozen=True)
class ImageFile:
    """One image, still encoded."""

    where: str
    """What an error calls it."""
    name: str
    """Its file name without folders."""
    content: bytes


def image_files(
    place: Path, *, next_step: str, ordered: Callable[[Sequence[str]], Sequence[str]] = sorted
) -> Iterator[ImageFile]:
    """Every image of a folder or zip at any depth, read one at a time; which file is one, its ending tells.

    What an operating system leaves behind (``__MACOSX``, files and folders that begin with a dot) is passed over.

    Parameters
    ----------
    place
        The folder or zip.
    next_step
        What a user is told to do when the place is neither.
    ordered
        Given the paths within the place, with slashes, the order to read them in; by default sorted as text.

    Raises
    ------
    NwbCompactError
        If the place is neither a folder nor a whole zip, or the zip holds a path that leads out of it or a file above
        `LARGEST_FILE_BYTES`.

    Examples
    --------
    >>> list(image_files(Path("absent"), next_step="correct the path"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: absent: found [Errno 2] No such file or directory: 'absent', expected a folder or a zip of images.
    Next: correct the path
    """
    try:
        if place.is_dir():
            # A link that leads nowhere is an image that is missing: opening it says so.
            inside = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if not path.is_dir()}
            for name in ordered([name for name in inside if is_image(name)]):
                yield ImageFile(str(inside[name]), PurePosixPath(name).name, inside[name].read_bytes())
            return
        with zipfile.ZipFile(place) as archive:
            # A list, since a zip may hold one name twice, which is for `ordered` to judge.
            files = [(member.filename.replace("\\", "/"), member) for member in archive.infolist() if not member.is_dir()]
            members = dict(files)
            for name in ordered([name for name, _ in files if is_image(name)]):
                require_harmless(place, name, members[name].file_size)
                yield ImageFile(f"{place}:{name}", PurePosixPath(name).name, archive.read(members[name]))
    except ZIP_FAULTS as error:
        raise NwbCompactError(place, found=one_line(error), expected="a folder or a zip of images", next_step=next_step) from error


def decoded(file: ImageFile) -> Image.Image:
    """An image with all of its pixels.

    Raises
    ------
    UnusableImage
        `broken`: it is damaged, no image or too large for PIL's limit against decompression bombs (about 89 megapixels).
        `16-bit`: it has more than 8 bits a channel, which PIL would cut off.

    Examples
    --------
    >>> content = BytesIO()
    >>> Image.new("L", (4, 3)).save(content, "PNG")
    >>> decoded(ImageFile("a.png", "a.png", content.getvalue())).size
    (4, 3)
    """
    try:
        image = Image.open(BytesIO(file.content), formats=FORMATS)
        # PIL opens 16-bit colour as 8-bit RGB; only the raw mode of its tiles tells.
        raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
        if image.mode in ("I", "F") or image.mode.startswith("I;") or any(";16" in mode for mode in raw):
            found, next_step = f"more than 8 bits a channel (mode {image.mode})", "save the images with 8 bits, as they were shown"
            raise UnusableImage("16-bit", file.where, found=found, expected="8 bits a channel", next_step=next_step)
        image.load()
        return image
    except UnusableImage:
        raise
    except Exception as error:  # damaged files make PIL raise many: TypeError, IndexError and OverflowError among them
        raise broken(file.where, error) from error


def broken(where: object, error: Exception) -> UnusableImage:
    """What is said of an image that something else could not read."""
    found = f"{type(error).__name__}: {one_line(error)}"
    return UnusableImage("broken", where, found=found, expected="a readable image", next_step="remove or repair it")


def is_image(name: str) -> bool:
    """Whether a path with slashes ends as images do, and neither it nor a folder in it is hidden.

    Examples
    --------
    >>> [is_image(name) for name in ("a/b.JPG", "a/.b.jpg", "__MACOSX/b.jpg", "notes.txt")]
    [True, False, False, False]
    """
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS and not any(map(is_hidden, name.split("/")))


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is what an operating system leaves behind."""
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def require_harmless(place: Path, name: str, n_bytes: int) -> None:
    """A file of a zip or tar lies within it and is no larger than a picture can be.

    Raises
    ------
    NwbCompactError
        If its path leads out, or it says that it has more than `LARGEST_FILE_BYTES`.
    """
    path = PurePosixPath(name)
    kind = place.suffix[1:].lower() or "archive"
    next_step = f"do not trust this {kind}; make it again from the images"
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        found, expected = f"the path {name!r}, which leads out of the {kind}", "paths within it"
        raise NwbCompactError(place, found=found, expected=expected, next_step=next_step)
    if n_bytes > LARGEST_FILE_BYTES:
        found, expected = f"{name!r} of {n_bytes} bytes", f"at most {LARGEST_FILE_BYTES} bytes an image"
        raise NwbCompactError(place, found=found, expected=expected, next_step=next_step)
