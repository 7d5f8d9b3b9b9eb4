"""Intan recordings of both systems and of each way to save them, and their faults."""

import tracemalloc
from datetime import datetime

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.recorded import observed_s
from nwb_compact_conversion.sources import reading
from nwb_compact_conversion.sources.intan import read_intan


def refused(path):
    with pytest.raises(NwbCompactError) as caught:
        read_intan(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_all_there(recorded, written):
    recording = recorded.recording
    assert (recording.sampling_frequency, recording.get_dtype(), recording.get_start_time()) == (20_000, np.int16, 0)
    np.testing.assert_array_equal(recording.get_traces(), written["samples"])
    np.testing.assert_allclose(recording.get_traces(return_in_uV=True), 0.195 * written["samples"], rtol=1e-5)
    assert recording.get_property("channel_name").tolist() == ["A-000", "A-001"]
    assert recording.get_property("group_name").tolist() == ["A", "A"]
    np.testing.assert_array_equal(recorded.analog["diode"].get_traces(), written["analog"]["diode"])
    assert {name: (one.time_s.tolist(), one.code.tolist()) for name, one in recorded.events.items()} == {
        "DIGITAL-IN-1": ([0.005, 0.01], [1, 0]),
        "DIGITAL-IN-2": ([0.032], [1]),
    }


@pytest.mark.parametrize("stim", [False, True])
def test_header_and_data_in_one_file(vendor, tmp_path, stim):
    written = vendor.write_intan(tmp_path / ("day_240515_123045.rhs" if stim else "day_240515_123045.rhd"), stim=stim)
    recorded = read_intan(written["path"])
    assert_all_there(recorded, written)
    assert recorded.files == (written["path"],)
    assert recorded.start_time == datetime(2024, 5, 15, 12, 30, 45)
    assert recorded.device.description == ("RHS Stim/Recording System" if stim else "RHD Recording System")


def test_a_file_for_each_signal(vendor, tmp_path):
    written = vendor.write_intan_folder(tmp_path / "day_240515_123045")
    recorded = read_intan(written["path"])
    assert_all_there(recorded, written)
    assert [file.name for file in recorded.files] == ["info.rhd", "amplifier.dat", "analogin.dat", "digitalin.dat", "time.dat"]
    assert recorded.start_time == datetime(2024, 5, 15, 12, 30, 45)
    assert_all_there(read_intan(written["path"].parent), written)


def test_a_recording_in_several_files_is_one(vendor, tmp_path):
    vendor.write_intan(tmp_path / "day_240515_123145.rhd", part=slice(4, None))
    written = vendor.write_intan(tmp_path / "day_240515_123045.rhd", part=slice(0, 4))
    recorded = read_intan(tmp_path)
    assert_all_there(recorded, written)
    assert [file.name for file in recorded.files] == ["day_240515_123045.rhd", "day_240515_123145.rhd"]
    assert recorded.start_time == datetime(2024, 5, 15, 12, 30, 45)


def test_lost_samples_are_a_gap(vendor, tmp_path):
    numbers = np.arange(-200, 1080) + np.where(np.arange(1280) < 500, 0, 2000)
    written = vendor.write_intan(tmp_path / "a.rhd", numbers=numbers)
    recorded = read_intan(written["path"])
    np.testing.assert_allclose(observed_s(recorded.recording), [[0, 0.025], [0.125, 0.164]])
    np.testing.assert_array_equal(recorded.recording.get_traces(1), written["samples"][500:])
    np.testing.assert_allclose(recorded.events["DIGITAL-IN-2"].time_s, [0.132])
    assert recorded.start_time is None


def test_sample_numbers_are_not_held(vendor, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK_SAMPLES", 50_000)
    n = 640_000
    file = vendor.write_intan(tmp_path / "a.rhd", n=n, numbers=np.arange(n) + 1000 * (np.arange(n) >= 300_000))["path"]
    read_intan(file)
    tracemalloc.start()
    recorded = read_intan(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert recorded.recording.get_num_segments() == 2
    # 9 bytes a sample are Neo's own while it opens the file; the numbers would be 8, and 8 more for a copy.
    assert peak < 9.5 * n + 3e6


def test_sample_numbers_that_go_back_are_refused(vendor, tmp_path):
    file = vendor.write_intan(tmp_path / "a.rhd", numbers=np.arange(1280) % 640)["path"]
    assert "a.rhd: found sample 0 after sample 639, expected sample numbers that only increase" in refused(file)


@pytest.mark.parametrize("cut", [1, 100, 15_000])
def test_a_file_that_ends_early_is_refused(vendor, tmp_path, cut):
    file = vendor.write_intan(tmp_path / "a.rhd")["path"]
    file.write_bytes(file.read_bytes()[:-cut])
    assert refused(file).startswith(f"{file}: found ")


@pytest.mark.parametrize("name", ["amplifier", "analogin", "digitalin", "time"])
@pytest.mark.parametrize("cut", [1, 400])
def test_a_data_file_that_ends_early_is_refused(vendor, tmp_path, name, cut):
    info = vendor.write_intan_folder(tmp_path / "day")["path"]
    data = info.parent / f"{name}.dat"
    data.write_bytes(data.read_bytes()[:-cut])
    assert "found " in refused(info)


def test_other_paths_are_refused(vendor, tmp_path):
    (tmp_path / "a.rhd").write_bytes(b"no header at all" * 100)
    assert refused(tmp_path / "a.rhd").startswith(f"{tmp_path / 'a.rhd'}: found ")
    vendor.write_intan(tmp_path / "b.rhs", stim=True)
    assert f"{tmp_path}: found both .rhd and .rhs files" in refused(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty: found a folder without .rhd or .rhs files" in refused(tmp_path / "empty")
    (tmp_path / "a.txt").touch()
    assert "a.txt: found a file that ends in '.txt', expected an Intan .rhd or .rhs file" in refused(tmp_path / "a.txt")
