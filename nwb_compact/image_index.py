"""Where each image of a folder, zip or tar lies, listed on disk in one pass, so that any of millions can be read at once and none is held.

A listing is two files: the names one after the other, and a row of fixed length an image. They are mapped, not loaded.
"""

import errno
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np

from nwb_compact.errors import NwbCompactError, one_line
from nwb_compact.image_files import IMAGE_ENDINGS, ZIP_FAULTS, ImageFile, broken, is_hidden, is_image, require_harmless

ENTRY = np.dtype([("name", "<u8"), ("name_bytes", "<u4"), ("offset", "<u8"), ("packed", "<u8"), ("size", "<u8"), ("crc", "<u4"),
                  ("is_deflated", "?")])
"""An image: its name's place among the names; first byte and bytes within the zip or tar; bytes and checksum when unpacked."""
WRITTEN_TOGETHER = 4096
LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a file in a zip; it ends with the lengths of the name and of what else precedes the content."""
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd files begin."""
EXPECTED = "a folder, zip, tar or session file of images"
Kind = Literal["folder", "zip", "tar"]


class _Listed(NamedTuple):
    name: str
    offset: int = 0
    packed: int = 0
    size: int = 0
    crc: int = 0
    is_deflated: bool = False
    changed_ns: int = 0


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The images of one place, numbered in the order in which they lie there."""

    place: Path
    kind: Kind
    names: np.ndarray
    entries: np.ndarray
    identity: str
    """Changes with any name, size, checksum or time of change; not with the order in which a folder is listed."""

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, number: int) -> str:
        """Path within the place, with slashes."""
        start, length = int(self.entries[number]["name"]), int(self.entries[number]["name_bytes"])
        return os.fsdecode(self.names[start : start + length].tobytes())

    def read(self, number: int) -> ImageFile:
        """One image, still encoded; may be asked from several threads.

        Raises
        ------
        UnusableImage
            `broken`: it cannot be read, or is not what the listing says.
        """
        name = self.name(number)
        where = str(self.place / name) if self.kind == "folder" else f"{self.place}:{name}"
        try:
            content = (self.place / name).read_bytes() if self.kind == "folder" else self._unpacked(number)
        except (OSError, EOFError, struct.error, zlib.error) as error:
            raise broken(where, error) from error
        return ImageFile(where, PurePosixPath(name).name, content)

    def _unpacked(self, number: int) -> bytes:
        entry = self.entries[number]
        size = int(entry["size"])
        with self.place.open("rb") as stream:
            stream.seek(int(entry["offset"]))
            if self.kind == "zip":
                stream.seek(sum(LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))), os.SEEK_CUR)
            content = stream.read(int(entry["packed"]))
        if entry["is_deflated"]:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size)
        if len(content) != size or (self.kind == "zip" and zlib.crc32(content) != int(entry["crc"])):
            raise EOFError("its bytes are not those that the listing names")
        return content


def image_index(place: Path, beside: Path) -> ImageIndex:
    """List every image of a folder, zip or tar at any depth; which file is one, its ending tells. Nothing is unpacked to disk.

    What an operating system leaves behind is passed over (see `image_files.is_image`), and so are links to folders and links in a tar. A
    link that leads nowhere is an image that cannot be read.

    Parameters
    ----------
    place
        The folder, zip or tar.
    beside
        Where the listing is written: this path with `.names` and `.entries`.

    Raises
    ------
    NwbCompactError
        If the place, or a folder in it, cannot be read; if it is no whole zip or tar, is encrypted or packed so that no image can be
        reached alone; if a path in it leads out of it; if there is no image.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> (folder / "a.png").write_bytes(b"...") and (folder / "notes.txt").write_bytes(b"...")
    3
    >>> index = image_index(folder, Path(mkdtemp()) / "0")
    >>> len(index), index.name(0), index.read(0).content
    (1, 'a.png', b'...')
    """
    try:
        kind = _kind(place)
        listing: dict[Kind, Callable[[Path], Iterator[_Listed]]] = {"folder": _in_folder, "zip": _in_zip, "tar": _in_tar}
        identity = _write(listing[kind](place), beside)
    except (*ZIP_FAULTS, tarfile.TarError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # this is about the disk of the listing
        known = isinstance(error, OSError) or place.suffix.lower() in (".zip", ".tar")
        found = one_line(error) if known else f"no zip or tar ({one_line(error)})"
        raise NwbCompactError(place, found=found, expected=EXPECTED, next_step="check --images") from error
    if beside.with_name(f"{beside.name}.entries").stat().st_size == 0:
        expected = f"files ending in {', '.join(IMAGE_ENDINGS)}"
        raise NwbCompactError(place, found="no image", expected=expected, next_step="name a folder, zip or tar of images")
    changed_ns = 0 if kind == "folder" else place.stat().st_mtime_ns
    return opened_index(place, kind, beside, f"{kind} {identity:016x} {changed_ns}")


def opened_index(place: Path, kind: Kind, beside: Path, identity: str = "") -> ImageIndex:
    """A listing that `image_index` wrote."""
    names, entries = (beside.with_name(f"{beside.name}.{what}") for what in ("names", "entries"))
    return ImageIndex(place, kind, np.memmap(names, np.uint8, "r"), np.memmap(entries, ENTRY, "r"), identity)


def _write(listed: Iterator[_Listed], beside: Path) -> int:
    """Write the two files; what is returned names all of it, in any order."""
    identity = at = 0
    rows: list[tuple[int, ...]] = []
    with beside.with_name(f"{beside.name}.names").open("wb") as names, beside.with_name(f"{beside.name}.entries").open("wb") as entries:
        for one in listed:
            name = os.fsencode(one.name)
            names.write(name)
            rows.append((at, len(name), one.offset, one.packed, one.size, one.crc, one.is_deflated))
            at += len(name)
            identity += int.from_bytes(blake2b(name + str(one[1:]).encode(), digest_size=8).digest())
            if len(rows) == WRITTEN_TOGETHER:
                entries.write(np.array(rows, ENTRY).tobytes())
                rows.clear()
        entries.write(np.array(rows, ENTRY).tobytes())
    return identity % 2**64


def _kind(place: Path) -> Kind:
    if place.is_dir():
        return "folder"
    with place.open("rb") as stream:
        if stream.read(8).startswith(COMPRESSED):
            found, expected = "a compressed file, in which no image can be reached without those before it", "a .tar that is not compressed"
            raise NwbCompactError(place, found=found, expected=expected, next_step="unpack it once (gunzip, for example) and name the .tar")
    if place.suffix.lower() == ".zip":
        return "zip"
    return "zip" if place.suffix.lower() != ".tar" and zipfile.is_zipfile(place) else "tar"


def _in_folder(place: Path) -> Iterator[_Listed]:
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(place / inside) as found:
            for entry in found:
                if is_hidden(entry.name):
                    continue
                path = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                elif is_image(entry.name) and not entry.is_dir():
                    yield _on_its_own(path, entry.stat)


def _on_its_own(path: str, status: Callable[[], os.stat_result]) -> _Listed:
    try:
        stat = status()
    except OSError:  # a link that leads nowhere, which reading it will tell
        return _Listed(path)
    return _Listed(path, size=stat.st_size, changed_ns=stat.st_mtime_ns)


def _in_zip(place: Path) -> Iterator[_Listed]:
    with zipfile.ZipFile(place) as archive:
        for member in archive.infolist():
            name = member.filename.replace("\\", "/")
            if member.is_dir() or not is_image(name):
                continue
            require_harmless(place, name, member.file_size)
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                kind = "an encrypted file" if member.flag_bits & 1 else f"compression of kind {member.compress_type}"
                expected, next_step = "files that are stored or deflated, without a password", "make the zip again, or unpack it"
                raise NwbCompactError(place, found=f"{kind} ({name!r})", expected=expected, next_step=next_step)
            deflated = member.compress_type == zipfile.ZIP_DEFLATED
            yield _Listed(name, member.header_offset, member.compress_size, member.file_size, member.CRC, deflated)


def _in_tar(place: Path) -> Iterator[_Listed]:
    with tarfile.open(place, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would hold all of them
            if member.isfile() and not member.issparse() and is_image(member.name):
                require_harmless(place, member.name, member.size)
                yield _Listed(member.name, member.offset_data, member.size, member.size)
    with place.open("rb") as stream:  # tarfile takes a damaged header for the end
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"a damaged header at byte {archive.offset:,}")
