import numpy as np
import pytest
from scipy.signal import butter, sosfilt, sosfiltfilt
from spikeinterface import NumpyRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Sorting
from nwb_compact_conversion.spikes.filtering import (
    Array,
    arrays_of,
    band_passed,
    check_bad_channels,
    check_band,
    pitch_um,
    prepared,
    reference_of,
    without_bad_channels,
)

RATE = 30_000.0


def recorded(*segments, pitch=None):
    recording = NumpyRecording(list(segments), sampling_frequency=RATE)
    n = recording.get_num_channels()
    recording.set_channel_gains(0.25)
    recording.set_channel_offsets(0.0)
    recording.set_property("channel_name", np.array([f"chan{row + 1}" for row in range(n)]))
    if pitch is not None:
        recording.set_dummy_probe_from_locations(np.stack([np.zeros(n), pitch * np.arange(n)], axis=1))
    return recording


def whole(recording):
    return Array(None, recording, np.arange(recording.get_num_channels()))


def noise(n_channels, seconds=2.0, sd=20.0, seed=0, shared=0.0):
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    return (rng.normal(0, sd, (n, n_channels)) + rng.normal(0, shared, (n, 1))).round().astype(np.int16)


def refused(call, *arguments):
    with pytest.raises(NwbCompactError) as refusal:
        call(*arguments)
    return str(refusal.value)


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_arrays_are_told_apart_by_group_name_before_group():
    recording = recorded(noise(4))
    assert [array.name for array in arrays_of(recording)] == [None]
    recording.set_property("group", np.array([1, 0, 1, 0]))
    assert [(array.name, array.channel.tolist()) for array in arrays_of(recording)] == [("1", [0, 2]), ("0", [1, 3])]
    recording.set_property("group_name", np.array(["A", "A", "B", "B"]))
    named = arrays_of(recording)
    assert [(array.name, array.channel.tolist()) for array in named] == [("A", [0, 1]), ("B", [2, 3])]
    np.testing.assert_array_equal(named[1].recording.get_traces(), recording.get_traces()[:, 2:])


def test_pitch_is_the_usual_distance_to_the_nearest_contact():
    assert pitch_um(recorded(noise(4), pitch=400.0)) == 400
    assert pitch_um(recorded(noise(4))) == np.inf
    assert pitch_um(recorded(noise(1), pitch=20.0)) == np.inf


# The band and the reference -------------------------------------------------------------------------------------------


def test_zero_phase_and_causal_filters_are_scipys():
    voltage = noise(2, shared=50.0)
    both_ways = butter(5, [300, 6000], "bandpass", fs=RATE, output="sos")
    forward = butter(4, 250, "highpass", fs=RATE, output="sos")
    inside = slice(3000, -3000)  # away from the ends, which are padded otherwise
    passed = band_passed(recorded(voltage), Sorting()).get_traces()
    np.testing.assert_allclose(passed[inside], sosfiltfilt(both_ways, voltage, axis=0)[inside], atol=1e-4)
    settings = Sorting(filter="causal", freq_min_hz=250, freq_max_hz=None)
    passed = band_passed(recorded(voltage), settings).get_traces()
    np.testing.assert_allclose(passed[inside], sosfilt(forward, voltage, axis=0)[inside], atol=1e-4)


def test_unsigned_samples_are_the_same_voltage():
    voltage = noise(2)
    unsigned = recorded((voltage.astype(np.int32) + 2**15).astype(np.uint16))
    passed = band_passed(unsigned, Sorting()).get_traces()
    np.testing.assert_allclose(passed[500:-500], band_passed(recorded(voltage), Sorting()).get_traces()[500:-500], atol=0.05)


def test_a_stretch_of_a_few_samples_can_be_filtered():
    passed = band_passed(recorded(noise(2), noise(2)[:5], noise(2)[:1]), Sorting())
    assert [passed.get_traces(segment).shape for segment in range(3)] == [(60_000, 2), (5, 2), (1, 2)]


def test_the_band_must_be_in_the_recording():
    recording = NumpyRecording([np.zeros((2000, 1))], sampling_frequency=1000.0)
    assert refused(check_band, recording, Sorting()) == (
        "sorting: the band: found 6000 Hz, in a recording of 1000 samples a second, expected less than half the sampling rate. "
        "Next: lower sorting.freq_max_hz, or convert the file with the higher sampling rate; field potentials hold no spikes"
    )
    check_band(recording, Sorting(freq_min_hz=100, freq_max_hz=400))
    check_band(recorded(noise(1)), Sorting(freq_max_hz=None))


def test_a_reference_is_subtracted_where_it_can_be_told_from_spikes():
    few, many = whole(recorded(noise(8))), whole(recorded(noise(32)))
    assert [reference_of(array, Sorting()) for array in (few, many)] == ["none", "median"]
    assert reference_of(many, Sorting(sorter="threshold")) == "none"
    assert reference_of(few, Sorting(sorter="threshold", common_reference="average")) == "average"
    told = Sorting(common_reference="median")
    passed = band_passed(few.recording, told).get_traces()
    expected = passed - np.median(passed, axis=1, keepdims=True)
    np.testing.assert_allclose(prepared(few, told).get_traces(), expected, atol=1e-4)


# Bad channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pitch", [20.0, 400.0])
def test_a_dead_and_a_noisy_channel_are_found_on_a_probe(pitch):
    voltage = noise(24, shared=15.0, sd=8.0)
    rng = np.random.default_rng(5)
    voltage[:, 7] = rng.normal(0, 0.6, len(voltage)).round()
    voltage[:, 15] += rng.normal(0, 900, len(voltage)).round().astype(np.int16)
    good, bad = without_bad_channels(whole(recorded(voltage, pitch=pitch)), Sorting())
    assert bad == ("chan8", "chan16")
    assert good.channel.tolist() == [row for row in range(24) if row not in (7, 15)]
    assert good.recording.get_num_channels() == 22


def test_good_channels_of_an_array_without_geometry_stay():
    _, bad = without_bad_channels(whole(recorded(noise(16, shared=15.0))), Sorting())
    assert bad == ()


def test_few_channels_are_compared_by_their_deviation():
    voltage = noise(6)
    voltage[:, 2] *= 8
    _, bad = without_bad_channels(whole(recorded(voltage)), Sorting())
    assert bad == ("chan3",)


@pytest.mark.parametrize("level", [0, 17, -30_000])
def test_a_channel_that_never_moves_is_bad(level):
    """Whatever rounding errors the filter leaves of it; one that moves by a step of the converter far from zero is good."""
    voltage = noise(6)
    voltage[:, 4] = level
    voltage[:, 1] = 30_000 + noise(1, sd=2.0)[:, 0]
    _, bad = without_bad_channels(whole(recorded(voltage)), Sorting())
    assert bad == ("chan5",)


def test_unsigned_and_short_and_many_stretches_are_searched_too():
    voltage = noise(6)
    voltage[:, 2] *= 8
    unsigned = (voltage.astype(np.int32) + 2**15).astype(np.uint16)
    assert without_bad_channels(whole(recorded(unsigned)), Sorting())[1] == ("chan3",)
    assert without_bad_channels(whole(recorded(voltage[:10_000], voltage[:50], voltage)), Sorting())[1] == ("chan3",)
    # Too short to compare channels; one that never moves is seen still.
    voltage[:, 4] = 0
    assert without_bad_channels(whole(recorded(voltage[:3000])), Sorting())[1] == ("chan5",)


def test_channels_that_a_person_names_are_bad_and_no_others():
    voltage = noise(6)
    voltage[:, 2] *= 8
    recording = recorded(voltage)
    good, bad = without_bad_channels(whole(recording), Sorting(bad_channels=("chan1",)))
    assert (bad, good.channel.tolist()) == (("chan1",), [1, 2, 3, 4, 5])
    assert without_bad_channels(whole(recording), Sorting(bad_channels=()))[1] == ()


def test_a_bad_channel_that_is_not_there_is_refused():
    assert refused(check_bad_channels, recorded(noise(3)), Sorting(bad_channels=("chan2", "chann3"))) == (
        "sorting.bad_channels: found no channel 'chann3', expected names of channels of the recording. "
        "Next: correct the name; did you mean 'chan3'?"
    )


def test_when_most_channels_seem_bad_nothing_is_sorted():
    voltage = noise(6)
    voltage[:, :4] = 0
    array = Array("V4", recorded(voltage), np.arange(6))
    assert refused(without_bad_channels, array, Sorting()) == (
        "bad channels of V4: found 4 of 6 channels, expected most channels to be good. "
        "Next: name the bad ones in sorting.bad_channels ([] for none), or look at the voltage"
    )
    names = tuple(f"chan{row + 1}" for row in range(6))
    assert refused(without_bad_channels, array, Sorting(bad_channels=names)).startswith("bad channels of V4: found 6 of 6 channels")
    assert without_bad_channels(array, Sorting(bad_channels=names[:5]))[1] == names[:5]
