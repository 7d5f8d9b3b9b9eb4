import numpy as np
import pytest

from nwb_compact.interpretation.kept import kept
from nwb_compact.interpretation.tables import Column, Table


def tables():
    return {
        "one": Table("the first", {"unit": Column("row", np.array([2, 1])), "name": Column("text", np.array(["a|b", "ü"]))}),
        "none": Table("nothing", {"size_px": Column("pixels", np.empty((0, 3)))}),
    }


def test_tables_are_made_once_and_come_back_as_they_were(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return tables()

    for _ in range(2):
        found = kept(tmp_path / "stage.npz", make)
        for name, table in tables().items():
            assert found[name].description == table.description
            for key, column in table.columns.items():
                np.testing.assert_array_equal(found[name][key], column.values)
                assert found[name].columns[key].meaning == column.meaning
    assert len(calls) == 1


def test_what_fails_leaves_nothing(tmp_path):
    def fails():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        kept(tmp_path / "stage.npz", fails)
    assert kept(tmp_path / "stage.npz", tables)["one"]["unit"].tolist() == [2, 1]
