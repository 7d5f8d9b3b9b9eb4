"""Students written and read again are the same, and an array that all of them hold is in the file once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import Results, StudentWeights, example_results, shared_arrays
from nwb_compact.session import example_session
from nwb_compact.student import example_student, n_parameters, predict, predict_all

Same = Callable[[Any, Any], None]
MODULE = "processing/nwb_compact_example"


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    write_session(example_session(), tmp_path / "session.nwb")
    return tmp_path / "session.nwb"


def with_students(*students: StudentWeights) -> Results:
    return replace(example_results(example_session()), students=students)


def sharing(filters: int = 3) -> tuple[StudentWeights, StudentWeights]:
    """Two readouts of one network."""
    first, other = example_student(filters), example_student(filters, seed=1)
    readout = {name: array for name, array in other.arrays.items() if name.startswith("readout")}
    return first, StudentWeights({**first.arrays, **readout})


def test_what_all_students_hold_is_one_row_and_the_same_object_again(session_file: Path, assert_same: Same) -> None:
    results = with_students(*sharing())
    write_results(results, session_file)
    (read,) = read_results(session_file)
    assert_same(results, read)
    one, other = (student.arrays for student in read.students)
    layers = [name for name in one if not name.startswith("readout")]
    assert [name for name in one if one[name] is other[name]] == layers
    assert list(shared_arrays(read.students)) == layers
    with h5py.File(session_file) as file:
        assert file[f"{MODULE}/{c.RUN_SHARED}/{c.ARRAY_NAME}"].asstr()[:].tolist() == layers
        assert file[f"{MODULE}/{c.RUN_PARAMETERS}/{c.ARRAY_NAME}"].asstr()[:].tolist() == 2 * ["readout.weight", "readout.bias"]
        assert file[f"{MODULE}/{c.RUN_PARAMETERS}/{c.UNIT}"][:].tolist() == [0, 0, 1, 1]
        assert file[f"{MODULE}/{c.RUN_FILTERS}/{c.KERNEL}"].shape == (3, 3, 5, 5)
        assert c.UNIT not in file[f"{MODULE}/{c.RUN_FILTERS}"], "they belong to no unit"


def test_equal_arrays_that_are_two_objects_stay_two(session_file: Path) -> None:
    write_results(with_students(example_student(), example_student()), session_file)
    (read,) = read_results(session_file)
    assert not shared_arrays(read.students)
    with h5py.File(session_file) as file:
        assert c.RUN_SHARED not in file[MODULE]
        assert file[f"{MODULE}/{c.RUN_FILTERS}/{c.UNIT}"][:].tolist() == [0, 0, 0, 1, 1, 1]


def test_students_that_share_everything_or_have_nothing_are_read(session_file: Path, assert_same: Same) -> None:
    one = example_student()
    for run, students in {"all": (one, one), "nothing": (StudentWeights({}), StudentWeights({}))}.items():
        results = replace(with_students(*students), run_id=run)
        write_results(results, session_file)
        assert_same(results, read_results(session_file, run)[0])


def test_a_shared_layer_takes_its_room_once(session_file: Path) -> None:
    """Of random numbers, which compression does not make smaller."""
    own, shared = (example_student(100), example_student(100, seed=1)), sharing(100)
    sizes = []
    for run, students in {"own": own, "shared": shared}.items():
        before = session_file.stat().st_size
        write_results(replace(with_students(*students), run_id=run), session_file)
        sizes.append(session_file.stat().st_size - before)
    layers = sum(4 * array.size for name, array in shared[0].arrays.items() if not name.startswith("readout"))
    assert sizes[0] - sizes[1] > 0.85 * layers


def test_each_student_stands_alone(session_file: Path) -> None:
    students = sharing()
    write_results(with_students(*students), session_file)
    read = read_results(session_file)[0].students
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    together = predict_all(read, images)
    for unit, student in enumerate(students):
        alone = StudentWeights({name: array.copy() for name, array in read[unit].arrays.items()})
        assert n_parameters(alone) == n_parameters(student) == 2929
        np.testing.assert_allclose(predict(alone, images), together[:, unit], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(predict(student, images), together[:, unit], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("students", "version"), [(sharing(), "2"), ((example_student(), example_student(seed=1)), "1")])
def test_only_a_run_that_an_older_program_would_misread_has_the_new_version(session_file: Path, students: Any, version: str) -> None:
    write_results(with_students(*students), session_file)
    with h5py.File(session_file) as file:
        rows = file[f"{MODULE}/{c.RUN_PROVENANCE}"]
        stored = dict(zip(rows[c.KEY].asstr()[:], rows[c.VALUE].asstr()[:], strict=True))
    assert stored[c.CONTRACT_VERSION_KEY] == version
    assert c.CONTRACT_VERSION_KEY not in read_results(session_file)[0].provenance


def test_output_and_replace_keep_the_shared_arrays(session_file: Path, assert_same: Same) -> None:
    results = with_students(*sharing())
    write_results(results, session_file)
    output = write_results(replace(results, run_id="b"), session_file, output=session_file.with_name("o.nwb"))
    write_results(results, session_file, replace=True)
    for file_path in (session_file, output):
        read = read_results(file_path, "example")[0]
        assert_same(results, read)
        assert len(shared_arrays(read.students)) == 15


def test_a_shared_table_without_its_columns_is_told(session_file: Path) -> None:
    write_results(with_students(*sharing()), session_file)
    with h5py.File(session_file, "a") as file:
        rows = file[f"{MODULE}/{c.RUN_SHARED}"]
        rows.attrs["colnames"] = [name for name in rows.attrs["colnames"] if name != c.ARRAY_NAME]
        del rows[c.ARRAY_NAME]
    with pytest.raises(NwbCompactError, match="_example: shared_parameters: found columns shape, value, expected also array_name"):
        read_results(session_file)


def test_the_inspector_finds_nothing_critical(session_file: Path) -> None:
    from nwbinspector import Importance, inspect_nwbfile, load_config

    write_results(with_students(*sharing()), session_file)
    found = inspect_nwbfile(
        nwbfile_path=session_file, config=load_config("dandi"), importance_threshold=Importance.CRITICAL, skip_validate=False
    )
    assert [message.message for message in found] == []
