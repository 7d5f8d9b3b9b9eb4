import numpy as np
import pytest

from nwb_compact.interpretation.tables import Column, Table, stacked


def table(**columns):
    return Table("found", {name: Column(f"meaning of {name}", np.asarray(values)) for name, values in columns.items()})


def test_columns_have_one_length():
    with pytest.raises(ValueError, match="'a': 2, 'b': 1"):
        table(a=[1, 2], b=[1])


def test_a_table_without_rows_has_length_0():
    assert len(table(a=[])) == len(Table("empty", {})) == 0


def test_stacked_keeps_order_meanings_and_shapes():
    both = stacked([table(unit=[0], map=np.ones((1, 2, 2))), table(unit=[1, 2], map=np.zeros((2, 2, 2)))])
    assert both["unit"].tolist() == [0, 1, 2]
    assert both["map"].shape == (3, 2, 2)
    assert both.columns["map"].meaning == "meaning of map"
    assert both.description == "found"
