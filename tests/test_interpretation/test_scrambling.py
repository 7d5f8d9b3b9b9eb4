import numpy as np
import pytest

from nwb_compact.interpretation.scrambling import in_aperture, scrambled, structure
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.natural_images import natural_images

IMAGES = natural_images(12, seed=4)


def at(*places):
    rows, columns = np.array(places, float).T
    return Table("", {"rf_row_px": Column("", rows), "rf_column_px": Column("", columns)})


def answers(images, units):
    """Unit 0 reads power alone, unit 1 edges that stand out, unit 2 nothing, and unit 3 is no number."""
    grey = images.mean(axis=3) / 112 - 1
    power, steps = (grey**2).mean(axis=(1, 2)), np.diff(grey, axis=2)
    peaked = (steps**4).mean(axis=(1, 2)) / (steps**2).mean(axis=(1, 2)) ** 2
    every = np.stack([power, peaked, 0 * power, np.full(len(images), np.nan)], axis=1)
    return every[:, units]


@pytest.fixture(scope="module")
def found():
    return structure(answers, at((0, 0), (8, -8), (0, 0), (0, 0)), IMAGES, seed=0)


def test_a_unit_of_power_answers_both_alike_and_one_of_edges_does_not(found):
    assert abs(found["structure_modulation"][0]) < 0.02
    assert found["structure_modulation"][1] > 0.1
    natural, noise = found["natural_answer"][:2], found["scrambled_answer"][:2]
    np.testing.assert_allclose(found["structure_modulation"][:2], (natural - noise) / (natural + noise))


def test_units_that_answer_nothing_are_nan(found):
    assert np.isnan(found["structure_modulation"][2:]).all()


def test_scrambling_keeps_power_and_what_colours_have_in_common():
    noise = scrambled(IMAGES, np.random.default_rng(0))
    np.testing.assert_allclose(noise.mean(axis=(1, 2)), IMAGES.mean(axis=(1, 2)), atol=1e-6)
    for one, other in zip(IMAGES.reshape(12, -1, 3), noise.reshape(12, -1, 3), strict=True):
        np.testing.assert_allclose(np.cov(one.T), np.cov(other.T), rtol=1e-6)


def test_what_is_shown_has_one_contrast_and_lies_at_the_field():
    shown = in_aperture(IMAGES, -20.0, 10.0).astype(float) / 112 - 1
    row, column = np.mgrid[:112, :112] - 55.5
    inside = np.hypot(row + 20, column - 10) < 29
    assert (shown[:, np.hypot(row + 20, column - 10) > 35] == 0).all()
    np.testing.assert_allclose(np.sqrt((shown[:, inside] ** 2).mean(axis=(1, 2))), 0.25, atol=0.04)
