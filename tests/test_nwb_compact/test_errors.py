import pytest

from nwb_compact.errors import Fault, NwbCompactError, SeveralFaults, nearest


def test_an_error_says_where_what_was_found_what_was_expected_and_what_to_do():
    error = NwbCompactError("a.nwb", found="no image", expected="at least one", next_step="convert it again")
    assert str(error) == "a.nwb: found no image, expected at least one. Next: convert it again"
    assert error.faults == (Fault("a.nwb", "no image", "at least one", "convert it again"),)


def test_several_faults_are_one_line_each_and_the_first_speaks_for_them():
    faults = (Fault("a", "1", "2", "x"), Fault("b", "3", "4", "y"))
    error = SeveralFaults(faults)
    assert str(error).splitlines() == [str(fault) for fault in faults]
    assert (error.fault, error.faults) == (faults[0], faults)
    assert isinstance(error, NwbCompactError)


@pytest.mark.parametrize(("name", "hint"), [
    ("membres", "did you mean 'members'?"),
    ("members", "did you mean 'members'?"),
    ("zzz", "use one of: epochs, members"),
])
def test_the_nearest_name_is_offered_or_else_all(name, hint):
    assert nearest(name, ["members", "epochs"]) == hint
