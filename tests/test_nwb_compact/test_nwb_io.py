"""Whatever is wrong with a file is said in one line, and the file is closed afterwards."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_io import open_hdf5, opened, ragged, ragged_rows, table, unsigned
from nwb_compact.nwb_session import open_session, read_session, write_session
from nwb_compact.session import example_session


def test_unreadable_files_are_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.nwb").write_text("not HDF5")
    with h5py.File(tmp_path / "bare.nwb", "w"):
        pass
    write_session(example_session(), tmp_path / "whole.nwb")
    (tmp_path / "half.nwb").write_bytes((tmp_path / "whole.nwb").read_bytes()[:50_000])
    said = {
        "missing.nwb": "found no file",
        ".": "found a folder",
        "text.nwb": "damaged or not HDF5",
        "half.nwb": "damaged or not HDF5",
        "bare.nwb": "pynwb cannot read",
    }
    for name, found in said.items():
        with pytest.raises(NwbCompactError, match=found) as error:
            read_session(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_missing_table_or_column_is_named_with_what_is_there(tmp_path: Path) -> None:
    write_session(example_session(), tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        del file["processing/ecephys/response_units"]
    with pytest.raises(NwbCompactError, match=r"found no table response_units \(there: neurons, spike_counts\)"):
        read_session(tmp_path / "a.nwb")
    write_session(example_session(), tmp_path / "b.nwb")
    with h5py.File(tmp_path / "b.nwb", "a") as file:
        rows = file[f"stimulus/presentation/{c.IMAGE_TABLE}"]
        rows.attrs["colnames"] = [c.NAME]
        del rows[c.SHA256]
    with pytest.raises(NwbCompactError, match=r"stimulus_image_table: found columns image_name, expected also sha256"):
        read_session(tmp_path / "b.nwb")


def test_an_error_in_the_callers_block_stays_the_callers(tmp_path: Path) -> None:
    write_session(example_session(), tmp_path / "a.nwb")
    with pytest.raises(ZeroDivisionError), open_session(tmp_path / "a.nwb"):
        1 / 0  # noqa: B018
    with h5py.File(tmp_path / "a.nwb", "a"):  # and the file was closed
        pass


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    write_session(example_session(), tmp_path / "a.nwb")
    with opened(str(tmp_path / "a.nwb")) as file:
        assert file.nwbfile.session_id == "example"
    with open_hdf5(str(tmp_path / "a.nwb")) as hdf5:
        assert "nwb_version" in hdf5.attrs
    for name, found in {"typo.nwb": "no file", str(tmp_path): "a folder"}.items():
        with pytest.raises(NwbCompactError, match=f"found {found}"), opened(name):
            pass


def test_ragged_rows_come_back_as_they_were_empty_ones_too() -> None:
    rows = [np.array([1.0, 2.0]), np.zeros(0), np.array([3.0])]
    made = table("t", "what", 3, *ragged("times", "seconds", rows, np.float64))
    for row, read in zip(rows, ragged_rows(made, "times", "here"), strict=True):
        np.testing.assert_array_equal(read, row)


@pytest.mark.parametrize(("values", "found"), [([1, -2], "int64 numbers from -2"), ([0.5], "float64 numbers from 0.5")])
def test_what_is_not_a_row_number_is_refused(values: list[float], found: str) -> None:
    with pytest.raises(NwbCompactError, match=f"^here: found {found}, expected whole numbers from 0 on"):
        unsigned(np.array(values), "here")
