"""`check` reads any file, says what is wrong with it or what it holds, and never with a traceback."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwb_compact.check import check, command, require_sound, summary
from nwb_compact.nwb_session import write_session
from nwb_compact.session import MeanResponses, example_session


@pytest.fixture
def file_path(tmp_path: Path) -> Path:
    write_session(example_session(), tmp_path / "a.nwb")
    return tmp_path / "a.nwb"


def test_files_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "text.nwb").write_text("x" * 5000)
    for name, found in {"none.nwb": "no file", "text.nwb": "damaged or not HDF5", ".": "a folder"}.items():
        (fault,) = check(tmp_path / name)
        assert found in str(fault)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_damaged_byte_makes_a_traceback(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tmp_path_factory.getbasetemp() / "whole.nwb"
    if not whole.exists():
        write_session(example_session(), whole)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    spoiled = whole.with_name("spoiled.nwb")
    spoiled.write_bytes(bytes(content[: data.draw(st.sampled_from([None, len(content) // 2]))]))
    assert all("\n" not in str(fault) for fault in check(spoiled))


def test_the_command_says_that_all_is_well(file_path: Path) -> None:
    done = CliRunner().invoke(command, [str(file_path)])
    assert done.exit_code == 0
    assert done.output == f"{file_path}: all is well; {summary(file_path)}\n"


def test_the_command_prints_one_line_a_fault_and_fails(file_path: Path) -> None:
    with h5py.File(file_path, "a") as file:
        file["processing/ecephys/response_units/window_stop_s"][1] = 0.01
        file["stimulus/templates/stimulus_images/image_000003"][...] = 0
    done = CliRunner().invoke(command, [str(file_path)])
    assert done.exit_code == 1
    assert done.output.splitlines() == [str(fault) for fault in check(file_path)]
    assert len(done.output.splitlines()) == 2


def test_a_path_may_be_a_string(file_path: Path) -> None:
    assert check(str(file_path)) == ()
    require_sound(str(file_path))
    assert summary(str(file_path)) == summary(file_path)
    (fault,) = check("no-such-file.nwb")
    assert fault.found == "no file"


def test_the_summary_says_how_many_images_a_fit_leaves_out(tmp_path: Path) -> None:
    session = example_session()
    assert session.presentations is not None
    is_valid = session.presentations.image_index > 2
    is_valid[-1] = False  # its image was shown once more
    write_session(replace(session, presentations=replace(session.presentations, is_valid=is_valid)), tmp_path / "a.nwb")
    assert summary(tmp_path / "a.nwb") == "2 units, 24 images (24 different, 3 without a response), 60 presentations, single-trial counts"


def test_means_are_named_in_the_summary(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).random((24, 2))
    mean[3, 1], mean[4] = np.nan, np.nan
    session = replace(example_session(), presentations=None, counts=None, mean_responses=MeanResponses(mean))
    write_session(session, tmp_path / "a.nwb")
    assert summary(tmp_path / "a.nwb") == "2 units, 24 images (24 different, 1 without a response), repeat averages only"
