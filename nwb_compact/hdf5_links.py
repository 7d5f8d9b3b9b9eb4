"""A file is what it holds: one that would make HDF5 read other files of this machine is refused when it is opened.

An HDF5 file can name other files in three ways, and reading it reads them without a word: a link into another file, a dataset whose numbers
lie in another file, a virtual dataset made of pieces of others. In a file of a stranger that is a way to have any file of ours read and its
numbers written into what we share. So every link is walked before anything is read, and so is what no link leads to but a reference.
"""

import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5r, h5t

from nwb_compact.errors import NwbCompactError

FOLLOW = "NWB_COMPACT_FOLLOW_LINKS"
"""Environment variable: 1 where files may lead to others, such as a session to the voltage beside it."""
HERE = "."
"""What a virtual dataset calls its own file."""


def require_within(hdf5: h5py.File, where: object, *, may_follow: bool | None = None) -> None:
    """Stop where a file leads out of itself, or to nowhere.

    Parameters
    ----------
    hdf5
        The open file. Its links are walked; no numbers are read but references.
    where
        What an error calls it.
    may_follow
        Whether it may lead to other files; by default what `FOLLOW` says.

    Raises
    ------
    NwbCompactError
        If it links to another file or keeps numbers in one, or if a soft link leads nowhere or in a circle.

    Examples
    --------
    >>> with h5py.File("a.h5", "w", driver="core", backing_store=False) as hdf5:
    ...     hdf5["voltage"] = h5py.ExternalLink("raw.h5", "/voltage")
    ...     require_within(hdf5, "a.h5")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: a.h5: /voltage: found a link into another file, raw.h5, expected a file that holds all it needs. ...
    """
    if os.environ.get(FOLLOW) == "1" if may_follow is None else may_follow:
        return
    _Walk(hdf5, where).check()


class _Walk:
    """All that links lead to: from group to group, each once, however deep they lie."""

    def __init__(self, hdf5: h5py.File, where: object):
        self.hdf5, self.where = hdf5, where
        self.objects = {_address(hdf5.id): b"/"}
        self.soft: list[bytes] = []
        """Followed after all else, since one may lead through a link into another file."""
        self.references: list[tuple[bytes, Any, str | None]] = []
        """An attribute of an object, or what it holds itself; read after all else, since a virtual dataset reads others."""

    def check(self) -> None:
        self._walk(b"", h5g.open(self.hdf5.id, b"/"))
        for name in self.soft:
            self._follow(name)
        while self.references:
            name, held, attribute = self.references.pop()
            for target in self._unlinked(held[()] if attribute is None else held.attrs[attribute]):
                self._walk(name, target)

    def _walk(self, path: bytes, held: Any) -> None:
        """An object and, if it is a group, all that its links lead to."""
        self.objects.setdefault(_address(held), path or b"/")
        found = [(path, held)]
        while found:
            path, held = found.pop()
            self._look_at(path or b"/", held)
            if isinstance(held, h5g.GroupID):
                found.extend(self._linked(path, held))

    def _linked(self, path: bytes, group: h5g.GroupID) -> Iterator[tuple[bytes, Any]]:
        """What is new in a group."""
        links: list[tuple[bytes, int]] = []
        group.links.iterate(lambda name, info: links.append((name, info.type)), info=True)
        for name, kind in links:
            here = path + b"/" + name
            if kind == h5l.TYPE_SOFT:
                self.soft.append(here)
            elif kind != h5l.TYPE_HARD:
                other = f", {_text(group.links.get_val(name)[0])}" if kind == h5l.TYPE_EXTERNAL else ""
                raise self._refused(here, f"a link into another file{other}")
            else:
                held = h5o.open(group, name)
                if _address(held) not in self.objects:
                    self.objects[_address(held)] = here
                    yield here, held

    def _look_at(self, name: bytes, held: Any) -> None:
        if isinstance(held, h5d.DatasetID):
            self._require_own_numbers(name, held)
            if held.get_type().detect_class(h5t.REFERENCE):
                self.references.append((name, h5py.Dataset(held), None))
        for index in range(h5a.get_num_attrs(held)):
            attribute = h5a.open(held, index=index)
            if attribute.get_type().detect_class(h5t.REFERENCE):
                self.references.append((name, _WITH_ATTRIBUTES.get(type(held), h5py.Datatype)(held), attribute.name))

    def _require_own_numbers(self, name: bytes, dataset: h5d.DatasetID) -> None:
        made = dataset.get_create_plist()
        if made.get_external_count():
            raise self._refused(name, f"numbers in another file, {_text(made.get_external(0)[0])}")
        if made.get_layout() == h5d.VIRTUAL:
            for piece in range(made.get_virtual_count()):
                if (other := made.get_virtual_filename(piece)) != HERE:
                    raise self._refused(name, f"pieces of another file, {_text(other)}")

    def _follow(self, name: bytes) -> None:
        try:
            h5g.get_objinfo(self.hdf5.id, name)
        except Exception as error:  # h5py has several for a link that leads nowhere, and one more for a circle
            target = _text(self.hdf5.id.links.get_val(name))
            next_step = "copy the file again from where it came, or remove the link"
            raise NwbCompactError(f"{self.where}: {_text(name)}", found=f"a soft link to {target}, which leads nowhere or in a circle",
                                  expected="links to what the file holds", next_step=next_step) from error

    def _unlinked(self, values: Any) -> Iterator[Any]:
        """What references lead to and no link does."""
        for reference in _references(values):
            try:
                target = h5r.dereference(reference, self.hdf5.id)
            except (ValueError, RuntimeError, KeyError, OSError):
                continue  # it leads to nothing, which is for those to say who need it
            if target is not None and _address(target) not in self.objects:
                yield target

    def _refused(self, name: bytes, found: str) -> NwbCompactError:
        next_step = f"have all copied into one file; or, if you trust this one and it lies on this machine, set {FOLLOW}=1"
        return NwbCompactError(f"{self.where}: {_text(name)}", found=found, expected="a file that holds all it needs", next_step=next_step)


def _address(held: Any) -> tuple[int, ...]:
    """Which object of the file it is. `h5o.get_info` would also measure it, and read the whole index of its chunks for that."""
    return tuple(np.ravel(h5g.get_objinfo(held, b".").objno).tolist())


def _references(values: Any) -> Iterator[h5r.Reference]:
    """Those in what h5py read: one, an array, fields of a table, rows of unequal length."""
    if isinstance(values, h5r.Reference):
        yield values
    elif isinstance(values, np.ndarray | np.void) and values.dtype.names:
        for name in values.dtype.names:
            yield from _references(values[name])
    elif isinstance(values, np.ndarray) and values.dtype.hasobject:
        for one in values.ravel():
            yield from _references(one)


_WITH_ATTRIBUTES = {h5g.GroupID: h5py.Group, h5d.DatasetID: h5py.Dataset}


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
