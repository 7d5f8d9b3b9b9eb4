"""A file that leads HDF5 to other files of this machine is refused in a line by every command, and nothing of those files is told."""

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact import contract as c
from nwb_compact.cli import main
from nwb_compact.errors import NwbCompactError
from nwb_compact.hdf5_links import FOLLOW, require_within
from nwb_compact.nwb_io import open_hdf5
from nwb_compact.nwb_results import write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import example_results
from nwb_compact.session import example_session

SECRET = 48813
COUNT = f"processing/ecephys/{c.SPIKE_COUNTS}/{c.COUNT}"


def remade(file: h5py.File, make: Callable[[h5py.Group, str, tuple[int, ...]], object]) -> None:
    """The counts of a session, made in another way; as HDF5 and pynwb see them they are as before."""
    held = file[COUNT]
    parent, shape, attributes = held.parent, held.shape, dict(held.attrs)
    del file[COUNT]
    make(parent, c.COUNT, shape)
    if parent.get(c.COUNT, getlink=True).__class__ is h5py.HardLink:
        for key, value in attributes.items():
            parent[c.COUNT].attrs[key] = value


def linked(file: h5py.File, folder: Path) -> str:
    with h5py.File(folder / "other.h5", "w") as other:
        other["taken"] = np.full(file[COUNT].shape, SECRET, np.uint16)
        for key, value in file[COUNT].attrs.items():
            other["taken"].attrs[key] = value
    remade(file, lambda parent, name, shape: parent.__setitem__(name, h5py.ExternalLink(str(folder / "other.h5"), "/taken")))
    return "a link into another file, "


def stored_outside(file: h5py.File, folder: Path) -> str:
    n = file[COUNT].size
    (folder / "other.h5").write_bytes(struct.pack(f"<{n}H", *[SECRET] * n))
    places = [(str(folder / "other.h5"), 0, 2 * n)]
    remade(file, lambda parent, name, shape: parent.create_dataset(name, shape, np.uint16, external=places))
    return "numbers in another file, "


def virtual(file: h5py.File, folder: Path) -> str:
    with h5py.File(folder / "other.h5", "w") as other:
        other["taken"] = np.full(file[COUNT].shape, SECRET, np.uint16)

    def make(parent, name, shape):
        layout = h5py.VirtualLayout(shape, np.uint16)
        layout[...] = h5py.VirtualSource(folder / "other.h5", "taken", shape)
        parent.create_virtual_dataset(name, layout)

    remade(file, make)
    return "pieces of another file, "


WAYS = (linked, stored_outside, virtual)
COMMANDS = (["check"], ["open"], ["show", "--json"], ["validate", "--json"], ["report", "-o", "report"], ["fit", "--preset", "quick"],
            ["fit", "--output", "new.nwb"], ["interpret"], ["export", "--unit", "unit-1", "-o", "unit.npz"])


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    """A session with a run."""
    path = tmp_path / "a.nwb"
    write_session(example_session(n_images=30), path)
    write_results(example_results(example_session(n_images=30)), path)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_every_command_refuses_a_file_that_leads_out_and_tells_nothing_of_the_other(way, session_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File(session_file, "a") as file:
        says = way(file, tmp_path)
    with h5py.File(session_file) as file:
        assert (file[COUNT][()] == SECRET).all()  # what HDF5 does unasked
    there = sorted(tmp_path.rglob("*"))
    for command in COMMANDS:
        done = CliRunner().invoke(main, [command[0], str(session_file), *command[1:]])
        assert done.exit_code == 1, command
        (line,) = done.output.splitlines()
        assert f"{session_file}: /{COUNT}: found {says}{tmp_path / 'other.h5'}, expected" in line, command
        assert f"set {FOLLOW}=1" in line
        assert str(SECRET) not in line
        assert sorted(tmp_path.rglob("*")) == there, command


@pytest.mark.parametrize("way", WAYS)
def test_they_are_followed_when_asked(way, session_file, tmp_path, monkeypatch):
    with h5py.File(session_file, "a") as file:
        way(file, tmp_path)
    monkeypatch.setenv(FOLLOW, "1")
    with open_hdf5(session_file) as file:
        assert (file[COUNT][()] == SECRET).all()
    monkeypatch.setenv(FOLLOW, "0")
    with pytest.raises(NwbCompactError, match="another file"):
        open_hdf5(session_file)


@pytest.mark.parametrize("target", ["/nowhere", "/circle"])
def test_a_soft_link_to_nothing_or_in_a_circle_is_a_line(target, session_file):
    with h5py.File(session_file, "a") as file:
        file["circle"] = h5py.SoftLink(target)
    for command in ("check", "show", "validate"):
        done = CliRunner().invoke(main, [command, str(session_file)])
        assert done.exit_code == 1
        (line,) = done.output.splitlines()
        assert f"/circle: found a soft link to {target}, which leads nowhere or in a circle" in line


def test_what_only_a_reference_leads_to_is_looked_at_too(tmp_path):
    """HDF5 keeps an object that is open although its last link is gone; a copy made meanwhile holds one that no walk along links finds."""
    (tmp_path / "other").write_bytes(struct.pack("<H", SECRET))
    with h5py.File(tmp_path / "open.h5", "w") as file:
        hidden = file.create_dataset("hidden", (1,), np.uint16, external=[(str(tmp_path / "other"), 0, 2)])
        file["list"] = np.array([hidden.ref], h5py.ref_dtype)
        file["table"] = np.array([(1, hidden.ref)], [("row", int), ("target", h5py.ref_dtype)])
        ragged = file.create_dataset("ragged", (1,), h5py.vlen_dtype(h5py.ref_dtype))
        ragged[0] = np.array([hidden.ref], h5py.ref_dtype)
        file.create_group("group").attrs["target"] = hidden.ref
        del file["hidden"]
        file.flush()
        content = (tmp_path / "open.h5").read_bytes()
    for kept in ("list", "table", "ragged", "group"):
        path = tmp_path / f"{kept}.h5"
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            assert file[file["list"][0]][0] == SECRET
            for name in {"list", "table", "ragged", "group"} - {kept}:
                del file[name]
        with pytest.raises(NwbCompactError, match=f"/{kept}: found numbers in another file, .*other"):
            open_hdf5(path)


def test_what_only_a_reference_leads_to_does_no_harm_where_it_is_whole(tmp_path):
    """Whoever deletes a table with h5py leaves the columns that others refer to."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["table/id"] = np.arange(3)
        file["list"] = np.array([file["table"].ref], h5py.ref_dtype)
        del file["table"]
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file["list"].shape == (1,)


def test_links_and_references_within_a_file_are_as_good_as_before(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("group/data", data=np.arange(4))
        file["again"], file["group/up"] = h5py.SoftLink("/group/data"), file["/"]
        file["references"] = np.array([data.ref, h5py.Reference()], h5py.ref_dtype)
        file.create_dataset("regions", data=np.array([data.regionref[1:3]], h5py.regionref_dtype))
        layout = h5py.VirtualLayout((4,), int)
        layout[:] = h5py.VirtualSource(".", "group/data", (4,))
        file.create_virtual_dataset("view", layout)
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file["view"][:].tolist() == file["again"][:].tolist() == [0, 1, 2, 3]


def test_a_file_of_very_deep_groups_is_walked(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("g")
        group["out"] = h5py.ExternalLink("other.h5", "/taken")
        with pytest.raises(NwbCompactError, match=r"out: found a link into another file, other\.h5"):
            require_within(file, "a.h5")
