"""What every source of voltage keeps to, whatever system recorded it."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, validate
from spikeinterface import load

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.electrodes import electrodes_of, with_geometry
from nwb_compact_conversion.recorded import Recorded, observed_s
from nwb_compact_conversion.session_yaml import DeviceFacts
from nwb_compact_conversion.sources.blackrock import read_blackrock
from nwb_compact_conversion.sources.intan import read_intan
from nwb_compact_conversion.sources.openephys import read_openephys
from nwb_compact_conversion.sources.plexon import read_plexon
from nwb_compact_conversion.sources.recording import read_recording
from nwb_compact_conversion.sources.spikeglx import read_spikeglx
from nwb_compact_conversion.voltage import voltage_adder


@dataclass(frozen=True)
class Source:
    """A reader, what writes a small recording for it in a folder, and a file of it to cut."""

    read: Callable[[Path], Recorded]
    write: str
    where: str
    cut: str
    has_events: bool = True
    loses_last: bool = False
    """The last sample cannot be read (Plexon)."""


SOURCES = {
    "blackrock": Source(read_blackrock, "write_blackrock", "", "*.ns6"),
    "blackrock events": Source(read_blackrock, "write_blackrock", "", "*.nev"),
    "plexon": Source(read_plexon, "write_plx", "day.plx", "*.plx", loses_last=True),
    "spikeglx": Source(read_spikeglx, "write_spikeglx", "run", "*.ap.bin"),
    "openephys": Source(read_openephys, "write_openephys", "day", "continuous.dat"),
    "openephys legacy": Source(read_openephys, "write_openephys_legacy", "day", "*CH2.continuous"),
    "intan rhd": Source(read_intan, "write_intan", "day.rhd", "*.rhd"),
    "intan folder": Source(read_intan, "write_intan_folder", "day", "amplifier.dat"),
    "saved": Source(read_recording, "write_saved", "day", "traces_cached_seg1.raw", has_events=False),
    "saved zarr": Source(read_recording, "write_saved", "day.zarr", "0.0", has_events=False),
}


@pytest.fixture(params=SOURCES)
def source(request) -> Source:
    return SOURCES[request.param]


@pytest.fixture
def written(source, vendor, tmp_path, request) -> dict:
    where = tmp_path / source.where
    if source.write == "write_spikeglx":
        return vendor.write_spikeglx(where, request.getfixturevalue("raw_data") / "spikeglx" / "NP2_with_sync")
    return getattr(vendor, source.write)(where)


@pytest.fixture
def recorded(source, written) -> Recorded:
    return source.read(written["path"])


def refused(source, path) -> str:
    with pytest.raises(NwbCompactError) as caught:
        source.read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200
    return str(caught.value)


class TestEverySource:
    def test_the_clock_starts_at_the_first_sample_and_only_goes_on(self, recorded):
        observed = observed_s(recorded.recording)
        assert observed[0, 0] == 0
        assert (np.diff(observed.ravel()) > 0).all()

    def test_the_voltage_is_what_was_stored(self, source, written, recorded):
        recording = recorded.recording
        found = np.concatenate([recording.get_traces(index) for index in range(recording.get_num_segments())])
        np.testing.assert_array_equal(found, written["samples"][: -1 if source.loses_last else None])
        assert recording.get_dtype().kind == "i"
        assert recording.has_scaleable_traces()
        np.testing.assert_allclose(recording.get_channel_offsets(), 0, atol=1e-9)

    def test_analog_channels_are_single_and_on_the_same_clock(self, written, recorded):
        assert set(recorded.analog) == set(written.get("analog", {}))
        for name, channel in recorded.analog.items():
            assert channel.get_num_channels() == 1
            assert abs(channel.get_start_time()) < 0.01
            assert channel.has_scaleable_traces()
            np.testing.assert_array_equal(channel.get_traces()[:50], written["analog"][name][:50])

    def test_events_ascend_within_the_recording(self, source, recorded):
        assert bool(recorded.events) == source.has_events
        for one in recorded.events.values():
            assert one.time_s.shape == one.code.shape
            assert (np.diff(one.time_s) >= 0).all()
            assert one.time_s[0] >= 0
            assert one.time_s[-1] <= observed_s(recorded.recording)[-1, 1]
            assert one.code.dtype.kind in "iu"

    def test_channels_are_named_and_files_are_told(self, source, recorded):
        names = recorded.recording.get_property("channel_name")
        assert len(set(names)) == recorded.recording.get_num_channels()
        assert len(set(recorded.files)) == len(recorded.files) > 0
        assert all(file.is_file() for file in recorded.files)
        assert recorded.reader.split()[0] in ("NeuroConv", "SpikeInterface", "Neo")
        assert source.where.startswith("day") or recorded.device is not None

    def test_electrodes_reach_the_file_and_the_voltage_comes_back(self, recorded, tmp_path):
        recording = with_geometry(recorded.recording, DeviceFacts(location="V4"))
        electrodes = electrodes_of(recording)
        nwbfile = NWBFile("a test", "test", datetime(2024, 1, 1, tzinfo=UTC))
        voltage_adder(recording, electrodes, recorded.device, keep_voltage=True)(nwbfile)
        with NWBHDF5IO(tmp_path / "out.nwb", "w") as io:
            io.write(nwbfile)
        with NWBHDF5IO(tmp_path / "out.nwb", "r") as io:
            back = io.read()
            assert back.electrodes["channel_name"][:].tolist() == list(electrodes.name)
            assert set(back.electrodes["location"][:]) == {"V4"}
            assert ("rel_x" in back.electrodes.colnames) == (electrodes.rel_x_um is not None)
            series = list(back.acquisition.values())
            assert [one.starting_time or 0.0 for one in series] == pytest.approx([start for start, _ in observed_s(recording)])
            scale = series[0].conversion * (1 if series[0].channel_conversion is None else series[0].channel_conversion[:])
            np.testing.assert_allclose(series[0].data[:20] * scale, 1e-6 * recording.get_traces(0, 0, 20, return_in_uV=True), rtol=1e-5)
        assert validate(path=str(tmp_path / "out.nwb")) == []

    def test_reading_changes_nothing(self, source, written, recorded, assert_same):
        content = {file: file.read_bytes() for file in recorded.files}
        again = source.read(written["path"])
        for field in fields(Recorded):
            if field.name not in ("recording", "analog"):
                assert_same(getattr(recorded, field.name), getattr(again, field.name), field.name)
        np.testing.assert_array_equal(again.recording.get_traces(0), recorded.recording.get_traces(0))
        assert list(again.analog) == list(recorded.analog)
        assert {file: file.read_bytes() for file in again.files} == content

    def test_worker_processes_read_the_same(self, recorded):
        recording = recorded.recording
        in_worker = load(recording.to_dict(recursive=True, include_properties=True))
        for segment in range(recording.get_num_segments()):
            np.testing.assert_array_equal(in_worker.get_traces(segment), recording.get_traces(segment))
        np.testing.assert_array_equal(in_worker.get_channel_gains(), recording.get_channel_gains())

    def test_a_missing_path_is_refused(self, source, tmp_path):
        path = tmp_path / f"nowhere{Path(source.where).suffix or source.cut.removeprefix('*')}"
        assert refused(source, path).startswith(f"{path}: found no such f")

    def test_another_kind_of_file_is_refused(self, source, tmp_path):
        path = tmp_path / "image.png"
        path.write_bytes(b"\x89PNG\r\n" * 400)
        assert refused(source, path).startswith(f"{path}: found ")

    @pytest.mark.parametrize("cut", [1, 21])
    def test_a_truncated_file_is_refused(self, source, written, cut):
        folder = written["path"] if written["path"].is_dir() else written["path"].parent
        file = sorted(folder.rglob(source.cut))[-1]
        file.write_bytes(file.read_bytes()[:-cut])
        assert "found " in refused(source, written["path"])
