from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwb_compact.errors import NwbCompactError
from nwb_compact.responses import mean_by_image, responses_of
from nwb_compact.session import MeanResponses, Presentations, SpikeCounts, example_session


@given(rows=st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 9), min_size=2, max_size=2)), max_size=30))
def test_the_mean_by_image_is_that_of_a_loop(rows):
    image, count = np.array([i for i, _ in rows], np.int64), np.array([c for _, c in rows], np.uint16).reshape(-1, 2)
    expected = [[np.mean([c[unit] for i, c in rows if i == number]) if any(i == number for i, _ in rows) else np.nan for unit in range(2)]
                for number in range(6)]
    np.testing.assert_allclose(mean_by_image(count, image, 6), expected)


def test_the_order_of_presentations_does_not_matter():
    session = example_session()
    assert session.presentations is not None
    assert session.counts is not None
    order = np.random.default_rng(0).permutation(len(session.presentations))
    shuffled = replace(
        session,
        presentations=Presentations(session.presentations.image_index[order], session.presentations.repeat[order],
                                    session.presentations.is_valid[order]),
        counts=SpikeCounts(session.counts.presentation_index, session.counts.count[order]),
    )
    np.testing.assert_array_equal(responses_of(shuffled).mean, responses_of(session).mean)


def test_counts_of_invalid_presentations_are_not_used():
    session = example_session()
    assert session.presentations is not None
    valid = session.presentations.is_valid.copy()
    valid[:3] = False  # all repeats of image 0 and one of image 1
    responses = responses_of(replace(session, presentations=replace(session.presentations, is_valid=valid)))
    assert responses.count is not None
    assert responses.image_of_count is not None
    assert np.isnan(responses.mean[0]).all()
    assert len(responses.count) == len(responses.image_of_count) == len(valid) - 3
    np.testing.assert_array_equal(responses.mean[1:], mean_by_image(responses.count, responses.image_of_count, 24)[1:])


def test_units_are_named_after_the_column_of_the_counts():
    session = example_session()
    swapped = replace(session, response_units=replace(session.response_units, unit_index=np.array([1, 0], np.uint32)))
    assert responses_of(swapped).unit_name == ("unit-2", "unit-1")


def test_stored_averages_are_taken_as_they_are_where_there_are_no_counts():
    session = example_session()
    mean = np.random.default_rng(0).random((24, 2))
    mean[3, 1] = np.nan
    responses = responses_of(replace(session, counts=None, presentations=None, mean_responses=MeanResponses(mean)))
    np.testing.assert_array_equal(responses.mean, mean)
    assert responses.count is None
    assert responses.image_of_count is None


def test_a_session_without_responses_is_refused():
    with pytest.raises(NwbCompactError, match="example: found neither spike counts nor mean responses, expected one of them"):
        responses_of(replace(example_session(), counts=None))


def test_repeats_are_the_valid_presentations_of_each_image_or_what_the_source_says():
    session = example_session()
    dropped = np.arange(len(session.presentations)) != 0
    valid = replace(session, presentations=replace(session.presentations, is_valid=dropped))
    expected = np.bincount(session.presentations.image_index)
    expected[session.presentations.image_index[0]] -= 1
    np.testing.assert_array_equal(responses_of(valid).n_repeats, expected)
    averages = replace(session, counts=None, presentations=None, mean_responses=MeanResponses(np.ones((24, 2)), np.arange(24.0)))
    np.testing.assert_array_equal(responses_of(averages).n_repeats, np.arange(24.0))
