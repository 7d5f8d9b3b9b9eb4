"""Recordings that SpikeInterface saved or reads, their events, and what is not loaded."""

import json
import pickle
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numcodecs import VLenUTF8
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from spikeinterface import NumpySorting

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.recorded import observed_s
from nwb_compact_conversion.sources.recording import read_events, read_recording


def refused(*asked, read=read_recording, **settings):
    with pytest.raises(NwbCompactError) as caught:
        read(*asked, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".zarr"])
def test_what_was_saved_comes_back(vendor, tmp_path, suffix):
    written = vendor.write_saved(tmp_path / f"day{suffix}")
    recorded = read_recording(written["path"], events_csv=vendor.write_events(tmp_path / "events.csv"))
    np.testing.assert_array_equal(recorded.recording.get_traces(0), written["samples"][:600])
    np.testing.assert_array_equal(recorded.recording.get_traces(1), written["samples"][600:])
    np.testing.assert_allclose(observed_s(recorded.recording), [[0, 0.03], [1, 1.02]])
    assert recorded.recording.get_property("channel_name").tolist() == ["e1", "e2"]
    assert recorded.recording.get_property("group_name").tolist() == ["A", "B"]
    np.testing.assert_allclose(recorded.events["words"].time_s, [0.005, 1.01])
    assert recorded.events["words"].code.tolist() == [513, 7]
    assert recorded.events["reward"].code.tolist() == [1]
    assert recorded.reader.endswith(" load")
    assert tmp_path / "events.csv" in recorded.files
    assert len(recorded.files) > 3


def test_another_reader_of_spikeinterface(vendor, tmp_path):
    written = vendor.write_plx(tmp_path / "a.plx")
    assert "found format 'plexn', expected a reader of spikeinterface.extractors (did you mean 'plexon'?)" in refused(
        written["path"], format_name="plexn"
    )
    assert "found format 'plexon_sorting', which reads a PlexonSortingExtractor" in refused(written["path"], format_name="plexon_sorting")
    binary = vendor.write_openephys(tmp_path / "day")
    folder = binary["path"] / "Record Node 101" / "experiment1" / "recording1" / "continuous" / vendor.BOARD
    assert "found " in refused(folder, format_name="mda_recording")


def test_an_nwb_file_with_voltage(vendor, tmp_path):
    from neuroconv.tools.spikeinterface import add_recording_to_nwbfile
    from spikeinterface import load

    written = vendor.write_saved(tmp_path / "day")
    nwbfile = NWBFile("a test", "test", datetime(2024, 5, 15, 12, tzinfo=UTC))
    add_recording_to_nwbfile(load(written["path"]).select_segments([0]), nwbfile)
    with NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(nwbfile)
    recorded = read_recording(tmp_path / "a.nwb")
    np.testing.assert_array_equal(recorded.recording.get_traces(), written["samples"][:600])
    assert recorded.recording.get_start_time() == 0
    assert recorded.start_time == datetime(2024, 5, 15, 12, 0, 2, 500_000, tzinfo=UTC), "its first sample is 2.5 s later than the session"


def test_an_nwb_file_whose_voltage_begins_later_than_its_clock(tmp_path):
    began = datetime(2024, 5, 15, 12, tzinfo=UTC)
    nwbfile = NWBFile("a test", "test", began, timestamps_reference_time=began - timedelta(hours=1))
    group = nwbfile.create_electrode_group("A", "an array", "V4", nwbfile.create_device("amplifier"))
    nwbfile.add_electrode(group=group, location="V4")
    where = nwbfile.create_electrode_table_region([0], "all")
    nwbfile.add_acquisition(ElectricalSeries(
        name="voltage", data=np.zeros((50, 1), np.int16), electrodes=where, starting_time=3700.0, rate=1000.0
    ))
    with NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(nwbfile)
    recorded = read_recording(tmp_path / "a.nwb")
    assert recorded.recording.get_start_time() == 0
    assert recorded.start_time == began + timedelta(seconds=100)


# What is not loaded ---------------------------------------------------------------------------------------------------


class Bomb:
    """Leaves a file when unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (type(self.file).touch, (self.file,))


def test_nothing_is_unpickled(vendor, tmp_path):
    mark = tmp_path / "exploded"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    assert "a.pkl: found pickled Python objects (not read: unpickling can run code)" in refused(tmp_path / "a.pkl")
    folder = vendor.write_saved(tmp_path / "day")["path"]
    np.save(folder / "properties" / "note.npy", np.array([Bomb(mark), Bomb(mark)], object), allow_pickle=True)
    assert "note.npy: found pickled Python objects" in refused(folder)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "cached.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    assert "cached.pkl: found pickled Python objects" in refused(tmp_path / "old")
    assert not mark.exists()


def spoil(folder, place, change):
    """Change how an array of a .zarr says that it is stored, in its own file or in the collected metadata, which go first."""
    own = folder / "properties" / "gain_to_uV" / ".zarray"
    told = json.loads(own.read_text()) | change
    if place == "own":
        own.write_text(json.dumps(told))
    else:
        (folder / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, "metadata": {"properties/gain_to_uV/.zarray": told}}))


@pytest.mark.parametrize("place", ["own", "collected"])
@pytest.mark.parametrize("change", [
    {"filters": [{"id": "pickle"}], "dtype": "|O"},
    {"filters": [{"id": "pickle", "protocol": 5}]},
    {"compressor": {"id": "pickle"}},
    {"filters": [{"id": "delta", "dtype": "<f8"}, {"id": "pickle"}]},
    {"filters": [{"id": "a codec of somebody"}], "dtype": "|O"},
    {"filters": None, "dtype": [["a", "<f8"], ["b", "|O"]]},
])
def test_a_zarr_is_not_unpickled(vendor, tmp_path, monkeypatch, place, change):
    """Whether numcodecs would refuse or not."""
    mark = tmp_path / "exploded"
    folder = vendor.write_saved(tmp_path / "day.zarr")["path"]
    spoil(folder, place, change)
    (folder / "properties" / "gain_to_uV" / "0").write_bytes(pickle.dumps(Bomb(mark)))
    monkeypatch.setattr("numcodecs.pickles.Pickle.__init__", lambda self, protocol=5: setattr(self, "protocol", protocol))
    monkeypatch.setattr("numcodecs.pickles.Pickle.decode", lambda self, buf, out=None: pickle.loads(buf))
    name = ".zarray" if place == "own" else ".zmetadata"
    assert f"{name}: found pickled Python objects (not read: unpickling can run code)" in refused(folder)
    # Named by another saved recording, it is as dangerous.
    other = vendor.write_saved(tmp_path / "other")["path"]
    file = other / "si_folder.json"
    kwargs = {"folder_path": str(folder)}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"class": "spikeinterface.core.zarrextractors.ZarrRecordingExtractor",
                                                               "kwargs": kwargs, "relative_paths": False}))
    assert f"{name}: found pickled Python objects" in refused(other)
    assert not mark.exists()


def test_text_of_any_length_in_a_zarr_is_no_pickle(vendor, tmp_path):
    import zarr

    folder = vendor.write_saved(tmp_path / "day.zarr")["path"]
    zarr.open(str(folder))["properties"].create_dataset(
        "note", data=np.array(["short", "a longer one"], object), dtype=object, object_codec=VLenUTF8()
    )
    assert read_recording(folder).recording.get_property("note").tolist() == ["short", "a longer one"]


def test_a_file_cannot_name_what_is_run(vendor, tmp_path):
    folder = vendor.write_saved(tmp_path / "day")["path"]
    file = folder / "si_folder.json"
    told = json.loads(file.read_text())
    for name in ("subprocess.Popen", "spikeinterface.core.loading.load"):
        file.write_text(json.dumps(told | {"kwargs": {"recording": {"class": name, "kwargs": {"args": ["true"]}}}}))
        assert f"si_folder.json: found class '{name}', expected a recording of SpikeInterface" in refused(folder)


@pytest.mark.filterwarnings("ignore:The extractor is not serializable")
def test_units_are_no_recording(tmp_path):
    NumpySorting.from_unit_dict({"1": np.array([3, 5])}, 20_000.0).save(folder=tmp_path / "units")
    message = refused(tmp_path / "units")
    assert "units" in message
    assert "expected a recording of SpikeInterface" in message


@pytest.mark.parametrize("cut", [1, 3])
def test_a_saved_folder_that_ends_early_is_refused(vendor, tmp_path, cut):
    folder = vendor.write_saved(tmp_path / "day")["path"]
    file = folder / "traces_cached_seg0.raw"
    file.write_bytes(file.read_bytes()[:-cut])
    assert f"traces_cached_seg0.raw: found {file.stat().st_size:,} bytes: the file ends in the middle of its data" in refused(folder)


def test_a_damaged_zarr_is_refused(vendor, tmp_path):
    folder = vendor.write_saved(tmp_path / "day.zarr")["path"]
    chunk = folder / "traces_seg1" / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:-40])
    assert "day.zarr: found unreadable content" in refused(folder)


def test_other_paths_are_refused(tmp_path):
    assert "nowhere: found no such file or folder" in refused(tmp_path / "nowhere")
    (tmp_path / "a.bin").touch()
    assert "a.bin: found a file that ends in '.bin'" in refused(tmp_path / "a.bin")
    (tmp_path / "empty").mkdir()
    assert "empty: found unreadable content" in refused(tmp_path / "empty")


EVENT_FAULTS = {
    "time,code\n1,2\n": "found no column 'time_s' among 'time', 'code'",
    "time_s,code,chan\n1,2,a\n": "found unknown column 'chan', expected a known column (did you mean 'channel'?)",
    "time_s,code\n1,two\n": "found 'two' as code in row 1, expected a whole number",
    "time_s,code\n1,2.5\n": "found '2.5' as code in row 1, expected a whole number",
    "time_s,code\n1,2\n,3\n": "found '' as time_s in row 2, expected seconds, with a decimal point",
    "time_s,code\n1,2\n0.5,3\n": "found events of events that go back from 1.000 s to 0.500 s",
    "time_s;code\n0,5;2\n": "found '0,5' as time_s in row 1, expected seconds, with a decimal point",
    "time_s,code\n1,2,3\n": "found 3 cells in row 1, expected 2 as in the header",
    "": "found no column 'time_s' among none",
}


@pytest.mark.parametrize("text", EVENT_FAULTS)
def test_faults_of_events(tmp_path, text):
    file = tmp_path / "events.csv"
    file.write_text(text)
    assert f"events.csv: {EVENT_FAULTS[text]}" in refused(file, read=read_events)


@pytest.mark.parametrize(("encoding", "separator"), [("utf-8-sig", ";"), ("utf-16", "\t"), ("utf-8", ",")])
def test_events_as_excel_saves_them(tmp_path, encoding, separator):
    file = tmp_path / "events.csv"
    lines = ["time_s,code,channel", "0.5,7,words", "0.75,1,", "1.25,8,words", ",,"]
    file.write_bytes("\r\n".join(lines).replace(",", separator).encode(encoding))
    events = read_events(file)
    assert {name: (one.time_s.tolist(), one.code.tolist()) for name, one in events.items()} == {
        "words": ([0.5, 1.25], [7, 8]), "events": ([0.75], [1]),
    }  # fmt: skip
