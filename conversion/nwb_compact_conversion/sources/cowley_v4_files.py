"""The files of one published V4 session: found, read, and checked against each other and against the published list."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Num

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.cowley_v4_sessions import Listed
from nwb_compact_conversion.sources.source_files import FETCH_AGAIN, NumberedImages, read_array

REPOSITORY = "github.com/cowleygroup/V4_compact_models"
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
