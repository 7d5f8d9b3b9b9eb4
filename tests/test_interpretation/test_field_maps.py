import numpy as np
import pytest

from nwb_compact.interpretation.field_maps import field_maps, sparse_noise
from nwb_compact.natural_images import natural_images
from tests.test_interpretation.students import half_student, with_readout

PIXELS_OF_A_HALF = 56 * 112
LEFT, RIGHT, INNER = slice(3, 5), slice(9, 11), slice(3, 11)
"""Places of 14, without those so near a border, or to where the halves meet, that filters reach beyond it."""


@pytest.fixture(scope="module")
def maps():
    student = half_student()
    return field_maps([student, with_readout(student, 0), with_readout(student, np.nan)], natural_images(3, seed=0))


def test_a_square_adds_in_one_half_what_it_takes_away_in_the_other(maps):
    """Its red is 90 grey levels more on 64 pixels of a mean over half of the image."""
    step = 90 * 64 / PIXELS_OF_A_HALF
    bright, dark = maps["sparse_bright"][0], maps["sparse_dark"][0]
    np.testing.assert_allclose(bright[INNER, LEFT], step, rtol=0.1)
    np.testing.assert_allclose(bright[INNER, RIGHT], -step, rtol=0.1)
    np.testing.assert_allclose(dark, -bright, rtol=0.02, atol=0.01)


def test_the_gradient_is_that_of_the_mean_of_one_colour(maps):
    expected = np.sqrt(1 / 3) / PIXELS_OF_A_HALF
    gradient = maps["gradient_map"][0]
    np.testing.assert_allclose(gradient[6:22, 6:10], expected, rtol=0.1)
    np.testing.assert_allclose(gradient[6:22, 18:22], expected, rtol=0.1)
    assert gradient[10, 13:15].max() < 0.8 * expected, "where the halves meet they cancel"


def test_units_that_answer_nothing_have_flat_maps_and_disturb_no_other(maps):
    assert (maps["gradient_map"][1] == 0).all()
    assert (maps["sparse_bright"][1] == 0).all()
    assert np.isnan(maps["sparse_bright"][2]).all()
    assert np.isfinite(maps["gradient_map"][0]).all()


def test_each_place_is_shown_once_bright_and_once_dark():
    squares = sparse_noise()[1:, :, :, 0].astype(int) - 112
    assert ((squares != 0).sum(axis=(1, 2)) == 64).all()
    assert ((squares[:196] != 0).sum(axis=0) == 1).all()
    np.testing.assert_array_equal(squares[:196], -squares[196:])
