import numpy as np
import pytest

from nwb_compact.latency import Latencies, response_quality, unit_latencies
from nwb_compact.reliability import repeat_statistics, signal_to_noise, split_half_reliability
from nwb_compact.simulate import simulate_session

SEARCH = {"window_length_s": 0.1, "range_s": (0.01, 0.15), "step_s": 0.01, "seed": 0}


@pytest.fixture(scope="module")
def session():
    return simulate_session(n_units=6, n_images=120, n_repeats=8, seed=0)


def latencies(session, spike_times_s, **other) -> Latencies:
    shown = session.presentations
    return unit_latencies(spike_times_s, shown.start_time_s, shown.image_index, shown.is_valid, **{**SEARCH, **other})


def reliable_units(session):
    """By the counts of the session, from 50 to 150 ms."""
    shown = session.presentations
    return response_quality(session.counts.count, shown.image_index, shown.is_valid, seed=0)[0] > 0.7


def without_signal(session, n_units, seed=0):
    rng, end_s = np.random.default_rng(seed), session.presentations.start_time_s[-1] + 1
    return tuple(np.sort(rng.uniform(0, end_s, rng.poisson(20 * end_s))) for _ in range(n_units))


def test_the_window_of_simulated_neurons_is_found(session):
    """It opens at 50 ms. A window of 100 ms that opens one step off still holds nine tenths of it, so one step off is near."""
    found = latencies(session, session.units.spike_times_s)
    reliable = reliable_units(session)
    assert reliable.sum() >= 4
    assert np.abs(found.latency_s[reliable] - 0.05).max() < 0.011
    assert np.median(found.latency_s[reliable]) == 0.05
    assert set(np.array(found.reason)[reliable]) == {""}


def test_spikes_that_come_later_have_a_longer_latency(session):
    times = session.units.spike_times_s
    both = latencies(session, (*times, *(unit + 0.03 for unit in times)), range_s=(0.01, 0.12))
    early, late = both.latency_s[: len(times)], both.latency_s[len(times) :]
    reliable = reliable_units(session)
    np.testing.assert_allclose(late[reliable] - early[reliable], 0.03)


def test_units_without_a_signal_have_no_latency(session):
    """By chance 1 in 21 has."""
    found = latencies(session, without_signal(session, 40))
    silent = np.isnan(found.latency_s)
    assert silent.sum() >= 34
    reasons = {why for why, is_silent in zip(found.reason, silent, strict=True) if is_silent}
    assert all("at best" in why and "with shuffled images" in why for why in reasons)
    assert [why == "" for why in found.reason] == (~silent).tolist()


def test_a_unit_that_never_fires_has_no_latency(session):
    found = latencies(session, (np.array([]), np.array([5.0]), session.units.spike_times_s[1]))
    assert np.isnan(found.latency_s[:2]).all()
    assert np.isfinite(found.latency_s[2])
    assert found.reason == ("too few spikes to compare repeats",) * 2 + ("",)


def test_few_repeated_images_do_not_tell(session):
    """Nineteen images twice and all others once."""
    image = np.concatenate([np.arange(100), np.arange(19)])
    found = unit_latencies((np.arange(0.0, 120.0, 0.01),), np.arange(119.0), image, np.full(119, True), **SEARCH)
    assert np.isnan(found.latency_s).all()
    assert found.reason == ("19 images were shown twice or more often, 20 are needed",)


def test_without_valid_presentations_there_is_nothing_to_tell(session):
    shown = session.presentations
    found = unit_latencies(session.units.spike_times_s, shown.start_time_s, shown.image_index, np.zeros(len(shown), bool), **SEARCH)
    assert np.isnan(found.latency_s).all()
    assert set(found.reason) == {"0 images were shown twice or more often, 20 are needed"}


def test_invalid_presentations_and_images_shown_once_change_nothing(session):
    shown, times = session.presentations, session.units.spike_times_s
    rng = np.random.default_rng(0)
    junk_s = rng.uniform(0, shown.start_time_s[-1], 50)
    onset_s = np.concatenate([shown.start_time_s[shown.is_valid], junk_s])
    n_valid = int(shown.is_valid.sum())
    image = np.concatenate([shown.image_index[shown.is_valid], rng.integers(0, 120, 25), 1000 + np.arange(25)]).astype(np.uint32)
    is_valid = np.concatenate([np.full(n_valid, True), np.full(25, False), np.full(25, True)])
    found, expected = unit_latencies(times, onset_s, image, is_valid, **SEARCH), latencies(session, times)
    np.testing.assert_array_equal(found.latency_s, expected.latency_s)
    assert found.reason == expected.reason


def test_first_and_last_delay_belong_to_the_range():
    """All spikes within a hundredth of a second, so that only one window of this length holds them."""
    rng = np.random.default_rng(0)
    image, onset_s = rng.permutation(np.repeat(np.arange(60), 6)), np.arange(360.0)
    n_spikes = rng.poisson(image % 8)
    spikes = tuple(np.sort(np.repeat(onset_s, n_spikes) + rng.uniform(opens, opens + 0.01, n_spikes.sum())) for opens in (0.01, 0.08, 0.15))
    found = unit_latencies(spikes, onset_s, image, np.full(360, True), window_length_s=0.01, range_s=(0.01, 0.15), step_s=0.01, seed=0)
    np.testing.assert_allclose(found.latency_s, [0.01, 0.08, 0.15], atol=1e-12)


def test_the_same_seed_finds_the_same(session):
    again = [latencies(session, session.units.spike_times_s[:2]) for _ in range(2)]
    np.testing.assert_array_equal(again[0].latency_s, again[1].latency_s)


def test_quality_is_measured_on_valid_presentations(session):
    counts, shown = session.counts.count, session.presentations
    reliability, snr = response_quality(counts, shown.image_index, shown.is_valid, seed=3)
    count, image = counts[shown.is_valid], shown.image_index[shown.is_valid].astype(np.int64)
    np.testing.assert_array_equal(reliability, split_half_reliability(count, image, seed=3))
    np.testing.assert_array_equal(snr, signal_to_noise(repeat_statistics(count, image)))
    everything, _ = response_quality(counts, shown.image_index, np.full(len(shown), True), seed=3)
    assert (everything != reliability).any()
