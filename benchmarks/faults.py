"""Kill -9 at random moments, and full disks, while a file is written: is it afterwards the old one or the new one, and whole?

    python benchmarks/faults.py [--kills 200] [--full-disks 20] [--seed 0]

Three writers share the kills and the disks: a conversion that replaces a session, a fit that writes its results into it, and an
interpretation that replaces an earlier one in its run. Each is a process of its own. It is killed at a moment drawn from its share of 1.3
times the duration of the write, so that the kills cover all of it: copying, writing, validating, flushing and replacing. A full disk is a
tmpfs (root must run this) that ends somewhere between nothing and all of what the write needs; the check for free space is switched off,
so that the disk fills in the middle. Exit status 1 if any file is neither, or a killed writer's copy is still there after the next write.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click
import numpy as np
import pynwb

from nwb_compact import safe_write
from nwb_compact.check import check
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.nwb_interpretation import read_interpretation, write_interpretation
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import open_session, write_session
from nwb_compact.results import Results, StudentWeights, example_results
from nwb_compact.session import Session, example_session

AT_ONCE = 5
"""Writers that load their libraries at the same time; they write, and are killed, one after the other."""
RUN = "example"
LEAST_ROOM = 0.02
"""Share of what a write needs that the smallest disk has."""


class Writer(NamedTuple):
    """What is written, and how to tell that it is there."""

    prepare: Callable[[Path], None]
    """Make the original."""
    write: Callable[[Path], Callable[[], None]]
    """Get ready for a file: all but the writing, which is then to be called."""
    is_new: Callable[[Path], bool]


@click.command()
@click.option("--kills", default=200, show_default=True)
@click.option("--full-disks", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--writer", type=(str, click.Path(path_type=Path)), help="Be one of the writers, for this file.")
def main(kills: int, full_disks: int, seed: int, writer: tuple[str, Path] | None) -> None:
    """Count what kills and full disks leave behind."""
    if writer is not None:
        write_when_told(*writer)
        return
    rng, bad = np.random.default_rng(seed), 0
    for name, n_kills, n_disks in zip(WRITERS, shares(kills), shares(full_disks), strict=True):
        with TemporaryDirectory() as folder:
            pristine = Path(folder) / "pristine.nwb"
            WRITERS[name].prepare(pristine)
            outcomes, duration_s, leftovers = kill_writers(name, pristine, Path(folder) / "kept", n_kills, rng)
            print(f"{name}: file {pristine.stat().st_size / 1e6:.1f} MB, one undisturbed write {duration_s:.2f} s, {n_kills} kills: "
                  f"{told(outcomes)}; copies that killed writers left behind, after the next write: {leftovers}", flush=True)
            disks = fill_disks(name, pristine, Path(folder) / "disk", n_disks)
            print(f"{name}: {n_disks} full disks: {told(disks)}", flush=True)
            bad += outcomes["broken"] + leftovers + disks["broken"]
    sys.exit(1 if bad else 0)


def shares(total: int) -> list[int]:
    """Of the writers, as equal as can be."""
    return [len(part) for part in np.array_split(np.arange(total), len(WRITERS))]


def told(outcomes: Counter[str]) -> str:
    return f"original bit-identical {outcomes['original']}, new file complete {outcomes['new']}, broken {outcomes['broken']}"


def kill_writers(name: str, pristine: Path, kept: Path, kills: int, rng: np.random.Generator) -> tuple[Counter[str], float, int]:
    file_path = kept / "session.nwb"
    kept.mkdir()
    duration_s = float(np.median([timed_write(name, pristine, file_path) for _ in range(3)]))
    outcomes: Counter[str] = Counter()
    moments = duration_s * 1.3 * (np.arange(kills) + rng.random(kills)) / kills
    for start in range(0, kills, AT_ONCE):
        chosen = moments[start : start + AT_ONCE]
        # All have read the session before the first one writes, else one could open the file while another replaces it.
        writers = [ready(process) for process in [started(name, file_path) for _ in chosen]]
        for process, moment in zip(writers, chosen, strict=True):
            shutil.copyfile(pristine, file_path)
            tell(process)
            time.sleep(moment)
            process.kill()
            process.wait()
            outcomes[state(name, file_path, pristine)] += 1
    timed_write(name, pristine, file_path)
    return outcomes, duration_s, len(list(kept.iterdir())) - 1


def fill_disks(name: str, pristine: Path, disk: Path, n: int) -> Counter[str]:
    """Write on disks with room for a part of what is needed: the file, and a copy that has grown."""
    outcomes: Counter[str] = Counter()
    disk.mkdir()
    size = pristine.stat().st_size
    needed = size + 1.2 * grown(name, pristine, disk / "session.nwb")
    for room in np.linspace(size * (1 + LEAST_ROOM), needed, n):
        with mounted(disk, round(room)):
            file_path = disk / "session.nwb"
            shutil.copyfile(pristine, file_path)
            process = ready(started(name, file_path))
            tell(process)
            process.wait()
            outcomes[state(name, file_path, pristine)] += 1
    return outcomes


def grown(name: str, pristine: Path, file_path: Path) -> int:
    timed_write(name, pristine, file_path)
    size = file_path.stat().st_size
    file_path.unlink()
    return size


@contextmanager
def mounted(disk: Path, n_bytes: int) -> Iterator[None]:
    """A disk of that size."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def state(name: str, file_path: Path, pristine: Path) -> str:
    """original, new or broken."""
    if digest(file_path) == digest(pristine):
        return "original"
    try:
        sound = WRITERS[name].is_new(file_path) and not check(file_path) and not pynwb.validate(path=file_path)
        return "new" if sound else "broken"
    except Exception as error:  # whatever cannot be read is what this program looks for
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return "broken"


def timed_write(name: str, pristine: Path, file_path: Path) -> float:
    shutil.copyfile(pristine, file_path)
    process = ready(started(name, file_path))
    tell(process)
    begin = time.monotonic()
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    duration_s = time.monotonic() - begin
    assert process.wait() == 0
    return duration_s


def started(name: str, file_path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--writer", name, str(file_path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def ready(process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
    """Wait until a writer has all that it will write."""
    assert process.stdout is not None
    said = process.stdout.readline()
    if said != "ready\n":
        raise RuntimeError(f"a writer ended with {process.wait()} before it began")
    return process


def tell(process: "subprocess.Popen[str]") -> None:
    """Let a writer begin."""
    assert process.stdin is not None
    process.stdin.write("write\n")
    process.stdin.flush()


def write_when_told(name: str, file_path: Path) -> None:
    safe_write.SPARE_BYTES = -(2**60)  # a full disk is to be met in the middle, not foreseen
    write = WRITERS[name].write(file_path)
    print("ready", flush=True)
    sys.stdin.readline()
    write()
    print("done", flush=True)


# What is written --------------------------------------------------------------------------------------------------------


def session_of(n_images: int) -> Session:
    return example_session(n_images, 8, height_px=64)


def some_results(session: Session) -> Results:
    """About as many numbers as a real fit leaves."""
    results = example_results(session)
    rng = np.random.default_rng(0)
    weights = {"layer1.kernel": rng.normal(size=(24, 3, 5, 5)), "readout.weight": rng.normal(size=(12, 28, 28))}
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    return replace(results, students=tuple(StudentWeights(arrays) for _ in results.unit_name))


def some_tables(seed: int) -> dict[str, Table]:
    """About as many numbers as an interpretation of 8 units leaves."""
    rng, units = np.random.default_rng(seed), np.repeat(np.arange(8), 9)
    images = rng.integers(0, 256, (len(units), 112, 112, 3)).astype(np.uint8)
    return {"made_images": Table("made", {
        UNIT: Column("the unit", units), "seed": Column("of the noise", np.full(len(units), seed)), "image": Column("RGB", images),
    })}


def session_with_run(file_path: Path) -> None:
    write_session(session_of(600), file_path)
    with open_session(file_path) as session:
        results = some_results(session)
    write_results(results, file_path)
    write_interpretation(some_tables(0), file_path, RUN)


def fit(file_path: Path) -> Callable[[], None]:
    with open_session(file_path) as session:
        results = some_results(session)
    return partial(write_results, results, file_path)


WRITERS = {
    "convert": Writer(
        prepare=lambda path: write_session(session_of(500), path),
        write=lambda path: partial(write_session, session_of(600), path, overwrite=True),
        is_new=lambda path: len(open_whole(path).images) == 600),
    "fit": Writer(
        prepare=lambda path: write_session(session_of(600), path),
        write=fit,
        is_new=lambda path: [run.run_id for run in read_results(path)] == [RUN]),
    "interpret": Writer(
        prepare=session_with_run,
        write=lambda path: partial(write_interpretation, some_tables(1), path, RUN),
        is_new=lambda path: read_interpretation(path, RUN)["made_images"]["seed"].tolist() == [1] * 72),
}


def open_whole(file_path: Path) -> Session:
    with open_session(file_path) as session:
        return session


def digest(file_path: Path) -> str:
    return sha256(file_path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
