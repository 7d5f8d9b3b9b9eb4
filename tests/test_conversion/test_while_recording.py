"""Presentations count only while spikes were recorded, and what no session can be is refused before any sorting."""

import numpy as np
import pytest
from spikeinterface import NumpyRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Events, Presentations, Units
from nwb_compact_conversion.recorded import Recorded
from nwb_compact_conversion.session_yaml import Responses
from nwb_compact_conversion.stimulus.while_recording import recorded_s, while_recording

ALWAYS = np.array([[0.0, 100.0]])


def shown(onset_s, duration_s=0.1, is_valid=None):
    onset_s = np.asarray(onset_s, float)
    n = len(onset_s)
    valid = np.ones(n, bool) if is_valid is None else np.array(is_valid)
    return Presentations(np.arange(n, dtype=np.uint32), np.zeros(n, np.uint32), valid, onset_s, onset_s + duration_s)


def kept(presentations, observed, **responses):
    said = []
    return while_recording(presentations, np.array(observed, float), Responses(**responses), said.append).is_valid.tolist(), said


def test_the_window_must_lie_within_one_stretch():
    """At 150 ms after the onset the window ends: the edges belong to the recording."""
    onsets = [1.0, 1.85, 1.851, 3.0, 4.9]
    valid, said = kept(shown(onsets), [[1.0, 2.0], [3.0, 5.0]])
    assert valid == [True, True, False, True, False]
    assert said == ["2 of 5 presentations were not recorded to the end of their window: before, after or in a gap of the recording; "
                    "they are invalid"]


def test_a_window_before_the_onset_and_a_latency_need_more():
    assert kept(shown([1.0, 1.2]), [[1.0, 5.0]], window_s=(-0.1, 0.1))[0] == [False, True]
    assert kept(shown([1.0, 1.8]), [[0.0, 2.0]], latency="per-unit", latency_range_s=(0.05, 0.15))[0] == [True, False]


def test_what_was_invalid_stays_so_and_nothing_is_said_where_all_was_recorded():
    assert kept(shown([1.0, 2.0], is_valid=[False, True]), ALWAYS) == ([False, True], [])


@pytest.mark.parametrize(("presentations", "responses"), [
    (shown([7000.0, 7001.0]), {}),
    (shown([1.0, 2.0], is_valid=[False, False]), {}),
])
def test_no_valid_presentation_is_refused(presentations, responses):
    with pytest.raises(NwbCompactError, match=r"found no valid presentation in the recording: onsets from .* Next: check the log"):
        kept(presentations, ALWAYS, **responses)


def test_a_duration_in_milliseconds_is_refused_and_a_slow_frame_is_not():
    with pytest.raises(NwbCompactError, match=r"found 9 of 10 images that stay on \(100 s\) until after the next has come \(0.2 s\)"):
        kept(shown(np.arange(10) * 0.2, duration_s=100.0), ALWAYS)
    assert kept(shown(np.arange(10) * 0.1, duration_s=0.11), ALWAYS)[1] == []


def test_when_it_was_recorded_is_what_the_source_says_or_its_last_spike_or_event():
    spikes = (np.array([3.0, 40.0]), np.zeros(0))
    units = Units(("a", "b"), spikes)
    assert recorded_s(Recorded((), "", units=units)).tolist() == [[0.0, 41.0]]
    events = {"line": Events(np.array([2.0, 80.0]), np.array([1, 0]))}
    assert recorded_s(Recorded((), "", units=units, events=events)).tolist() == [[0.0, 81.0]]
    told = Units(("a", "b"), spikes, obs_intervals_s=np.array([[1.0, 90.0]]))
    assert recorded_s(Recorded((), "", units=told)).tolist() == [[1.0, 90.0]]
    recording = NumpyRecording([np.zeros((3000, 1))], 30_000.0)
    assert recorded_s(Recorded((), "", recording=recording, units=told)).tolist() == [[0.0, 0.1]]
    assert recorded_s(Recorded((), "", units=Units(("a",), (np.zeros(0),)))) is None
    assert recorded_s(Recorded((), "")) is None


def test_a_window_in_milliseconds_is_refused():
    with pytest.raises(ValueError, match="window_s in seconds, at most 10"):
        Responses(window_s=(50, 150))
