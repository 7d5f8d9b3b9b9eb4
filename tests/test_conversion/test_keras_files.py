"""Weights are read exactly, and nothing that a file asks for is run."""

import json
import os
import pickle
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.keras_files import read_keras, read_weight_list

HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"


def npy(content: bytes) -> bytes:
    """An .npy file of objects with this pickle in it."""
    header = HEADER.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def same(read: tuple[np.ndarray, ...], expected: list[np.ndarray]) -> bool:
    return len(read) == len(expected) and all(
        one.dtype == np.float32 and one.shape == other.shape and (one == other.astype(np.float32)).all()
        for one, other in zip(read, expected, strict=True)
    )


# Lists of weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_a_pickled_list_are_read_exactly(tmp_path, dtype, order, protocol):
    """Protocol 3 is that of the published files, 4 that of numpy today."""
    arrays = [np.asarray(np.random.default_rng(0).normal(size=shape), dtype, order=order) for shape in ((2, 3, 4), (5,), (1, 1))]
    listed = np.empty(3, object)
    listed[:] = arrays
    (tmp_path / "a.npy").write_bytes(npy(pickle.dumps(listed, protocol=protocol)))
    assert same(read_weight_list(tmp_path / "a.npy"), arrays)


def test_what_numpy_saves_is_read(tmp_path, made):
    weights = made.compact_weights()
    assert same(read_weight_list(made.save_weight_list(tmp_path / "a.npy", weights)), weights)


class Runs:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_pickle_is_named_and_not_run(tmp_path):
    for place, content in enumerate([Runs(tmp_path / "made"), [np.zeros(3, np.float32), Runs(tmp_path / "made")]]):
        path = tmp_path / f"{place}.npy"
        path.write_bytes(npy(pickle.dumps(content)))
        with pytest.raises(NwbCompactError) as caught:
            read_weight_list(path)
        asked = f"it asks for {os.mkdir.__module__}.mkdir, which no array needs and which is not given: it could run code"
        expected = "expected a list of weights in .npy format. Next: download the file again"
        assert str(caught.value) == f"{path}: found unreadable content ({asked}), {expected}"
    assert not (tmp_path / "made").exists()


class Array:
    """Pickles as an array would, with a state of our choice."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        make, arguments, _ = np.zeros(1, np.float32).__reduce__()
        return make, arguments, self.state


FLOATS = np.dtype("<f4")
WRONG = {
    "12 bytes for an array of shape (4,)": [Array((1, (4,), FLOATS, False, b"0" * 12))],
    "an array of type 'O8', and not of floats": [Array((1, (1,), np.dtype(object), False, [3]))],
    "an array of type 'i4', and not of floats": [np.zeros(3, np.int32)],
    "a str where an array was expected": ["weights"],
    "no list of arrays": {"weights": np.zeros(3)},
    "12 bytes for an array of shape (-3,)": [Array((1, (-3,), FLOATS, False, b"0" * 12))],
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_no_list_of_weights_is_refused(tmp_path, said):
    (tmp_path / "a.npy").write_bytes(npy(pickle.dumps(WRONG[said])))
    with pytest.raises(NwbCompactError) as caught:
        read_weight_list(tmp_path / "a.npy")
    assert f"found unreadable content ({said}), expected a list of weights" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no array", npy(b""), npy(pickle.dumps([np.zeros(99, np.float32)])[:-40]), npy(b"\xff" * 50)])
def test_a_file_that_is_cut_or_something_else_is_one_line(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(NwbCompactError, match=r"a\.npy: found unreadable content \(.*\), expected a list of weights in \.npy format"):
        read_weight_list(tmp_path / "a.npy")


def test_one_array_is_not_a_list(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.float32))
    with pytest.raises(NwbCompactError, match=r"a\.npy: found one array of type float32, expected a list of weights in \.npy format"):
        read_weight_list(tmp_path / "a.npy")


def test_the_published_lists_are_what_numpy_reads(published_v4):
    """The files at hand are trusted; only so can the two be compared."""
    paths = sorted((published_v4 / "compact_models").glob("*.npy"))[::40]
    assert paths
    for path in paths:
        assert same(read_weight_list(path), list(np.load(path, allow_pickle=True)))


# Archives ---------------------------------------------------------------------------------------------------------------


def test_every_layer_of_an_archive_has_its_own_weights(tmp_path, made):
    weights = made.shared_weights(3, n_units=2)
    layers = read_keras(made.save_keras(tmp_path / "a.keras", weights, n_units=2))
    assert [layer.config["name"] for layer in layers if layer.weights] == [
        *(f"layer{number}_{part}" for number in range(5) for part in ("conv", "bn")), "mixing_stage", "spatial_pool_stage"
    ]
    assert same(tuple(array for layer in layers for array in layer.weights), weights)
    assert [layer.kind for layer in layers if not layer.weights] == ["InputLayer", *["Activation"] * 5, "Flatten"]


def archive(**members: bytes) -> bytes:
    content = BytesIO()
    with ZipFile(content, "w") as zipped:
        for name, member in members.items():
            zipped.writestr(name.replace("__", "."), member)
    return content.getvalue()


CONFIG = json.dumps({"config": {"layers": [{"class_name": "Conv2D", "config": {}}]}}).encode()
BROKEN = {
    "no zip, or a cut one": b"PK and no more",
    "an archive that cannot be read (\"There is no item named 'config.json' in the archive\")": archive(other=b""),
    "an archive that cannot be read (Expecting value: line 1 column 1 (char 0))": archive(config__json=b"?"),
    "an archive that cannot be read (\"There is no item named 'model.weights.h5' in the archive\")": archive(config__json=CONFIG),
    "an archive that cannot be read (Unable to synchronously open file (file signature not found))":
        archive(config__json=CONFIG, model__weights__h5=b"no HDF5"),
}


@pytest.mark.parametrize("found", BROKEN)
def test_a_broken_archive_is_one_line(tmp_path, found):
    (tmp_path / "a.keras").write_bytes(BROKEN[found])
    with pytest.raises(NwbCompactError) as caught:
        read_keras(tmp_path / "a.keras")
    assert str(caught.value) == f"{tmp_path / 'a.keras'}: found {found}, expected a .keras archive. Next: download the file again"


def test_a_layer_without_its_weights_is_told(tmp_path, made):
    layers = [*made.keras_layers([3, 3, 3, 4, 4], 2), {"class_name": "Conv2D", "config": {}}]
    path = made.save_keras(tmp_path / "a.keras", made.shared_weights(3, n_units=2), layers)
    with pytest.raises(NwbCompactError, match=r"found an archive that cannot be read \(no weights at layers/conv2d_2/vars\), expected"):
        read_keras(path)
