"""Every way in which a log and marks cannot be brought together, and what a person is told."""

import re

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.clock.alignment import align
from nwb_compact_conversion.recorded import Events
from nwb_compact_conversion.session_yaml import Alignment


def onsets(n=400, seed=0):
    interval_s = np.full(n, 0.2)
    interval_s[::8] = np.random.default_rng(seed).uniform(0.6, 3.0, len(interval_s[::8]))
    return np.cumsum(interval_s)


def marks(onset_s, jitter_s=3e-4, seed=0):
    return 1000 + 1.00002 * onset_s + np.random.default_rng(seed).normal(0, jitter_s, len(onset_s))


def edges(time_s):
    return Events(np.sort(time_s), np.ones(len(time_s), int))


def refused(onset_s, mark_s, **told):
    with pytest.raises(NwbCompactError) as caught:
        align(onset_s, None, edges(mark_s), Alignment(**told), "sync")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_more_rows_than_marks():
    onset_s = onsets()
    assert refused(onset_s, marks(onset_s)[:300]) == (
        "alignment: found 100 of 400 onsets without a mark among 300 rising edges of 'sync' (0 before the first mark, 100 after the last), "
        "expected a mark within 8.3 ms of 99 % of them. Next: give the log of this recording only, or raise "
        "alignment.max_unpaired_fraction if the rest was not recorded"
    )


@pytest.mark.parametrize("named", [1, 2])
def test_codes_that_name_too_few_words(named):
    onset_s = onsets()
    code = np.arange(400) % 4
    with pytest.raises(NwbCompactError) as caught:
        align(onset_s, None, Events(marks(onset_s), code), Alignment(codes=tuple(range(named))), "port")
    found = f"alignment: found {400 - 100 * named} of 400 onsets without a mark among {100 * named} words of 'port'; "
    others = ", ".join(f"{word} (100 times)" for word in range(named, 4))
    assert str(caught.value) == (
        f"{found}the channel has other words too: {others}, expected a mark within 8.3 ms of 99 % of them. Next: name all words that mark "
        "onsets in alignment.codes, or give the log of this recording only"
    )


def test_codes_that_name_all_words_of_a_part_of_the_log():
    onset_s = onsets()
    with pytest.raises(NwbCompactError, match=r"100 after the last.*Next: give the log of this recording only"):
        align(onset_s, None, Events(marks(onset_s)[:300], np.full(300, 3)), Alignment(codes=(3,)), "port")


def test_a_recording_that_began_late():
    onset_s = onsets()
    assert "(150 before the first mark, 0 after the last)" in refused(onset_s, marks(onset_s)[150:])


def test_marks_lost_here_and_there():
    onset_s = onsets()
    message = refused(onset_s, np.delete(marks(onset_s), np.arange(3, 400, 50)))
    assert message.startswith("alignment: found 8 of 400 onsets without a mark among 392 rising edges of 'sync', expected a mark within 8")
    assert "raise alignment.max_unpaired_fraction if marks were lost" in message


def test_as_many_may_be_lost_as_the_settings_say():
    onset_s = onsets()
    mark_s = np.delete(marks(onset_s), [50, 100, 150, 200])
    assert align(onset_s, None, edges(mark_s), Alignment(), "sync").n_paired == 396
    assert "5 of 400 onsets without a mark" in refused(onset_s, np.delete(mark_s, 300))


def test_a_log_of_another_session():
    message = refused(onsets(seed=1), marks(onsets(seed=2)))
    assert re.match(r"alignment: found \d+ of 400 onsets without a mark among 400 rising edges of 'sync', expected", message)
    assert message.endswith("Next: check alignment.channel, codes and edge, and that log and recording belong together")


@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_onsets_of_a_finer_unit_than_told(factor):
    log_s, marks_s = np.ptp(onsets()) * factor, np.ptp(marks(onsets()))
    assert refused(onsets() * factor, marks(onsets())) == (
        f"stimulus log: found onsets over {log_s:,.0f} s where the recording has rising edges of 'sync' over {marks_s:,.0f} s, expected "
        "the same session on both clocks. Next: check stimuli.onset_unit, and that log and recording belong together"
    )


def test_onsets_of_a_coarser_unit_than_told():
    message = refused(onsets() / 1e3, marks(onsets()))
    assert message.endswith("; onsets lie 0.001 s apart and marks 0.2 s, so check stimuli.onset_unit too")


def test_marks_that_no_row_of_the_log_explains():
    onset_s = onsets()
    stray_s = np.random.default_rng(1).uniform(1010, 1100, 40)
    message = refused(onset_s, np.concatenate([marks(onset_s), stray_s]))
    assert message.startswith(
        "alignment: found 40 of 440 rising edges of 'sync' between the first and the last onset without a row of the log, which has 400, "
        "expected at most 1 %. Next: name the words that mark onsets in alignment.codes"
    )


def test_marks_before_and_after_the_log_are_no_fault():
    onset_s = onsets()
    around_s = np.concatenate([np.arange(0, 900, 0.37), marks(onset_s), np.arange(2000, 2500, 0.41)])
    assert align(onset_s, None, edges(around_s), Alignment()).n_paired == 400


@pytest.mark.parametrize("n_marks", [1, 2, 3])
def test_hardly_any_marks(n_marks):
    assert f" of 400 onsets without a mark among {n_marks} rising edges" in refused(onsets(), 1000 + onsets()[5 : 5 + n_marks])


def test_two_pairs_make_no_clock():
    message = refused(np.array([0.0, 0.3, 0.9]), np.array([5.0, 5.9]), max_unpaired_fraction=0.9)
    assert message.startswith("alignment: found 1 of 3 onsets without a mark among 2 rising edges of 'sync', expected")


def test_onsets_that_are_all_alike():
    assert "without a mark" in refused(np.full(50, 3.0), marks(onsets(50)))


def test_words_without_a_row_are_listed():
    onset_s, code = onsets(), np.random.default_rng(0).integers(1, 5, 400)
    events = Events(np.concatenate([marks(onset_s), np.arange(2100.0, 2101, 0.01)]), np.concatenate([code, np.full(100, 4)]))
    kept = np.delete(np.arange(400), np.arange(100, 130))
    with pytest.raises(NwbCompactError, match=r"30 of 400 words between .*which has 370: words \d \(\d+ times\), ") as caught:
        align(onset_s[kept], code[kept], events, Alignment())
    listed = str(caught.value).split(": words ")[1]
    assert sum(int(count) for count in re.findall(r"\((\d+) times\)", listed)) == 30


def test_jitter_beyond_half_a_frame():
    onset_s = onsets()
    message = refused(onset_s, marks(onset_s, jitter_s=6e-3))
    assert re.match(
        r"alignment: found \d+ of 400 onsets too far from the fitted clock, row \d+ by [+-]\d+\.\d ms, expected at most 8\.3 ms "
        r"\(0\.5 video frames\)\. Next: .* raise alignment\.max_residual_frames above \d\.\d", message,
    )


def test_one_late_frame_is_named_and_can_be_allowed():
    onset_s = onsets()
    mark_s = marks(onset_s)
    mark_s[123] += 1 / 60
    assert "found 1 of 400 onsets too far from the fitted clock, row 124 by +16." in refused(onset_s, mark_s)
    aligned = align(onset_s, None, edges(mark_s), Alignment(max_residual_frames=1.1))
    assert aligned.n_paired == 400
    assert aligned.onset_s[123] == mark_s[123]
    assert align(onset_s, None, edges(mark_s), Alignment(frame_rate_hz=25)).n_paired == 400


def test_a_stray_edge_near_a_lost_one_is_no_late_frame():
    """Among 20,000 presentations with as many losses as allowed, some lie near each other by chance."""
    onset_s, rng = onsets(20_000), np.random.default_rng(0)
    mark_s = np.delete(marks(onset_s), rng.choice(20_000, 180, replace=False))
    mark_s = np.concatenate([mark_s, rng.uniform(mark_s.min(), mark_s.max(), 180)])
    assert align(onset_s, None, edges(mark_s), Alignment()).n_paired == pytest.approx(19_820, abs=5)


@pytest.mark.parametrize("row", [40, 200, 330])
@pytest.mark.parametrize("jump_s", [0.012, -0.03, 0.5, -0.13, 60.0])
def test_a_clock_that_was_set_is_named_with_its_row(row, jump_s):
    onset_s = onsets()
    mark_s = marks(onset_s)
    message = refused(np.concatenate([onset_s[:row], onset_s[row:] + jump_s]), mark_s)
    found = re.match(r"stimulus log: found a clock that jumps by ([+-]\d+\.\d+) s against the recording's at row (\d+), expected", message)
    assert found, message
    assert float(found[1]) == pytest.approx(jump_s, abs=4e-3)
    assert abs(int(found[2]) - (row + 1)) <= 1


def test_a_curved_drift_is_no_jump():
    """Crystals warm up: 8 ms off the line at the ends, smoothly."""
    onset_s = onsets()
    x = np.linspace(-1, 1, 400)
    assert align(onset_s, None, edges(marks(onset_s) + 0.008 * (x**2 - 1 / 3)), Alignment()).n_paired == 400


@pytest.mark.parametrize("lost", [[0], [499], [0, 250]])
def test_regular_onsets_with_a_mark_less_at_an_end(lost):
    onset_s = 0.2 * np.arange(500)
    n = 500 - len(lost)
    assert refused(onset_s, np.delete(marks(onset_s), lost)) == (
        f"alignment: found two ways to pair 500 onsets with {n} rising edges of 'sync', 0.200 s apart: {n} and {n} pairs, expected one "
        "that explains them better. Next: send words that differ between images and name stimuli.columns.code, or give as many marks as "
        "onsets"
    )


def test_regular_onsets_with_a_mark_more_at_the_end():
    onset_s = 0.2 * np.arange(500)
    assert "500 and 500 pairs" in refused(onset_s, marks(0.2 * np.arange(501)))


def test_a_run_that_was_shown_twice():
    onset_s = onsets(200)
    twice_s = np.concatenate([marks(onset_s), 500 + marks(onset_s, seed=1)])
    assert "two ways to pair 200 onsets with 400 rising edges" in refused(onset_s, twice_s)
