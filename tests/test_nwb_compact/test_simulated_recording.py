from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session, write_session
from nwb_compact.simulate import simulate_session
from nwb_compact.simulated_recording import simulated_recording, spikes_on_samples

RATE_HZ = 30_000


@pytest.fixture(scope="module")
def session():
    return simulate_session(n_units=3, n_images=20, n_repeats=2, seed=2)


@pytest.fixture(scope="module")
def simulated(session):
    return simulated_recording(session, n_channels=8, seed=2)


def samples(session):
    return [np.round(times * RATE_HZ).astype(int) for times in session.units.spike_times_s]


def voltage_uv(simulated, start=0, stop=None):
    return simulated.recording.get_traces(start_frame=start, end_frame=stop, return_in_uV=True)


def in_band(voltage):
    return sosfiltfilt(butter(5, (300, 6000), "bandpass", fs=RATE_HZ, output="sos"), voltage, axis=0)


def spikes_of(session, times):
    """Where these spikes are put, if a unit fired them in place of its own."""
    units = replace(session.units, spike_times_s=(times, *session.units.spike_times_s[1:]))
    return spikes_on_samples(replace(session, units=units))[0]


# Spikes ------------------------------------------------------------------------------------------------------------


def test_spikes_lie_on_samples_and_a_neuron_rests_2_ms(simulated):
    for times, sample in zip(simulated.session.units.spike_times_s, samples(simulated.session), strict=True):
        np.testing.assert_array_equal(times, sample / RATE_HZ)
        assert np.diff(sample).min() >= 60
    assert simulated.session.units.resolution_s == 1 / RATE_HZ


def test_not_one_count_changes(session, simulated):
    """Counted from the moved spikes one by one; the first session had intervals that no neuron has."""
    assert min(np.diff(times).min() for times in session.units.spike_times_s) < 0.001
    onsets = session.presentations.start_time_s
    for unit, times in enumerate(simulated.session.units.spike_times_s):
        inside = (times[:, None] >= onsets + 0.05) & (times[:, None] < onsets + 0.15)
        np.testing.assert_array_equal(inside.sum(axis=0), session.counts.count[:, unit])
        assert len(times) == len(session.units.spike_times_s[unit])


def test_intervals_are_those_of_poisson_spikes_with_a_rest(session):
    """A burst at constant rate: intervals minus the rest are exponential, whose SD is its mean."""
    onset, n_windows = session.presentations.start_time_s, len(session.presentations)
    rng = np.random.default_rng(0)
    uniform = np.sort(np.concatenate([onset[row] + rng.uniform(0.05, 0.15, 20) for row in range(n_windows)]))
    spaced = spikes_of(session, uniform)
    intervals = np.diff(spaced.reshape(n_windows, 20), axis=1).ravel() / RATE_HZ
    free = intervals - 0.002
    assert free.min() >= 0
    assert free.mean() == pytest.approx((0.1 - 20 * 0.002) / 21, rel=0.03)
    assert free.std() == pytest.approx(free.mean(), rel=0.1)


def test_an_overfull_window_has_shorter_rests_and_all_its_spikes(session):
    onset = session.presentations.start_time_s[5]
    crowd = np.sort(np.random.default_rng(1).uniform(onset + 0.05, onset + 0.15, 70))
    spaced = spikes_of(session, crowd)
    assert len(spaced) == 70
    assert np.diff(spaced).min() >= 30
    assert onset + 0.05 <= spaced[0] / RATE_HZ
    assert spaced[-1] / RATE_HZ < onset + 0.15


# Voltage -----------------------------------------------------------------------------------------------------------


def test_the_mean_voltage_at_the_true_spikes_is_the_true_spike(simulated):
    """On the unit's electrode, wide band: noise of n spikes averages out; its peak is at the spike's sample."""
    traces = voltage_uv(simulated)
    for unit, sample in enumerate(samples(simulated.session)):
        best = int(simulated.session.units.electrode_index[unit])
        inside = sample[(sample > 40) & (sample < len(traces) - 100)]
        mean = np.mean([traces[one - 30:one + 90, best] for one in inside], axis=0)
        expected = simulated.templates_uv[unit, :, best]
        assert np.argmin(mean - mean[:15].mean()) == 30
        assert np.abs(mean - mean[:15].mean() - expected)[:60].max() < 0.1 * np.abs(expected).max() + 5 * 45 / np.sqrt(len(inside))


def test_each_spike_of_a_loud_unit_is_seen_at_its_sample(simulated):
    loud = int(np.argmax(simulated.session.units.properties["snr"]))
    best, sample = int(simulated.session.units.electrode_index[loud]), samples(simulated.session)[loud]
    trace = in_band(voltage_uv(simulated)[:, best])
    deepest = np.array([trace[one - 15:one + 16].min() for one in sample if one > 15])
    where = np.array([trace[one - 15:one + 16].argmin() - 15 for one in sample if one > 15])
    assert np.mean(deepest < -4 * simulated.noise_uv[best]) > 0.98
    assert np.mean(np.abs(where) <= 2) > 0.9


def test_without_its_spikes_only_noise_is_left(simulated):
    """Robust SD in the band of what remains when every true spike is taken out again, against the noise that is told."""
    traces = voltage_uv(simulated, stop=150_000).astype(float)
    for unit, sample in enumerate(samples(simulated.session)):
        for one in sample[(sample > 30) & (sample < 149_900)]:
            traces[one - 30:one + 90] -= simulated.templates_uv[unit]
    left = in_band(traces)
    noise = np.median(np.abs(left), axis=0) / 0.6745
    np.testing.assert_allclose(noise, simulated.noise_uv, rtol=0.03)
    assert 3 < noise.mean() < 15  # microvolts, as in a good lab


def test_the_wide_band_holds_slow_waves(simulated):
    traces = voltage_uv(simulated, stop=150_000)
    assert traces.std() > 2 * in_band(traces).std()


def test_signal_to_noise_is_measured_in_the_band_on_the_best_channel(simulated):
    units = simulated.session.units
    for unit, template in enumerate(simulated.templates_uv):
        quiet = np.zeros((400, 8))
        depth = -in_band(np.concatenate([quiet, template, quiet])).min(axis=0)
        ratio = depth / simulated.noise_uv
        assert units.electrode_index[unit] == ratio.argmax()
        assert units.properties["snr"][unit] == pytest.approx(ratio.max(), rel=1e-3)
        mean_v = units.waveforms.mean_v[unit]
        np.testing.assert_allclose(mean_v, 1e-6 * template[:, ratio.argmax()], rtol=1e-6)
        assert mean_v.argmin() == round(units.waveforms.before_peak_s * units.waveforms.rate_hz)


def test_most_units_are_well_isolated_and_some_are_not():
    many = simulated_recording(simulate_session(n_units=20, n_images=20, n_repeats=1, seed=4), n_channels=32, seed=4)
    snr = np.sort(many.session.units.properties["snr"])
    assert np.all((snr[:3] > 3) & (snr[:3] < 4.01))
    assert np.all((snr[3:6] > 5) & (snr[3:6] < 8.01))
    assert np.all((snr[6:] > 7.99) & (snr[6:] < 20.01))
    well = many.session.units.properties["is_well_isolated"]
    nearest = (many.similarity - 2 * np.eye(20)).max(axis=1)
    np.testing.assert_array_equal(well, (many.session.units.properties["snr"] >= 8) & (nearest <= 0.9))
    assert well.sum() >= 10
    np.testing.assert_allclose(np.diag(many.similarity), 1)
    assert nearest.min() > 0.2  # on a probe every unit overlaps another


def test_sites_of_a_probe_share_units_and_electrodes_of_an_array_do_not():
    session = simulate_session(n_units=5, n_images=20, n_repeats=1, seed=3)
    probe = simulated_recording(session, n_channels=16, seed=3)
    array = simulated_recording(session, n_channels=16, layout="utah", seed=3)
    for one, fewest, most in ((probe, 3, 16), (array, 1, 1)):
        depth = -one.templates_uv.min(axis=1)
        seen = (depth > 0.1 * depth.max(axis=1, keepdims=True)).sum(axis=1)
        assert fewest <= seen.min()
        assert seen.max() <= most
    assert len(set(array.session.units.electrode_index.tolist())) == 5
    x, y = array.session.electrodes.rel_x_um, array.session.electrodes.rel_y_um
    assert set(np.diff(np.unique(x))) == set(np.diff(np.unique(y))) == {400.0}
    np.testing.assert_array_equal(array.recording.get_channel_locations(), np.column_stack([x, y]))
    assert array.session.electrodes.name == tuple(array.recording.channel_ids)


def test_drift_moves_spikes_along_the_probe(session):
    still, moving = (simulated_recording(session, n_channels=8, drift_um=drift, seed=2) for drift in (0.0, 60.0))
    y = still.session.electrodes.rel_y_um
    last = still.recording.get_num_samples()
    unit = int(np.argmax(still.session.units.properties["snr"]))
    sample = samples(still.session)[unit]

    def centre_um(simulated, of):
        traces = in_band(voltage_uv(simulated))
        size = np.mean([np.ptp(traces[one - 10:one + 20], axis=0) for one in sample if of[0] < one < of[1]], axis=0)
        size = np.maximum(size - np.median(size), 0) ** 2
        return np.average(y, weights=size)

    early, late = (100, 0.3 * last), (0.7 * last, last - 100)
    assert centre_um(moving, late) - centre_um(moving, early) > 15
    assert abs(centre_um(still, late) - centre_um(still, early)) < 5
    np.testing.assert_array_equal(moving.templates_uv, still.templates_uv)


def test_any_part_is_the_same_as_in_the_whole(simulated):
    """Written in pieces and read in others: nothing may depend on how it is cut."""
    whole = simulated.recording.get_traces(end_frame=90_000)
    pieces = [simulated.recording.get_traces(start_frame=start, end_frame=start + 18_000) for start in range(0, 90_000, 18_000)]
    difference = np.abs(whole.astype(int) - np.concatenate(pieces))
    assert difference.max() <= 1  # sums of floats in another order
    assert np.mean(difference > 0) < 1e-3


def test_same_arguments_same_voltage(session, simulated, assert_same):
    again = simulated_recording(session, n_channels=8, seed=2)
    np.testing.assert_array_equal(again.recording.get_traces(end_frame=60_000), simulated.recording.get_traces(end_frame=60_000))
    assert_same(again.session, simulated.session)
    other = simulated_recording(session, n_channels=8, seed=3)
    assert not np.array_equal(other.templates_uv, simulated.templates_uv)


def test_the_truth_survives_its_file(tmp_path, simulated):
    write_session(simulated.session, tmp_path / "truth.nwb")
    read, given = read_session(tmp_path / "truth.nwb"), simulated.session
    for one, other in zip(read.units.spike_times_s, given.units.spike_times_s, strict=True):
        np.testing.assert_array_equal(one, other)
    for name, values in given.units.properties.items():
        np.testing.assert_array_equal(read.units.properties[name], values, strict=True)
    np.testing.assert_array_equal(read.units.electrode_index, given.units.electrode_index)
    np.testing.assert_array_equal(read.units.waveforms.mean_v, given.units.waveforms.mean_v)
    assert read.electrodes.name == given.electrodes.name


@pytest.mark.parametrize(("layout", "n_channels", "most"), [("utah", 2, 2), ("probe", 1, 2)])
def test_more_units_than_room_are_refused(session, layout, n_channels, most):
    with pytest.raises(NwbCompactError) as refused:
        simulated_recording(session, n_channels=n_channels, layout=layout, seed=0)
    expected = f"{layout} of {n_channels} channels: found 3 units, expected at most {most}. Next: ask for fewer units or more channels"
    assert str(refused.value) == expected
