import warnings

import numpy as np
import pytest
from spikeinterface import NumpyRecording, NumpySorting

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Curation
from nwb_compact_conversion.spikes.threshold import Crossings, crossings, noise_sd
from nwb_compact_conversion.spikes.unit_quality import METRICS, check_volts, joined, measure_crossings, measure_sorted, meets

RATE = 30_000.0
SHAPE = -np.exp(-0.5 * (np.arange(-30, 60) / 4.0) ** 2) + 0.3 * np.exp(-0.5 * ((np.arange(-30, 60) - 25) / 6.0) ** 2)
"""A spike around its minimum, 1 ms before and 2 ms after."""


def found_of(frames, depth=None, channels=1):
    """Crossings of one channel, with the shape of a spike of -80 in noise of 5."""
    frames = np.asarray(frames)
    depth = np.full(len(frames), -80.0) if depth is None else depth
    return Crossings((frames,), (depth,), np.full((1, 90), -80.0), np.full((1, 90), 5.0), 30, np.full(1, 5.0))


def silent(*lengths, rate=RATE, gain=0.25):
    recording = NumpyRecording([np.zeros((n, 1), np.int16) for n in lengths], sampling_frequency=rate)
    if gain is not None:
        recording.set_channel_gains(gain)
        recording.set_channel_offsets(0.0)
    return recording


@pytest.fixture(scope="module")
def world():
    """Eight contacts, 20 s, int16 of 0.25 uV; units 0 and 1 are largest on contacts 2 and 5, 100 and 40 uV in noise of 5 uV."""
    rng = np.random.default_rng(0)
    voltage = rng.normal(0, 5, (600_000, 8))
    trains = [np.sort(rng.choice(np.arange(100, 599_900, 100), n, replace=False)) + shift for n, shift in ((400, 0), (300, 40))]
    for train, contact, size in zip(trains, (2, 5), (100, 40), strict=True):
        on = size * np.exp(-np.abs(np.arange(8) - contact) / 1.0)
        for frame in train:
            voltage[frame - 30 : frame + 60] += SHAPE[:, None] * on
    recording = NumpyRecording([(voltage / 0.25).round().astype(np.int16)], sampling_frequency=RATE)
    recording.set_channel_gains(0.25)
    recording.set_channel_offsets(0.0)
    recording.set_dummy_probe_from_locations(np.stack([np.zeros(8), 25.0 * np.arange(8)], axis=1))
    recording.annotate(is_filtered=True)
    return recording, trains


# Units that a sorter found --------------------------------------------------------------------------------------------


def test_shapes_are_in_volts_on_the_best_channel(world):
    recording, trains = world
    measured = measure_sorted(NumpySorting.from_unit_dict([dict(enumerate(trains))], RATE), recording)
    assert measured.channel.tolist() == [2, 5]
    assert measured.before == 30
    # 300 or more spikes in noise of 5 uV, and now and then another unit's spike in the same window.
    np.testing.assert_allclose(measured.mean_v, 1e-6 * np.array([[100], [40]]) * SHAPE, atol=2.5e-6)
    np.testing.assert_allclose(np.median(measured.sd_v, axis=1), 5e-6, rtol=0.15)
    assert measured.mean_v.min() == pytest.approx(-100e-6, rel=0.03)


def test_metrics_are_those_of_spikeinterface(world):
    from spikeinterface import create_sorting_analyzer

    recording, trains = world
    sorting = NumpySorting.from_unit_dict([dict(enumerate(trains))], RATE)
    measured = measure_sorted(sorting, recording)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few spikes, short recording, deprecated amplitudes: all three are its own business
        analyzer = create_sorting_analyzer(sorting, recording, progress_bar=False, n_jobs=1)
        analyzer.compute(["random_spikes", "noise_levels", "templates", "spike_amplitudes"], progress_bar=False, n_jobs=1)
        names = ["num_spikes", "firing_rate", "presence_ratio", "snr", "isi_violation", "amplitude_cutoff"]
        analyzer.compute("quality_metrics", metric_names=names)
    theirs = analyzer.get_extension("quality_metrics").get_data()
    assert tuple(measured.metrics) == METRICS
    assert measured.metrics["num_spikes"].dtype.kind == "i"
    for name in METRICS:
        np.testing.assert_allclose(measured.metrics[name], theirs[name].to_numpy(float), rtol=0.03, err_msg=name)
    np.testing.assert_allclose(measured.metrics["snr"], [20, 8], rtol=0.05)


def test_the_same_voltage_by_threshold_gives_the_same_shape(world):
    recording, trains = world
    noise = noise_sd(recording)
    measured = measure_crossings(crossings(recording, 12 * noise, 0.001, noise), recording)
    row = measured.channel.tolist().index(2)
    assert measured.metrics["num_spikes"][row] == pytest.approx(len(trains[0]), abs=8)  # the two units may fall on each other
    np.testing.assert_allclose(measured.mean_v[row], 100e-6 * SHAPE, atol=5e-6)
    assert measured.metrics["snr"][row] == pytest.approx(100 / 5, rel=0.1)


def test_a_recording_without_scale_gives_no_volts(world):
    bare = NumpyRecording([np.random.default_rng(0).normal(0, 5, (90_000, 1)).astype(np.float32)], sampling_frequency=RATE)
    bare.set_dummy_probe_from_locations(np.zeros((1, 2)))
    bare.annotate(is_filtered=True)
    measured = measure_sorted(NumpySorting.from_unit_dict([{0: np.arange(100, 89_000, 300)}], RATE), bare)
    assert (measured.mean_v, measured.sd_v) == (None, None)
    assert measure_crossings(found_of([100]), silent(3000, gain=None)).mean_v is None


# Multi-unit activity --------------------------------------------------------------------------------------------------


def test_counts_rate_and_intervals_by_hand():
    frames = [1000, 1030, 5000, 9000, 9044, 9046, 20_000]  # intervals under 45 samples (1.5 ms): 30, 44 and 2
    measured = measure_crossings(found_of(frames), silent(60_000))
    got = {name: values[0] for name, values in measured.metrics.items()}
    assert (got["num_spikes"], got["firing_rate"], got["snr"]) == (7, 3.5, 16.0)
    # Hill et al. 2011: violations / (2 N t_r) over the rate
    assert got["isi_violations_ratio"] == pytest.approx(3 / (2 * 7 * 0.0015) / 3.5)
    assert np.isnan(got["presence_ratio"])
    assert np.isnan(got["amplitude_cutoff"])


def test_an_interval_across_a_gap_is_none():
    frames = [990, 1005]
    assert measure_crossings(found_of(frames), silent(2000)).metrics["isi_violations_ratio"] > 0
    assert measure_crossings(found_of(frames), silent(1000, 1000)).metrics["isi_violations_ratio"] == 0


def test_presence_is_the_share_of_minutes_with_a_spike():
    rate = 1000.0
    frames = np.array([5.0, 100.0, 110.0, 260.0]) * rate  # minutes 0, 1 and 4 of five
    measured = measure_crossings(found_of(frames.astype(int)), silent(300_000, rate=rate))
    assert measured.metrics["presence_ratio"][0] == pytest.approx(3 / 5)


def test_amplitude_cutoff_tells_a_cut_distribution_from_a_whole_one():
    depth = -np.random.default_rng(0).normal(60, 10, 4000)
    frames = np.arange(4000) * 100
    whole = measure_crossings(found_of(frames, depth), silent(420_000)).metrics["amplitude_cutoff"][0]
    cut = depth[depth < -55]
    half = measure_crossings(found_of(frames[: len(cut)], cut), silent(420_000)).metrics["amplitude_cutoff"][0]
    assert whole < 0.02
    assert half == pytest.approx(0.31, abs=0.1)  # P(z < -0.5)


def test_channels_without_a_spike_are_no_units():
    nothing = np.zeros(0, np.int64)
    depth, shape = (nothing.astype(float), np.array([-9.0])), np.full((2, 90), np.nan)
    found = Crossings((nothing, np.array([100])), depth, shape, shape, 30, np.ones(2))
    recording = NumpyRecording([np.zeros((3000, 2), np.float32)], sampling_frequency=RATE)
    measured = measure_crossings(found, recording)
    assert measured.channel.tolist() == [1]


# Curation -------------------------------------------------------------------------------------------------------------

MEASURES = {
    "num_spikes": np.array([900, 900, 40, 900]),
    "presence_ratio": np.array([np.nan, 0.95, 0.2, 0.89]),
    "snr": np.array([4.0, np.nan, 9.0, 9.0]),
    "isi_violations_ratio": np.array([0.1, 0.6, np.nan, 0.5]),
    "amplitude_cutoff": np.array([np.nan, np.nan, np.nan, 0.2]),
}


@pytest.mark.parametrize(
    ("criteria", "kept", "missed"),
    [
        ({}, [1, 1, 0, 1], {"min_num_spikes 50": 1}),
        ({"min_num_spikes": None}, [1, 1, 1, 1], {}),
        ({"min_num_spikes": 0, "max_isi_violations_ratio": 0.5}, [1, 0, 1, 1], {"max_isi_violations_ratio 0.5": 1}),
        ({"min_num_spikes": 0, "min_presence_ratio": 0.9}, [1, 1, 0, 0], {"min_presence_ratio 0.9": 2}),
        ({"min_num_spikes": 0, "min_snr": 5}, [0, 1, 1, 1], {"min_snr 5.0": 1}),
        ({"min_num_spikes": 0, "max_amplitude_cutoff": 0.1}, [1, 1, 1, 0], {"max_amplitude_cutoff 0.1": 1}),
        ({"min_snr": 5}, [0, 1, 0, 1], {"min_num_spikes 50": 1, "min_snr 5.0": 1}),
    ],
)
def test_units_must_meet_what_can_be_computed(criteria, kept, missed):
    keep, why = meets(MEASURES, Curation(**criteria))
    assert keep.tolist() == [bool(one) for one in kept]
    assert why == missed


def test_a_spike_of_a_volt_is_a_wrong_scale():
    check_volts(np.array([[np.nan, -400e-6]]))
    with pytest.raises(NwbCompactError, match=r"scale of the voltage: found a mean spike of 0.08 V, expected less than 0.01 V."):
        check_volts(np.array([[0.0, -0.08]]))


def test_units_of_several_arrays_are_put_together(assert_same):
    one, other = (measure_crossings(found_of(frames), silent(60_000)) for frames in ([100, 200], [300]))
    both = joined([one, other])
    assert [frames.tolist() for frames in both.frames] == [[100, 200], [300]]
    assert both.metrics["num_spikes"].tolist() == [2, 1]
    assert_same(both.part(np.array([False, True])), other)
