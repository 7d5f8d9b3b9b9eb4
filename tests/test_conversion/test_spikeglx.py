"""SpikeGLX runs: the vendor's examples, and a small run whose two clocks differ."""

import shutil
from datetime import datetime

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources import shared_clock
from nwb_compact_conversion.sources.spikeglx import read_spikeglx


def refused(path, **asked):
    with pytest.raises(NwbCompactError) as caught:
        read_spikeglx(path, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def run(vendor, raw_data, tmp_path):
    return lambda **settings: vendor.write_spikeglx(tmp_path / "run", raw_data / "spikeglx" / "NP2_with_sync", **settings)


def test_the_board_alone_has_326_edges_on_its_line(raw_data):
    recorded = read_spikeglx(raw_data / "spikeglx" / "DigitalChannelTest_g0")
    assert {name: len(one.time_s) for name, one in recorded.events.items()} == {"XD0": 326}
    stored = np.fromfile(raw_data / "spikeglx" / "DigitalChannelTest_g0" / "DigitalChannelTest_g0_t0.nidq.bin", np.int16)
    np.testing.assert_array_equal(recorded.events["XD0"].time_s, (np.flatnonzero(np.diff(stored)) + 1) / 2500)
    np.testing.assert_array_equal(recorded.events["XD0"].code, np.tile([1, 0], 163))
    assert (recorded.recording, recorded.analog, recorded.device.description) == (None, {}, "PXI-6221")
    assert recorded.start_time == datetime(2024, 4, 11, 14, 40, 32)
    assert [file.suffix for file in recorded.files] == [".bin", ".meta"]


def test_a_probe_brings_its_geometry(raw_data):
    recorded = read_spikeglx(raw_data / "spikeglx" / "NP2_with_sync", shortened=True)
    recording = recorded.recording
    assert (recording.get_num_channels(), recording.get_num_samples(), recording.get_start_time()) == (384, 1000, 0)
    assert recording.get_channel_locations()[:3].tolist() == [[0, 0], [32, 0], [0, 15]]
    assert set(recording.get_property("group_name")) == {f"NeuropixelsImec0Shank{shank}" for shank in range(4)}
    assert recorded.device.name == "NeuropixelsImec0"
    assert "serial number 12345601012" in recorded.device.description
    # 416715 / 25000 s against 500141 / 30000 s on the clock of the run.
    np.testing.assert_allclose(recorded.analog["XA0"].get_start_time(), 16.6686 - 500_141 / 30_000)
    assert len(recorded.files) == 4


def test_the_example_is_shorter_than_its_meta_says(raw_data):
    assert "nidq.bin: found 4,000 bytes: the file ends in the middle of its data, expected 805,776 bytes" in refused(
        raw_data / "spikeglx" / "NP2_with_sync"
    )


@pytest.mark.parametrize("analog_wave", [False, True])
def test_the_board_is_put_on_the_clock_of_the_probe(run, analog_wave):
    written = run(rate=1.0001, analog_wave=analog_wave)
    recorded = read_spikeglx(written["path"])
    np.testing.assert_array_equal(recorded.recording.get_traces(), written["samples"])
    assert list(recorded.events) == ["XD3"]
    # The clocks are 1.67 ms apart at the start; edges are found to a sample of each.
    np.testing.assert_allclose(recorded.events["XD3"].time_s, written["trial_s"], atol=2 / 25_000)
    assert recorded.events["XD3"].code.tolist() == [1, 0, 1, 0]
    diode = recorded.analog["XA0"]
    np.testing.assert_array_equal(diode.get_traces(), written["analog"]["XA0"])
    np.testing.assert_allclose(diode.sampling_frequency, 25_000 / (1 / 1.0001), rtol=3e-4)
    first_s = 416_715 / 25_000 / 1.0001 - 500_141 / 30_000
    ends_s = first_s + np.array([0, 13_999 / 25_000 / 1.0001])
    np.testing.assert_allclose(diode.sample_index_to_time(np.array([0, 13_999])), ends_s, atol=1e-4)
    np.testing.assert_allclose(diode.get_channel_gains(), 10 / 32768 * 1e6)


def test_without_the_wave_only_a_short_run_is_taken(run, vendor, monkeypatch):
    written = run(rate=1.0)
    meta = written["path"] / "all_chan_g0_t0.nidq.meta"
    vendor.write_meta(meta, syncSourceIdx=0)
    recorded = read_spikeglx(written["path"])
    assert set(recorded.events) == {"SY0", "XD0", "XD3"}
    np.testing.assert_allclose(recorded.events["XD3"].time_s, written["trial_s"], atol=2 / 25_000)
    monkeypatch.setattr(shared_clock, "CLOCK_ERROR", 0.1)
    assert "run: found the NI-DAQ's clock and the probe's without the sync wave on both for 0 s" in refused(written["path"])


def test_a_wave_that_is_not_shared_is_refused(run):
    written = run()
    samples = np.fromfile(written["path"] / "all_chan_g0_t0.imec0.ap.bin", np.int16).reshape(-1, 385)
    samples[9000:, 384] = np.roll(samples[9000:, 384], 300)
    samples.tofile(written["path"] / "all_chan_g0_t0.imec0.ap.bin")
    assert "sync wave: found rises" in refused(written["path"])


def test_a_probe_alone_has_its_sync_input(run):
    written = run()
    for file in written["path"].glob("*nidq*"):
        file.unlink()
    events = read_spikeglx(written["path"]).events
    assert list(events) == ["SY0"]
    assert len(events["SY0"].time_s) == 20
    np.testing.assert_allclose(np.diff(events["SY0"].time_s), 0.025, atol=2 / 30_000)


def test_several_probes_need_a_choice(run, vendor):
    written = run()
    for suffix in ("bin", "meta"):
        shutil.copy(written["path"] / f"all_chan_g0_t0.imec0.ap.{suffix}", written["path"] / f"all_chan_g0_t0.imec1.ap.{suffix}")
    vendor.write_meta(written["path"] / "all_chan_g0_t0.imec1.ap.meta", fileName="F://all_chan_g0/all_chan_g0_imec1/all_chan_g0_t0.imec1.ap.bin")
    assert "found 2 probes (imec0.ap, imec1.ap), expected one" in refused(written["path"])
    assert read_spikeglx(written["path"], stream="imec1.ap").device.name == "NeuropixelsImec1"
    assert "found no stream 'imec2.ap'" in refused(written["path"], stream="imec2.ap")


@pytest.mark.parametrize(("stream", "cut"), [("imec0.ap", 7), ("imec0.ap", 770), ("nidq", 4)])
def test_files_that_end_early_are_refused(run, stream, cut):
    name = f"all_chan_g0_t0.{stream}.bin"
    file = run()["path"] / name
    file.write_bytes(file.read_bytes()[:-cut])
    assert f"{name}: found {file.stat().st_size:,} bytes: the file ends in the middle of its data" in refused(file.parent)


def test_other_folders_are_refused(run, tmp_path):
    assert "found unreadable content (No appropriate combination of .meta and .bin files" in refused(tmp_path)
    (run()["path"] / "all_chan_g0_t0.nidq.meta").write_text("no meta file")
    assert refused(tmp_path / "run").startswith(f"{tmp_path / 'run'}: found unreadable content")
