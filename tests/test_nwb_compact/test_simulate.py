from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session
from nwb_compact.session import kept_presentations
from nwb_compact.simulate import command, expected_counts, neurons_from_wiring, simulate_session


@pytest.fixture(scope="module")
def session():
    return simulate_session(n_units=5, n_images=120, n_repeats=8, seed=1)


def test_counts_are_the_spikes_in_each_window_counted_one_by_one(session):
    onsets = session.presentations.start_time_s
    start, stop = session.response_units.window_start_s, session.response_units.window_stop_s
    for unit, times in enumerate(session.units.spike_times_s):
        for row in range(0, len(onsets), 7):
            inside = [time for time in times if onsets[row] + start[unit] <= time < onsets[row] + stop[unit]]
            assert session.counts.count[row, unit] == len(inside)


def test_every_presentation_is_counted(session):
    np.testing.assert_array_equal(session.counts.presentation_index, np.arange(len(session.presentations)))
    assert session.counts.count.dtype == np.uint16


def test_windows_of_neighbours_never_overlap(session):
    opens = session.presentations.start_time_s + session.response_units.window_start_s[0]
    closes = session.presentations.start_time_s + session.response_units.window_stop_s[0]
    assert np.all(closes[:-1] < opens[1:])
    assert np.all(session.presentations.stop_time_s > session.presentations.start_time_s)


def test_spike_times_ascend_within_the_recording(session):
    first, last = session.units.obs_intervals_s[0]
    for times in session.units.spike_times_s:
        assert np.all(np.diff(times) > 0)
        assert first <= times[0]
        assert times[-1] <= last
        assert not np.any(np.isnan(times))


def test_neurons_fire_at_their_baseline_between_the_flashes(session):
    opens = session.presentations.start_time_s + 0.05
    _, end = session.units.obs_intervals_s[0]
    idle_s = end - 0.1 * len(opens)
    for neuron, times in zip(neurons_from_wiring(session.wiring), session.units.spike_times_s, strict=True):
        before = np.searchsorted(opens, times, side="right") - 1
        idle = np.sum((before < 0) | (times - opens[np.maximum(before, 0)] >= 0.1))
        expected = neuron.baseline / 0.1 * idle_s
        assert abs(idle - expected) < 5 * np.sqrt(expected)


def test_repeats_are_unequal_and_balanced(session):
    valid = session.presentations.is_valid
    repeats = np.bincount(session.presentations.image_index[valid], minlength=120)
    assert set(repeats) == set(range(5, 12))
    assert abs(repeats.mean() - 8) < 0.1


@pytest.mark.parametrize(("asked", "expected"), [(1, {1}), (2, {2}), (3, {2, 3, 4}), (5, {2, 3, 4, 5, 6, 7, 8})])
def test_few_repeats_stay_above_one_unless_one_is_asked_for(asked, expected):
    few = simulate_session(n_units=1, n_images=60, n_repeats=asked)
    repeats = np.bincount(few.presentations.image_index[few.presentations.is_valid], minlength=60)
    assert set(repeats) == expected


def test_the_repeat_column_counts_each_image_from_0(session):
    seen = {}
    for image, repeat in zip(session.presentations.image_index.tolist(), session.presentations.repeat.tolist(), strict=True):
        assert repeat == seen.get(image, 0)
        seen[image] = repeat + 1


def test_some_trials_are_broken_and_answer_something_else(session):
    long = simulate_session(n_units=3, n_images=200, n_repeats=30, seed=2)
    is_valid = long.presentations.is_valid
    assert 0.003 < (~is_valid).mean() < 0.03
    true_rate = expected_counts(neurons_from_wiring(long.wiring), long.images.pixels)[long.presentations.image_index]
    count = long.counts.count.astype(float)
    kept = kept_presentations(long)
    broken = np.flatnonzero(~is_valid)
    error = (count - true_rate) ** 2 / true_rate  # 1 on average where counts are Poisson with the true rate
    assert abs(error[kept].mean() - 1) < 0.03
    assert error[broken].mean() > 1.3


def test_counts_are_poisson_with_the_true_rate(session):
    """The stored wiring tells the mean and the variance of every valid count; 4.5 standard errors a unit."""
    rate = expected_counts(neurons_from_wiring(session.wiring), session.images.pixels)
    kept = kept_presentations(session)
    expected = rate[session.presentations.image_index[session.counts.presentation_index[kept]]]
    count = session.counts.count[kept]
    assert np.all(np.abs((count - expected).sum(axis=0)) < 4.5 * np.sqrt(expected.sum(axis=0)))
    fano = ((count - expected) ** 2 / expected).mean(axis=0)
    assert np.all(np.abs(fano - 1) < 0.35)


def test_same_arguments_same_session(session, assert_same):
    assert_same(simulate_session(n_units=5, n_images=120, n_repeats=8, seed=1), session)
    other = simulate_session(n_units=5, n_images=120, n_repeats=8, seed=2)
    assert other.images.sha256 != session.images.sha256
    assert other.wiring != session.wiring


def test_trials_are_short_with_pauses_between(session):
    gaps = np.diff(session.presentations.start_time_s)
    lengths = np.diff(np.concatenate([[-1], np.flatnonzero(gaps > 0.5), [len(gaps)]]))
    assert lengths.max() == 5
    np.testing.assert_allclose(gaps[gaps < 0.5], 0.2, atol=1e-9)


def test_the_session_says_it_is_a_simulation(session):
    assert session.about.identifier == "nwb-compact-simulated-units5-images120-repeats8-seed1"
    assert session.subject.subject_id == "simulated"
    assert session.subject.description.startswith("Simulated, no animal")
    assert set(session.images.kind) == {"dead leaves", "texture", "objects"}
    assert set(session.images.licence) == {"CC0-1.0"}
    assert len(set(session.images.sha256)) == len(session.images)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"n_units": 0}, "n_units: found 0, expected at least 1. Next: ask for more"),
    ({"n_images": 19}, "n_images: found 19, expected at least 20. Next: ask for more"),
    ({"n_repeats": 0}, "n_repeats: found 0, expected at least 1. Next: ask for more"),
    ({"seed": -1}, "seed: found -1, expected at least 0. Next: ask for more"),
])
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(NwbCompactError) as refused:
        simulate_session(**arguments)
    assert str(refused.value) == message


# The command --------------------------------------------------------------------------------------------------------

SMALL = ["--units", "4", "--images", "20", "--repeats", "2", "--seed", "7"]


def test_the_command_writes_what_the_function_returns(tmp_path, assert_same):
    file_path = tmp_path / "simulated.nwb"
    ran = CliRunner().invoke(command, [str(file_path), *SMALL])
    assert ran.exit_code == 0, ran.output
    session = simulate_session(n_units=4, n_images=20, n_repeats=2, seed=7)
    n_presentations = len(session.presentations)
    assert ran.output.splitlines() == [
        "making 20 images",
        "asking 4 neurons about them",
        "drawing spikes",
        f"writing {file_path}",
        f"wrote {file_path}: 4 units, 20 images, {n_presentations} presentations. Next: nwb-compact fit {file_path}",
    ]
    read = read_session(file_path)
    pixels = np.asarray(read.images.pixels[:])
    assert_same(replace(read, images=replace(read.images, pixels=pixels)), session)
    np.testing.assert_array_equal(expected_counts(neurons_from_wiring(read.wiring), pixels),
                                  expected_counts(neurons_from_wiring(session.wiring), session.images.pixels))


def test_an_existing_file_is_refused_before_the_work(tmp_path):
    file_path = tmp_path / "there.nwb"
    file_path.write_text("mine")
    ran = CliRunner().invoke(command, [str(file_path), *SMALL])
    assert isinstance(ran.exception, NwbCompactError)
    assert str(ran.exception) == f"{file_path}: found a file of this name, expected none. Next: choose another name or add --overwrite"
    assert ran.output == ""
    assert file_path.read_text() == "mine"
    assert CliRunner().invoke(command, [str(file_path), *SMALL, "--overwrite"]).exit_code == 0
    assert len(read_session(file_path).images) == 20


def test_a_missing_folder_is_refused_before_the_work(tmp_path):
    ran = CliRunner().invoke(command, [str(tmp_path / "nowhere" / "a.nwb"), *SMALL])
    assert isinstance(ran.exception, NwbCompactError)
    assert "expected an existing folder" in str(ran.exception)


@pytest.mark.parametrize(("option", "value", "message"), [
    ("--units", "0", "Invalid value for '--units': 0 is not in the range x>=1."),
    ("--images", "19", "Invalid value for '--images': 19 is not in the range x>=20."),
    ("--repeats", "0", "Invalid value for '--repeats': 0 is not in the range x>=1."),
    ("--seed", "-1", "Invalid value for '--seed': -1 is not in the range x>=0."),
])
def test_wrong_usage_exits_with_2(tmp_path, option, value, message):
    ran = CliRunner().invoke(command, [str(tmp_path / "a.nwb"), option, value])
    assert ran.exit_code == 2
    assert message in ran.output


def test_longer_simulations_ask_the_same_neurons(session):
    names = {row.unit for row in session.wiring}
    assert len(names) == 5
    shorter = simulate_session(n_units=2, n_images=20, n_repeats=1, seed=1)
    assert shorter.wiring == tuple(row for row in session.wiring if row.unit in shorter.units.name)
    assert all(one != other for one, other in pairwise(session.units.name))
