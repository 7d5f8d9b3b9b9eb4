"""Plexon files: a real one of sorted units, and small ones with wideband voltage and every fault."""

from datetime import datetime

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.recorded import observed_s
from nwb_compact_conversion.sources.plexon import read_plexon


def refused(path):
    with pytest.raises(NwbCompactError) as caught:
        read_plexon(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def blocks_of(file_path):
    """Time, kind, channel, unit and samples of every block after the headers, as Plexon describes them."""
    content, found = file_path.read_bytes(), []
    n_spike, n_event, n_slow = np.frombuffer(content, "<i4", 3, offset=140)
    at = 7504 + 1020 * n_spike + 296 * n_event + 296 * n_slow
    while at < len(content):
        kind, upper, lower, channel, unit, n, length = np.frombuffer(content, "<u2, <u2, <u4, <u2, <u2, <u2, <u2", 1, offset=at)[0].tolist()
        found.append(((upper << 32) + lower, kind, channel, unit, np.frombuffer(content, "<i2", n * length, offset=at + 16)))
        at += 16 + 2 * n * length
    return found


def test_the_example_has_30_units_and_8351_spikes(raw_data, capfd):
    recorded = read_plexon(raw_data / "plexon" / "File_plexon_3.plx")
    units = recorded.units
    assert (len(units), sum(len(times) for times in units.spike_times_s), len(recorded.electrodes)) == (30, 8351, 30)
    assert units.name[:2] == ("Wspk1u#0", "Wspk2u#0")
    assert units.electrode_index.tolist() == list(range(30))
    blocks = blocks_of(raw_data / "plexon" / "File_plexon_3.plx")
    for channel, times in ((1, units.spike_times_s[0]), (31, units.spike_times_s[-1])):
        np.testing.assert_array_equal(times, [tick / 30_000 for tick, kind, number, *_ in blocks if (kind, number) == (1, channel)])
    assert (recorded.start_time, recorded.recording, recorded.events) == (datetime(2010, 2, 22, 20, 0, 57), None, {})
    assert capfd.readouterr() == ("", "")


def test_field_potentials_are_kept_sample_by_sample(raw_data):
    channel = read_plexon(raw_data / "plexon" / "File_plexon_3.plx").analog["V1"]
    stored = np.concatenate([samples for _, kind, *_, samples in blocks_of(raw_data / "plexon" / "File_plexon_3.plx") if kind == 5])
    assert len(stored) == 600_806
    np.testing.assert_array_equal(channel.get_traces()[:, 0], stored[:-1])
    np.testing.assert_array_equal(channel.get_traces(start_frame=600_700)[:, 0], stored[600_700:-1])
    # 5000 mV over half of 2^12 steps at gain 1 and preamplifier 1: 2.44 mV a step.
    assert channel.get_channel_gains().tolist() == [2441.40625]


def test_everything_is_on_the_clock_of_the_first_sample(vendor, tmp_path):
    written = vendor.write_plx(tmp_path / "a.plx")
    recorded = read_plexon(written["path"])
    np.testing.assert_array_equal(recorded.recording.get_traces(), written["samples"][:-1])
    np.testing.assert_array_equal(recorded.analog["AI01"].get_traces(), written["analog"]["AI01"][:-1])
    np.testing.assert_allclose(recorded.recording.get_channel_gains(), 5000 / (32768 * 1000) * 1000)
    assert recorded.recording.get_start_time() == recorded.analog["AI01"].get_start_time() == 0
    assert recorded.units.name == ("SPK01#0", "SPK02#1")
    assert recorded.units.electrode_index.tolist() == [0, 1]
    np.testing.assert_allclose(recorded.units.spike_times_s[1], [0.001, 0.01])
    np.testing.assert_allclose(recorded.events["Strobed"].time_s, [0.0025, 0.0075])
    assert recorded.events["Strobed"].code.tolist() == [513, 7]
    np.testing.assert_allclose(recorded.events["EVT03"].time_s, [0.003])
    assert recorded.events["EVT03"].code.tolist() == [1]
    assert set(recorded.events) == {"Strobed", "EVT03"}
    assert recorded.start_time == datetime(2024, 5, 15, 12, 30, 45)


def test_unsorted_spikes_may_stay_out(vendor, tmp_path):
    assert read_plexon(vendor.write_plx(tmp_path / "a.plx")["path"], keep_unsorted=False).units.name == ("SPK02#1",)


def test_pauses_stay_gaps(vendor, tmp_path):
    written = vendor.write_plx(tmp_path / "a.plx", gap_ticks=4000)
    recording = read_plexon(written["path"]).recording
    np.testing.assert_allclose(observed_s(recording), [[0, 0.015], [0.115, 0.115 + 99 / 20_000]])
    np.testing.assert_array_equal(recording.get_traces(1), written["samples"][300:-1])


def test_a_clock_that_goes_back_is_refused(vendor, tmp_path):
    file = vendor.write_plx(tmp_path / "a.plx", gap_ticks=-2000)["path"]
    assert "a.plx: found blocks of voltage that go back from 0.107 s to 0.065 s" in refused(file)


@pytest.mark.parametrize("cut", [3, 20, 700])
def test_files_that_end_early_are_refused(vendor, tmp_path, cut):
    file = vendor.write_plx(tmp_path / "a.plx")["path"]
    file.write_bytes(file.read_bytes()[:-cut])
    assert refused(file).startswith(f"{file}: found ")


def test_other_files_are_refused(vendor, tmp_path):
    other = vendor.write_plx(tmp_path / "a.plx", magic=b"FLEX")["path"]
    assert "a.plx: found a file that begins with b'FLEX', expected a Plexon .plx file" in refused(other)
