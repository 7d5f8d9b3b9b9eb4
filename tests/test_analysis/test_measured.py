from dataclasses import replace

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact.measured import measured_means
from nwb_compact.session import ResponseUnits


def test_counts_are_averaged_over_valid_presentations_only(make_fit):
    results, session = make_fit(3, 10)
    measured = measured_means(session, results)
    image = session.presentations.image_index[session.counts.presentation_index]
    valid = session.presentations.is_valid[session.counts.presentation_index]
    for i in range(10):
        np.testing.assert_allclose(measured[i], session.counts.count[(image == i) & valid].mean(axis=0))
    assert not valid[0]  # the oracle above would not notice if the made-up session had no invalid presentation


def test_an_image_without_a_valid_presentation_is_nan(make_fit):
    results, session = make_fit(2, 5)
    shown = replace(session.presentations, is_valid=session.presentations.image_index != 3)
    measured = measured_means(replace(session, presentations=shown), results)
    assert np.isnan(measured[3]).all()
    assert np.isfinite(np.delete(measured, 3, axis=0)).all()


def test_repeat_averages_are_taken_as_they_are_and_lined_up_with_the_runs_units(make_fit):
    results, session = make_fit(3, 6, averages_only=True)
    turned = replace(results, unit_name=results.unit_name[::-1])
    np.testing.assert_array_equal(measured_means(session, turned), session.mean_responses.mean[:, ::-1])


def test_a_unit_that_was_never_counted_is_nan(make_fit):
    """As those of other sessions are, where models of several are kept in one file."""
    results, session = make_fit(3, 6, averages_only=True)
    counted = ResponseUnits(np.array([0, 2], np.uint32), None, None)
    means = replace(session.mean_responses, mean=session.mean_responses.mean[:, [0, 2]])
    measured = measured_means(replace(session, response_units=counted, mean_responses=means), results)
    np.testing.assert_array_equal(measured[:, [0, 2]], means.mean)
    assert np.isnan(measured[:, 1]).all()


def test_a_run_on_other_images_is_refused(make_fit):
    results, session = make_fit(2, 6)
    other = replace(results, image_sha256=results.image_sha256[::-1])
    with pytest.raises(NwbCompactError) as caught:
        measured_means(session, other)
    assert str(caught.value) == (
        "image_sha256: found 6 images in run made-up-1, expected the 6 images of the session, in their order. Next: fit the file again"
    )


def test_a_run_on_other_units_is_refused(make_fit):
    results, session = make_fit(2, 6)
    with pytest.raises(NwbCompactError) as caught:
        measured_means(session, replace(results, unit_name=("unit-1", "ghost")))
    assert str(caught.value) == (
        "run made-up-1: found no 'ghost' in the file, expected a unit of the session for each of the 2 fitted. Next: fit the file again"
    )
