"""Open Ephys recordings of both formats and several versions, and their faults."""

from datetime import datetime

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.recorded import observed_s
from nwb_compact_conversion.sources.openephys import read_openephys

EDGES = {"TTL1": ([0.005, 0.01], [1, 0]), "TTL3": ([0.02], [1])}


def refused(path, **asked):
    with pytest.raises(NwbCompactError) as caught:
        read_openephys(path, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edges(recorded):
    return {name: (np.round(one.time_s, 9).tolist(), one.code.tolist()) for name, one in recorded.events.items()}


def assert_all_there(recorded, written):
    recording = recorded.recording
    assert (recording.sampling_frequency, recording.get_start_time()) == (20_000, 0)
    np.testing.assert_array_equal(recording.get_traces(), written["samples"])
    np.testing.assert_allclose(recording.get_channel_gains(), 0.195)
    assert recording.get_property("channel_name").tolist() == ["CH1", "CH2"]
    np.testing.assert_array_equal(recorded.analog["ADC1"].get_traces(), written["analog"]["ADC1"])
    np.testing.assert_allclose(recorded.analog["ADC1"].get_channel_gains(), 150)
    assert recorded.analog["ADC1"].get_start_time() == 0
    assert edges(recorded) == EDGES
    assert recorded.start_time == datetime(2024, 5, 15, 12, 30, 45)


@pytest.mark.parametrize("version", [(0, 5), (0, 6)])
def test_the_binary_format(vendor, tmp_path, version):
    written = vendor.write_openephys(tmp_path / "day", version=version)
    recorded = read_openephys(written["path"])
    assert_all_there(recorded, written)
    assert_all_there(read_openephys(written["path"] / "Record Node 101"), written)
    assert {file.name for file in recorded.files} >= {"structure.oebin", "continuous.dat", "timestamps.npy", "settings.xml"}
    assert recorded.device.description == f"recorded with Open Ephys GUI 0.{version[1]}.0"


def test_the_legacy_format(vendor, tmp_path):
    written = vendor.write_openephys_legacy(tmp_path / "day")
    recorded = read_openephys(written["path"])
    assert_all_there(recorded, written)
    assert len(recorded.files) == 5


def test_an_experiment_folder_is_enough(vendor, tmp_path):
    written = vendor.write_openephys(tmp_path / "day")
    recorded = read_openephys(written["path"] / "Record Node 101" / "experiment1")
    assert_all_there(recorded, written)
    (written["path"] / "Record Node 101" / "settings.xml").unlink()
    assert read_openephys(written["path"]).start_time is None


def test_recordings_of_an_experiment_are_segments(vendor, tmp_path):
    written = vendor.write_openephys(tmp_path / "day", n_recordings=2)
    recorded = read_openephys(written["path"])
    np.testing.assert_allclose(observed_s(recorded.recording), [[0, 0.05], [0.2, 0.25]])
    np.testing.assert_array_equal(recorded.recording.get_traces(1), written["samples"][1000:])
    np.testing.assert_allclose(recorded.events["TTL1"].time_s, [0.005, 0.01, 0.205, 0.21])


def test_lost_samples_are_a_gap(vendor, tmp_path):
    numbers = 300 + np.arange(1000) + np.where(np.arange(1000) < 250, 0, 2000)
    written = vendor.write_openephys(tmp_path / "binary", numbers=numbers)
    recorded = read_openephys(written["path"])
    np.testing.assert_allclose(observed_s(recorded.recording), [[0, 0.0125], [0.1125, 0.15]])
    np.testing.assert_array_equal(recorded.recording.get_traces(1), written["samples"][250:])
    np.testing.assert_array_equal(recorded.analog["ADC1"].get_traces(1), written["analog"]["ADC1"][250:])
    np.testing.assert_allclose(recorded.events["TTL3"].time_s, [0.12])

    written = vendor.write_openephys_legacy(tmp_path / "legacy", gap=2048)
    recorded = read_openephys(written["path"])
    np.testing.assert_allclose(observed_s(recorded.recording), [[0, 0.1536], [0.256, 0.3072]])
    np.testing.assert_array_equal(recorded.recording.get_traces(0), written["samples"][:3072])
    np.testing.assert_array_equal(recorded.recording.get_traces(1), written["samples"][3072:])


def test_lines_of_another_processor_are_placed_by_shared_time_stamps(vendor, tmp_path):
    written = vendor.write_openephys(tmp_path / "day", of_another=True)
    assert edges(read_openephys(written["path"])) == {f"NI-DAQmx-102.PXIe-6341#{name}": one for name, one in EDGES.items()}
    old = vendor.write_openephys(tmp_path / "old", of_another=True, version=(0, 5))
    assert read_openephys(old["path"]).events == {}


def test_numbers_that_go_back_are_refused(vendor, tmp_path):
    binary = vendor.write_openephys(tmp_path / "binary", numbers=np.arange(1000) % 700)["path"]
    assert "sample_numbers.npy: found sample 0 after sample 699, expected sample numbers that only increase" in refused(binary)
    legacy = vendor.write_openephys_legacy(tmp_path / "legacy", gap=-3000)["path"]
    assert "found sample 5,072 in the record after that of sample 7,048, expected sample numbers that only increase" in refused(legacy)
    reset = vendor.write_openephys(tmp_path / "reset", n_recordings=2, numbers=np.arange(1000))["path"]
    assert "reset: found a reset clock: a stretch that begins at 0.000 s" in refused(reset)


def test_several_streams_need_a_choice(vendor, tmp_path):
    folder = vendor.write_openephys(tmp_path / "day")["path"]
    assert read_openephys(folder, stream=f"Record Node 101#{vendor.BOARD}").recording.get_num_channels() == 2
    assert f"found no stream 'probe', expected a stream of the recording. Next: use one of: Record Node 101#{vendor.BOARD}" in refused(
        folder, stream="probe"
    )


@pytest.mark.parametrize("name", ["continuous.dat", "sample_numbers.npy", "states.npy"])
@pytest.mark.parametrize("cut", [1, 60])
def test_binary_files_that_end_early_are_refused(vendor, tmp_path, name, cut):
    folder = vendor.write_openephys(tmp_path / "day")["path"]
    file = next(folder.rglob(name))
    file.write_bytes(file.read_bytes()[:-cut])
    assert "found " in refused(folder)


@pytest.mark.parametrize("name", ["100_CH1.continuous", "100_ADC1.continuous", "all_channels.events"])
@pytest.mark.parametrize("cut", [1, 2070])
def test_legacy_files_that_end_early_are_refused(vendor, tmp_path, name, cut):
    folder = vendor.write_openephys_legacy(tmp_path / "day")["path"]
    file = folder / name
    file.write_bytes(file.read_bytes()[:-cut])
    assert "found " in refused(folder)


def test_other_folders_are_refused(vendor, tmp_path):
    assert f"{tmp_path}: found neither of these, expected an Open Ephys folder" in refused(tmp_path)
    vendor.write_openephys(tmp_path / "binary")
    vendor.write_openephys_legacy(tmp_path / "legacy")
    assert f"{tmp_path}: found files of both formats" in refused(tmp_path)
    next((tmp_path / "binary").rglob("structure.oebin")).write_text("{")
    assert "binary: found unreadable content" in refused(tmp_path / "binary")
