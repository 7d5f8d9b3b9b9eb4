"""A first look at every image of some places: which can be used, which look like a scored one, and the hash of each.

What is found is written into a folder, from which `image_pool` opens it.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8, UInt64
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.image_files import UnusableImage, broken, decoded
from nwb_compact.image_index import ImageIndex, image_index
from nwb_compact.images import RGB_SHAPE, is_grey, pixel_digests, same_as_any, square_rgb
from nwb_compact.nwb_session import open_session
from nwb_compact.progress import Advance, stage
from nwb_compact.safe_write import require_room
from nwb_compact.streaming import one_ahead
from nwb_compact.student import IMAGE_PX

KEPT_BYTES = 4_000_000_000
"""Places are kept decoded, small ones first, up to this in all: 106,000 images. Session files always are: theirs lie in blocks, of which
one would have to be unpacked for each image."""
LEAST_SIDE_PX = IMAGE_PX // 2
"""An image whose shorter side is below this is tiny: enlarged more than twice, it has none of the fine detail that natural images have."""
MOST_UNUSABLE = 0.1
"""Above this share of its images a place is refused: it is not what the user thinks it is."""
TOGETHER = 256
"""Images that are looked at before the next are."""
DECODERS = min(os.cpu_count() or 1, 16)
"""Threads that decode; PIL lets others run meanwhile."""
IMAGE_BYTES = int(np.prod(RGB_SHAPE))
Colour = Literal["required", "kept", "removed"]
"""Grey images are left out; are taken as they are; all images are made grey."""
Picture = np.ndarray | UnusableImage
"""Pixels, or what is wrong with them."""


@dataclass(frozen=True, eq=False)
class Listed:
    """A place whose images are counted and not yet looked at."""

    place: Path
    kind: str
    """folder, zip, tar or session."""
    n: int
    identity: str
    """Changes with what is in it."""
    pictures: Callable[[Colour], Iterator[list[Picture]]]
    """All images, some at a time."""


def listed(place: Path, beside: Path) -> Listed:
    """Count the images of a folder, zip, tar or session file.

    Parameters
    ----------
    place
        Which.
    beside
        Where a listing is written, see `image_index.image_index`.

    Raises
    ------
    NwbCompactError
        If the place cannot be read, or has no image.
    """
    if place.suffix.lower() != ".nwb":
        index = image_index(place, beside)
        return Listed(place, index.kind, len(index), f"{place} {index.identity}", partial(_of_files, index))
    with open_session(place) as session:
        if session.images.pixels is None:
            raise NwbCompactError(place, found="hashes instead of images", expected="a session with pixels", next_step="name another file")
        n = len(session.images)
    stat = place.stat()
    return Listed(place, "session", n, f"{place} {stat.st_size} {stat.st_mtime_ns}", partial(_of_session, place))


def survey(
    places: Sequence[Listed], own: UInt8[np.ndarray, "own 112 112 3"], scored: UInt8[np.ndarray, "scored 112 112 3"], folder: Path, *,
    colour: Colour, quiet: bool,
) -> None:
    """Look at every image once and write which may be learned from, in the order of their hashes, and the pixels that are kept.

    Parameters
    ----------
    places
        From `listed`, in `folder`.
    own, scored
        Images that are there already, and images that nothing may look like.
    folder
        Where `summary.json`, `entries.npy` (number of each image, counted over all places), `digests.npy` and pixels are written.
    colour
        What becomes of grey images.
    quiet
        Show no progress.

    Raises
    ------
    NwbCompactError
        If more than `MOST_UNUSABLE` of a place cannot be used, or the disk has no room.
    """
    kept = _to_keep(places)
    n_bytes = IMAGE_BYTES * sum(one.n for number, one in enumerate(places) if number in kept)
    require_room(folder, n_bytes, what="decoded images", next_step="free some space, or write elsewhere with --output")
    counts: Counter[str] = Counter()
    look = _Look(colour, same_as_any(scored), counts)
    with stage("images", sum(one.n for one in places), quiet=quiet) as advance:
        found = [_look_at(one, look, folder / f"{number}.pixels" if number in kept else None, advance) for number, one in enumerate(places)]
    usable = np.flatnonzero(np.concatenate([is_usable for _, is_usable in found]))
    digests, first = np.unique(np.concatenate([digests for digests, _ in found])[usable], return_index=True)
    is_new = ~np.isin(digests, pixel_digests(own))
    counts["duplicate"] = len(usable) - int(is_new.sum())
    np.save(folder / "entries.npy", usable[first[is_new]])
    np.save(folder / "digests.npy", digests[is_new])
    summary = {
        "places": [[str(one.place), one.kind, one.n, number in kept] for number, one in enumerate(places)],
        "skipped": {reason: n for reason, n in counts.items() if n},
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


@dataclass(frozen=True)
class _Look:
    """What images are looked at for."""

    colour: Colour
    same_as_scored: Callable[[np.ndarray], np.ndarray]
    counts: Counter[str]
    """What was left out so far."""


def _to_keep(places: Sequence[Listed]) -> set[int]:
    kept, room = set[int](), KEPT_BYTES
    for number in sorted(range(len(places)), key=lambda number: (places[number].kind != "session", places[number].n)):
        room -= places[number].n * IMAGE_BYTES
        if places[number].kind == "session" or room >= 0:
            kept.add(number)
    return kept


def _look_at(
    listed: Listed, look: _Look, kept: Path | None, advance: Advance
) -> tuple[UInt64[np.ndarray, "image"], Bool[np.ndarray, "image"]]:
    """The digest of every image of a place, and whether it may be learned from; all pixels go into the file `kept`."""
    digests, is_usable, faults = np.zeros(listed.n, np.uint64), np.zeros(listed.n, bool), list[UnusableImage]()
    stop = 0
    with (kept or Path(os.devnull)).open("wb") as stream:
        for pictures in listed.pictures(look.colour):
            start, stop = stop, stop + len(pictures)
            ok = np.array([isinstance(picture, np.ndarray) for picture in pictures])
            pixels = np.zeros((len(pictures), *RGB_SHAPE), np.uint8)
            for row, picture in enumerate(pictures):
                if isinstance(picture, np.ndarray):
                    pixels[row] = picture
            stream.write(pixels.data)
            new = [picture for picture in pictures if isinstance(picture, UnusableImage)]
            faults += new
            _require_few(listed, faults, stop)
            ok[ok] = ~look.same_as_scored(pixels[ok])
            digests[start:stop], is_usable[start:stop] = pixel_digests(pixels), ok
            look.counts.update(fault.reason for fault in new)
            look.counts["scored"] += len(pictures) - len(new) - int(ok.sum())
            advance(len(pictures), f"{_told(look.counts)} left out" if look.counts.total() else "")
    return digests, is_usable


def _require_few(listed: Listed, faults: Sequence[UnusableImage], n_seen: int) -> None:
    if len(faults) <= MOST_UNUSABLE * listed.n:
        return
    first, reasons = faults[0].fault, _told(Counter(fault.reason for fault in faults))
    found = f"{len(faults):,} of {n_seen:,} images unusable ({reasons}; the first is {first.where}: {first.found})"
    expected = f"at most {MOST_UNUSABLE:.0%} of its {listed.n:,}"
    raise NwbCompactError(listed.place, found=found, expected=expected, next_step="take them out, or name another place")


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in counts.items() if n)


def _of_files(index: ImageIndex, colour: Colour) -> Iterator[list[Picture]]:
    def one(number: int) -> Picture:
        return _picture(lambda: decoded(index.read(number)), index.name(number), colour)

    with ThreadPoolExecutor(DECODERS, "decoder") as decoders:
        yield from one_ahead(_parts(len(index)), lambda part: list(decoders.map(one, part)))


def _of_session(place: Path, colour: Colour) -> Iterator[list[Picture]]:
    with open_session(place) as session:
        pixels = session.images.pixels
        assert pixels is not None
        is_picture = session.images.is_picture
        for part in _parts(len(session.images)):
            images = zip(part, pixels[part.start : part.stop], strict=True)
            yield [_picture(partial(Image.fromarray, image), f"image {number}", colour) if is_picture[number] else _placeholder(number)
                   for number, image in images]


def _parts(n: int) -> Iterator[range]:
    return (range(start, min(start + TOGETHER, n)) for start in range(0, n, TOGETHER))


def _placeholder(number: int) -> UnusableImage:
    found, expected = "the placeholder of presentations in which nothing was shown", "an image"
    return UnusableImage("placeholder", f"image {number}", found=found, expected=expected, next_step="leave it out")


def _picture(opened: Callable[[], Image.Image], where: str, colour: Colour) -> Picture:
    try:
        image = opened()
        if min(image.size) < LEAST_SIDE_PX:
            found, expected = f"{image.width} x {image.height} px", f"at least {LEAST_SIDE_PX} px a side"
            return UnusableImage("tiny", where, found=found, expected=expected, next_step="leave it out")
        pixels = square_rgb(image, coloured=colour != "removed")
    except UnusableImage as fault:
        return fault
    except (ValueError, OSError) as error:  # a mode that is no colour
        return broken(where, error)
    if colour == "required" and is_grey(pixels[None])[0]:
        return UnusableImage("grey", where, found="a grey image", expected="colour, as the session has", next_step="leave it out")
    return pixels
