"""Features of a frozen backbone, computed once and kept on disk over fits: one file a backbone, layer and set of images.

A file is named by the hash of what decides its content. It starts with a block of `HEADER_BYTES` that says in JSON what it holds, padded
with spaces and ended by a newline; float16 values follow in the order of the shape. It is written beside its name and renamed when
complete, so two fits that make the same file do not harm each other and half a file is never taken for one.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Float16, UInt8

from nwb_compact import __version__
from nwb_compact.backbones import Backbone, feature_batches
from nwb_compact.errors import NwbCompactError, counted, one_line
from nwb_compact.progress import stage
from nwb_compact.safe_write import require_room
from nwb_compact.unfinished import remove_leftovers, written_whole

HEADER_BYTES = 4096
"""A page, so that the values that follow are aligned as they are mapped."""
HASHED_IMAGES = 1024
"""Images that are hashed at a time."""
SAME_FEATURES = 0.02
"""Largest relative difference (root mean square) of an image's features made again. A choice, not measured: well above what float16
and another machine's order of sums can do, well below what a change of the network does."""


@dataclass(frozen=True)
class Content:
    """What a file holds; its name is the hash of this."""

    backbone_sha256: str
    layer: str
    images: int
    images_sha256: str
    """Over shape and pixels, in order."""

    @property
    def file_name(self) -> str:
        """Where it lies in the cache folder."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32] + ".features"


def default_cache_folder() -> Path:
    """The user's folder for features: in `XDG_CACHE_HOME`, else in ~/.cache. It may be deleted at any time.

    Examples
    --------
    >>> default_cache_folder().parts[-2:]
    ('nwb-compact', 'features')
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nwb-compact" / "features"


def cached_features(
    backbone: Backbone, images: UInt8[np.ndarray, "image height width 3"], folder: Path, *, name: str, device: str = "cpu",
    quiet: bool = True,
) -> Float16[np.ndarray, "image channel row column"]:
    """Features of all images in the backbone's layer, from the disk where they are there, else computed, written and then read from there.

    Memory holds a batch at a time; what is returned is a memory map that does not write back.

    Parameters
    ----------
    backbone
        With its layer chosen.
    images
        At least one.
    folder
        Of all cached features; made where it is missing.
    name
        What the user is told is being done.
    device
        Where to compute.
    quiet
        Say nothing.

    Raises
    ------
    NwbCompactError
        If the folder cannot be written, its disk is too full, a file in it is not what its name says, or the backbone no longer gives what
        the file holds. A file that is too short is made anew.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from torch import nn
    >>> images = np.full((5, 8, 8, 3), 7, np.uint8)
    >>> found = cached_features(Backbone("pool", nn.AvgPool2d(4), "1f"), images, Path(mkdtemp()), name="features")
    >>> found.shape, float(found[4, 2, 1, 1])
    ((5, 3, 2, 2), 7.0)
    """
    assert backbone.layer is not None, "choose a layer first"
    content = Content(backbone.sha256, backbone.layer, len(images), images_sha256(images))
    path = folder / content.file_name
    found = _opened(path, content)
    if found is not None:
        _require_same(found, path, backbone, images, device)
        _tell(f"{name}: {_size(found)}, from the cache", quiet)
        return found
    with _folder_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, r"\.[0-9a-f]{32}\.(?:features|json)\.writing")
        _write(path, content, backbone, images, name, device, quiet)
    found = _opened(path, content)
    if found is None:  # the folder was emptied, or a disk lies
        raise NwbCompactError(path, found="less than was just written", expected="all of it", next_step="name another --cache-dir")
    _tell(f"{name}: {_size(found)}, written to {path}", quiet)
    return found


def cached_values(folder: Path, key: object, compute: Callable[[], dict[str, list[float]]]) -> dict[str, list[float]]:
    """A small table that a backbone's features led to, kept in the same folder under the hash of what decides it.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> cached_values(folder, ["scores", 1], lambda: {"stage1": [0.5]}) == cached_values(folder, ["scores", 1], dict)
    True
    """
    path = folder / f"{sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError):  # absent, or cut by a disk that lost power: made anew
        return dict(json.loads(path.read_text(encoding="utf-8")))
    values = compute()
    with _folder_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as beside:
            beside.write_text(json.dumps(values), encoding="utf-8")
    return values


# Reading ----------------------------------------------------------------------------------------------------------------


def _opened(path: Path, content: Content) -> np.ndarray | None:
    """The values of a complete file; None where there is no file, or one that is too short and so is to be made anew."""
    try:
        with path.open("rb") as stream:
            block = stream.read(HEADER_BYTES)
        n_bytes = path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        expected, next_step = "a file that can be read", "correct its permissions or name another --cache-dir"
        raise NwbCompactError(path, found=one_line(error), expected=expected, next_step=next_step) from error
    if len(block) < HEADER_BYTES:
        return None
    shape = _shape(path, block, content)
    expected_bytes = HEADER_BYTES + 2 * int(np.prod(shape))
    if n_bytes > expected_bytes:
        raise _foreign(path, f"{n_bytes:,} bytes", f"{expected_bytes:,} for its shape")
    if n_bytes < expected_bytes:
        return None
    return np.memmap(path, np.float16, "c", HEADER_BYTES, shape)  # "c", not "r": torch warns of arrays that it may not write


def _shape(path: Path, block: bytes, content: Content) -> tuple[int, ...]:
    """The shape that a header says, if it says what its file's name does."""
    try:
        header = json.loads(block)
        said = Content(**{name: header[name] for name in asdict(content)})
        shape = tuple(int(size) for size in header["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign(path, f"another file's content ({type(error).__name__})", "features of a backbone") from error
    for name, wanted in asdict(content).items():
        if getattr(said, name) != wanted:
            raise _foreign(path, f"{name} {getattr(said, name)!r} in its header", repr(wanted))
    if len(shape) != 4 or shape[0] != content.images or min(shape) < 1:
        raise _foreign(path, f"a shape of {shape} in its header", f"{content.images} maps")
    return shape


def _foreign(path: Path, found: str, expected: str) -> NwbCompactError:
    return NwbCompactError(path, found=found, expected=expected, next_step="remove the file: it is made anew")


def _require_same(
    found: Float16[np.ndarray, "image channel row column"], path: Path, backbone: Backbone, images: np.ndarray, device: str
) -> None:
    """Compare the first image's features made again: code that a factory calls may have changed though its weights did not."""
    again = next(feature_batches(backbone.network, images[:1], layer=backbone.layer or "", device=device)).astype(np.float64)
    kept = found[:1].astype(np.float64)
    if again.shape != kept.shape or ((again - kept) ** 2).sum() > SAME_FEATURES**2 * (kept**2).sum():
        raise _foreign(path, "features that the backbone no longer gives", f"those of {backbone.name} as it is now")


# Writing ----------------------------------------------------------------------------------------------------------------


def _write(path: Path, content: Content, backbone: Backbone, images: np.ndarray, name: str, device: str, quiet: bool) -> None:
    with written_whole(path) as beside, beside.open("wb") as stream, stage(name, len(images), quiet=quiet) as advance:
        for batch in feature_batches(backbone.network, images, layer=backbone.layer or "", device=device, advance=advance):
            if stream.tell() == 0:
                shape = (len(images), *batch.shape[1:])
                next_step = "free some space, or name another folder with --cache-dir"
                require_room(path, 2 * int(np.prod(shape)), what=f"features of {counted(len(images), 'image')}", next_step=next_step)
                stream.write(_header(content, shape))
            stream.write(np.ascontiguousarray(batch).data)
        stream.flush()
        os.fsync(stream.fileno())


def _header(content: Content, shape: tuple[int, ...]) -> bytes:
    text = json.dumps(asdict(content) | {"shape": shape, "dtype": "<f2", "program": f"nwb-compact {__version__}"})
    return text.encode().ljust(HEADER_BYTES - 1) + b"\n"


@contextmanager
def _folder_faults(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        expected, next_step = "a folder that can be written", "free some space, correct its permissions, or name another with --cache-dir"
        raise NwbCompactError(folder, found=f"a fault ({one_line(error)})", expected=expected, next_step=next_step) from error


def images_sha256(images: UInt8[np.ndarray, "image height width 3"]) -> str:
    """Over shape and pixels, in order."""
    digest = sha256(str(images.shape).encode())
    for start in range(0, len(images), HASHED_IMAGES):
        digest.update(np.ascontiguousarray(images[start : start + HASHED_IMAGES]).data)
    return digest.hexdigest()


def _size(found: np.ndarray) -> str:
    sides = " x ".join(str(side) for side in found.shape[1:])
    return f"{counted(len(found), 'image')} x {sides}, {found.nbytes / 1e6:,.0f} MB"


def _tell(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)
