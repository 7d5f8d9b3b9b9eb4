import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Responses
from nwb_compact_conversion.sources.counts import read_counts

TRAINS = {"3": [0.25, 0.5, 2.125], "20": [0.125, 1.5]}


def read(file_path, **told):
    counted = read_counts(file_path, Responses(**told))
    assert counted.values is None
    return counted.units


def trains(units):
    return {name: train.tolist() for name, train in zip(units.name, units.spike_times_s, strict=True)}


def refused(file_path, **told):
    with pytest.raises(NwbCompactError) as caught:
        read(file_path, **told)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def rows(tmp_path):
    """(unit, time) of every spike of `TRAINS`, out of order, as each kind of file."""
    table = np.array([[3, 0.5], [20, 1.5], [3, 2.125], [20, 0.125], [3, 0.25]])
    lines = "\n".join(f"{unit:g},{time}" for unit, time in table)
    (tmp_path / "header.csv").write_text(f"Unit,Time_s\n{lines}\n")
    (tmp_path / "bare.csv").write_text(f"{lines}\n")
    np.save(tmp_path / "table.npy", table)
    np.savez(tmp_path / "columns.npz", spike_times=table[:, 1], spike_clusters=table[:, 0].astype(int), amplitude=np.ones(5))
    savemat(tmp_path / "columns.mat", {"unit": table[:, :1], "time": table[:, 1:]})
    savemat(tmp_path / "table.mat", {"rows": table})
    return tmp_path


@pytest.mark.parametrize("name", ["header.csv", "columns.npz", "columns.mat"])
def test_columns_of_units_and_times_are_recognised(rows, name):
    assert trains(read(rows / name)) == TRAINS


@pytest.mark.parametrize("name", ["bare.csv", "table.npy", "table.mat"])
def test_two_columns_without_names_have_to_be_told(rows, name):
    assert trains(read(rows / name, holds="spike times")) == TRAINS


def test_units_may_have_names_for_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("time,unit\n0.5,ch2\n0.25,ch10\n0.125,ch2\n")
    assert trains(read(tmp_path / "a.csv")) == {"ch10": [0.25], "ch2": [0.125, 0.5]}


def test_cells_of_matlab(tmp_path):
    cells = np.empty((1, 3), object)
    cells[0, :] = [np.array([[0.5, 0.25]]), np.zeros((0, 0)), np.array([[2.125]])]
    names = np.array(["a", "b", "c"], object)
    savemat(tmp_path / "a.mat", {"spikes": cells, "names": names, "rate": 3.0})
    assert trains(read(tmp_path / "a.mat")) == {"unit-1": [0.25, 0.5], "unit-2": [], "unit-3": [2.125]}
    assert read(tmp_path / "a.mat", unit_names="names", variable="spikes").name == ("a", "b", "c")
    savemat(tmp_path / "a.mat", {"spikes": cells, "names": names[:2]})
    assert "found 2 unit names, expected 3, one for each unit with spike times." in refused(tmp_path / "a.mat", unit_names="names")
    savemat(tmp_path / "a.mat", {"spikes": cells, "lfp": cells})
    assert "found several lists of vectors: spikes, lfp, expected one." in refused(tmp_path / "a.mat")


def test_one_vector_a_unit_in_an_npz(tmp_path):
    np.savez(tmp_path / "a.npz", v4_7=np.array([0.5, 0.25]), v4_2=np.array([2.125]))
    assert trains(read(tmp_path / "a.npz", holds="spike times")) == {"v4_7": [0.25, 0.5], "v4_2": [2.125]}


@pytest.mark.parametrize(("unit", "scale"), [("ms", 1000), ("samples", 16)])
def test_units_of_time(tmp_path, unit, scale):
    lines = [f"{name},{round(scale * time)}" for name, times in TRAINS.items() for time in times]
    (tmp_path / "a.csv").write_text("\n".join(["unit,time", *lines]))
    units = read(tmp_path / "a.csv", time_unit=unit, sampling_frequency_hz=16)
    for name, train in zip(units.name, units.spike_times_s, strict=True):
        np.testing.assert_allclose(train, TRAINS[name], rtol=1e-12)
    assert units.resolution_s == 1 / 16
    if unit == "ms":
        assert read(tmp_path / "a.csv", time_unit=unit).resolution_s is None
    assert "found whole numbers only, up to " in refused(tmp_path / "a.csv")
    assert refused(tmp_path / "a.csv").endswith("Next: give responses.time_unit: ms or samples")


def test_faults_of_times_are_named(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("unit,time\n1,0.5\n1,-0.25\n")
    assert f"{file}: found a spike at -0.25 s of unit '1', expected times from the start of the recording, from 0 on." in refused(file)
    file.write_text("unit,time\n1,0.5\n1,\n")
    assert "found a spike at nan s of unit '1'" in refused(file)
    file.write_text("unit,time\n1,0.5\n1,0.7\n")
    assert "found spike times in samples, expected samples a second. Next: give responses.samp" in refused(file, time_unit="samples")
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    message = refused(tmp_path / "a.npy", holds="spike times")
    assert "found array (3, 4), expected one vector a unit, columns unit and time, or an array of two columns." in message
    np.savez(tmp_path / "a.npz", a=np.array([0.5]))
    assert "found no 'b' (use one of: a), expected one vector a unit" in refused(tmp_path / "a.npz", holds="spike times", variable="b")
    np.savez(tmp_path / "a.npz", a=np.zeros(0))
    assert "found no spike, expected at least one." in refused(tmp_path / "a.npz", holds="spike times")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 30]), st.integers(1, 2**20)), min_size=1, max_size=40))
def test_rows_and_vectors_say_the_same(tmp_path_factory, spikes):
    folder = tmp_path_factory.mktemp("times")
    table = np.array(spikes, float) / [1, 2**10] + [0, 2**-11]
    np.save(folder / "rows.npy", table)
    by_unit = {f"{unit:g}": table[table[:, 0] == unit, 1] for unit in np.unique(table[:, 0])}
    np.savez(folder / "vectors.npz", **by_unit)
    one, other = (trains(read(folder / name, holds="spike times")) for name in ("rows.npy", "vectors.npz"))
    assert one == other == {name: sorted(train.tolist()) for name, train in by_unit.items()}
