import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.clock.alignment import Aligned, align, pick_events
from nwb_compact_conversion.recorded import Events
from nwb_compact_conversion.session_yaml import Alignment
from nwb_compact_conversion.stimulus.stimulus_log import NO_CODE


def trials(n, seed=0, length=8):
    """Onsets as experiments have them: images 200 ms apart in trials, and an animal that takes its time between them."""
    rng = np.random.default_rng(seed)
    interval_s = np.full(n, 0.2)
    interval_s[::length] = rng.uniform(0.6, 3.0, len(interval_s[::length]))
    return np.cumsum(interval_s)


@dataclass
class World:
    """A log and a recording whose clocks are known."""

    onset_s: np.ndarray
    true_s: np.ndarray
    events: Events


def world(onset_s, *, offset_s=7200.0, drift=5e-5, jitter_s=2e-4, lost=(), extra_s=(), code=None, extra_code=9, seed=0):
    rng = np.random.default_rng(seed)
    true_s = offset_s + (1 + drift) * onset_s
    code = np.ones(len(onset_s), int) if code is None else code
    kept = np.setdiff1d(np.arange(len(onset_s)), lost)
    time_s = np.concatenate([(true_s + rng.normal(0, jitter_s, len(true_s)))[kept], np.asarray(extra_s, float)])
    words = np.concatenate([code[kept], np.full(len(extra_s), extra_code)])
    order = np.argsort(time_s, kind="stable")
    return World(onset_s, true_s, Events(time_s[order], words[order]))


def test_paired_rows_take_the_time_of_their_mark_and_others_that_of_the_line():
    made = world(trials(400), lost=(10, 200), extra_s=(7300.013,), extra_code=1)
    aligned = align(made.onset_s, None, made.events, Alignment(), "digital")
    lost = np.isnan(aligned.residual_s)
    assert np.flatnonzero(lost).tolist() == [10, 200]
    assert np.isin(aligned.onset_s[~lost], made.events.time_s).all()
    assert np.abs(aligned.onset_s - made.true_s)[lost].max() < 5e-5
    assert (aligned.n_rows, aligned.n_marks, aligned.n_paired) == (400, 399, 398)
    assert aligned.offset_s == pytest.approx(7200, abs=1e-4)
    assert aligned.drift_ppm == pytest.approx(50, abs=0.5)
    slope, offset_s = np.polyfit(made.onset_s[~lost], aligned.onset_s[~lost], 1)
    np.testing.assert_allclose(aligned.residual_s[~lost], (aligned.onset_s - offset_s - slope * made.onset_s)[~lost], atol=1e-7)
    assert aligned.residual_median_s == np.median(np.abs(aligned.residual_s[~lost]))
    assert aligned.residual_max_s == np.abs(aligned.residual_s[~lost]).max()


def test_what_was_found_is_told_in_a_line_and_in_the_record():
    residual_s = np.array([1e-4, -3e-4, 14e-4, np.nan])
    code = np.full(4, 7)
    aligned = Aligned(np.arange(4.0), residual_s, 12.34, 7200.5, 5220, 5230, 5212, "words of 'digital'", code)
    line = "5,212 of 5,220 onsets paired with words of 'digital'; drift 12.3 ppm; residual median 0.3 ms, largest 1.4 ms"
    assert aligned.line() == line
    record = {
        "alignment.marks": "5230 words of 'digital'", "alignment.paired": "5212 of 5220", "alignment.offset_s": "7200.500000",
        "alignment.drift_ppm": "12.340", "alignment.residual_median_s": "0.000300", "alignment.residual_max_s": "0.001400",
    }
    assert aligned.record() == record
    more = replace(aligned, n_outside=1093)
    assert more.line() == f"{line}; 1,093 marks before or after the log"
    assert more.record() == record | {"alignment.marks_outside_the_log": "1093"}
    assert replace(aligned, n_outside=1).line() == f"{line}; 1 mark before or after the log"


def test_marks_outside_the_log_are_counted():
    made = world(trials(182), lost=(100,), extra_s=(7100.0, 7101.5))
    aligned = align(made.onset_s[:89], None, made.events, Alignment())
    assert (aligned.n_paired, aligned.n_marks, aligned.n_outside) == (89, 183, 94)
    assert aligned.line().endswith("; 94 marks before or after the log")
    whole = world(trials(89), lost=(50,), extra_s=(7210.0,), extra_code=1)
    assert align(whole.onset_s, None, whole.events, Alignment(max_unpaired_fraction=0.05)).n_outside == 0


def test_each_row_tells_the_code_of_its_own_mark():
    code = np.random.default_rng(0).integers(1, 40, 200)
    made = world(trials(200), code=code, lost=(10,))
    aligned = align(made.onset_s, None, made.events, Alignment())
    assert np.flatnonzero(aligned.code == NO_CODE).tolist() == [10]
    np.testing.assert_array_equal(np.delete(aligned.code, 10), np.delete(code, 10))
    np.testing.assert_array_equal(align(made.onset_s, code, made.events, Alignment()).code, aligned.code)


def test_without_a_method_onsets_stay_as_they_are():
    onset_s = np.array([3.0, np.nan, 1.0])
    aligned = align(onset_s, None, None, Alignment(method="none"))
    np.testing.assert_array_equal(aligned.onset_s, onset_s)
    assert np.isnan(aligned.residual_s).all()
    assert aligned.line() == "2 onsets taken as they are: the log is on the recording's clock"
    assert aligned.record() == {"alignment": aligned.line()}
    assert np.isnan(aligned.residual_median_s)
    assert aligned.code.tolist() == [NO_CODE] * 3


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.floats(-1e-3, 1e-3), st.floats(-2e4, 2e4), st.integers(20, 600), st.booleans(), st.integers(0, 3),
    st.integers(0, 3), st.sampled_from([1e-5, 3e-4, 1.5e-3]),
)
def test_any_clock_is_found_and_never_a_wrong_one(seed, drift, offset_s, n, with_words, n_lost, n_extra, jitter_s):
    rng = np.random.default_rng(seed)
    onset_s = trials(n, seed)
    code = rng.integers(1, 40, n) if with_words else None
    span = offset_s + (1 + drift) * onset_s
    made = world(
        onset_s, offset_s=offset_s, drift=drift, jitter_s=jitter_s, lost=rng.choice(n, n_lost, replace=False), code=code,
        extra_s=rng.uniform(span[0], span[-1], n_extra), extra_code=1, seed=seed,
    )
    try:
        aligned = align(onset_s, code, made.events, Alignment(max_unpaired_fraction=0.15))
    except NwbCompactError as error:
        # A stray edge next to a row that lost its mark is taken for a late mark.
        assume("too far from the fitted clock" not in str(error) or not n_lost * n_extra)
        raise
    assert aligned.n_paired >= n - n_lost - 2 * n_extra
    assert np.abs(aligned.onset_s - made.true_s).max() < 0.009


@pytest.mark.parametrize("recorded", [slice(150, None), slice(None, 250), slice(100, 300)])
def test_a_recording_of_a_part_of_the_log_is_found_and_accepted_when_allowed(recorded):
    onset_s = trials(400)
    lost = np.setdiff1d(np.arange(400), np.arange(400)[recorded])
    made = world(onset_s, lost=lost)
    aligned = align(onset_s, None, made.events, Alignment(max_unpaired_fraction=0.6))
    assert aligned.n_paired == 400 - len(lost)
    assert np.abs(aligned.onset_s - made.true_s).max() < 2e-3
    with pytest.raises(NwbCompactError, match=r"(200|150) of 400"):
        align(onset_s, None, made.events, Alignment())


def test_a_log_of_a_part_of_the_recording_is_found():
    whole = world(trials(900), offset_s=-3600)
    aligned = align(whole.onset_s[300:600], None, whole.events, Alignment())
    assert aligned.n_paired == 300
    assert np.abs(aligned.onset_s - whole.true_s[300:600]).max() < 2e-3


def test_a_clock_that_counts_from_1970():
    made = world(1.7e9 + trials(300), offset_s=-1.7e9 * 1.00005 - 600)
    assert np.abs(align(made.onset_s, None, made.events, Alignment()).onset_s - made.true_s).max() < 2e-3


def test_with_all_intervals_alike_as_many_marks_as_rows_decide():
    made = world(0.2 * np.arange(500), jitter_s=1e-3)
    aligned = align(made.onset_s, None, made.events, Alignment())
    assert aligned.n_paired == 500
    assert np.abs(aligned.onset_s - made.true_s).max() < 6e-3


def test_with_all_intervals_alike_a_gap_is_recognised():
    made = world(0.2 * np.arange(500), jitter_s=1e-3, lost=(250,))
    aligned = align(made.onset_s, None, made.events, Alignment())
    assert np.flatnonzero(np.isnan(aligned.residual_s)).tolist() == [250]


def test_with_all_intervals_alike_words_decide():
    code = np.random.default_rng(0).integers(1, 4, 500)
    made = world(0.2 * np.arange(500), code=code, lost=(0, 1))
    assert np.abs(align(made.onset_s, code, made.events, Alignment()).onset_s - made.true_s).max() < 2e-3


def test_nearly_regular_onsets_are_placed_by_their_residuals():
    # The screen's own irregularity of half a millisecond is in the log and in the marks, which lack the first onset.
    onset_s = 0.2 * np.arange(500) + np.random.default_rng(0).normal(0, 5e-4, 500)
    made = world(onset_s, jitter_s=1e-5, lost=(0,))
    aligned = align(onset_s, None, made.events, Alignment())
    assert np.flatnonzero(np.isnan(aligned.residual_s)).tolist() == [0]


def test_rows_without_an_onset_stay_without():
    made = world(trials(200))
    onset_s = made.onset_s.copy()
    onset_s[[0, 77]] = np.nan
    aligned = align(onset_s, None, made.events, Alignment())
    assert np.flatnonzero(np.isnan(aligned.onset_s)).tolist() == [0, 77]
    assert (aligned.n_rows, aligned.n_paired) == (198, 198)


def test_rows_that_sent_no_word_are_placed_and_not_counted():
    code = np.random.default_rng(0).integers(1, 40, 200)
    made = world(trials(200), code=code, lost=np.arange(0, 200, 4))
    code[::4] = NO_CODE
    aligned = align(made.onset_s, code, made.events, Alignment())
    assert (aligned.n_rows, aligned.n_paired) == (150, 150)
    assert np.abs(aligned.onset_s - made.true_s).max() < 2e-3


# Which events are marks -----------------------------------------------------------------------------------------------


def flashes(onset_s, length_s=0.1):
    time_s = np.stack([onset_s, onset_s + length_s], 1).ravel() + 60
    return Events(time_s, np.tile([1, 0], len(onset_s)))


@pytest.mark.parametrize(("edge", "delay_s"), [("rising", 60.0), ("falling", 60.1)])
@pytest.mark.parametrize("method", ["events", "photodiode"])
def test_the_chosen_edges_of_a_line_mark_onsets(edge, delay_s, method):
    onset_s = trials(100)
    aligned = align(onset_s, None, flashes(onset_s), Alignment(edge=edge, method=method), "sync")
    np.testing.assert_allclose(aligned.onset_s, onset_s + delay_s, atol=1e-9)
    assert aligned.marks == f"{edge} edges of 'sync'"


def port(onset_s, code):
    """Each onset word is followed by a 200 when the image goes."""
    time_s = np.stack([onset_s, onset_s + 0.1], 1).ravel() + 60
    return Events(time_s, np.stack([code, np.full(len(code), 200)], 1).ravel())


def test_the_words_of_the_log_mark_onsets_and_are_compared():
    onset_s, code = trials(100), np.random.default_rng(0).integers(1, 50, 100)
    aligned = align(onset_s, code, port(onset_s, code), Alignment())
    np.testing.assert_allclose(aligned.onset_s, onset_s + 60, atol=1e-9)
    wrong = code.copy()
    wrong[40] += 1
    assert np.flatnonzero(np.isnan(align(onset_s, wrong, port(onset_s, code), Alignment()).residual_s)).tolist() == [40]


def test_codes_of_the_settings_come_first_and_are_compared_only_where_they_hold_all_of_the_logs():
    onset_s, code = trials(100), np.random.default_rng(0).integers(1, 50, 100)
    ends = align(onset_s, code, port(onset_s, code), Alignment(codes=(200,)))
    np.testing.assert_allclose(ends.onset_s, onset_s + 60.1, atol=1e-9)
    wrong = np.roll(code, 1)
    with pytest.raises(NwbCompactError, match="without a mark"):
        align(onset_s, wrong, port(onset_s, code), Alignment(codes=tuple(range(1, 50))))


def test_all_words_of_a_port_mark_onsets_where_nothing_else_is_said():
    onset_s, code = trials(100), np.random.default_rng(0).integers(1, 50, 100)
    aligned = align(onset_s, None, Events(onset_s + 60, code), Alignment())
    assert (aligned.n_marks, aligned.n_paired, aligned.marks) == (100, 100, "words")


def test_the_channel_is_the_one_named_or_the_only_one_with_events():
    line, empty = flashes(trials(3)), Events(np.zeros(0), np.zeros(0, int))
    assert pick_events({"a": empty, "b": line}, Alignment()) == ("b", line)
    assert pick_events({"a": line, "b": line}, Alignment(channel="a"))[0] == "a"


GIVE = (
    "give the marks with --events FILE.csv (sources recording and sorted), name a photodiode (alignment.method photodiode), or set "
    "alignment: {method: none} if the log's onsets are on the recording's clock"
)


@pytest.mark.parametrize(
    ("channels", "channel", "message"),
    [
        (("sync", "port"), None, "alignment: found 2 channels with events: sync (6 events), port (6 events), expected the one that marks "
         "image onsets. Next: name one as alignment.channel"),
        (("sync", "port"), "sync_",
         "alignment.channel: found 'sync_', expected one of: sync (6 events), port (6 events). Next: did you mean 'sync'?"),
        ((), None, f"alignment: found no channels with events, expected the one that marks image onsets. Next: {GIVE}"),
        ((), "sync",
         f"alignment.channel: found 'sync' in a source without events, expected the channel that marks image onsets. Next: {GIVE}"),
    ],
)
def test_a_channel_that_cannot_be_chosen_lists_those_that_are_there(channels, channel, message):
    with pytest.raises(NwbCompactError) as caught:
        pick_events(dict.fromkeys(channels, flashes(trials(3))), Alignment(channel=channel))
    assert str(caught.value) == message


# What is refused before anything is paired ------------------------------------------------------------------------------


def refused(onset_s, code, events, told=Alignment(), channel="digital"):  # noqa: B008 - frozen
    with pytest.raises(NwbCompactError) as caught:
        align(onset_s, code, events, told, channel)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_events_at_all():
    message = "events of 'digital': found none for the 20 onsets of the log, expected one for each. Next: name another channel"
    assert refused(trials(20), None, Events(np.zeros(0), np.zeros(0, int))).startswith(message)
    assert refused(trials(20), None, None).startswith(message)


def test_too_few_onsets():
    events = flashes(trials(20))
    assert refused(np.array([1.0, np.nan, 2.0]), None, events).startswith("stimulus log: found 2 onsets, expected at least 3. Next: ")


def test_events_that_go_back():
    made = world(trials(50))
    time_s = made.events.time_s.copy()
    time_s[30:] -= time_s[30]
    message = refused(made.onset_s, None, Events(time_s, made.events.code))
    assert re.match(r"events of 'digital': found 0 s after 72\d\d.\d+ s at event 31 .*expected times that never go back\. Next: ", message)


def test_a_log_whose_clock_was_reset_names_the_row():
    made = world(trials(50))
    onset_s = made.onset_s.copy()
    onset_s[20:] -= onset_s[20]
    onset_s[19] = np.nan
    assert re.match(r"stimulus log: found 0 s after \d+\.\d+ s at row 21 \(a clock was reset\?\)", refused(onset_s, None, made.events))


def test_words_that_a_line_cannot_carry():
    onset_s = trials(20)
    message = refused(onset_s, np.arange(20) % 3 + 5, flashes(onset_s))
    assert message.startswith("alignment: found words 5, 6, 7 in the log and edges of one line of 'digital', expected a port")


def test_words_that_do_not_occur():
    onset_s, code = trials(20), np.full(20, 7)
    message = refused(onset_s, code, Events(onset_s, np.full(20, 65_287)))
    found = "alignment: found no words 7 of 'digital'; there are 65287 (20 times), expected a mark for each onset. Next: name the words"
    assert message.startswith(found)
    assert "no words 3 of 'digital'" in refused(onset_s, None, port(onset_s, code), Alignment(codes=(3,)))


# Real events ------------------------------------------------------------------------------------------------------------


def test_the_edges_of_a_real_sync_line(raw_data):
    """A second pulse of an NI-DAQ board; the log is made from its rises, on a clock that is 80 ppm slow and started two hours before."""
    from neo.rawio import SpikeGLXRawIO

    reader = SpikeGLXRawIO(dirname=str(raw_data / "spikeglx" / "DigitalChannelTest_g0"), load_channel_location=False)
    reader.parse_header()
    sample, _, label = reader.get_event_timestamps(0, 0, 0)
    time_s = reader.rescale_event_timestamp(sample, "float64", 0)
    order = np.argsort(time_s, kind="stable")
    events = Events(time_s[order], np.char.endswith(label, "ON").astype(int)[order])
    assert len(events.time_s) == 326
    rises_s = events.time_s[events.code == 1]
    onset_s = 7200 + (rises_s + np.random.default_rng(0).normal(0, 5e-4, len(rises_s))) / (1 + 8e-5)
    aligned = align(onset_s, None, events, Alignment(), "XD0")
    np.testing.assert_array_equal(aligned.onset_s, rises_s)
    assert aligned.drift_ppm == pytest.approx(80, abs=3)
    assert aligned.line().startswith("163 of 163 onsets paired with rising edges of 'XD0'; drift ")
    message = refused(onset_s[:-1], None, events, channel="XD0")
    assert "two ways to pair 162 onsets with 163 rising edges of 'XD0', 1.000 s apart: 162 and 162 pairs" in message
