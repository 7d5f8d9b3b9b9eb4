import numpy as np
import pytest

from nwb_compact.interpretation.receptive_field import covered, receptive_fields
from nwb_compact.natural_images import natural_images

IMAGES = natural_images(8, seed=3)


def window(row_px, column_px, sigma_px):
    """A unit that adds up the brightness of a Gaussian window."""
    place = np.arange(112) - 55.5
    weight = np.outer(np.exp(-((place - row_px) ** 2) / (2 * sigma_px**2)), np.exp(-((place - column_px) ** 2) / (2 * sigma_px**2)))
    return weight / weight.sum()


def model(*weights):
    def answers(images, units):
        grey = images.mean(axis=3)
        return np.stack([(grey * weights[unit]).sum(axis=(1, 2)) for unit in units], axis=1)

    return answers


def test_it_finds_where_a_unit_looks():
    found = receptive_fields(model(window(-20, 14, 9), window(7, 7, 9)), 2, IMAGES)
    np.testing.assert_allclose(found["rf_row_px"], [-20, 7], atol=6)
    np.testing.assert_allclose(found["rf_column_px"], [14, 7], atol=6)
    np.testing.assert_allclose(found["rf_map"].sum(axis=(1, 2)), 1)
    assert np.unravel_index(found["rf_map"][1].argmax(), (8, 8)) == (4, 4)


def test_what_a_unit_answers_everywhere_does_not_move_its_field():
    """A faint answer to all places would draw the centre of mass of the whole map to the middle."""
    found = receptive_fields(model(window(-28, 28, 8) + 0.3 * window(0, 0, 60)), 1, IMAGES)
    np.testing.assert_allclose([found["rf_row_px"][0], found["rf_column_px"][0]], [-28, 28], atol=7)
    assert found["rf_diameter_px"][0] < 50


def test_larger_windows_give_larger_fields():
    small, large = receptive_fields(model(window(0, 0, 6), window(0, 0, 16)), 2, IMAGES)["rf_diameter_px"]
    assert 10 < small < large < 90


def test_a_unit_that_sees_nothing_has_no_field_and_does_not_disturb_others():
    found = receptive_fields(model(0 * window(0, 0, 5), window(0, 0, 9)), 2, IMAGES)
    assert np.isnan(found["rf_row_px"]).tolist() == np.isnan(found["rf_diameter_px"]).tolist() == [True, False]
    assert np.isnan(found["rf_map"][0]).all()


@pytest.mark.parametrize("place", [0, 9, 63])
def test_a_cover_hides_its_place_only(place):
    images = covered(IMAGES, place)
    row, column = np.divmod(place, 8)
    different = (images != IMAGES).any(axis=(0, 3))
    inside = np.zeros((112, 112), bool)
    inside[max(14 * row - 2, 0) : 14 * row + 16, max(14 * column - 2, 0) : 14 * column + 16] = True
    assert not different[~inside].any()
    middle = images[:, 14 * row + 5 : 14 * row + 9, 14 * column + 5 : 14 * column + 9].astype(float)
    np.testing.assert_allclose(middle, np.broadcast_to(IMAGES.mean(axis=(1, 2))[:, None, None], middle.shape), atol=0.51)
