"""Whatever is wrong with a file, the commands that read it say so in a line, end, and leave it as it is.

Forty damaged files by default, of which every fourth is also fitted; `NWB_COMPACT_DAMAGED=300 pytest tests/test_damaged_files.py` makes
as many and fits them all.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact.cli import main
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.nwb_interpretation import write_interpretation
from nwb_compact.nwb_results import example_file, read_results, write_results
from nwb_compact.results import TeacherWeights
from tests.shortest_fit import SHORTEST_FIT

ASKED = os.environ.get("NWB_COMPACT_DAMAGED")
FILES, FITTED_EVERY = (40, 4) if ASKED is None else (int(ASKED), 1)
LONGEST_S = 120


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A session with an interpreted run that keeps its teacher."""
    path = example_file(tmp_path_factory.mktemp("whole") / "a.nwb")
    (results,) = read_results(path)
    teacher = TeacherWeights({"enter.weight": np.ones((2, 4, 3, 1, 1), np.float32), "answer.scale": np.ones(2, np.float32)})
    write_results(replace(results, teacher=teacher), path, replace=True)
    found = Table("labels", {UNIT: Column("the unit", np.array([0, 1])), "preference": Column("label", np.array(["dot", "edge"]))})
    write_interpretation({"some": found}, path, "example")
    return path.read_bytes()


# Damages ----------------------------------------------------------------------------------------------------------------


def datasets(file: h5py.File, wanted: Callable[[h5py.Dataset], bool]) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, held: names.append(name) if isinstance(held, h5py.Dataset) and wanted(held) else None)
    return sorted(name for name in names if not name.startswith("specifications"))


def drawn(file: h5py.File, rng: np.random.Generator, wanted: Callable[[h5py.Dataset], bool] = lambda held: True) -> h5py.Dataset:
    return file[rng.choice(datasets(file, wanted))]


def remade(held: h5py.Dataset, values: object) -> None:
    """The dataset with other values, under the same name and with the same attributes."""
    parent, name, attributes = held.parent, held.name.rsplit("/", 1)[1], dict(held.attrs)
    del parent[name]
    new = parent.create_dataset(name, data=values)
    for key, value in attributes.items():
        new.attrs[key] = value


def flipped_bits(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, len(content), rng.integers(1, 60)):
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def truncated(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(0, len(content)))])


def shortened(path: Path, rng: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        held = drawn(file, rng, lambda held: held.ndim > 0 and len(held) > 1 and not h5py.check_dtype(ref=held.dtype))
        remade(held, held[: int(rng.integers(0, len(held)))])


def missing(path: Path, rng: np.random.Generator) -> None:
    names: list[str] = []
    with h5py.File(path, "a") as file:
        file.visit(names.append)
        del file[rng.choice(sorted(name for name in names if not name.startswith("specifications")))]


def without_attribute(path: Path, rng: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        held = drawn(file, rng)
        owner = held if rng.random() < 0.5 and len(held.attrs) else held.parent
        if len(owner.attrs):
            del owner.attrs[rng.choice(sorted(owner.attrs))]


def of_another_type(path: Path, rng: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        held = drawn(file, rng, lambda held: held.ndim > 0 and held.dtype.kind in "iuf")
        remade(held, np.array([b"seven"] * len(held)) if rng.random() < 0.5 else np.full(held.shape, 1.5))


def poisoned(path: Path, rng: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        held = drawn(file, rng, lambda held: held.ndim > 0 and held.size > 0 and held.dtype.kind == "f")
        values = held[...].ravel()
        values[rng.integers(len(values))] = rng.choice([np.nan, np.inf, -1e9])
        held[...] = values.reshape(held.shape)


def duplicated_ids(path: Path, rng: np.random.Generator) -> None:
    with h5py.File(path, "a") as file:
        drawn(file, rng, lambda held: held.name.endswith("/id") and held.ndim > 0)[...] = 0


def dangling(path: Path, rng: np.random.Generator) -> None:
    """A reference to what is no longer there, or a region beyond the end of its table."""
    with h5py.File(path, "a") as file:
        referring = datasets(file, lambda held: h5py.check_dtype(ref=held.dtype) is not None and held.ndim > 0 and len(held) > 0)
        if referring and rng.random() < 0.5:
            target = file[file[rng.choice(referring)][0]].name
            del file[target]
        else:
            drawn(file, rng, lambda held: held.attrs.get("neurodata_type") == "DynamicTableRegion" and held.size > 0)[0] = 100_000


DAMAGES = (flipped_bits, truncated, shortened, missing, without_attribute, of_another_type, poisoned, duplicated_ids, dangling)


# Commands -----------------------------------------------------------------------------------------------------------------


def out_of_time(*_: object) -> None:
    raise TimeoutError(f"no end after {LONGEST_S} s")


@pytest.mark.parametrize("seed", range(FILES))
def test_no_damage_makes_a_traceback_or_changes_the_file(seed, whole, tmp_path):
    rng, path = np.random.default_rng(seed), tmp_path / "a.nwb"
    path.write_bytes(whole)
    damage = DAMAGES[seed % len(DAMAGES)]
    damage(path, rng)
    before = sha256(path.read_bytes()).hexdigest()
    signal.signal(signal.SIGALRM, out_of_time)
    commands = [["check"], ["show", "--json"], ["report", "-o", str(tmp_path / "report")], ["interpret", "--quiet", "--units", "no unit"]]
    if seed % FITTED_EVERY == 0:
        (tmp_path / "shortest.toml").write_text(SHORTEST_FIT, encoding="utf-8")
        commands.append(["fit", "--config", str(tmp_path / "shortest.toml"), "--output", str(tmp_path / "fitted.nwb"), "--quiet"])
    for command in commands:
        signal.alarm(LONGEST_S)
        try:
            done = CliRunner().invoke(main, [command[0], str(path), *command[1:]])
        finally:
            signal.alarm(0)
        what = f"{damage.__name__}, {command[0]}: {done.output[-600:]}"
        assert done.exit_code in (0, 1), what
        assert "defect" not in done.output, what
        assert "Traceback" not in done.output, what
        assert sha256(path.read_bytes()).hexdigest() == before, what
