import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwb_compact import counting
from nwb_compact.counting import count_spikes, count_spikes_after
from nwb_compact.errors import NwbCompactError

# Few values, so that spikes and edges often coincide, and any value.
TIME_S = st.one_of(st.integers(-5, 15).map(lambda tenths: tenths / 10), st.floats(-1e4, 1e4))
TIMES_S = st.lists(TIME_S, max_size=30).map(lambda times: np.array(sorted(times), float))
WINDOWS = st.lists(st.tuples(TIME_S, TIME_S), max_size=12).map(lambda pairs: np.array([sorted(pair) for pair in pairs]).reshape(-1, 2))


@pytest.fixture(params=["searched", "compiled"], scope="module")
def way(request):
    """Small problems are searched by NumPy and large ones counted by the compiled pass: here both count everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "COMPILED_FROM", 0 if request.param == "compiled" else np.inf)
        yield request.param


def one_by_one(spike_times_s, start_s, stop_s):
    return [[sum(start <= time < stop for time in times) for times in spike_times_s] for start, stop in zip(start_s, stop_s, strict=True)]


@given(spikes=st.lists(TIMES_S, max_size=4), windows=WINDOWS)
@settings(deadline=None)  # the first compiles
def test_counts_are_those_of_a_loop(way, spikes, windows):
    count = count_spikes(tuple(spikes), windows[:, 0], windows[:, 1])
    assert count.shape == (len(windows), len(spikes))
    assert count.dtype == np.uint16
    assert count.tolist() == one_by_one(spikes, windows[:, 0], windows[:, 1])


@given(spikes=st.lists(TIMES_S, min_size=1, max_size=3), gaps_s=st.lists(st.floats(0, 0.3), min_size=1, max_size=15))
@settings(deadline=None)
def test_windows_in_order_are_counted_as_a_loop_counts_them(way, spikes, gaps_s):
    """Touching where a gap is 0."""
    edges_s = np.cumsum(np.repeat(gaps_s, 2))
    assert count_spikes(tuple(spikes), edges_s[::2], edges_s[1::2]).tolist() == one_by_one(spikes, edges_s[::2], edges_s[1::2])


def test_a_spike_at_the_start_counts_and_one_at_the_stop_does_not(way):
    start_s = np.arange(1000) * 0.1
    touching = np.append(start_s[1:], 100.0)
    count = count_spikes((start_s, np.nextafter(start_s, -1)[1:]), start_s, touching)
    np.testing.assert_array_equal(count[:, 0], 1)
    np.testing.assert_array_equal(count[:-1, 1], 1)
    assert count[-1, 1] == 0


@pytest.mark.parametrize("shift_s", [0.0, 1.7e9])
def test_a_whole_session_is_counted_as_by_numpy(way, shift_s):
    """Also on a clock that counts from 1970, with onsets that jitter and touch, and spikes before, between and after them."""
    rng = np.random.default_rng(0)
    start_s = shift_s + np.cumsum(rng.uniform(0.1, 0.2, 3000))
    start_s[1000:] += 3600
    spikes = tuple(np.sort(rng.uniform(shift_s - 10, start_s[-1] + 10, n)) for n in (0, 1, 3000, 100_000))
    for length_s in (0.1, 0.25):  # the second overlap
        expected = [np.searchsorted(times, start_s + length_s) - np.searchsorted(times, start_s) for times in spikes]
        np.testing.assert_array_equal(count_spikes(spikes, start_s, start_s + length_s), np.transpose(expected))


def test_windows_far_apart_and_windows_very_short(way):
    """A clock that jumped puts all other edges into one bucket of the table; very near edges must not make it endless."""
    spikes = (np.arange(1000) * 0.01,)
    start_s = np.append(np.arange(100) * 0.1, 1e12)
    assert count_spikes(spikes, start_s, start_s + 0.1).tolist() == one_by_one(spikes, start_s, start_s + 0.1)
    assert count_spikes(spikes, np.array([0.0]), np.array([5e-324])).tolist() == [[1]]
    assert count_spikes(spikes, np.array([0.05, 0.05]), np.array([0.05, 0.05])).tolist() == [[0], [0]]


def test_counts_that_uint16_cannot_hold_are_uint32(way):
    spikes = (np.linspace(0, 1, 65_536, endpoint=False), np.linspace(0, 1, 70_000, endpoint=False))
    count = count_spikes(spikes, np.array([0.0, 0.0]), np.array([1.0, 0.5]))
    assert count.dtype == np.uint32
    assert count.tolist() == [[65_536, 70_000], [32_768, 35_000]]
    assert count_spikes(spikes[:1], np.array([0.0]), np.array([0.4])).dtype == np.uint16


@pytest.mark.parametrize(("n_units", "n_windows"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_count(way, n_units, n_windows):
    windows = np.arange(n_windows, dtype=float)
    assert count_spikes((np.array([0.5]),) * n_units, windows, windows + 1).shape == (n_windows, n_units)


def test_spikes_that_may_not_be_written_or_come_in_single_precision(way):
    times = np.array([0.0, 0.25, 0.5], np.float32)
    times.flags.writeable = False
    assert count_spikes((times, times[::2]), np.array([0.25]), np.array([0.75])).tolist() == [[2, 1]]


@pytest.mark.parametrize(("start", "stop", "found"), [
    (1.0, 0.5, "from 1.0 s to 0.5 s"), (np.nan, 1.0, "from nan s"), (0.0, np.inf, "to inf s"),
])
def test_a_window_that_is_none_is_named(start, stop, found):
    with pytest.raises(NwbCompactError, match=found) as raised:
        count_spikes((np.array([0.5]),), np.array([0.0, start]), np.array([1.0, stop]))
    assert "window 2 of 2" in str(raised.value)


def test_each_unit_may_have_a_window_of_its_own(way):
    rng = np.random.default_rng(1)
    onset_s = np.sort(rng.uniform(0, 50, 200))
    spikes = tuple(np.sort(rng.uniform(0, 51, 400)) for _ in range(5))
    opens_s, closes_s = np.array([0.05, 0.1, 0.05, 0.0, 0.05]), np.array([0.15, 0.2, 0.15, 0.3, 0.25])
    count = count_spikes_after(spikes, onset_s, opens_s, closes_s)
    for unit, times in enumerate(spikes):
        assert count[:, unit].tolist() == [sum((onset + opens_s[unit] <= times) & (times < onset + closes_s[unit])) for onset in onset_s]


def test_one_busy_unit_does_not_cost_the_others_their_counts():
    busy = np.linspace(0, 1, 70_000, endpoint=False)
    count = count_spikes_after((busy, busy[::1000], busy), np.array([0.0]), np.array([0.0, 0.0, 0.0]), np.array([1.0, 0.5, 1.0]))
    assert count.tolist() == [[70_000, 35, 70_000]]
