import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spikeinterface import NumpyRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.clock import photodiode
from nwb_compact_conversion.clock.alignment import align
from nwb_compact_conversion.clock.photodiode import photodiode_edges
from nwb_compact_conversion.session_yaml import Alignment

RATE_HZ = 10_000.0


def channel(*traces, rate_hz=RATE_HZ, starts_s=None):
    return NumpyRecording([np.asarray(trace)[:, None] for trace in traces], sampling_frequency=rate_hz, t_starts=starts_s)


def ramps(edge_s, length_s, rise_s=0.002, rate_hz=RATE_HZ, dark=-1.0, light=3.0):
    """Dark at first; at each edge the level changes along a straight line that is halfway at the edge."""
    time_s = np.arange(int(length_s * rate_hz)) / rate_hz
    level = np.zeros(len(time_s))
    for k, edge in enumerate(edge_s):
        level += (-1) ** k * np.clip((time_s - edge) / rise_s + 0.5, 0, 1)
    return dark + (light - dark) * level


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.03, 0.5), min_size=2, max_size=30), st.integers(200, 5000), st.integers(0, 99))
def test_edges_are_found_to_a_fraction_of_a_sample_in_chunks_of_any_size(interval_s, chunk, seed):
    edge_s = 0.1 + np.cumsum(interval_s)
    trace = ramps(edge_s, edge_s[-1] + 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photodiode, "CHUNK_SAMPLES", chunk)
        edges = photodiode_edges(channel(trace), Alignment())
        noisy = photodiode_edges(channel(trace + np.random.default_rng(seed).normal(0, 0.1, len(trace))), Alignment())
    np.testing.assert_allclose(edges.time_s, edge_s, atol=1e-6)
    assert edges.code.tolist() == [k % 2 == 0 for k in range(len(edge_s))]
    assert noisy.code.tolist() == edges.code.tolist(), "noise makes no edge"
    np.testing.assert_allclose(noisy.time_s, edge_s, atol=5e-4)


def test_a_channel_that_begins_light_has_no_first_rise():
    edges = photodiode_edges(channel(-ramps([0.2, 0.5], 1.0)), Alignment())
    assert edges.code.tolist() == [0, 1]
    np.testing.assert_allclose(edges.time_s, [0.2, 0.5], atol=1e-6)


def test_a_screen_that_flickers_has_one_edge_a_flash():
    """A cathode-ray tube: 2 ms of light at each of six frames, four flashes."""
    frame_s, starts = 1 / 60, np.array([0.1, 0.35, 0.6, 0.85])
    pulses = (starts[:, None] + frame_s * np.arange(6)).ravel()
    edges = photodiode_edges(channel(ramps(np.stack([pulses, pulses + 0.003], 1).ravel(), 1.2)), Alignment())
    # Levels are less certain where the screen is hardly ever at one of them, here by a twelfth of the 2 ms it takes to rise.
    np.testing.assert_allclose(edges.time_s[edges.code == 1], starts, atol=2e-4)
    np.testing.assert_allclose(edges.time_s[edges.code == 0], starts + 5 * frame_s + 0.003, atol=2e-4)


@pytest.mark.parametrize(("frame_rate_hz", "n_flashes"), [(60.0, 1), (120.0, 2)])
def test_two_flashes_less_than_a_frame_apart_are_one(frame_rate_hz, n_flashes):
    edges = photodiode_edges(channel(ramps([0.1, 0.2, 0.212, 0.3], 0.5)), Alignment(frame_rate_hz=frame_rate_hz))
    assert (edges.code == 1).sum() == n_flashes


def test_rare_flashes_are_found_and_single_artefacts_are_not_a_level():
    edge_s = np.array([50.0, 50.05, 150.0, 150.05])
    trace = ramps(edge_s, 200.0) + np.random.default_rng(0).normal(0, 0.05, 2_000_000)
    trace[[400_000, 900_000]] += [300, -300]
    edges = photodiode_edges(channel(trace.astype(np.float32)), Alignment())
    flashes_s = np.setdiff1d(np.round(edges.time_s, 2), [40.0])
    np.testing.assert_allclose(flashes_s, edge_s, atol=2e-3)


def test_each_segment_is_on_the_recordings_clock_and_gaps_make_no_edge():
    edges = photodiode_edges(channel(ramps([0.2], 1.0), ramps([0.3, 0.6], 1.0), starts_s=[0.0, 7.5]), Alignment())
    np.testing.assert_allclose(edges.time_s, [0.2, 7.8, 8.1], atol=1e-6)
    assert edges.code.tolist() == [1, 1, 0]


@pytest.mark.parametrize("threshold", [None, 0.0, 2.0])
def test_the_threshold_moves_the_edge_along_the_rise(threshold):
    edges = photodiode_edges(channel(ramps([0.2, 0.5], 1.0, rise_s=0.008)), Alignment(threshold=threshold))
    later_s = 0.008 * ((1.0 if threshold is None else threshold) - 1.0) / 4
    np.testing.assert_allclose(edges.time_s, [0.2 + later_s, 0.5 - later_s], atol=1e-6)


def test_a_threshold_is_in_microvolts_where_the_channel_has_gains():
    recording = channel(np.round(1000 * ramps([0.2, 0.5], 1.0)).astype(np.int16))
    recording.set_channel_gains([2.0])
    recording.set_channel_offsets([100.0])
    edges = photodiode_edges(recording, Alignment(threshold=2100.0))
    np.testing.assert_allclose(edges.time_s, [0.2, 0.5], atol=1e-5)
    with pytest.raises(NwbCompactError) as caught:
        photodiode_edges(recording, Alignment(threshold=9000.0))
    assert str(caught.value) == (
        "alignment.threshold: found 9000, expected a level between dark (-1900) and light (6100). Next: give one in the unit of the "
        "channel, or leave it out"
    )


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        (np.zeros(5000), r"levels 0 and 0 with noise of 0"),
        (np.random.default_rng(0).normal(0, 1, 50_000), r"levels -0\.\d+ and 0\.\d+ with noise of 0\.\d+"),
        (np.sin(np.arange(50_000) * 2 * np.pi * 50 / RATE_HZ), r"levels -0\.\d+ and 0\.\d+ with noise of 0\.\d+"),
        (np.zeros(0), "no samples"),
    ],
)
def test_a_flat_channel_is_refused(trace, found):
    expected = rf"photodiode: found a flat channel \({found}\), expected a dark and a light level\. Next: name another channel"
    with pytest.raises(NwbCompactError, match=expected):
        photodiode_edges(channel(trace), Alignment())


def test_one_channel_at_a_time():
    with pytest.raises(NwbCompactError, match="photodiode: found 2 channels, expected one"):
        photodiode_edges(NumpyRecording([np.zeros((10, 2))], sampling_frequency=RATE_HZ), Alignment())


def test_a_log_is_aligned_with_a_photodiode():
    rng = np.random.default_rng(0)
    onset_s = 0.5 + np.cumsum(rng.uniform(0.25, 0.6, 200))
    edge_s = np.stack([onset_s, onset_s + 0.1], 1).ravel()
    trace = ramps(edge_s, edge_s[-1] + 0.5, rate_hz=2000.0) + rng.normal(0, 0.1, int((edge_s[-1] + 0.5) * 2000))
    told = Alignment(method="photodiode", channel="diode")
    aligned = align(onset_s * (1 - 1e-4) + 5000, None, photodiode_edges(channel(trace, rate_hz=2000.0), told), told, "diode")
    assert aligned.n_paired == 200
    assert np.abs(aligned.onset_s - onset_s).max() < 5e-4
    assert aligned.line().startswith("200 of 200 onsets paired with rising edges of 'diode'; drift 100.")
