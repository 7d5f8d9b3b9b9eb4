import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from nwb_compact_conversion.clock.clock_search import Clock, Pairing, Train, evidence, find_pairings, fit, pair

TOLERANCE_S = 0.008


def train(time_s, word=None):
    return Train(np.asarray(time_s, float), np.zeros(len(time_s), int) if word is None else np.asarray(word))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 99))
def test_a_row_takes_its_nearest_mark_unless_that_is_nearer_to_another_row(row_s, mark_s, seed):
    rng = np.random.default_rng(seed)
    rows, marks = train(sorted(row_s), rng.integers(0, 2, len(row_s))), train(sorted(mark_s), rng.integers(0, 2, len(mark_s)))
    found = pair(Clock(0.0, 5.0, 1.0), rows, train(marks.time_s + 5, marks.word), 0.1)
    away = np.abs(rows.time_s[:, None] - marks.time_s)
    away[rows.word[:, None] != marks.word] = np.inf
    taken = found.mark[found.paired]
    assert len(set(taken)) == len(taken)
    for row, mark in enumerate(found.mark):
        if mark >= 0:
            assert away[row, mark] <= 0.1 + 1e-9
            assert away[row, mark] <= away[row].min() + 1e-9
            np.testing.assert_allclose(found.residual_s[row], marks.time_s[mark] - rows.time_s[row], atol=1e-9)
        else:
            assert np.isnan(found.residual_s[row])
            wanted = np.flatnonzero(away[row] <= away[row].min() + 1e-9)
            owners = [away[found.mark == mark, mark] for mark in wanted]
            taken_by_a_nearer_row = any(len(one) and one[0] <= away[row].min() + 1e-9 for one in owners)
            assert away[row].min() > 0.1 - 1e-9 or taken_by_a_nearer_row


def test_well_separated_events_are_paired_as_an_optimal_assignment_does():
    rng = np.random.default_rng(0)
    row_s = np.cumsum(rng.uniform(0.1, 0.3, 60))
    mark_s = np.sort(np.delete(row_s, [5, 20]) + rng.uniform(-0.02, 0.02, 58))
    rows, columns = linear_sum_assignment(np.minimum(np.abs(row_s[:, None] - mark_s), 1.0))
    found = pair(Clock(0.0, 0.0, 1.0), train(row_s), train(mark_s), 0.03)
    assert {*zip(rows, columns, strict=True)} == {(row, mark) for row, mark in enumerate(found.mark) if mark >= 0}
    assert found.n_unexplained == 2


def test_marks_outside_the_log_are_not_held_against_a_pairing():
    found = pair(Clock(0.0, 0.0, 1.0), train([1.0, 2.0, 3.0]), train([0.1, 1.0, 1.5, 2.0, 3.0, 9.0]), TOLERANCE_S)
    assert (found.n_marks_left, found.n_unexplained) == (1, 1)


def test_a_single_wrong_pair_hardly_moves_a_robust_fit():
    row_s = np.arange(50.0)
    mark_s = 7 + 1.0002 * row_s
    mark_s[49] += 0.4
    start = pair(Clock(0.0, 7.0, 1.0002), train(row_s), train(mark_s), 0.45)
    plain, robust = fit(train(row_s), train(mark_s), start, robust=False), fit(train(row_s), train(mark_s), start)
    expected = np.polyfit(row_s, mark_s, 1)
    np.testing.assert_allclose([plain.slope, plain(np.zeros(1))[0]], expected, rtol=1e-9)
    assert abs(robust.slope - 1.0002) < abs(plain.slope - 1.0002) / 50


def pairing(n_paired, n_rows, spread_s, seed=0):
    mark = np.where(np.arange(n_rows) < n_paired, np.arange(n_rows), -1)
    residual_s = np.where(mark >= 0, np.random.default_rng(seed).normal(0, spread_s, n_rows), np.nan)
    return Pairing(Clock(0.0, 0.0, 1.0), mark, residual_s, 0)


def test_each_row_without_a_mark_makes_a_pairing_a_hundred_times_less_likely():
    assert evidence(pairing(100, 100, 1e-3), pairing(98, 100, 1e-3)) == pytest.approx(2 * np.log(100))
    assert evidence(pairing(98, 100, 1e-3), pairing(100, 100, 1e-3)) == pytest.approx(-2 * np.log(100))


def test_residuals_decide_where_they_differ_beyond_chance():
    narrow, wide = pairing(1000, 1000, 1e-3), pairing(1000, 1000, 3e-3, seed=1)
    assert evidence(narrow, wide) == pytest.approx(1000 * np.log(3), rel=0.1)
    assert evidence(narrow, pairing(1000, 1000, 1.05e-3, seed=1)) == 0
    assert evidence(pairing(1000, 1000, 1e-9), pairing(1000, 1000, 1e-6)) == 0, "below a sample all residuals are equal"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-1e-3, 1e-3), st.floats(-1e5, 1e5), st.integers(8, 400), st.booleans())
def test_the_clock_is_found_whatever_offset_and_drift(seed, drift, offset_s, n, with_words):
    rng = np.random.default_rng(seed)
    row_s = np.cumsum(rng.uniform(0.1, 1.0, n))
    true_s = offset_s + (1 + drift) * row_s
    word = rng.integers(0, 20, n) if with_words else np.zeros(n, int)
    mark_s = np.sort(np.concatenate([true_s + rng.normal(0, 5e-4, n), rng.uniform(true_s[0] - 50, true_s[0] - 1, n)]))
    mark_word = np.zeros(2 * n, int)
    mark_word[n:] = word
    found = find_pairings(train(row_s, word), train(mark_s, mark_word), TOLERANCE_S)[0]
    assert found.paired.all()
    assert np.abs(found.clock(row_s) - true_s).max() < 2e-3


def test_shifts_that_explain_regular_events_come_back_with_the_best():
    row_s = 0.2 * np.arange(40)
    found = find_pairings(train(row_s), train(3600 + row_s), TOLERANCE_S)
    shifts = [one.clock(np.zeros(1))[0] - 3600 for one in found[:3]]
    np.testing.assert_allclose(sorted(shifts), [-0.2, 0.0, 0.2], atol=1e-6)
    assert shifts[0] == pytest.approx(0, abs=1e-6)
    assert [int(one.paired.sum()) for one in found[:3]] == [40, 39, 39]
