import shutil
import struct
import warnings

import numpy as np
import pytest
import spikeinterface.sorters
from scipy.signal import butter, sosfiltfilt
from spikeinterface import NumpyRecording, NumpySorting, append_recordings

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Curation, Sorting
from nwb_compact_conversion.sources.blackrock import read_blackrock
from nwb_compact_conversion.spikes.sorting import Sorted, sort_units

RATE = 30_000.0
ANY = Curation(min_num_spikes=0)
SHAPE = -np.exp(-0.5 * (np.arange(-30, 60) / 4.0) ** 2) + 0.3 * np.exp(-0.5 * ((np.arange(-30, 60) - 25) / 6.0) ** 2)
"""A spike whose minimum, of depth 1, is 30 samples after its beginning."""
WELL_ISOLATED_SNR = 5.0
"""Of a simulated unit: depth of its largest deflection over the noise."""


def recorded(voltage_uv, groups=None):
    recording = NumpyRecording([(voltage_uv / 0.25).round().astype(np.int16)], sampling_frequency=RATE)
    n = recording.get_num_channels()
    recording.set_channel_gains(0.25)
    recording.set_channel_offsets(0.0)
    recording.set_property("channel_name", np.array([f"chan{row + 1}" for row in range(n)]))
    if groups is not None:
        recording.set_property("group_name", np.array(groups))
    recording.set_dummy_probe_from_locations(np.stack([np.zeros(n), 25.0 * np.arange(n)], axis=1))
    return recording


@pytest.fixture(scope="module")
def world():
    """Six contacts, 10 s, noise of 5 uV; 200 spikes of 100 uV on chan2 and 100 of 80 uV on chan5, half of that on chan4 and chan6."""
    rng = np.random.default_rng(0)
    noise, clean = rng.normal(0, 5, (300_000, 6)), np.zeros((300_000, 6))
    trains = {}
    for contact, size, n in ((1, 100.0, 200), (4, 80.0, 100)):
        trains[contact] = np.sort(rng.choice(np.arange(200, 299_800, 120), n, replace=False)) + 13 * contact
        on = size * np.array([{0: 1.0, 1: 0.5}.get(abs(row - contact), 0.0) for row in range(6)])
        for frame in trains[contact]:
            clean[frame - 30 : frame + 60] += SHAPE[:, None] * on
    return noise + clean, clean, trains


@pytest.fixture
def finds(monkeypatch):
    """Makes every sorter find the given trains, one dict a call."""

    def set_up(*answers):
        answers = list(answers)
        monkeypatch.setattr(
            spikeinterface.sorters, "run_sorter", lambda *_, **__: NumpySorting.from_unit_dict([answers.pop(0)], RATE)
        )

    return set_up


def refused(*arguments, **options):
    with pytest.raises(NwbCompactError) as refusal:
        sort_units(*arguments, **options)
    return str(refusal.value)


# Sorters --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """SpikeInterface's own simulation: 16 contacts, 8 neurons, 30 s, and which of them are well isolated."""
    from spikeinterface import generate_ground_truth_recording

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recording, truth = generate_ground_truth_recording(
            durations=[30.0], num_channels=16, num_units=8, seed=0, sampling_frequency=RATE, noise_kwargs={"noise_levels": 5.0}
        )
        saved = recording.save(folder=tmp_path_factory.mktemp("probe") / "voltage", progress_bar=False, verbose=False)
    trains = [truth.get_unit_spike_train(unit_id=unit) for unit in truth.unit_ids]
    depth = [np.abs(recording.templates[unit]).max() for unit in range(len(trains))]
    return saved, [train for train, one in zip(trains, depth, strict=True) if one > WELL_ISOLATED_SNR * 5.0]


def accuracy(truth, found, tolerance=12):
    """Matches / (all spikes of either), as SpikeInterface defines it; within 0.4 ms."""
    nearest = np.abs(truth[:, None] - found[None]).min(axis=1)
    matches = (nearest <= tolerance).sum()
    return matches / (len(truth) + len(found) - matches)


def test_spykingcircus2_finds_well_isolated_units(probe, tmp_path, capfd):
    recording, truth = probe
    found = sort_units(recording, Sorting(), scratch=tmp_path)
    trains = [np.round(times * RATE).astype(int) for times in found.units.spike_times_s]
    best = np.array([max(accuracy(train, one) for one in trains) for train in truth])
    assert len(truth) >= 5
    assert (best >= 0.8).mean() >= 0.8
    assert found.record["sorting.sorter"] == "spykingcircus2"
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_units_have_times_electrodes_shapes_and_metrics(world, finds, tmp_path):
    voltage, clean, trains = world
    finds({7: trains[1], 9: trains[4]})
    lines = []
    found = sort_units(recorded(voltage), Sorting(), scratch=tmp_path, report=lines.append)
    units = found.units
    assert isinstance(found, Sorted)
    assert units.name == ("unit-1", "unit-2")
    for times, frames in zip(units.spike_times_s, trains.values(), strict=True):
        np.testing.assert_allclose(times, frames / RATE, rtol=0, atol=1e-9)
    assert units.electrode_index.tolist() == [1, 4]
    assert units.properties["channel_name"].tolist() == ["chan2", "chan5"]
    assert units.properties["num_spikes"].tolist() == [200, 100]
    np.testing.assert_allclose(units.properties["firing_rate"], [20, 10])
    assert np.isnan(units.properties["presence_ratio"]).all()
    assert (units.resolution_s, units.obs_intervals_s.tolist()) == (1 / RATE, [[0, 10]])
    assert (units.waveforms.rate_hz, units.waveforms.before_peak_s) == (RATE, 0.001)
    # What the filter leaves of the known spikes, without noise, is what the mean must be, in volts.
    passed = sosfiltfilt(butter(5, [300, 6000], "bandpass", fs=RATE, output="sos"), clean, axis=0)
    for row, (contact, frames) in enumerate(trains.items()):
        expected = 1e-6 * np.mean([passed[frame - 30 : frame + 60, contact] for frame in frames], axis=0)
        assert expected.min() < -60e-6
        np.testing.assert_allclose(units.waveforms.mean_v[row], expected, atol=4 * 5e-6 / np.sqrt(len(frames)))
    assert lines == ["spykingcircus2 found 2 units on 6 channels", "units: 2 of 2 kept"]


def test_the_record_tells_all(world, finds, tmp_path, monkeypatch):
    monkeypatch.setattr("nwb_compact_conversion.spikes.filtering.MIN_REFERENCED_CHANNELS", 6)  # without its bad channel the array has 5
    finds({0: world[2][1], 1: world[2][4], 2: np.arange(500, 90_000, 9000)})
    voltage = world[0].copy()
    voltage[:, 2] = 0
    found = sort_units(recorded(voltage), Sorting(), scratch=tmp_path)
    said = {name.removeprefix("sorting."): value for name, value in found.record.items()}
    assert said.items() >= {
        "sorter": "spykingcircus2", "filter": "zero-phase Butterworth of order 5, 300 Hz to 6000 Hz", "common_reference": "none",
        "bad_channels": "chan3", "units_found": "3", "units_kept": "2", "units_dropped": "1 by min_num_spikes 50",
        "spikes_dropped_at_gaps": "0", "parameters.min_firing_rate": "0.1", "parameters.general.radius_um": "100.0",
    }.items()
    assert said["sorter_version"] == spikeinterface.sorters.sorter_dict["spykingcircus2"].get_sorter_version()
    assert all(isinstance(value, str) for value in found.record.values())
    # The electrode is counted among all channels, bad ones too.
    assert found.units.electrode_index.tolist() == [1, 4]


def test_gaps_stay_gaps(world, finds, tmp_path):
    voltage, _, trains = world
    pieces = [recorded(voltage[first:stop]) for first, stop in ((0, 100_000), (100_000, 100_900), (100_900, 300_000))]
    starts = [0.0, 20.0, 31.25]
    for piece, start in zip(pieces, starts, strict=True):
        piece.shift_times(start)
    recording = append_recordings(pieces)
    frames = np.array([500, 99_980, 100_300, 100_890, 100_910, 200_000])
    finds({0: frames, 1: trains[1]})
    found = sort_units(recording, Sorting(curation=ANY), scratch=tmp_path)
    np.testing.assert_allclose(found.units.spike_times_s[0], [500 / RATE, 20 + 300 / RATE, 31.25 + 99_100 / RATE])
    near = [np.abs(train[:, None] - [100_000, 100_900]).min(axis=1) <= 60 for train in (frames, trains[1])]
    assert near[0].sum() == 3
    assert found.record["sorting.spikes_dropped_at_gaps"] == str(near[0].sum() + near[1].sum())
    np.testing.assert_allclose(found.units.obs_intervals_s, [[0, 10 / 3], [20, 20.03], [31.25, 31.25 + 199_100 / RATE]])
    for times in found.units.spike_times_s:
        assert all(((start <= times) & (times < stop)).sum() for start, stop in found.units.obs_intervals_s[[0, 2]])
        assert sum(((start <= times) & (times < stop)).sum() for start, stop in found.units.obs_intervals_s) == len(times)


def test_arrays_are_sorted_apart(world, finds, tmp_path):
    voltage, _, trains = world
    finds({0: trains[4]}, {0: trains[1], 1: trains[1][::2] + 400})
    lines = []
    found = sort_units(recorded(voltage, ["V4", "V1", "V1", "V1", "V4", "V4"]), Sorting(), scratch=tmp_path, report=lines.append)
    assert found.units.name == ("V4-1", "V1-1", "V1-2")
    assert found.units.electrode_index.tolist()[:2] == [4, 1]
    assert found.units.electrode_index[2] in (1, 2, 3)
    assert lines[:2] == ["array V4: spykingcircus2 found 1 units on 3 channels", "array V1: spykingcircus2 found 2 units on 3 channels"]


def test_an_array_without_positions_is_refused_before_any_is_sorted(world, finds, tmp_path):
    recording = recorded(world[0], ["V4", "V1", "V1", "V1", "V4", "V4"])
    places = recording.get_channel_locations()
    places[1:4] = np.nan
    recording.set_dummy_probe_from_locations(places)
    finds()
    assert refused(recording, Sorting(), scratch=tmp_path).startswith("sorting: found no positions of 3 electrodes of V1, expected them")
    recording.remove_probe()
    assert len(sort_units(recording, Sorting(sorter="threshold", curation=ANY), scratch=tmp_path).units) == 6


def test_an_array_without_units_is_told_and_the_others_are_kept(world, finds, tmp_path):
    recording = recorded(world[0], ["V4", "V1", "V1", "V1", "V4", "V4"])
    finds({}, {0: world[2][1]})
    lines = []
    assert sort_units(recording, Sorting(), scratch=tmp_path, report=lines.append).units.name == ("V1-1",)
    assert lines[:2] == ["array V4: no unit", "array V1: spykingcircus2 found 1 units on 3 channels"]
    finds({}, {})
    assert refused(recording, Sorting(), scratch=tmp_path).startswith("spykingcircus2: found no unit")


def test_units_that_fail_the_criteria_are_dropped(world, finds, tmp_path):
    trains = world[2]
    finds({0: trains[1], 1: trains[4], 2: np.arange(100, 299_000, 1000)})
    told = Sorting(curation=Curation(min_snr=5))
    lines = []
    found = sort_units(recorded(world[0]), told, scratch=tmp_path, report=lines.append)
    assert found.units.name == ("unit-1", "unit-2")
    assert lines[-1] == "units: 2 of 3 kept; dropped 1 by min_snr 5.0"
    finds({0: trains[1], 1: trains[4]})
    assert refused(recorded(world[0]), Sorting(curation=Curation(min_snr=50)), scratch=tmp_path) == (
        "sorting: found 2 units, of which none was kept (2 by min_snr 50.0), expected at least one unit. "
        "Next: relax sorting.curation, lower the threshold, or look at the voltage"
    )


# Threshold ------------------------------------------------------------------------------------------------------------


def test_threshold_gives_a_unit_for_each_channel_with_spikes(world, tmp_path):
    voltage, _, trains = world
    settings = Sorting(sorter="threshold", threshold_mad=7)
    found = sort_units(recorded(voltage), settings, scratch=tmp_path / "never made")
    assert found.units.name == ("chan1", "chan2", "chan3", "chan4", "chan5", "chan6")
    assert found.units.electrode_index.tolist() == [0, 1, 2, 3, 4, 5]
    times = found.units.spike_times_s[1]
    assert len(times) == 200
    assert np.abs(times - trains[1] / RATE).max() <= 2 / RATE
    assert found.units.waveforms.mean_v[1].min() == pytest.approx(-95e-6, rel=0.1)
    assert found.units.waveforms.mean_v.shape == (6, 90)
    assert found.record["sorting.parameters.threshold_mad"] == "7"
    assert found.record["sorting.common_reference"] == "none"


def test_threshold_in_microvolts(world, tmp_path):
    found = sort_units(recorded(world[0]), Sorting(sorter="threshold", threshold_uv=60), scratch=tmp_path)
    assert found.units.name == ("chan2", "chan5")
    assert [len(times) for times in found.units.spike_times_s] == [200, pytest.approx(98, abs=3)]


def test_threshold_keeps_gaps_and_arrays_too(world, tmp_path):
    voltage = world[0]
    pieces = [recorded(voltage[:150_000], ["A", "A", "A", "B", "B", "B"]), recorded(voltage[150_000:], ["A", "A", "A", "B", "B", "B"])]
    pieces[1].shift_times(100.0)
    found = sort_units(append_recordings(pieces), Sorting(sorter="threshold", threshold_mad=7), scratch=tmp_path)
    whole = sort_units(recorded(voltage), Sorting(sorter="threshold", threshold_mad=7), scratch=tmp_path)
    assert found.units.name == whole.units.name
    for cut, times in zip(found.units.spike_times_s, whole.units.spike_times_s, strict=True):
        late = times >= 5.0
        # The noise and the very ends of the stretches differ a little.
        np.testing.assert_allclose(np.setdiff1d(cut.round(6), np.where(late, times + 95.0, times).round(6)), [], atol=0)
        assert abs(len(cut) - len(times)) <= 1


# Refusals -------------------------------------------------------------------------------------------------------------


def test_settings_are_checked_before_anything_runs(world, tmp_path, monkeypatch):
    recording = recorded(world[0])
    monkeypatch.setattr(type(recording), "get_traces", lambda *_, **__: pytest.fail("read the voltage"))
    assert refused(recording, Sorting(sorter="none"), scratch=tmp_path) == (
        "sorting.sorter: found none, expected a sorter, since the recording has no sorted units. Next: choose spykingcircus2 or threshold"
    )
    assert "did you mean 'seed'?" in refused(recording, Sorting(sorter_params={"sead": 1}), scratch=tmp_path)
    assert "sorting.bad_channels: found no channel 'chan7'" in refused(recording, Sorting(bad_channels=("chan7",)), scratch=tmp_path)
    assert "sorting: the band: found 20000 Hz" in refused(recording, Sorting(freq_max_hz=20_000), scratch=tmp_path)


def test_too_little_voltage_is_refused(world, tmp_path):
    assert refused(recorded(world[0][:15_000]), Sorting(), scratch=tmp_path) == (
        "the recording: found 0.5 s of voltage, expected at least 1 s. Next: convert the whole recording"
    )


def test_silence_is_no_unit(tmp_path):
    quiet = recorded(np.random.default_rng(0).normal(0, 5, (60_000, 3)))
    assert refused(quiet, Sorting(sorter="threshold", threshold_mad=20), scratch=tmp_path).startswith("sorting: found no unit, expected")


def test_a_wrong_scale_is_told(world, tmp_path):
    recording = recorded(world[0])
    recording.set_channel_gains(250.0)
    message = refused(recording, Sorting(sorter="threshold", threshold_mad=7), scratch=tmp_path)
    assert message.startswith("scale of the voltage: found a mean spike of 0.0")


def test_without_a_scale_there_are_times_and_no_volts(world, tmp_path):
    bare = NumpyRecording([world[0].astype(np.float32)], sampling_frequency=RATE)
    found = sort_units(bare, Sorting(sorter="threshold", threshold_mad=7), scratch=tmp_path)
    assert (len(found.units), found.units.waveforms) == (6, None)
    assert refused(bare, Sorting(sorter="threshold", threshold_uv=50), scratch=tmp_path).startswith("sorting.threshold_uv: found")


# A real recording -----------------------------------------------------------------------------------------------------


def matched(found, known, tolerance_s=0.0005):
    """How many known spikes have a found one within the tolerance, each used once."""
    row = number = 0
    for time in known:
        while row < len(found) and found[row] < time - tolerance_s - 1e-9:
            row += 1
        if row < len(found) and found[row] <= time + tolerance_s + 1e-9:
            number, row = number + 1, row + 1
    return number


@pytest.fixture(scope="module")
def blackrock(raw_data, tmp_path_factory):
    """The voltage of FileSpec2.3001, the spikes that the recording system found meanwhile, and its threshold, microvolts."""
    folder = tmp_path_factory.mktemp("blackrock")
    for suffix in (".ns5", ".nev"):
        shutil.copy(raw_data / "blackrock" / f"FileSpec2.3001{suffix}", folder)
    recorded = read_blackrock(folder / "FileSpec2.3001.ns5")
    known = dict(zip(recorded.units.properties["channel_name"].tolist(), recorded.units.spike_times_s, strict=True))
    header = (folder / "FileSpec2.3001.nev").read_bytes()
    at = header.index(b"NEUEVWAV")
    nanovolts, _, _, low = struct.unpack_from("<HHhh", header, at + 12)
    corner_mhz, order = struct.unpack_from("<II", header, header.index(b"NEUEVFLT") + 10)
    assert (corner_mhz, order) == (250_000, 4)
    return recorded.recording, known, -1e-3 * nanovolts * low


def test_the_recording_systems_own_filter_and_threshold_find_its_spikes(blackrock, tmp_path):
    recording, known, threshold_uv = blackrock
    assert {name: len(times) for name, times in known.items()} == {"chan1": 259, "chan3": 234, "chan5": 218, "chan7": 253}
    assert threshold_uv == 63.75
    settings = Sorting(sorter="threshold", filter="causal", freq_min_hz=250, freq_max_hz=None, threshold_uv=threshold_uv)
    units = sort_units(recording, settings, scratch=tmp_path).units
    found = dict(zip(units.name, units.spike_times_s, strict=True))
    hits = sum(matched(found[name], known[name]) for name in known)
    extra = sum(len(found[name]) for name in known) - hits
    assert hits >= 0.95 * 964
    assert extra < 0.05 * 964
    assert set(found) == set(known)


def test_the_defaults_find_all_its_spikes_and_smaller_ones(blackrock, tmp_path):
    recording, known, _ = blackrock
    units = sort_units(recording, Sorting(sorter="threshold"), scratch=tmp_path).units
    found = dict(zip(units.name, units.spike_times_s, strict=True))
    assert sum(matched(found[name], known[name]) for name in known) == 964
    # Its threshold is 11 deviations of the noise, ours 4: a third, smaller spike of each channel is above ours and below its own.
    assert sum(len(found[name]) for name in known) > 1296
