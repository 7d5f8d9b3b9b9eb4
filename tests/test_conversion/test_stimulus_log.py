import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.io import savemat

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import LogColumns, Stimuli
from nwb_compact_conversion.stimulus.stimulus_log import NO_CODE, plain, read_log, read_order

COLUMNS = LogColumns(image="stim", onset="on", offset="off", is_valid="ok", code="word")


def read(file, **told):
    return read_log(Stimuli(log=file, **{"columns": COLUMNS} | told))


def refused(file, **told):
    with pytest.raises(NwbCompactError) as caught:
        read(file, **told)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_log_is_read_in_its_units(write_log):
    log = read(write_log("stim,on,off,ok,word", "a.png,1500,1600,1,3", "7,1700.5,1801,0,65535", "b.png,1900,,TRUE,"), onset_unit="ms")
    assert log.image == ("a.png", "7", "b.png")
    np.testing.assert_array_equal(log.onset_s, [1.5, 1.7005, 1.9])
    np.testing.assert_array_equal(log.offset_s, [1.6, 1.801, np.nan])
    np.testing.assert_array_equal(log.is_valid, [True, False, True])
    np.testing.assert_array_equal(log.code, [3, 65535, NO_CODE])
    assert len(log) == 3


def test_what_the_log_does_not_have_is_absent(write_log):
    log = read_log(Stimuli(log=write_log("image,onset", "a,1", "b,2")))
    assert log.offset_s is log.code is None
    assert log.is_valid.all()


def test_microseconds_of_a_long_day_keep_their_microsecond(write_log):
    log = read_log(Stimuli(log=write_log("image,onset", "a,1700000000000001", "b,1700000000000002"), onset_unit="us"))
    np.testing.assert_allclose(np.diff(log.onset_s), 1e-6, rtol=0.3)


def test_a_matlab_log_is_the_same_as_a_text_log(tmp_path, write_log, assert_same):
    names = np.array(["a.png", "b.png", "a.png"], dtype=object)
    times = {"on": [1.0, np.nan, 2.5], "off": [1.1, 2.1, 2.6]}
    savemat(tmp_path / "log.mat", {"log": {"stim": names, "ok": [1, 1, 0], "word": [1, 2, 1]} | times})
    text = write_log("stim,on,off,ok,word", "a.png,1,1.1,1,1", "b.png,NaN,2.1,1,2", "a.png,2.5,2.6,0,1")
    assert_same(read(tmp_path / "log.mat"), read(text))


@pytest.mark.parametrize("nothing", ["", "NaN", "nan", "NA", "n/a", "None", "null"])
def test_a_row_without_an_onset_stays_and_is_not_valid(write_log, nothing):
    log = read_log(Stimuli(log=write_log("image,onset", "a,1", f"b,{nothing}", "c,2")))
    assert log.image == ("a", "b", "c")
    np.testing.assert_array_equal(log.onset_s, [1, np.nan, 2])
    np.testing.assert_array_equal(log.is_valid, [True, False, True])


def valid(write_log, values, **told):
    rows = [f"a,{row},{value}" for row, value in enumerate(values)]
    return read_log(Stimuli(log=write_log("image,onset,ok", *rows), columns=LogColumns(is_valid="ok"), **told)).is_valid.tolist()


def test_valid_is_what_the_usual_words_and_numbers_say(write_log):
    words = ["1", "true", "YES", "Correct", "1.0", "0", "0.0", "false", "No", "INCORRECT", "", "nan"]
    assert valid(write_log, words) == [True] * 5 + [False] * 7


@pytest.mark.parametrize(("values", "found"), [
    (["1", "-1", "1"], "'-1'"),  # fixation broken
    (["1", "2", "0", "3", "2"], "'2', '3'"),
    (["0.1", "0.35", "0.6", "0.85", "1.1", "1.35", "1.6"], "'0.1', '0.35', '0.6', '0.85', '1.1' and 2 more"),  # onsets, by mistake
    (["correct", "Hit"], "'Hit'"),
])
def test_values_that_may_mean_anything_are_refused_until_a_lab_says_what_they_mean(write_log, values, found):
    with pytest.raises(NwbCompactError) as caught:
        valid(write_log, values)
    said = "expected 1 or 0, true or false, yes or no, correct or incorrect. "
    said += "Next: set stimuli.valid_values to those that mean yes, or name the right column"
    assert str(caught.value).endswith(f": ok: found values that are neither yes nor no: {found}, {said}")
    yes = values[-1]
    assert valid(write_log, values, valid_values=(yes,)) == [value == yes for value in values]


def test_valid_values_may_be_those_of_the_default(write_log):
    default = Stimuli().valid_values
    assert valid(write_log, ["1", "-1", "yes"], valid_values=default) == [True, False, True]


def test_valid_is_only_what_a_lab_says_where_it_says_it(write_log):
    trial_error = ["0", "0.0", "1", "6", ""]  # of MonkeyLogic
    assert valid(write_log, trial_error, valid_values=("0",)) == [True, True, False, False, False]
    assert valid(write_log, ["Hit", "miss", "1"], valid_values=("hit",)) == [True, False, False]


def test_a_log_without_a_valid_row_is_refused(write_log):
    file = write_log("stim,on,off,ok,word", "a,1,2,0,1", "a,3,4,no,1")
    expected = "expected some of 1, true, yes, correct. Next: set stimuli.valid_values"
    assert refused(file) == f"{file}: ok: found no valid row (values: '0', 'no'), {expected}"


@pytest.mark.parametrize("onset", ["early", "0,5", "1:23", "inf", "0x1"])
def test_an_onset_that_is_no_number_is_named_with_its_row(write_log, onset):
    file = write_log("image\tonset", "a\t0.1", f"b\t{onset}")
    expected = "expected a number, in s. Next: correct that row, or name the right column"
    assert refused(file, columns=LogColumns()) == f"{file}: onset: found {onset!r} in row 2, {expected}"


def faults_of(write_log, onsets):
    return refused(write_log("image,onset", *(f"a,{onset}" for onset in onsets)), columns=LogColumns())


def test_onsets_that_do_not_rise_are_refused(write_log):
    sort = "expected onsets that rise from row to row. Next: sort the log in the order shown, one row a presentation"
    assert faults_of(write_log, [1, 2, 3, 2.5, 4]).endswith(f"onset: found an onset in row 4 that is 0.5 s before the one above it, {sort}")
    assert faults_of(write_log, [1, 2, 2, 3]).endswith(f"onset: found an onset in row 3 that is the same as the one above it, {sort}")
    assert faults_of(write_log, [3, 2, 1]).endswith(f"onset: found an onset in row 2 that is 1 s before the one above it, {sort}")
    assert "row 4 that is 1 s before" in faults_of(write_log, [1, 2, "", 1])


def test_a_clock_reset_is_told_from_rows_that_changed_places(write_log):
    message = faults_of(write_log, [*np.arange(10) / 5, "", *np.arange(10) / 5])
    split = "split the log and the recording there, and convert each part as a session"
    found = "onset: found a clock reset at row 12 (the onset falls by 1.8 s), expected onsets that rise from row to row"
    assert message.endswith(f"{found}. Next: {split}")


def test_a_log_without_any_onset_is_refused(write_log):
    assert "onset: found no onset in any row, expected onsets. Next: name the right column" in faults_of(write_log, ["", "nan"])


def test_a_log_without_times_tells_the_order(write_log):
    columns = LogColumns(image="stim", onset=None, is_valid="ok")
    order = read_order(Stimuli(log=write_log("stim;ok", "b.png;1", "7;0", "b.png;yes"), columns=columns))
    assert order.image == ("b.png", "7", "b.png")
    assert order.is_valid.tolist() == [True, False, True]
    names = Stimuli(log=write_log("image", "a", "b"), columns=LogColumns(onset=None))
    assert read_order(names).is_valid.tolist() == [True, True]
    assert refused(write_log("stim,ok", "a,1"), columns=columns) == (
        "stimuli.columns.onset: found null, expected a column of onsets: only a matrix of counts (convert counts) can do without. "
        "Next: name the column"
    )


def test_no_offset_without_an_onset():
    with pytest.raises(ValidationError, match="no offset, where there is no onset"):
        LogColumns(onset=None, offset="off")


def test_an_offset_before_its_onset_is_refused(write_log):
    file = write_log("stim,on,off,ok,word", "a,1,1.1,1,1", "b,2,,1,1", "c,3,2.9,1,1")
    found = "found an image that goes off before it comes on in row 3, expected offsets after onsets"
    assert refused(file) == f"{file}: off: {found}. Next: name the right column, or correct that row"


@pytest.mark.parametrize("word", ["1.5", "-2", "1e300"])
def test_a_code_that_is_no_word_is_refused(write_log, word):
    file = write_log("stim,on,off,ok,word", "a,1,1.1,1,1", f"b,2,2.1,1,{word}")
    assert refused(file).startswith(f"{file}: word: found {word!r} in row 2, expected a whole number from 0 on")


def test_a_missing_column_is_told_with_the_nearest(write_log):
    file = write_log("image,onset_time,off,ok,word", "a,1,2,1,1")
    expected = "expected a column 'onset' (did you mean 'onset_time'?). "
    expected += "Next: correct stimuli.columns (null where the log has no such column)"
    assert refused(file, columns=LogColumns()) == f"{file}: found columns image, onset_time, off, ok, word, {expected}"


def test_no_log_is_named():
    assert refused(None) == "stimuli.log: found nothing, expected a log. Next: name it in session.yaml"


@given(st.lists(st.floats(0, 1e6), min_size=1, unique=True))
def test_any_rising_onsets_survive_to_the_last_digit(tmp_path_factory, onsets):
    file = tmp_path_factory.getbasetemp() / "rising.csv"
    file.write_text("image,onset\n" + "\n".join(f"a,{onset!r}" for onset in sorted(onsets)))
    np.testing.assert_array_equal(read_log(Stimuli(log=file)).onset_s, sorted(onsets))


@pytest.mark.parametrize(("text", "expected"), [
    (" A.png ", "a.png"), ("5.0", "5"), ("5.", "5"), ("5.10", "5.10"), ("-3.0", "-3"), (".", "."), ("a.0", "a.0"), ("007", "007"),
])
def test_values_are_compared_plainly(text, expected):
    assert plain(text) == expected
