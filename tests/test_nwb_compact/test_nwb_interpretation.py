import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO

from nwb_compact.errors import NwbCompactError
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.nwb_interpretation import read_interpretation, write_interpretation
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import example_results
from nwb_compact.session import example_session


@pytest.fixture
def fitted(tmp_path):
    """A session with two runs, `example` and `other`."""
    path, session = tmp_path / "session.nwb", example_session()
    write_session(session, path)
    results = example_results(session)
    write_results(results, path)
    write_results(type(results)(**(vars(results) | {"run_id": "other"})), path)
    return path


def found(n=3, factor=1.0):
    rng = np.random.default_rng(0)
    return {
        "images": Table("made images", {
            "unit": Column("row of the unit", np.arange(n) % 2),
            "kind": Column("what for", np.array(["maximizing", "minimizing", "café 'é'"][:n])),
            "is_grey": Column("grey or not", np.arange(n) % 2 == 0),
            "image": Column("RGB", rng.integers(0, 256, (n, 112, 112, 3), np.uint8)),
            "answer": Column("spikes in the counting window", factor * np.array([1.5, np.nan, 3.0][:n])),
        }),
        "similarity": Table("between units", {"cka": Column("CKA", rng.random((5, 2, 2)).astype(np.float32))}),
        "circuit": Table("nothing was found", {"unit": Column("row", np.empty(0, int)), "sign": Column("sign", np.empty(0))}),
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, table in one.items():
        assert table.description == other[name].description
        assert set(table.columns) == set(other[name].columns)
        for key, column in table.columns.items():
            assert column.meaning == other[name].columns[key].meaning
            np.testing.assert_array_equal(column.values, other[name][key])


def test_what_is_written_is_read_back(fitted):
    write_interpretation(found(), fitted, "example")
    assert_same(found(), read_interpretation(fitted, "example"))
    assert read_interpretation(fitted, "other") == {}


def test_pynwb_alone_can_read_it_and_units_are_references(fitted):
    write_interpretation(found(), fitted, "example")
    with NWBHDF5IO(fitted, "r") as io:
        module = io.read().processing["nwb_compact_example"]
        images = module["interpretation_images"]
        assert images["unit"].table is module["fitted_units"]
        assert images["kind"][0] == "maximizing"
        assert images["image"].description == "RGB"
        assert images["unit"][1]["unit_name"].tolist() == ["unit-2"] or len(images["unit"][1]) == 1


def test_a_second_interpretation_replaces_the_first_and_nothing_else(fitted):
    write_interpretation(found(), fitted, "example")
    write_interpretation({"images": found()["images"]}, fitted, "other")
    runs = read_results(fitted)
    write_interpretation({"images": found(2, factor=2.0)["images"]}, fitted, "example")
    assert_same({"images": found(2, factor=2.0)["images"]}, read_interpretation(fitted, "example"))
    assert_same({"images": found()["images"]}, read_interpretation(fitted, "other"))
    for before, after in zip(runs, read_results(fitted), strict=True):
        assert before.run_id == after.run_id
        np.testing.assert_array_equal(before.student_prediction, after.student_prediction)
        np.testing.assert_array_equal(before.scores["student_r2"], after.scores["student_r2"])


def test_the_room_of_the_first_is_freed(fitted):
    write_interpretation(found(), fitted, "example")
    size = fitted.stat().st_size
    for _ in range(3):
        write_interpretation(found(), fitted, "example")
    assert fitted.stat().st_size < 1.2 * size


def test_an_unknown_run_is_refused_and_the_file_stays_as_it_is(fitted):
    before = fitted.read_bytes()
    with pytest.raises(NwbCompactError, match=r"no run 'examples'.*'example'"):
        write_interpretation(found(), fitted, "examples")
    with pytest.raises(NwbCompactError, match="no run"):
        read_interpretation(fitted, "examples")
    assert fitted.read_bytes() == before


def test_images_are_compressed_by_row_blocks(fitted):
    many = Table("", {"image": Column("RGB", np.zeros((40, 112, 112, 3), np.uint8))})
    write_interpretation({"images": many}, fitted, "example")
    with h5py.File(fitted) as hdf5:
        stored = hdf5["processing/nwb_compact_example/interpretation_images/image"]
        assert stored.id.get_storage_size() < many["image"].nbytes / 20
