"""Whatever goes wrong while a file is changed, the file is afterwards as it was."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from nwb_compact import safe_write
from nwb_compact.address import Address
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import run_ids, write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import example_results
from nwb_compact.safe_write import changed_copy, replaced_safely, require_writable
from nwb_compact.session import example_session
from tests.processes import dead_pid

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def file_path(tmp_path: Path) -> Path:
    write_session(example_session(), tmp_path / "a.nwb")
    return tmp_path / "a.nwb"


@contextmanager
def appended_safely(file_path: Path, *, output: Path | None = None) -> Iterator[Path]:
    """A change as `write_results` makes it: to a copy, in place or elsewhere."""
    with replaced_safely(output or file_path, source=file_path) as temporary:
        shutil.copyfile(file_path, temporary)
        yield temporary


def annotate(copy: Path) -> None:
    with h5py.File(copy, "a") as file:
        file["general/notes"] = "changed"


def notes(file_path: Path) -> str | None:
    with h5py.File(file_path) as file:
        return file["general/notes"].asstr()[()] if "general/notes" in file else None


def test_a_change_takes_place(file_path: Path) -> None:
    before = file_path.read_bytes()
    assert notes(file_path) is None
    with appended_safely(file_path) as copy:
        assert copy.parent == file_path.parent
        annotate(copy)
        assert file_path.read_bytes() == before
    assert notes(file_path) == "changed"
    assert os.listdir(file_path.parent) == ["a.nwb"]


def test_with_output_the_file_is_only_read(file_path: Path) -> None:
    before = file_path.read_bytes()
    with appended_safely(file_path, output=file_path.with_name("b.nwb")) as copy:
        annotate(copy)
    assert file_path.read_bytes() == before
    assert notes(file_path.with_name("b.nwb")) == "changed"


def test_permissions_stay_and_a_symbolic_link_stays_a_link(file_path: Path, tmp_path: Path) -> None:
    file_path.chmod(0o640)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.nwb"
    link.symlink_to(file_path)
    with appended_safely(link) as copy:
        annotate(copy)
    assert link.is_symlink()
    assert link.resolve() == file_path
    assert notes(file_path) == "changed"
    assert stat.S_IMODE(file_path.stat().st_mode) == 0o640
    assert os.listdir(link.parent) == ["link.nwb"]


def untouched(file_path: Path, before: bytes) -> bool:
    return file_path.read_bytes() == before and os.listdir(file_path.parent) == [file_path.name]


def interrupted(file_path: Path) -> None:
    with appended_safely(file_path) as copy:
        annotate(copy)
        raise KeyboardInterrupt


def test_an_exception_leaves_the_file_untouched(file_path: Path) -> None:
    before = file_path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        interrupted(file_path)
    assert untouched(file_path, before)


def spoil(file_path: Path) -> None:
    """Make a file that reads but does not validate: NWB wants signed row numbers."""
    with h5py.File(file_path, "a") as file:
        table = file["processing/ecephys/response_units"]
        rows, about = table["unit"][:].astype("uint32"), dict(table["unit"].attrs)
        del table["unit"]
        table["unit"] = rows
        table["unit"].attrs.update(about)


def test_a_file_that_does_not_validate_leaves_the_file_untouched(file_path: Path) -> None:
    before = file_path.read_bytes()
    said = r"a\.nwb: found 1 fault\(s\) after writing \(.*response_units/unit.*expected 'int32', got 'uint32'\)"
    with pytest.raises(NwbCompactError, match=said), appended_safely(file_path) as copy:
        spoil(copy)
    assert untouched(file_path, before)


def test_a_file_that_cannot_be_read_leaves_the_file_untouched(file_path: Path) -> None:
    before = file_path.read_bytes()
    with pytest.raises(NwbCompactError, match="damaged or not HDF5"), appended_safely(file_path) as copy:
        copy.write_bytes(before[: len(before) // 2])
    assert untouched(file_path, before)


def test_faults_that_a_file_had_already_do_not_forbid_a_change(file_path: Path) -> None:
    spoil(file_path)
    with appended_safely(file_path) as copy:
        annotate(copy)
    assert notes(file_path) == "changed"


def test_a_reader_is_not_robbed_of_its_file(file_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_write, "LOCK_WAIT_S", 0.2)
    before = file_path.read_bytes()
    said = r"found a file that another program has open, expected sole access to write\. Next: close it there and run again"
    with h5py.File(file_path):
        with pytest.raises(NwbCompactError, match=said), appended_safely(file_path) as copy:
            annotate(copy)
        with pytest.raises(NwbCompactError, match=said):
            require_writable(file_path)
    assert untouched(file_path, before)


def test_a_reader_that_closes_soon_is_waited_for(file_path: Path) -> None:
    reader = h5py.File(file_path)
    threading.Timer(0.3, reader.close).start()
    with appended_safely(file_path) as copy:
        annotate(copy)
    assert notes(file_path) == "changed"


def test_two_writers_do_not_lose_each_others_runs(file_path: Path) -> None:
    results = example_results(example_session())
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path; from nwb_compact.nwb_results import write_results;"
        "from nwb_compact.results import example_results; from nwb_compact.session import example_session;"
        "write_results(replace(example_results(example_session()), run_id='other'), Path(sys.argv[1]))"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(file_path)])
    while other.poll() is None:
        write_results(results, file_path, replace=True)
        time.sleep(0.2)  # as long as no one else has a turn, there is nothing to compete for
    assert other.returncode == 0
    assert sorted(run_ids(file_path)) == ["example", "other"]


def test_too_little_disk_leaves_the_file_untouched(file_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file_path.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 3 * 2**20))
    said = r"found 3 MiB free on its disk, expected at least 64 MiB for a safe copy\. Next: free some space"
    with pytest.raises(NwbCompactError, match=said), appended_safely(file_path) as copy:
        annotate(copy)
    with pytest.raises(NwbCompactError, match=said):
        require_writable(file_path)
    assert untouched(file_path, before)


def test_a_disk_that_fills_up_while_writing_leaves_the_file_untouched(file_path: Path) -> None:
    before = file_path.read_bytes()
    program = (
        "import resource, signal, sys; from pathlib import Path; from nwb_compact.nwb_results import write_results;"
        "from nwb_compact.results import example_results; from nwb_compact.session import example_session;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); limit = Path(sys.argv[1]).stat().st_size + 4096;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit));"
        "write_results(example_results(example_session()), Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file_path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "NwbCompactError" in done.stderr
    assert untouched(file_path, before)


def meddle(file_path: Path) -> None:
    """Write to a file as programs do that ignore locks."""
    with open(file_path, "ab") as file:
        file.write(b"x")


def test_a_change_by_another_program_is_not_overwritten(file_path: Path) -> None:
    with pytest.raises(NwbCompactError, match="found a change made by another program meanwhile"), appended_safely(file_path):
        meddle(file_path)
    assert file_path.read_bytes().endswith(b"x")
    assert os.listdir(file_path.parent) == ["a.nwb"]


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_kept(file_path: Path) -> None:
    host, gone = socket.gethostname(), dead_pid()
    dead = file_path.with_name(f".a.nwb.writing-{host}-{gone}.nwb")
    foreign = [f".a.nwb.writing-other.host-{gone}.nwb", f".b.nwb.writing-{host}-{gone}.nwb"]
    living = [f".a.nwb.writing-{host}-{os.getppid()}.nwb", *foreign]
    for path in (dead, *map(file_path.with_name, living)):
        path.write_text("left")
    with appended_safely(file_path) as copy:
        annotate(copy)
    assert sorted(os.listdir(file_path.parent)) == sorted([*living, "a.nwb"])


def test_a_changed_copy_lasts_as_long_as_its_block_and_clears_up_after_the_dead(file_path: Path) -> None:
    before = file_path.read_bytes()
    file_path.with_name(f".a.nwb.writing-{socket.gethostname()}-{dead_pid()}.nwb").write_bytes(b"of a killed run")

    def write(copy: Path) -> None:
        shutil.copyfile(file_path, copy)
        annotate(copy)

    with changed_copy(file_path, write) as copy:
        assert sorted(os.listdir(file_path.parent)) == sorted([copy.name, "a.nwb"])
        assert notes(copy) == "changed"
    with pytest.raises(NwbCompactError, match="damaged or not HDF5"), changed_copy(file_path, Path.touch):
        pass
    assert os.listdir(file_path.parent) == ["a.nwb"]
    assert file_path.read_bytes() == before


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NwbCompactError, match=r"x\.nwb: found no file, expected an NWB file"), appended_safely(tmp_path / "x.nwb"):
        pass
    with pytest.raises(NwbCompactError, match=r"x\.nwb: found no file, expected an NWB file"):
        require_writable(tmp_path / "x.nwb")
    with pytest.raises(NwbCompactError, match=f"^{tmp_path / 'none'}: found no folder, expected one to write b.nwb in"):
        require_writable(Address("https://example.org/a.nwb"), output=tmp_path / "none" / "b.nwb")
    with pytest.raises(NwbCompactError, match=r"none: found no folder"), replaced_safely(tmp_path / "none" / "x.nwb"):
        pass


def test_a_writable_file_is_said_to_be_writable(file_path: Path) -> None:
    before = file_path.read_bytes()
    require_writable(file_path)
    require_writable(file_path, output=file_path.with_name("new.nwb"))
    assert untouched(file_path, before)


def test_kills_leave_the_old_file_or_the_new_one() -> None:
    benchmark = Path(__file__).parents[2] / "benchmarks" / "faults.py"
    done = subprocess.run([sys.executable, benchmark, "--kills", "5", "--seed", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken 0" in done.stdout


def test_results_in_an_unrelated_file_stay(file_path: Path) -> None:
    write_results(replace(example_results(example_session()), run_id="first"), file_path)
    with appended_safely(file_path) as copy:
        annotate(copy)
    assert run_ids(file_path) == ("first",)
