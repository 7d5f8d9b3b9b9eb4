"""What a recording's electrodes become, up to the table in the NWB file."""

from datetime import UTC, datetime

import numpy as np
import pytest
from pynwb import NWBFile
from spikeinterface import NumpyRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Electrodes
from nwb_compact_conversion.electrodes import electrodes_of, placed, read_geometry, with_geometry
from nwb_compact_conversion.session_yaml import DeviceFacts


def a_recording(names=("chan1", "chan2", "chan3"), ids=("1", "2", "3")):
    recording = NumpyRecording([np.zeros((300, len(ids)), np.int16)], 30_000.0, channel_ids=list(ids), t_starts=[0.5])
    recording.set_channel_gains(0.25)
    recording.set_channel_offsets(0.0)
    recording.set_property("channel_name", np.array(names))
    return recording


@pytest.fixture
def told(tmp_path):
    def write(text, suffix=".csv", **facts):
        file = tmp_path / f"geometry{suffix}"
        file.write_text(text)
        return DeviceFacts(geometry=file, **facts)

    return write


TWO_ARRAYS = "channel,x_um,y_um,array,location\nchan3,0,0,B,IT\nchan1,0,0,A,V1\nchan2,400,800,A,V1\nchan9,0,0,C,V2\n"


def refused(recording, device):
    with pytest.raises(NwbCompactError) as caught:
        with_geometry(recording, device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_any_facts_only_names_are_known():
    electrodes = electrodes_of(with_geometry(a_recording(), DeviceFacts()))
    assert (electrodes.name, electrodes.group, electrodes.location) == (("chan1", "chan2", "chan3"), ("array",) * 3, ("unknown",) * 3)
    assert electrodes.rel_x_um is None


def test_arrays_areas_and_positions(told):
    recording = a_recording()
    before = sorted(recording.get_property_keys())
    known = with_geometry(recording, told(TWO_ARRAYS))
    electrodes = electrodes_of(known)
    assert electrodes.name == ("chan1", "chan2", "chan3")
    assert electrodes.group == ("A", "A", "B")
    assert electrodes.location == ("V1", "V1", "IT")
    assert electrodes.rel_x_um.tolist() == [0, 400, 0]
    assert electrodes.rel_y_um.tolist() == [0, 800, 0]
    assert sorted(recording.get_property_keys()) == before
    assert not recording.has_probe()
    assert (known.get_start_time(), list(known.channel_ids), known.has_scaleable_traces()) == (0.5, ["1", "2", "3"], True)
    assert set(known.split_by("group_name")) == {"A", "B"}
    # On SpikeInterface's map arrays lie apart, though each has its own origin.
    assert np.ptp(known.get_channel_locations()[:, 0]) > 5000


def test_a_utah_map_meets_channels_by_number(told):
    known = with_geometry(a_recording(), told("0 0 A 1\n1 0 A 2\n1 1 A 3\n2 2 A 4\n", ".cmp", location="V4"))
    electrodes = electrodes_of(known)
    assert electrodes.rel_x_um.tolist() == [0, 400, 400]
    assert electrodes.rel_y_um.tolist() == [0, 0, 400]
    assert set(electrodes.location) == {"V4"}


def test_areas_by_array(told):
    areas = {"A": "V2", "B": "V4"}
    assert electrodes_of(with_geometry(a_recording(), told(TWO_ARRAYS, location=areas))).location == ("V2", "V2", "V4")
    assert "device.location: found an array 'D', expected an array of the recording" in refused(
        a_recording(), told(TWO_ARRAYS, location={**areas, "D": "V1"})
    )
    assert "device.location: found no brain area of array 'B', expected one for each array" in refused(
        a_recording(), told(TWO_ARRAYS, location={"A": "V1"})
    )


def test_what_the_source_knows_stays():
    recording = a_recording()
    recording.set_property("group_name", np.array(["A", "A", "B"]))
    recording.set_dummy_probe_from_locations(np.array([[0.0, 0], [10, 5], [0, 0.5]]))
    electrodes = electrodes_of(with_geometry(recording, DeviceFacts(location={"A": "V1", "B": "V4"})))
    assert (electrodes.group, electrodes.location) == (("A", "A", "B"), ("V1", "V1", "V4"))
    assert electrodes.rel_y_um.tolist() == [0, 5, 0.5]


def test_channels_without_a_position_are_refused(told):
    message = refused(a_recording(), told("channel,x_um,y_um\nchan1,0,0\nelse,1,1\n"))
    assert "found no position of 2 of 3 channels (chan2, chan3), expected one for every recorded channel" in message
    assert "Next: add them; it names chan1, else" in message


def test_two_channels_of_one_contact_are_refused(told):
    recording = a_recording(names=("1", "chan2", "chan3"), ids=("7", "1", "3"))
    message = refused(recording, told("channel,x_um,y_um\n1,0,0\n3,1,1\n"))
    assert "found one position for channels 1 and chan2, expected one electrode a channel" in message


def test_electrodes_without_voltage_are_placed_by_number(told):
    electrodes = Electrodes(("ch3", "ch12"), ("array",) * 2, ("unknown",) * 2)
    found = placed(electrodes, told("0 0 A 12 elec1\n5 2 A 3 elec2\n", ".cmp", location="V4"))
    assert (found.name, found.location) == (electrodes.name, ("V4", "V4"))
    assert (found.rel_x_um.tolist(), found.rel_y_um.tolist()) == ([2000, 0], [800, 0])


def test_all_electrodes_of_a_file(told):
    electrodes = read_geometry(told(TWO_ARRAYS.replace("V2", "")).geometry, "V4")
    assert electrodes.name == ("chan3", "chan1", "chan2", "chan9")
    assert electrodes.location == ("IT", "V1", "V1", "V4")
    assert electrodes.rel_x_um.tolist() == [0, 0, 400, 0]


def test_neuroconv_writes_all_of_it(told):
    from neuroconv.tools.spikeinterface import add_recording_metadata_to_nwbfile

    nwbfile = NWBFile("a test", "test", datetime(2024, 1, 1, tzinfo=UTC))
    add_recording_metadata_to_nwbfile(with_geometry(a_recording(), told(TWO_ARRAYS)), nwbfile)
    table = nwbfile.electrodes.to_dataframe()
    assert table["channel_name"].tolist() == ["chan1", "chan2", "chan3"]
    assert table["group_name"].tolist() == ["A", "A", "B"]
    assert table["location"].tolist() == ["V1", "V1", "IT"]
    assert table["rel_x"].tolist() == [0, 400, 0]
    assert table["rel_y"].tolist() == [0, 800, 0]
