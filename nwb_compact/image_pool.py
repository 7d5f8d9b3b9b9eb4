"""The images that students learn from, from thousands in memory to millions on disk: each once, none that is scored, any at once.

Every image is looked at once when the pool is made (`image_survey`). Few are kept decoded; many are decoded again whenever they are read.
Which files hold the pictures, under which names and in which order, does not matter: the same pictures are the same pool.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8, UInt64

from nwb_compact.address import require_path
from nwb_compact.errors import NwbCompactError, one_line
from nwb_compact.image_files import decoded
from nwb_compact.image_index import ImageIndex, opened_index
from nwb_compact.image_survey import KEPT_BYTES, LEAST_SIDE_PX, Colour, listed, survey
from nwb_compact.images import RGB_SHAPE, distinct_rows, is_grey, pixel_digests, square_rgb
from nwb_compact.unfinished import own_name, remove_leftovers

FEW_GREY = 0.1
"""Share of the sessions' own images up to which grey ones are an exception. Seven published V4 sessions have 2 to 4 % of them, two have 52
and 100 %."""


@dataclass(frozen=True, eq=False)
class ImagePool:
    """Images by row, in whatever order they are asked for (a `views.Pictures`)."""

    own: UInt8[np.ndarray, "own 112 112 3"]
    """Images of the sessions, which are the first rows."""
    further: "FurtherImages | None" = None
    """Those of other places."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """How many images of the places are not in it, and why. `broken`, `16-bit`, `tiny` and `grey` are faults; `scored` look like a scored
    image, and `duplicate` are there already."""

    def __len__(self) -> int:
        return len(self.own) + (len(self.further.entries) if self.further else 0)

    def read(self, rows: Integer[np.ndarray, "row"]) -> UInt8[np.ndarray, "row 112 112 3"]:
        """Some images, in the order asked for, repeats included.

        Raises
        ------
        IndexError
            If there is no such row; rows do not count from the end.
        NwbCompactError
            If an image is gone, or is another one than when the pool was made.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)} images")
        pixels = np.empty((len(rows), *RGB_SHAPE), np.uint8)
        is_own = rows < len(self.own)
        pixels[is_own] = self.own[rows[is_own]]
        if self.further is not None and not is_own.all():
            pixels[~is_own] = self.further.read(rows[~is_own].astype(np.int64) - len(self.own))
        return pixels

    def names(self, rows: Integer[np.ndarray, "row"]) -> list[str]:
        """Where some images lie, as `place:name in it`; nothing for the sessions' own.

        Examples
        --------
        >>> ImagePool(np.zeros((3, 112, 112, 3), np.uint8)).names(np.array([0, 2]))
        ['', '']
        """
        own = len(self.own)
        return ["" if row < own or self.further is None else self.further.name(row - own) for row in rows.tolist()]

    @cached_property
    def sha256(self) -> str:
        """Identity of its images and their order."""
        digest = sha256(pixel_digests(self.own).tobytes())
        if self.further is not None:
            digest.update(np.ascontiguousarray(self.further.digests).data)
        return digest.hexdigest()


def image_pool(
    own: UInt8[np.ndarray, "own 112 112 3"], scored: UInt8[np.ndarray, "scored 112 112 3"], places: Sequence[Path], folder: Path, *,
    quiet: bool = True,
) -> ImagePool:
    """Everything that students may learn from: the sessions' own images, then those of the places in the order of their hashes.

    Further images are to be of the kind that the animals saw. Where all own images are grey, further ones are made grey; where at most
    `FEW_GREY` of them are, grey ones are left out; else all are taken as they are.

    Parameters
    ----------
    own
        Images of the fitting side of all sessions.
    scored
        Images that may never be learned from; nothing that looks like one is in the pool.
    places
        Folders (at any depth), zips, uncompressed tars and session files of further images.
    folder
        Where the listing and what is kept decoded are written; a later pool of the same images finds them there. It must stay as long
        as the pool is used. Without places nothing is written.
    quiet
        Show no progress.

    Raises
    ------
    NwbCompactError
        If a place cannot be read (see `image_index.image_index`), holds no image, or too many of its images are broken, 16-bit, tiny or
        grey (see `image_survey`); if the folder cannot be written.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    >>> pool = image_pool(images[[0, 1, 0]], images[2:], [], Path("unused"))
    >>> len(pool), bool((pool.read(np.array([1, 0])) == images[[1, 0]]).all())
    (2, True)
    """
    own = own[distinct_rows(own)]
    if not places:
        return ImagePool(own)
    grey = is_grey(own).mean()
    colour: Colour = "removed" if grey == 1 else "required" if grey <= FEW_GREY else "kept"
    with _being_written(folder) as part:
        found = [listed(require_path(place, next_step="download it").absolute(), part / str(number)) for number, place in enumerate(places)]
        known = [sha256(pixel_digests(images).tobytes()).hexdigest() for images in (own, scored)]
        decisive = [*(one.identity for one in found), *known, colour, KEPT_BYTES, LEAST_SIDE_PX]
        there = folder / sha256(json.dumps(decisive).encode()).hexdigest()[:12]
        if not there.exists():
            survey(found, own, scored, part, colour=colour, quiet=quiet)
            try:
                os.replace(part, there)
            except OSError:
                if not there.exists():  # a fit beside this one was faster
                    raise
    return _opened(own, there, colour)


@dataclass(frozen=True, eq=False)
class FurtherImages:
    """Images of other places than the sessions."""

    places: "tuple[_Place, ...]"
    start: Integer[np.ndarray, "place"]
    """Number of the first image of each place."""
    entries: Integer[np.ndarray, "further"]
    """Number of each image, counted over all places."""
    digests: UInt64[np.ndarray, "further"]
    """Ascending."""

    def read(self, rows: Integer[np.ndarray, "row"]) -> UInt8[np.ndarray, "row 112 112 3"]:
        """As `ImagePool.read`."""
        pixels = np.empty((len(rows), *RGB_SHAPE), np.uint8)
        entries = self.entries[rows]
        which = np.searchsorted(self.start, entries, "right") - 1
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            pixels[here] = self.places[number].read(entries[here] - self.start[number], self.digests[rows[here]])
        return pixels

    def name(self, row: int) -> str:
        """Where an image lies."""
        entry = int(self.entries[row])
        which = int(np.searchsorted(self.start, entry, "right")) - 1
        place, number = self.places[which], entry - int(self.start[which])
        return f"{Path(place.path).name}:{number if place.index is None else place.index.name(number)}"


@dataclass(frozen=True, eq=False)
class _Place:
    """Images of one place: their pixels, or else where they lie."""

    path: str
    index: ImageIndex | None
    kept: UInt8[np.ndarray, "image 112 112 3"] | None
    colour: Colour

    def read(self, numbers: Integer[np.ndarray, "row"], digests: UInt64[np.ndarray, "row"]) -> UInt8[np.ndarray, "row 112 112 3"]:
        if self.kept is not None:
            return np.asarray(self.kept[numbers])
        assert self.index is not None
        pixels = np.stack([square_rgb(decoded(self.index.read(number)), coloured=self.colour != "removed") for number in numbers.tolist()])
        changed = np.flatnonzero(pixel_digests(pixels) != digests)
        if len(changed):
            where = self.index.place / self.index.name(int(numbers[changed[0]]))
            expected = "images that stay as they are while they are learned from"
            raise NwbCompactError(where, found="another image than when the fit began", expected=expected, next_step="fit again")
        return pixels


def _opened(own: UInt8[np.ndarray, "own 112 112 3"], folder: Path, colour: Colour) -> ImagePool:
    """What `survey` wrote."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    places = []
    for number, (place, kind, n, is_kept) in enumerate(summary["places"]):
        index = None if kind == "session" else opened_index(Path(place), kind, folder / str(number))
        kept = np.memmap(folder / f"{number}.pixels", np.uint8, "r", shape=(n, *RGB_SHAPE)) if is_kept else None
        places.append(_Place(place, index, kept, colour))
    start = np.cumsum([0, *(n for _, _, n, _ in summary["places"])])[:-1]
    entries, digests = (np.load(folder / f"{what}.npy", mmap_mode="r") for what in ("entries", "digests"))
    return ImagePool(own, FurtherImages(tuple(places), start, entries, digests), summary["skipped"])


@contextmanager
def _being_written(folder: Path) -> Iterator[Path]:
    """A folder of this process in another one, gone at the end unless it was given a name; what killed processes left goes too."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    part = folder / own_name(".writing")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, r"\.writing")
        part.mkdir()
        yield part
    except OSError as error:
        expected, next_step = "a folder that can be written", "free some space, correct its permissions, or write elsewhere with --output"
        raise NwbCompactError(folder, found=f"a fault ({one_line(error)})", expected=expected, next_step=next_step) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # it is not empty
                path.rmdir()
