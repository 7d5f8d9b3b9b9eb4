"""MATLAB's files: version 5 by scipy, version 7.3 written here bit by bit as MATLAB writes it."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.array_files import read_variables


class Matlab73:
    """What MATLAB's `save -v7.3` writes: a 512-byte header, arrays transposed, cells as references into #refs#."""

    def __init__(self, path):
        self.path = path
        self.file = h5py.File(path, "w", userblock_size=512)
        self.refs = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        with self.path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 01 00:00:00 2024 HDF5 schema 1.00 .".ljust(124))
            file.write(bytes([0, 2]) + b"IM")

    def matrix(self, where, name, values, kind=b"double"):
        values = np.atleast_2d(values)
        if values.size == 0:
            made = where.create_dataset(name, data=np.array(values.shape, np.uint64))
            made.attrs["MATLAB_empty"] = np.uint8(1)
        else:
            made = where.create_dataset(name, data=values.T)
        made.attrs["MATLAB_class"] = np.bytes_(kind)

    def text(self, where, name, text):
        self.matrix(where, name, np.array([[ord(letter) for letter in text]], np.uint16), b"char")

    def cells(self, where, name, values, *, kind=b"cell"):
        references = np.empty((1, len(values)), h5py.ref_dtype)
        for index, value in enumerate(values):
            inner = self.file.require_group("#refs#")
            self.refs += 1
            put = self.text if isinstance(value, str) else self.matrix
            put(inner, f"r{self.refs}", value)
            references[0, index] = inner[f"r{self.refs}"].ref
        made = where.create_dataset(name, data=references.T, dtype=h5py.ref_dtype)
        if kind:
            made.attrs["MATLAB_class"] = np.bytes_(kind)


@pytest.fixture(params=["v5", "v7.3"])
def saved(request, tmp_path):
    """A function that saves the same variables in one of the two formats."""

    def save(**variables):
        path = tmp_path / "saved.mat"
        if request.param == "v5":
            savemat(path, {name: _for_scipy(value) for name, value in variables.items()})
            return path
        with Matlab73(path) as matlab:
            for name, value in variables.items():
                _put(matlab, matlab.file, name, value)
        return path

    return save


def _for_scipy(value):
    if isinstance(value, list):
        cells = np.empty((len(value), 1), object)
        for index, one in enumerate(value):
            cells[index, 0] = one if isinstance(one, str) else np.atleast_2d(one)
        return cells
    return {name: _for_scipy(one) for name, one in value.items()} if isinstance(value, dict) else value


def _put(matlab, where, name, value):
    if isinstance(value, dict):
        for part, one in value.items():
            _put(matlab, where.require_group(name), part, one)
    elif isinstance(value, list):
        matlab.cells(where, name, value)
    elif isinstance(value, str):
        matlab.text(where, name, value)
    else:
        matlab.matrix(where, name, value)


def test_arrays_keep_the_axes_that_they_have_in_matlab(saved):
    counts, pair = np.arange(24.0).reshape(2, 3, 4), np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    read = read_variables(saved(counts=counts, pair=pair, scalar=np.array([[3.0]])))
    np.testing.assert_array_equal(read.numbers["counts"], counts)
    np.testing.assert_array_equal(read.numbers["pair"], pair)
    assert read.numbers["pair"].dtype == np.float64
    assert read.numbers["scalar"].shape == (1, 1)


def test_cells_of_vectors_of_either_direction_and_empty_ones(saved):
    read = read_variables(saved(spikes=[np.array([[0.5, 0.1]]), np.array([[7.0], [8.0]]), np.zeros((0, 0)), np.array([[2.0]])]))
    assert [train.tolist() for train in read.vectors["spikes"]] == [[0.5, 0.1], [7.0, 8.0], [], [2.0]]


def test_texts_and_cells_of_texts(saved):
    read = read_variables(saved(names=["ch 1a", "b"], one="hello"))
    assert read.text == {"names": ("ch 1a", "b"), "one": ("hello",)}


def test_fields_of_structures(saved):
    read = read_variables(saved(data={"counts": np.ones((2, 3)), "more": {"names": ["a", "b"]}}))
    assert read.numbers["data.counts"].shape == (2, 3)
    assert read.text["data.more.names"] == ("a", "b")


def test_cells_of_several_kinds_are_not_read_and_said(saved):
    read = read_variables(saved(mixed=[np.ones((1, 2)), "text"], matrices=[np.ones((2, 2))]))
    assert read.unread == dict.fromkeys(["mixed", "matrices"], "cells of several kinds; keep one vector of numbers a cell")
    assert not read.vectors


def test_a_structure_array_is_one_list_a_field(tmp_path):
    units = np.array([(np.array([[0.5, 0.7]]), "a"), (np.array([[0.1]]), "b")], [("times", object), ("name", object)])
    savemat(tmp_path / "v5.mat", {"units": units})
    with Matlab73(tmp_path / "v73.mat") as matlab:
        group = matlab.file.create_group("units")
        matlab.cells(group, "times", [np.array([0.5, 0.7]), np.array([0.1])], kind=None)
        matlab.cells(group, "name", ["a", "b"], kind=None)
    for name in ("v5.mat", "v73.mat"):
        read = read_variables(tmp_path / name)
        assert [train.tolist() for train in read.vectors["units.times"]] == [[0.5, 0.7], [0.1]], name
        assert read.text["units.name"] == ("a", "b"), name


def test_a_square_of_cells_is_not_one_vector_a_unit(tmp_path):
    cells = np.empty((2, 3), object)
    for index in np.ndindex(2, 3):
        cells[index] = np.ones((1, 2))
    savemat(tmp_path / "v5.mat", {"trials": cells})
    assert read_variables(tmp_path / "v5.mat").unread == {"trials": "a cell array of 2 x 3; keep one cell a unit"}


def test_sparse_matrices(tmp_path):
    from scipy.sparse import csc_array

    savemat(tmp_path / "v5.mat", {"counts": csc_array(np.eye(3))})
    np.testing.assert_array_equal(read_variables(tmp_path / "v5.mat").numbers["counts"], np.eye(3))
    with Matlab73(tmp_path / "v73.mat") as matlab:
        matlab.file.create_group("counts").attrs["MATLAB_sparse"] = np.uint64(3)
    assert read_variables(tmp_path / "v73.mat").unread == {"counts": "a sparse matrix; save full(matrix) instead"}


def test_npz_without_unpickling(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, counts=np.ones((2, 3), np.int16), names=["a", "b"], evil=np.array([{}, 1], object), when=np.array(["2020"], "M8[Y]"))
    read = read_variables(file)
    assert list(read.numbers) == ["counts"]
    assert read.text == {"names": ("a", "b")}
    assert read.unread["evil"].startswith("pickled objects (not read: unpickling can run code); save one array a unit instead")
    assert read.unread["when"] == "values of type datetime64[Y]"


CSV = {
    "a,b\n1,2\n3,\n": (("a", "b"), [[1, 2], [3, np.nan]]),
    "1;2\n3;4\n": (None, [[1, 2], [3, 4]]),
    ",a,b\n0,1,2\n1,3,4\n": (("a", "b"), [[1, 2], [3, 4]]),
    '\ufeff"a, 1",b\r\n1,2\r\n': (("a, 1", "b"), [[1, 2]]),
    "1\t2\n\n3\tnan\n": (None, [[1, 2], [3, np.nan]]),
}


@pytest.mark.parametrize("content", CSV)
def test_csv(tmp_path, content):
    file = tmp_path / "a.csv"
    file.write_bytes(content.encode())
    header, values = CSV[content]
    read = read_variables(file)
    np.testing.assert_array_equal(read.numbers["columns"], values)
    assert read.text.get("header") == header


def test_excels_unicode_text(tmp_path):
    (tmp_path / "a.csv").write_bytes("a\tb\r\n1\t2\r\n".encode("utf-16"))
    assert read_variables(tmp_path / "a.csv").numbers["columns"].tolist() == [[1, 2]]


def test_a_csv_with_text_is_read_by_column(tmp_path):
    (tmp_path / "a.csv").write_text("unit,time\nch1,0.5\nch2,0.25\n")
    read = read_variables(tmp_path / "a.csv")
    assert read.numbers["time"].tolist() == [0.5, 0.25]
    assert read.text["unit"] == ("ch1", "ch2")


def refused(file):
    with pytest.raises(NwbCompactError) as caught:
        read_variables(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_of_unequal_length_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    assert f"{tmp_path / 'a.csv'}: found 1 cell in row 3, expected 2 as in the first." in refused(tmp_path / "a.csv")


def test_pickled_npy_gets_a_hint(tmp_path):
    np.save(tmp_path / "a.npy", np.array([np.ones(2), np.ones(3)], object), allow_pickle=True)
    message = refused(tmp_path / "a.npy")
    assert "found pickled Python objects" in message
    assert message.endswith("Next: save the array again as numbers; spike times of several units as .npz, one array a unit")


def test_damaged_absent_and_other_files(tmp_path, saved):
    file = saved(counts=np.ones((200, 300)))
    file.write_bytes(file.read_bytes()[:700])
    assert f"{file}: found content that cannot be read (" in refused(file)
    for name, found in {"a.npz": "content that cannot be read (", "empty.csv": "no row"}.items():
        (tmp_path / name).write_bytes(b"")
        assert f"{tmp_path / name}: found {found}" in refused(tmp_path / name)
    assert "b.csv: found no such file, expected a file of type .npz, .npy, .csv, .tsv, .mat." in refused(tmp_path / "b.csv")
    (tmp_path / "a.xlsx").touch()
    assert "found a .xlsx, expected a file of type .npz" in refused(tmp_path / "a.xlsx")


def test_a_file_that_links_to_another_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["taken"] = np.full(4, 48813.0)
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["count"] = h5py.ExternalLink("other.h5", "/taken")
    with pytest.raises(NwbCompactError, match=r"a\.mat: /count: found a link into another file, other\.h5, expected"):
        read_variables(tmp_path / "a.mat")
