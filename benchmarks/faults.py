"""Kill -9 at random moments of an in-place write of results: is the file afterwards the old one or the new one, and whole?

    python benchmarks/faults.py --kills 20

Each writer is a process of its own that is killed at a moment drawn from its share of the write's duration, so that the
kills cover all of it: copying, appending, validating, flushing and replacing. Exit status 1 if any file is neither.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import pynwb

from nwb_compact.check import check
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import open_session, write_session
from nwb_compact.results import Results, StudentWeights, example_results
from nwb_compact.session import example_session

AT_ONCE = 5
"""Writers that load their libraries at the same time; they write, and are killed, one after the other."""


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--writer", type=click.Path(path_type=Path), help="Be one of the writers, for this file.")
def main(kills: int, seed: int, writer: Path | None) -> None:
    """Count what kills leave behind."""
    if writer is not None:
        write_when_told(writer)
        return
    with TemporaryDirectory() as folder:
        outcomes, size, duration_s, leftovers = kill_writers(Path(folder), kills, np.random.default_rng(seed))
    print(f"file {size / 1e6:.1f} MB, one undisturbed write {duration_s:.2f} s, {kills} kills:")
    print(f"original bit-identical {outcomes['original']}, new file complete {outcomes['new']}, broken {outcomes['broken']}")
    print(f"copies left behind by the killed writers, after the next write: {leftovers}")
    sys.exit(1 if outcomes["broken"] or leftovers else 0)


def kill_writers(folder: Path, kills: int, rng: np.random.Generator) -> tuple[Counter[str], int, float, int]:
    pristine, file_path = folder / "pristine.nwb", folder / "kept" / "session.nwb"
    file_path.parent.mkdir()
    write_session(example_session(600, 8, height_px=64), pristine)
    duration_s = float(np.median([timed_write(pristine, file_path) for _ in range(3)]))
    outcomes: Counter[str] = Counter()
    moments = duration_s * 1.3 * (np.arange(kills) + rng.random(kills)) / kills
    for start in range(0, kills, AT_ONCE):
        chosen = moments[start : start + AT_ONCE]
        # All have read the session before the first one writes, else one could open the file while another replaces it.
        writers = [ready(process) for process in [started(file_path) for _ in chosen]]
        for process, moment in zip(writers, chosen, strict=True):
            shutil.copyfile(pristine, file_path)
            tell(process)
            time.sleep(moment)
            process.kill()
            process.wait()
            outcomes[state(file_path, pristine)] += 1
    timed_write(pristine, file_path)
    return outcomes, pristine.stat().st_size, duration_s, len(list(file_path.parent.iterdir())) - 1


def state(file_path: Path, pristine: Path) -> str:
    """original, new or broken."""
    if digest(file_path) == digest(pristine):
        return "original"
    try:
        is_new = [run.run_id for run in read_results(file_path)] == ["example"]
        return "new" if is_new and not check(file_path) and not pynwb.validate(path=file_path) else "broken"
    except Exception as error:  # whatever cannot be read is what this program looks for
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return "broken"


def timed_write(pristine: Path, file_path: Path) -> float:
    shutil.copyfile(pristine, file_path)
    process = ready(started(file_path))
    tell(process)
    begin = time.monotonic()
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    duration_s = time.monotonic() - begin
    assert process.wait() == 0
    return duration_s


def started(file_path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--writer", str(file_path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ready(process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
    """Wait until a writer has loaded its libraries and read the session."""
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


def write_when_told(file_path: Path) -> None:
    results = some_results(file_path)
    print("ready", flush=True)
    sys.stdin.readline()
    write_results(results, file_path)
    print("done", flush=True)


def some_results(file_path: Path) -> Results:
    """About as many numbers as a real fit leaves."""
    with open_session(file_path) as session:
        results = example_results(session)
    rng = np.random.default_rng(0)
    weights = {"layer1.kernel": rng.normal(size=(24, 3, 5, 5)), "readout.weight": rng.normal(size=(12, 28, 28))}
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    return replace(results, students=tuple(StudentWeights(arrays) for _ in results.unit_name))


def digest(file_path: Path) -> str:
    return sha256(file_path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
