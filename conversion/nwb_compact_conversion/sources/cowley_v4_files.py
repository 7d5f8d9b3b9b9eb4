"""The files of one published V4 session: found, read, and checked against each other and against the published list."""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Bool, Num, UInt8
from PIL import Image, UnidentifiedImageError

from nwb_compact.errors import NwbCompactError, one_line
from nwb_compact_conversion.sources.cowley_v4_sessions import Listed
from nwb_compact_conversion.sources.source_files import FETCH_AGAIN, read_array

REPOSITORY = "github.com/cowleygroup/V4_compact_models"
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What PIL raises, and where `nwb_compact.image_files` was imported also where it else only warns, of a small file that is a huge image."""
IMAGES_FOLDER, RAW_FOLDER, AVERAGED_FOLDER = "images", "responses_raw", "responses_repeat_averaged"
AVERAGE_TOLERANCE = 1e-6
"""Largest difference, in counts, between the published average and that of the published repeats (0 in both published pairs)."""


@dataclass(frozen=True)
class SourceFiles:
    """The files of one session; None where there is none."""

    root: Path
    images: Path
    raw: Path | None
    averaged: Path | None

    @property
    def responses(self) -> Path:
        """The file the responses are taken from: the repeats where they were published."""
        file_path = self.raw or self.averaged
        assert file_path is not None
        return file_path


@dataclass(frozen=True, eq=False)
class NumberedImages:
    """The images of one zip, ascending by the number in their file name."""

    number: tuple[int, ...]
    name: tuple[str, ...]
    """File names without folders, such as image0001.jpg."""
    pixels: UInt8[np.ndarray, "image height width 3"]


def find_files(data: Path, session: str) -> SourceFiles:
    """Where the files of one session are.

    Raises
    ------
    NwbCompactError
        If `data` is no such folder, or the session or one of its files is not there.
    """
    next_step = f"give the folder that holds {IMAGES_FOLDER}/ and {AVERAGED_FOLDER}/"
    if not data.is_dir():
        raise NwbCompactError(data, found="no such folder", expected="the published V4 data", next_step=next_step)
    folders = (IMAGES_FOLDER, AVERAGED_FOLDER, RAW_FOLDER)
    root = next((root for root in (data, data / "data_V4_responses") if any((root / name).is_dir() for name in folders)), None)
    if root is None:
        expected = f"the folders {IMAGES_FOLDER}, {AVERAGED_FOLDER} (and {RAW_FOLDER}) or a clone of {REPOSITORY}"
        raise NwbCompactError(data, found="none of the folders", expected=expected, next_step=next_step)
    images = root / IMAGES_FOLDER / f"images_{session}.zip"
    raw, averaged = (root / folder / f"responses_{session}.npy" for folder in (RAW_FOLDER, AVERAGED_FOLDER))
    complete = ", ".join(sessions_in(root)) or "none"
    if not (images.is_file() or raw.is_file() or averaged.is_file()):
        expected = f"one of the sessions that are there ({complete})"
        raise NwbCompactError(root, found=f"no file of session '{session}'", expected=expected, next_step="choose one with --session")
    next_step = f"download it from {REPOSITORY} or choose a complete session ({complete})"
    if not images.is_file():
        raise NwbCompactError(images, found="no such file", expected=f"the images of session {session}", next_step=next_step)
    if not (raw.is_file() or averaged.is_file()):
        expected = f"the responses of session {session} here or in {RAW_FOLDER}"
        raise NwbCompactError(averaged, found="no such file", expected=expected, next_step=next_step)
    return SourceFiles(root, images, raw if raw.is_file() else None, averaged if averaged.is_file() else None)


def sessions_in(root: Path) -> tuple[str, ...]:
    """Ids of the sessions for which `root` holds images and responses."""
    with_images = {path.stem.removeprefix("images_") for path in (root / IMAGES_FOLDER).glob("images_*.zip")}
    folders = (root / RAW_FOLDER, root / AVERAGED_FOLDER)
    with_responses = {path.stem.removeprefix("responses_") for folder in folders for path in folder.glob("responses_*.npy")}
    return tuple(sorted(with_images & with_responses))


def read_responses(files: SourceFiles) -> tuple[Num[np.ndarray, "unit image repeat"] | None, Num[np.ndarray, "unit image"]]:
    """Single-trial counts, NaN where a repeat is missing and None where they were not published; and the repeat averages.

    Raises
    ------
    NwbCompactError
        If a file is damaged, holds what no spike count can be, or the two disagree.
    """
    raw = mean = None
    if files.averaged is not None:
        mean = _read_axes(files.averaged, ("units", "images"))
        _check_cells(files.averaged, mean, np.isfinite(mean) & (mean >= 0), "a finite mean count of at least 0")
    if files.raw is not None:
        raw = _read_axes(files.raw, ("units", "images", "repeats"))
        _check_repeats(files.raw, raw)
        if mean is None:
            mean = np.nanmean(raw, axis=2)
        _check_agreement(files, raw, mean)
    assert mean is not None
    return raw, mean


def _read_axes(file_path: Path, axes: Sequence[str]) -> Num[np.ndarray, "..."]:
    array = read_array(file_path)
    if array.ndim != len(axes) or 0 in array.shape:
        expected = " x ".join(axes) + ", none of them 0"
        raise NwbCompactError(file_path, found=f"shape {array.shape}", expected=expected, next_step=FETCH_AGAIN)
    return array


def _check_cells(file_path: Path, values: Num[np.ndarray, "*shape"], good: Bool[np.ndarray, "*shape"], expected: str) -> None:
    if good.all():
        return
    bad = np.argwhere(~good)
    unit, image, *repeat = (int(index) for index in bad[0])
    where = f"unit {unit}, image {image + 1}" + "".join(f", repeat {index}" for index in repeat)
    found = f"{values[tuple(bad[0])]} at {where}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")
    raise NwbCompactError(file_path, found=found, expected=expected, next_step=FETCH_AGAIN)


def _check_repeats(file_path: Path, raw: Num[np.ndarray, "unit image repeat"]) -> None:
    missing = np.isnan(raw)
    whole = (raw >= 0) & (raw == np.floor(raw)) & (raw <= np.iinfo(np.uint16).max)
    _check_cells(file_path, raw, missing | whole, "a whole count of at least 0, or NaN where a repeat is missing")
    _check_cells(file_path, raw, missing == missing[:1], "all units to miss the same repeats, since they were recorded together")
    _check_cells(file_path, raw[:, :, :1], ~missing[:, :, :1], "at least one repeat of every image")
    after_missing = np.logical_or.accumulate(missing, axis=2)
    _check_cells(file_path, raw, missing | ~after_missing, "missing repeats only after the last one")


def _check_agreement(files: SourceFiles, raw: Num[np.ndarray, "..."], mean: Num[np.ndarray, "..."]) -> None:
    if mean.shape != raw.shape[:2]:
        expected = f"{raw.shape[:2]} as in {files.raw}"
        raise NwbCompactError(files.averaged, found=f"shape {mean.shape}", expected=expected, next_step=FETCH_AGAIN)
    difference = float(np.abs(np.nanmean(raw, axis=2) - mean).max())
    if difference > AVERAGE_TOLERANCE:
        found, expected = f"averages that differ by up to {difference:.3g}", f"the averages of the repeats in {files.raw}"
        raise NwbCompactError(files.averaged, found=found, expected=expected, next_step="download both files again")


def check_units(file_path: Path, n_units: int, session: str, listed: Listed | None) -> None:
    """Raise unless the responses have as many units as the source lists for the session."""
    if listed is not None and n_units != listed.n_units:
        expected = f"{listed.n_units} as published for session {session}"
        raise NwbCompactError(file_path, found=f"{n_units} units", expected=expected, next_step=FETCH_AGAIN)


def check_numbers(images_file: Path, found: NumberedImages, responses_file: Path, n_columns: int) -> None:
    """Raise unless image number k has response column k - 1 and every column an image."""
    without_response = [number for number in found.number if not 1 <= number <= n_columns]
    if without_response:
        said = f"image {_some(without_response)} without a response"
        expected = f"numbers 1 to {n_columns}, one for each column of {responses_file}"
        raise NwbCompactError(images_file, found=said, expected=expected, next_step="download both files again")
    without_image = sorted(set(range(1, n_columns + 1)) - set(found.number))
    if without_image:
        said = f"no image {_some(without_image)}"
        expected = f"one for each of the {n_columns} columns of {responses_file}"
        raise NwbCompactError(images_file, found=said, expected=expected, next_step="download both files again")


def _some(numbers: list[int], most: int = 3) -> str:
    return ", ".join(str(number) for number in numbers[:most]) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


# Images ---------------------------------------------------------------------------------------------------------------


def read_numbered_images(file_path: Path) -> NumberedImages:
    """Every imageNNNN.jpg of a zip, decoded to RGB, in whatever folder and order it lies there.

    What an operating system leaves behind (``__MACOSX``, ``.DS_Store``) and files that are no JPEG are passed over.

    Raises
    ------
    NwbCompactError
        If the zip is missing, truncated or corrupt, holds no image, a JPEG without a number, a number twice, an image that
        cannot be decoded, or one whose size differs from the first.

    Examples
    --------
    >>> read_numbered_images(Path("none.zip"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: none.zip: found no such file, expected a zip of numbered JPEG images. Next: download the file again
    """
    expected = "a zip of numbered JPEG images"
    try:
        with ZipFile(file_path) as zipped:
            members = _numbered_members(file_path, zipped)
            pixels = np.stack(list(_decoded(file_path, zipped, [members[number] for number in sorted(members)])))
    except FileNotFoundError as error:
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step=FETCH_AGAIN) from error
    except (BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        found = f"a truncated or corrupt zip ({one_line(error)})"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=FETCH_AGAIN) from error
    number = tuple(sorted(members))
    return NumberedImages(number, tuple(PurePosixPath(members[n]).name for n in number), pixels)


def _numbered_members(file_path: Path, zipped: ZipFile) -> dict[int, str]:
    members: dict[int, str] = {}
    for member in zipped.namelist():
        path = PurePosixPath(member)
        if "__MACOSX" in path.parts or path.name.startswith(".") or path.suffix.lower() not in (".jpg", ".jpeg"):
            continue
        match = re.fullmatch(r"image(\d+)", path.stem)
        if match is None:
            expected = "names like image0001.jpg"
            raise NwbCompactError(file_path, found=f"{member!r}", expected=expected, next_step="rename or remove that image")
        number = int(match[1])
        if number in members:
            found = f"image number {number} twice ({members[number]!r}, {member!r})"
            raise NwbCompactError(file_path, found=found, expected="each number once", next_step="remove the one that does not belong")
        members[number] = member
    if not members:
        raise NwbCompactError(file_path, found="no image", expected="images named image0001.jpg and so on", next_step=FETCH_AGAIN)
    return members


def _decoded(file_path: Path, zipped: ZipFile, members: list[str]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    first: tuple[int, int] | None = None
    for member in members:
        content = zipped.read(member)
        try:
            with Image.open(BytesIO(content), formats=("JPEG",)) as image:
                size = (image.height, image.width)
                first = first or size
                if size != first:
                    found, expected = f"{size[0]} x {size[1]} px", f"{first[0]} x {first[1]} px as in {members[0]!r}"
                    raise NwbCompactError(f"{file_path}: {member!r}", found=found, expected=expected, next_step="use images of one size")
                yield np.asarray(image.convert("RGB"))
        except (*BOMBS, UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            found = f"an image that cannot be decoded ({one_line(error)})"
            raise NwbCompactError(f"{file_path}: {member!r}", found=found, expected="a whole JPEG", next_step=FETCH_AGAIN) from error
