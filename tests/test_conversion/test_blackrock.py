"""Blackrock files, real ones of the vendor and small ones with every fault."""

import re
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.recorded import observed_s
from nwb_compact_conversion.sources.blackrock import read_blackrock


def refused(path, **asked):
    with pytest.raises(NwbCompactError) as caught:
        read_blackrock(path, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The vendor's files ---------------------------------------------------------------------------------------------------


def test_the_example_of_specification_2_3(raw_data):
    recorded = read_blackrock(raw_data / "blackrock" / "FileSpec2.3001.ns5")
    recording = recorded.recording
    assert recording.get_num_channels() + len(recorded.analog) == 10
    assert list(recording.channel_ids) == [str(number) for number in range(1, 9)]
    assert (recording.sampling_frequency, recording.get_num_samples()) == (30_000, 900_300)
    assert [file.name for file in recorded.files] == ["FileSpec2.3001.ns5", "FileSpec2.3001.nev"]
    stored = np.fromfile(raw_data / "blackrock" / "FileSpec2.3001.ns5", "<i2", offset=974 + 9).reshape(-1, 10)
    np.testing.assert_array_equal(recording.get_traces(), stored[:, :8])
    np.testing.assert_allclose(recording.get_traces(0, 0, 3, return_in_uV=True), stored[:3, :8] * (8191 / 32764))
    assert recorded.units.name == ("chan1#0", "chan3#0", "chan5#0", "chan7#0")
    assert recorded.units.electrode_index.tolist() == [0, 2, 4, 6]
    assert [len(times) for times in recorded.units.spike_times_s] == [259, 234, 218, 253]
    assert sum(len(times) for times in recorded.units.spike_times_s) == 964
    assert list(recorded.events) == ["digital_input_port"]
    words = recorded.events["digital_input_port"]
    assert len(words.time_s) == 190
    assert (words.time_s[0], words.code[:3].tolist()) == (62927 / 30_000, [65533, 65535, 65533])
    assert set(recorded.analog) == {"ainp1", "ainp2"}


def test_the_start_is_utc_in_the_voltage_and_local_in_the_events(raw_data):
    voltage, events = (read_blackrock(raw_data / "blackrock" / f"FileSpec2.3001{suffix}").start_time for suffix in (".ns5", ".nev"))
    assert voltage == datetime(2014, 1, 6, 20, 23, 5, 559_000, tzinfo=UTC)
    assert events == datetime(2014, 1, 6, 13, 23, 5, 555_000)


def test_sort_codes_of_a_96_channel_array(raw_data):
    recorded = read_blackrock(raw_data / "blackrock" / "blackrock_2_1" / "l101210-001.nev")
    units = recorded.units
    spikes = np.array([len(times) for times in units.spike_times_s])
    assert (len(recorded.electrodes), len(set(units.properties["channel_name"])), spikes.sum()) == (96, 96, 14_210)
    by_code = {int(code): int(spikes[units.properties["sort_code"] == code].sum()) for code in np.unique(units.properties["sort_code"])}
    assert by_code == {0: 8962, 1: 3578, 2: 1560, 3: 110}
    assert len(recorded.events["digital_input_port"].time_s) == 8


def test_units_are_those_the_vendor_lists(raw_data):
    folder = raw_data / "blackrock" / "blackrock_2_1"
    listed = {(int(channel), int(code)) for channel, code in re.findall(r"(?m)^(\d+) / (\d+)", (folder / "nev_Units.txt").read_text())}
    units = read_blackrock(folder / "l101210-001.nev").units
    found = {(int(channel), int(code)) for channel, code in (name.removeprefix("ch").split("#") for name in units.name)}
    assert found == listed
    assert units.properties["sort_code"].tolist() == [int(name.split("#")[1]) for name in units.name]


def test_noise_is_no_unit_and_unsorted_spikes_may_stay_out(raw_data):
    resorted = raw_data / "blackrock" / "blackrock_2_1" / "l101210-001-02.nev"
    with_unsorted, without = read_blackrock(resorted).units, read_blackrock(resorted, keep_unsorted=False).units
    assert set(with_unsorted.properties["sort_code"]) == {0, 1, 2, 3}
    assert sum(map(len, with_unsorted.spike_times_s)) == 14_210 - 159
    assert sum(map(len, without.spike_times_s)) == 5715 + 2129 + 610


def test_specification_2_1_takes_its_scale_from_the_nev(raw_data, tmp_path):
    recorded = read_blackrock(raw_data / "blackrock" / "blackrock_2_1" / "l101210-001.ns2")
    assert recorded.recording is None
    # From ns2_data.txt, which the vendor's program wrote.
    np.testing.assert_allclose(recorded.analog["ainp9"].get_traces(0, 0, 2, return_in_uV=True)[:, 0], [20905.17773438, 19074.06835938])
    shutil.copy(raw_data / "blackrock" / "blackrock_2_1" / "l101210-001.ns2", tmp_path / "a.ns2")
    assert "a.ns2: found no .nev, expected the .nev beside it, which holds the voltage scale" in refused(tmp_path / "a.ns2")


def test_a_truncated_example_is_refused(raw_data, tmp_path):
    for name, cut in (("FileSpec2.3001.ns5", 12_345), ("FileSpec2.3001.nev", 50)):
        file = tmp_path / name
        file.write_bytes((raw_data / "blackrock" / name).read_bytes()[:-cut])
        assert f"{name}: found {file.stat().st_size:,} bytes: the file ends in the middle of its data" in refused(file)


# Small files ----------------------------------------------------------------------------------------------------------


def test_everything_is_on_the_clock_of_the_first_sample(vendor, tmp_path):
    written = vendor.write_blackrock(tmp_path, first_tick=600)
    recorded = read_blackrock(written["path"])
    np.testing.assert_array_equal(recorded.recording.get_traces(), written["samples"])
    np.testing.assert_array_equal(recorded.analog["ainp1"].get_traces(), written["analog"]["ainp1"])
    assert recorded.recording.get_start_time() == recorded.analog["ainp1"].get_start_time() == 0
    np.testing.assert_allclose(recorded.events["digital_input_port"].time_s, [0.001, 0.03])
    assert recorded.events["digital_input_port"].code.tolist() == [7, 0]
    assert recorded.events["serial_input_port"].code.tolist() == [65]
    assert recorded.units.name == ("chan1#0", "chan1#2")
    np.testing.assert_allclose(recorded.units.spike_times_s[1], [0.003, 0.02])
    assert recorded.units.resolution_s == 1 / 30_000
    assert recorded.start_time == datetime(2024, 5, 15, 12, 30, 45, 250_000, tzinfo=UTC)
    assert recorded.device.description == "recorded with written by a test"


def test_a_nev_leads_to_its_voltage_where_asked(vendor, tmp_path):
    written = vendor.write_blackrock(tmp_path)
    nev = tmp_path / "day.nev"
    assert read_blackrock(nev).recording is None
    assert read_blackrock(nev, voltage=True).recording.get_num_samples() == len(written["samples"])
    written["path"].unlink()
    assert "day.nev: found a .nev without its .nsX, expected the .nsX that holds the voltage beside it" in refused(nev, voltage=True)


def test_voltage_without_a_nev_has_no_events(vendor, tmp_path):
    written = vendor.write_blackrock(tmp_path)
    (tmp_path / "day.nev").unlink()
    recorded = read_blackrock(written["path"])
    assert (recorded.events, recorded.units, recorded.files) == ({}, None, (written["path"],))


def test_a_photodiode_in_a_slower_file_is_found(vendor, tmp_path):
    written = vendor.write_blackrock(tmp_path, first_tick=600)
    slow = vendor.words(100, 1)
    vendor.write_nsx(tmp_path / "day.ns2", [(900, slow)], [(131, "ainp3", "mV")], period=30)
    recorded = read_blackrock(written["path"])
    assert set(recorded.analog) == {"ainp1", "ainp3"}
    assert recorded.analog["ainp3"].sampling_frequency == 1000
    np.testing.assert_allclose(recorded.analog["ainp3"].get_start_time(), 0.01)
    np.testing.assert_array_equal(recorded.analog["ainp3"].get_traces(), slow)
    assert tmp_path / "day.ns2" in recorded.files


def test_pauses_stay_gaps(vendor, tmp_path):
    samples = vendor.words(300, 2)
    blocks = [(600, samples[:100]), (3600, samples[100:])]
    recording = read_blackrock(vendor.write_nsx(tmp_path / "a.ns6", blocks, vendor.NEURAL)).recording
    np.testing.assert_allclose(observed_s(recording), [[0, 100 / 30_000], [0.1, 0.1 + 200 / 30_000]])
    np.testing.assert_array_equal(recording.get_traces(1), samples[100:])


def test_gaps_between_stamped_samples_start_a_segment(vendor, tmp_path):
    samples = vendor.words(300, 2)
    stamps = 1_700_000_000_000_000_000 + (np.arange(300) * 1e9 / 30_000).astype(np.int64) + np.where(np.arange(300) < 100, 0, 10_000_000)
    blocks = [(int(at), one[None]) for at, one in zip(stamps, samples, strict=True)]
    file = vendor.write_nsx(tmp_path / "a.ns6", blocks, vendor.NEURAL, stamp_each=True, spec=(3, 0))
    recording = read_blackrock(file).recording
    assert recording.get_num_segments() == 2
    assert recording.get_start_time(0) == 0
    np.testing.assert_allclose(recording.get_start_time(1), 100 / 30_000 + 0.01, atol=1e-6)
    file.write_bytes(file.read_bytes()[:-3])
    assert "ends in the middle of its data" in refused(file)


PTP_NS = 1_700_000_000_000_000_000
SPIKES = np.array([3_000, 90_000, 150_000, 209_990, 210_010, 360_000, 419_990])
"""Samples at which a spike, a word and a flash of light came; samples 210,000 on are after a gap."""


def stamped(vendor, folder, *, ppm, gap_ns=0):
    """14 s of samples whose clock is slow by `ppm` against their stamps, with a gap after 7 s, and a .nev of the same moments."""
    stamps = PTP_NS + np.rint(np.arange(420_000) * (1 + 1e-6 * ppm) * 1e9 / 30_000).astype(np.int64)
    stamps += np.where(np.arange(420_000) >= 210_000, gap_ns, 0)
    voltage = np.zeros((420_000, 2), np.int16)
    voltage[SPIKES, 0] = -500
    light = np.zeros((42_000, 1), np.int16)
    light[SPIKES // 10] = 900
    folder.mkdir()
    file = vendor.write_stamped(folder / "day.ns6", stamps, voltage, vendor.NEURAL)
    vendor.write_stamped(folder / "day.ns3", stamps[::10], light, [vendor.DIODE], period=10)
    came = [(int(stamp), electrode, 1, word) for stamp in stamps[SPIKES] for electrode, word in ((0, 7), (1, 0))]
    before, after = (int(stamps[0]) - 2_000_000, 0, 1, 9), (int(stamps[-1]) + 5_000_000, 0, 1, 9)
    in_gap = [(int(stamps[209_999]) + gap_ns // 2, 0, 1, 5)] if gap_ns else []
    vendor.write_nev(folder / "day.nev", [before, *sorted([*came, *in_gap]), after], [1, 2], stamped=True)
    return file


def seen_s(recording, value):
    """When a channel had this value."""
    return np.concatenate([
        recording.sample_index_to_time(np.flatnonzero(recording.get_traces(segment)[:, 0] == value), segment_index=segment)
        for segment in range(recording.get_num_segments())
    ])


@pytest.mark.parametrize("gap_ns", [0, 200_000_000])
@pytest.mark.parametrize("ppm", [100, -100, 0])
def test_words_stay_with_the_samples_of_a_clock_that_drifts(vendor, tmp_path, ppm, gap_ns):
    recorded = read_blackrock(stamped(vendor, tmp_path / "day", ppm=ppm, gap_ns=gap_ns))
    words = recorded.events["digital_input_port"]
    spikes_s = seen_s(recorded.recording, -500)
    assert recorded.recording.get_num_segments() == (2 if gap_ns else 1)
    # Without the stamps the last of them would be 1.4 ms apart.
    np.testing.assert_allclose(words.time_s[words.code == 7], spikes_s, rtol=0, atol=2e-6)
    np.testing.assert_allclose(recorded.units.spike_times_s[0], spikes_s, rtol=0, atol=2e-6)
    np.testing.assert_allclose(seen_s(recorded.analog["ainp1"], 900), spikes_s, rtol=0, atol=1e-3 / 3)
    assert recorded.recording.get_start_time(0) == 0
    np.testing.assert_allclose(words.time_s[words.code == 9], [-0.002, seen_end(recorded.recording) + 0.005], atol=1e-6)
    if recorded.recording.get_num_segments() == 2:
        np.testing.assert_allclose(recorded.recording.get_start_time(1), 7 + gap_ns / 1e9 + 1e-6 * ppm / 30_000, atol=1e-6)
        np.testing.assert_allclose(words.time_s[words.code == 5], 209_999 / 30_000 + 0.1, atol=1e-5)


def seen_end(recording):
    last = recording.get_num_segments() - 1
    return recording.sample_index_to_time(recording.get_num_samples(last) - 1, segment_index=last)


def test_stamps_that_go_back_are_refused(vendor, tmp_path):
    stamps = PTP_NS + (np.arange(90_000) * 1e9 / 30_000).astype(np.int64)
    stamps[50_000:] -= 400_000_000
    file = vendor.write_stamped(tmp_path / "a.ns6", stamps, vendor.words(90_000, 2), vendor.NEURAL)
    assert "a.ns6: found a clock that goes back by 0.399967 s after sample 49,999, expected timestamps" in refused(file)


def test_a_reset_clock_is_refused(vendor, tmp_path):
    samples = vendor.words(300, 2)
    file = vendor.write_nsx(tmp_path / "a.ns6", [(600_000, samples), (0, samples)], vendor.NEURAL)
    assert "a.ns6: found a reset clock: a stretch that begins at 0.000 s after one that ends at 20.010 s" in refused(file)
    nev = vendor.write_nev(tmp_path / "b.nev", [(900, 1, 1, 0), (300, 1, 1, 0)], [1])
    assert "b.nev: found a clock that was reset 1 times, expected timestamps that only increase" in refused(nev)


@pytest.mark.parametrize(("name", "size"), [("day.ns6", 100), ("day.ns6", 9_000), ("day.nev", 20), ("day.nev", 400), ("day.nev", 700)])
def test_files_that_end_early_are_refused(vendor, tmp_path, name, size):
    written = vendor.write_blackrock(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size])
    assert f"{name}: found {size:,} bytes: the file ends in the middle of its data" in refused(written["path"])


def test_other_content_is_refused(vendor, tmp_path):
    file = vendor.write_blackrock(tmp_path)["path"]
    for path in (file, tmp_path / "day.nev"):
        path.write_bytes(b"\x89PNG" * 1000)
        assert f"{path.name}: found a file that begins with b'\\x89PNG\\x89PNG', expected a Blackrock" in refused(path)
