import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.array_files import Variables
from nwb_compact_conversion.sources.unit_names import require_names, told_names


def test_names_are_texts_or_numbers(tmp_path):
    variables = Variables({"id": np.array([[3.0], [12.0]])}, text={"name": ("a", "b")}, unread={"odd": "cells of several kinds"})
    assert told_names(tmp_path, variables, "id") == ("3", "12")
    assert told_names(tmp_path, variables, "name") == ("a", "b")
    assert told_names(tmp_path, variables, None) is None
    with pytest.raises(NwbCompactError, match=r"found no variable 'names', expected the names of the units \(did you mean 'name'\?\)"):
        told_names(tmp_path, variables, "names")
    with pytest.raises(NwbCompactError, match="found cells of several kinds, expected the names of the units"):
        told_names(tmp_path, variables, "odd")


def test_names_are_there_and_differ():
    require_names("a.npz", ("1", "2"))
    with pytest.raises(NwbCompactError, match=r"a\.npz: found unit '1' twice, expected each unit once"):
        require_names("a.npz", ("1", "2", "1"))
    with pytest.raises(NwbCompactError, match=r"a\.npz: found unit 2 of 2 without a name"):
        require_names("a.npz", ("1", ""))
