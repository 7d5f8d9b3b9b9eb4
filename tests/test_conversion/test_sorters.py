import shutil
import sys
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import spikeinterface.sorters
from spikeinterface import NumpyRecording, NumpySorting

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Sorting
from nwb_compact_conversion.spikes.filtering import Array
from nwb_compact_conversion.spikes.sorters import NoUnits, check_sorter, run_array, sorter_parameters, sorter_version

RATE = 30_000.0
NOTHING_DEEP = "no unit and hardly a spike deeper than 5 standard deviations"
DISK = namedtuple("DISK", "total used free")


def array_of(*lengths, n_channels=4, pitch=25.0, dtype=np.int16, spiking=()):
    """Noise of 20 steps, and on some channels a spike of 600 steps every 0.1 s."""
    rng = np.random.default_rng(0)
    pieces = [rng.normal(0, 20, (n, n_channels)).round().astype(dtype) for n in lengths]
    for piece in pieces:
        for first in range(1000, len(piece) - 10, 3000):
            piece[first : first + 8, list(spiking)] -= 600
    recording = NumpyRecording(pieces, sampling_frequency=RATE)
    recording.set_channel_gains(0.25)
    recording.set_channel_offsets(0.0)
    if pitch is not None:
        recording.set_dummy_probe_from_locations(np.stack([np.zeros(n_channels), pitch * np.arange(n_channels)], axis=1))
    return Array(None, recording, np.arange(n_channels))


@pytest.fixture
def sorter(monkeypatch):
    """A sorter that finds the trains it is told to find, and remembers what it was given."""

    class Sorter:
        def __init__(self):
            self.calls, self.trains, self.fails = [], {0: np.arange(100, 5000, 70)}, None

        def __call__(self, name, recording, **given):
            print("spoken by the sorter")
            print("spoken by the sorter", file=sys.stderr)
            self.calls.append((name, recording, given, recording.get_traces()[:10].copy()))
            if self.fails is not None:
                raise self.fails
            return NumpySorting.from_unit_dict([self.trains], RATE)

    fake = Sorter()
    monkeypatch.setattr(spikeinterface.sorters, "run_sorter", fake)
    return fake


def refused(call, *arguments, kind=None):
    with pytest.raises(NwbCompactError) as refusal:
        call(*arguments)
    assert isinstance(refusal.value, NoUnits) == (kind is NoUnits)
    return str(refusal.value)


# Parameters -----------------------------------------------------------------------------------------------------------


def test_an_unknown_parameter_is_refused_with_the_nearest():
    assert refused(check_sorter, Sorting(sorter="lupin", sorter_params={"detect_treshold": 4})) == (
        "sorting.sorter_params.detect_treshold: found no such parameter of lupin, expected one that it has. "
        "Next: did you mean 'detect_threshold'?"
    )
    assert refused(check_sorter, Sorting(sorter_params={"cleaning": {"min_snrs": 4}})) == (
        "sorting.sorter_params.cleaning.min_snrs: found no such parameter of spykingcircus2, expected one that it has. "
        "Next: did you mean 'cleaning.min_snr'?"
    )
    assert refused(check_sorter, Sorting(sorter="threshold", sorter_params={"threshold": 4})) == (
        "sorting.sorter_params.threshold: found no such parameter of threshold, expected one that it has. "
        "Next: remove it; threshold_mad and dead_time_s are settings of sorting itself"
    )
    assert "did you mean" not in refused(check_sorter, Sorting(sorter_params={"job_kwargs": {"n_jobs": 4}}))


def test_known_parameters_are_taken_and_recorded_with_all_others():
    settings = Sorting(sorter_params={"cleaning": {"min_snr": 4.5}, "seed": 7, "apply_preprocessing": True})
    check_sorter(settings)
    record = sorter_parameters(settings)
    assert (record["cleaning.min_snr"], record["cleaning.max_jitter_ms"]) == ("4.5", "0.2")
    assert (record["seed"], record["apply_preprocessing"], record["apply_whitening"]) == ("7", "True", "True")
    assert not [name for name in record if "job" in name]
    assert sorter_parameters(Sorting())["apply_preprocessing"] == "False"
    assert sorter_parameters(Sorting(sorter="threshold")) == {"threshold_mad": "4.5", "dead_time_s": "0.001"}
    assert sorter_parameters(Sorting(sorter="threshold", threshold_uv=63.75)) == {"threshold_uv": "63.75", "dead_time_s": "0.001"}


def test_versions():
    assert sorter_version(Sorting()) == spikeinterface.sorters.sorter_dict["spykingcircus2"].get_sorter_version()
    assert sorter_version(Sorting(sorter="threshold")) != ""


@pytest.mark.parametrize("name", ["spykingcircus2", "lupin", "tridesclous2"])
def test_every_parameter_of_ours_is_one_of_the_sorter(name):
    check_sorter(Sorting(sorter=name))
    assert set(sorter_parameters(Sorting(sorter=name, sorter_params={}))) >= {"seed"}


def test_kilosort_is_asked_for_where_it_is_absent(monkeypatch):
    monkeypatch.setattr(spikeinterface.sorters.sorter_dict["kilosort4"], "is_installed", classmethod(lambda cls: False))
    assert refused(check_sorter, Sorting(sorter="kilosort4")) == (
        "sorting.sorter: found kilosort4, which is not installed, expected an installed sorter. "
        "Next: pip install kilosort, or choose spykingcircus2"
    )


def test_kilosort_needs_a_dense_probe(tmp_path):
    message = refused(run_array, array_of(60_000, pitch=400.0), Sorting(sorter="kilosort4"), tmp_path, 1, print)
    assert message.startswith("kilosort4: found contacts that are 400 um apart, expected the contacts of a dense probe")
    message = refused(run_array, array_of(60_000, n_channels=1, pitch=None), Sorting(sorter="kilosort4"), tmp_path, 1, print)
    assert message.startswith("kilosort4: found a single contact")


# Running --------------------------------------------------------------------------------------------------------------


def test_a_sorter_gets_the_filtered_voltage_and_says_nothing(sorter, tmp_path, capfd):
    lines = []
    found = run_array(array_of(60_000), Sorting(sorter_params={"seed": 3}), tmp_path, 2, lines.append)
    assert [frames.tolist() for frames in found.frames] == [list(range(100, 5000, 70))]
    (name, recording, given, _), = sorter.calls
    assert (name, recording.get_dtype(), recording.get_num_channels()) == ("spykingcircus2", np.dtype("int16"), 4)
    assert (given["seed"], given["apply_preprocessing"]) == (3, False)
    assert (given["job_kwargs"]["n_jobs"], given["job_kwargs"]["pool_engine"]) == (2, "thread")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_unsigned_voltage_is_filtered_into_floats(sorter, tmp_path):
    signed = array_of(60_000)
    unsigned = NumpyRecording([(signed.recording.get_traces().astype(int) + 2**15).astype(np.uint16)], sampling_frequency=RATE)
    unsigned.set_channel_gains(0.25)
    unsigned.set_channel_offsets(-0.25 * 2**15)
    unsigned.set_dummy_probe_from_locations(signed.recording.get_channel_locations())
    one, other = (run_array(Array(None, each, signed.channel), Sorting(), tmp_path, 1, print) for each in (signed.recording, unsigned))
    assert sorter.calls[1][1].get_dtype() == np.dtype("float32")
    np.testing.assert_allclose(other.mean_v, one.mean_v, atol=3e-7)


def test_stretches_are_joined_and_spikes_at_their_seams_dropped(sorter, tmp_path):
    seams = [30_000, 55_000]
    sorter.trains = {"a": np.array([100, 29_939, 29_940, 30_060, 30_061, 55_000, 70_000]), "b": np.array([54_990, 55_010])}
    found = run_array(array_of(30_000, 25_000, 20_000), Sorting(), tmp_path, 1, print)
    assert sorter.calls[0][1].get_num_samples() == 75_000
    # 2 ms are 60 samples; unit b has nothing left.
    assert [frames.tolist() for frames in found.frames] == [[100, 29_939, 30_061, 70_000]]
    assert found.at_seams == 5
    assert all(np.abs(frames - seam).min() > 60 for frames in found.frames for seam in seams)


def test_channels_that_share_no_spikes_are_sorted_alone(sorter, tmp_path):
    array, lines = array_of(60_000, n_channels=3, pitch=400.0), []
    found = run_array(replace(array, name="V4"), Sorting(sorter="tridesclous2"), tmp_path, 1, lines.append)
    assert lines == ["array V4: contacts 400 um apart share no spikes: each of 3 channels is sorted by itself"]
    assert [recording.get_num_channels() for _, recording, _, _ in sorter.calls] == [1, 1, 1]
    assert found.channel.tolist() == [0, 1, 2]
    own = [first[:, 0] for _, _, _, first in sorter.calls]
    assert not np.array_equal(own[0], own[1])


@pytest.mark.parametrize("name", ["spykingcircus2", "lupin", "tridesclous2", "kilosort4"])
@pytest.mark.parametrize("places", [None, np.array([[0, 0], [0, 25], [0, 50], [np.nan, np.nan]])])
def test_contacts_without_positions_are_not_sorted(sorter, tmp_path, name, places):
    array = array_of(60_000, pitch=None)
    if places is not None:
        array.recording.set_dummy_probe_from_locations(places)
    assert refused(run_array, array, Sorting(sorter=name), tmp_path, 1, print) == (
        f"sorting: found no positions of 4 electrodes, expected them, since {name} must know which electrodes see the same spikes. "
        "Next: give device.geometry, or sorting.sorter: threshold"
    )
    assert sorter.calls == []


def test_a_single_contact_needs_no_position(sorter, tmp_path):
    lines = []
    assert len(run_array(array_of(60_000, n_channels=1, pitch=None), Sorting(), tmp_path, 1, lines.append).frames) == 1
    assert lines == []


def test_a_channel_without_units_is_told_and_passed_over(sorter, tmp_path, monkeypatch):
    answers = iter([ValueError("zero-size array"), None, ValueError("zero-size array")])

    def moody(name, recording, **given):
        sorter.fails = next(answers)
        return sorter(name, recording, **given)

    monkeypatch.setattr(spikeinterface.sorters, "run_sorter", moody)
    lines = []
    found = run_array(array_of(60_000, n_channels=3, pitch=400.0, spiking=[2]), Sorting(), tmp_path, 1, lines.append)
    assert found.channel.tolist() == [1]
    assert lines[1:] == [f"channel 0: {NOTHING_DEEP}; a failure (zero-size array)", "channel 2: a failure (zero-size array)"]


def test_a_failure_on_voltage_without_spikes_is_no_unit(sorter, tmp_path):
    sorter.fails = ValueError("zero-size array")
    message = refused(run_array, array_of(60_000), Sorting(), tmp_path, 1, print, kind=NoUnits)
    assert message.startswith(f"spykingcircus2: found {NOTHING_DEEP}; a failure (zero-size array), expected at least one. Next: lower its")
    assert refused(run_array, array_of(60_000, pitch=400.0), Sorting(), tmp_path, 1, print, kind=NoUnits) == message
    # Spikes on one channel of several: the sorter failed for another reason.
    refused(run_array, array_of(60_000, spiking=[3]), Sorting(), tmp_path, 1, print)
    refused(run_array, array_of(60_000, pitch=400.0, spiking=[0]), Sorting(), tmp_path, 1, print)


@pytest.mark.parametrize("name", ["spykingcircus2", "lupin", "tridesclous2"])
def test_the_sorters_themselves_find_no_unit_in_noise(name, tmp_path):
    message = refused(run_array, array_of(60_000), Sorting(sorter=name), tmp_path, 1, print, kind=NoUnits)
    assert message.startswith(f"{name}: found {NOTHING_DEEP}; a failure (")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_sorter_is_one_line(sorter, tmp_path):
    sorter.fails = RuntimeError("Spike sorting error trace:\nTraceback\n  ValueError: no peaks")
    assert refused(run_array, array_of(60_000, spiking=[0]), Sorting(), tmp_path, 1, print) == (
        "spykingcircus2: found a failure (Spike sorting error trace: Traceback ValueError: no peaks), expected units. "
        "Next: correct sorting.sorter_params, or choose another sorter"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_last_line_of_a_sorters_own_log_is_told(tmp_path):
    # A clustering method that there is not: known to no check of ours, since only the sorter knows its own methods.
    settings = Sorting(sorter_params={"detection": {"method": "by_guess"}})
    message = refused(run_array, array_of(60_000, spiking=[0]), settings, tmp_path, 1, print)
    assert message.startswith("spykingcircus2: found a failure (AssertionError: Method by_guess is not supported.")
    assert "\n" not in message


def test_no_unit_is_a_fault(sorter, tmp_path):
    sorter.trains = {}
    assert refused(run_array, array_of(60_000), Sorting(), tmp_path, 1, print, kind=NoUnits) == (
        "spykingcircus2: found no unit, expected at least one. "
        "Next: lower its detection threshold in sorting.sorter_params, look at the voltage, or try threshold"
    )
    assert "found no unit" in refused(run_array, array_of(60_000, pitch=400.0), Sorting(), tmp_path, 1, print, kind=NoUnits)


def test_too_little_space_is_told_before_writing(sorter, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: DISK(10**9, 10**9, 100_000))
    assert refused(run_array, array_of(60_000), Sorting(), tmp_path, 1, print) == (
        f"{tmp_path}: found 0.0 GB free, expected 0.0 GB for the filtered voltage. Next: free some, or name another folder with --scratch"
    )
    assert (sorter.calls, list(tmp_path.iterdir())) == ([], [])


def test_a_disk_that_fills_up_is_one_line(sorter, tmp_path, monkeypatch):
    import spikeinterface.core

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spikeinterface.core.BaseRecording, "save", full)
    message = refused(run_array, array_of(60_000), Sorting(), tmp_path, 1, print)
    assert message.startswith(f"{tmp_path / 'filtered'}: found [Errno 28] No space left on device, expected the filtered voltage.")
    assert list(tmp_path.iterdir()) == []
