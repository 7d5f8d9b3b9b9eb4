import tracemalloc
from time import sleep

import numpy as np
import pytest
from spikeinterface import NumpyRecording
from spikeinterface.generation import NoiseGeneratorRecording

from nwb_compact_conversion.session_yaml import Sorting
from nwb_compact_conversion.spikes.filtering import band_passed
from nwb_compact_conversion.spikes.threshold import AFTER_S, BEFORE_S, crossings, noise_sd

RATE = 30_000.0
SHAPE = -np.array([0.1, 0.4, 0.8, 1.0, 0.7, 0.3, -0.2, -0.3, -0.2])
"""A spike whose minimum, of depth 1, is its fourth sample."""


def recorded(*segments):
    return NumpyRecording([np.asarray(segment, np.float32) for segment in segments], sampling_frequency=RATE)


def with_spikes(voltage, at, channel, depth):
    for frame in at:
        voltage[frame - 3 : frame + 6, channel] += depth * SHAPE
    return voltage


@pytest.fixture(scope="module")
def noisy():
    """Three channels, 4 s, noise of 4, 5 and 6, with spikes of 60 on the first two."""
    rng = np.random.default_rng(0)
    voltage = rng.normal(0, [4, 5, 6], (120_000, 3))
    at = np.sort(rng.choice(np.arange(100, 119_900, 90), 300, replace=False))
    return with_spikes(with_spikes(voltage, at, 0, 60), at[::2] + 40, 1, 60), at


def found_in(recording, k=4.0, dead_time_s=0.001, **how):
    noise = noise_sd(recording)
    return crossings(recording, k * noise, dead_time_s, noise, **how)


# The noise ------------------------------------------------------------------------------------------------------------


def test_noise_is_hardly_changed_by_spikes(noisy):
    voltage, _ = noisy
    np.testing.assert_allclose(noise_sd(recorded(voltage)), [4, 5, 6], rtol=0.03)
    assert voltage[:, 0].std() > 1.3 * 4  # the plain standard deviation is


def test_noise_of_a_short_recording_is_taken_over_all_of_it():
    voltage = np.random.default_rng(1).normal(0, 3, (3001, 2)).astype(np.float32)
    expected = np.median(np.abs(voltage), axis=0) / 0.6745
    np.testing.assert_allclose(noise_sd(recorded(voltage[:1000], voltage[1000:])), expected, rtol=1e-4)


def test_noise_is_taken_from_the_whole_length_and_all_segments():
    rng = np.random.default_rng(2)
    quiet, loud = rng.normal(0, 2, (300_000, 1)), rng.normal(0, 8, (300_000, 1))
    whole = np.median(np.abs(np.concatenate([quiet, loud]))) / 0.6745
    for recording in (recorded(quiet, loud), recorded(np.concatenate([quiet, loud]))):
        np.testing.assert_allclose(noise_sd(recording), whole, rtol=0.03)


# The minima ----------------------------------------------------------------------------------------------------------


def test_known_spikes_are_found_at_their_minimum(noisy):
    voltage, at = noisy
    found = found_in(recorded(voltage), k=6.0)
    for frames, truth in ((found.frames[0], at), (found.frames[1], at[::2] + 40)):
        assert len(frames) == len(truth)
        assert np.abs(frames - truth).max() <= 1
    assert len(found.frames[2]) == 0


def test_the_same_as_spikeinterface(noisy):
    from spikeinterface.sortingcomponents.peak_detection import detect_peaks

    recording = recorded(noisy[0])
    noise = noise_sd(recording)
    theirs = detect_peaks(
        recording, method="by_channel", job_kwargs={"n_jobs": 1, "progress_bar": False},
        method_kwargs={"detect_threshold": 3.0, "exclude_sweep_ms": 1.0, "noise_levels": noise},
    )
    ours = crossings(recording, 3.0 * noise, 0.001, noise)
    assert len(theirs) > 800
    for channel, (frames, depth) in enumerate(zip(ours.frames, ours.depth, strict=True)):
        here = theirs[theirs["channel_index"] == channel]
        order = np.argsort(here["sample_index"])
        np.testing.assert_array_equal(frames, here["sample_index"][order])
        np.testing.assert_array_equal(depth, here["amplitude"][order])


def test_no_two_spikes_are_nearer_than_the_dead_time(noisy):
    recording = recorded(noisy[0])
    for dead_time_s in (0.0005, 0.001, 0.003):
        found = found_in(recording, k=2.5, dead_time_s=dead_time_s)
        assert min(np.diff(frames).min() for frames in found.frames) == round(dead_time_s * RATE) + 1


def test_the_deeper_of_two_near_minima_and_the_first_of_two_equal_ones():
    voltage = np.zeros((3000, 1))
    voltage[[100, 120], 0] = -80, -90
    voltage[[500, 520], 0] = -70
    voltage[[900, 931], 0] = -70
    found = crossings(recorded(voltage), np.array([50.0]), 0.001, np.array([1.0]))
    assert found.frames[0].tolist() == [120, 500, 900, 931]
    assert found.depth[0].tolist() == [-90, -70, -70, -70]


def test_a_channel_that_never_moves_has_no_spike():
    found = found_in(recorded(np.zeros((40_000, 2))))
    assert [len(frames) for frames in found.frames] == [0, 0]
    assert np.isnan(found.mean).all()


# Chunks, segments, threads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filter_", ["zero-phase", "causal"])
def test_where_chunks_begin_changes_nothing(noisy, filter_):
    voltage, _ = noisy
    time_s = np.arange(len(voltage)) / RATE
    slow = 5000 + 400 * np.sin(2 * np.pi * 8 * time_s) + 200 * np.sin(2 * np.pi * 60 * time_s)  # an offset and a field potential
    filtered = band_passed(recorded(voltage + slow[:, None]), Sorting(filter=filter_))
    noise = noise_sd(filtered)
    one, *others = [crossings(filtered, 3.5 * noise, 0.001, noise, chunk_s=chunk_s) for chunk_s in (10.0, 1.0, 0.0713, 0.0021)]
    assert sum(len(frames) for frames in one.frames) > 450
    for other in others:
        for ours, theirs in zip(one.frames, other.frames, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(other.mean, one.mean, atol=1e-3)
        np.testing.assert_allclose(other.sd, one.sd, atol=1e-3)


def test_threads_change_nothing(noisy, assert_same):
    recording = recorded(noisy[0])
    assert_same(found_in(recording, chunk_s=0.1, n_jobs=3), found_in(recording, chunk_s=0.1))


def test_samples_are_counted_through_segments_and_nothing_reaches_across():
    quiet = np.zeros((1000, 1))
    left, right = with_spikes(quiet.copy(), [400, 990], 0, 100), with_spikes(quiet.copy(), [8, 500], 0, 90)
    found = crossings(recorded(left, right), np.array([50.0]), 0.001, np.array([1.0]))
    # 990 and 1008 are nearer than the dead time, but in different segments.
    assert found.frames[0].tolist() == [400, 990, 1008, 1500]
    # Their shapes are cut off, so that the mean is that of the other two.
    before, after = round(BEFORE_S * RATE), round(AFTER_S * RATE)
    assert (found.before, found.mean.shape) == (before, (1, before + after))
    np.testing.assert_allclose(found.mean[0, before - 3 : before + 6], 95 * SHAPE, rtol=1e-5)
    np.testing.assert_allclose(found.sd[0, before], 5, rtol=1e-5)


def test_mean_and_deviation_of_all_spikes(noisy):
    voltage, _ = noisy
    found = found_in(recorded(voltage), chunk_s=0.05)
    at = found.frames[1][(found.frames[1] >= 30) & (found.frames[1] + 60 <= len(voltage))]
    shapes = voltage[at[:, None] + np.arange(-30, 60), 1]
    np.testing.assert_allclose(found.mean[1], shapes.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.sd[1], shapes.std(axis=0), atol=1e-4)


def test_memory_does_not_grow_with_the_recording():
    def peak(seconds):
        lazy = NoiseGeneratorRecording(128, RATE, [seconds], noise_levels=5.0, seed=0, noise_block_size=3_000)
        noise = np.full(128, 5.0)
        tracemalloc.start()
        found = crossings(lazy, 7 * noise, 0.001, noise, chunk_s=0.01)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(map(len, found.frames)) < 10
        return peak

    peak(0.5)
    # A (channel, sample) sum of each kind, kept for each of 800 chunks more, would be 147 MB.
    assert peak(10.0) - peak(2.0) < 1e6


def test_chunks_do_not_pile_up_behind_a_slow_one(noisy):
    begun = []

    class Slow(type(recorded(noisy[0]))):
        def get_traces(self, segment_index=None, start_frame=None, end_frame=None, **how):
            begun.append(start_frame)
            if start_frame == 0:
                sleep(0.3)
                begun.append("first read")
            return super().get_traces(segment_index, start_frame=start_frame, end_frame=end_frame, **how)

    slow = Slow([noisy[0].astype(np.float32)], sampling_frequency=RATE)
    crossings(slow, np.full(3, 50.0), 0.001, np.ones(3), chunk_s=0.02, n_jobs=3)
    assert len(begun) == 200 + 1
    assert begun.index("first read") <= 6
