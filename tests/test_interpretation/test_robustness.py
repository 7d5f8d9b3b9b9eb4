import numpy as np
import pytest

from nwb_compact.interpretation.robustness import LEVELS, changed, robustness
from nwb_compact.natural_images import natural_images

IMAGES = natural_images(20, seed=4)


def mean_level(images, units):
    return images.mean(axis=(1, 2, 3))[:, None] * np.ones(len(units))


def apply(change, level, seed=0):
    return changed(IMAGES, change, level, np.random.default_rng(seed)).astype(float)


def test_noise_has_the_sd_that_was_asked_for():
    middle = (IMAGES > 60) & (IMAGES < 190)  # elsewhere it is cut at black and white
    assert (apply("noise", 8.0) - IMAGES)[middle].std() == pytest.approx(8, rel=0.05)


def test_contrast_and_luminance_change_only_what_they_say():
    half = apply("contrast", 0.5)
    np.testing.assert_allclose(half.mean(axis=(1, 2, 3)), IMAGES.mean(axis=(1, 2, 3)), atol=0.3)  # halves round to even
    np.testing.assert_allclose(half.std(axis=(1, 2, 3)), IMAGES.std(axis=(1, 2, 3)) / 2, rtol=0.01)
    assert set(np.unique(apply("luminance", 20.0) - IMAGES)) <= set(range(21))


def test_blur_takes_fine_detail_and_keeps_the_mean():
    blurred = apply("blur", 2.0)
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.6 * np.abs(np.diff(IMAGES.astype(float), axis=1)).mean()
    np.testing.assert_allclose(blurred.mean(), IMAGES.mean(), atol=1)


@pytest.mark.parametrize("share", LEVELS["occlusion"])
def test_occlusion_covers_its_share(share):
    different = (apply("occlusion", share) != IMAGES).any(axis=3).mean(axis=(1, 2))
    assert share * 0.8 < different.mean() < share * 1.1


def test_shifts_move_by_the_distance():
    moved = apply("shift", 4.0, seed=1)
    inner = slice(10, -10)
    for image, shifted in zip(IMAGES, moved, strict=True):
        fits = [(down, right) for down in range(-4, 5) for right in range(-4, 5)
                if (np.roll(image, (-down, -right), (0, 1))[inner, inner] == shifted[inner, inner]).all()]
        assert len(fits) == 1
        assert np.hypot(*fits[0]) == pytest.approx(4, abs=0.75)


def test_scores_fall_with_what_a_unit_cares_about():
    """The mean level does not change with contrast, so nothing is lost there; it does with occluders of another grey elsewhere."""
    measured = mean_level(IMAGES, [0, 1]) + np.random.default_rng(0).normal(0, 1, (20, 2))
    found = robustness(mean_level, 2, IMAGES, measured, seed=0)
    change = found["change"]
    assert found["r2"].shape == (1 + sum(map(len, LEVELS.values())), 2)
    np.testing.assert_allclose(found["answer_r2"][change == "none"], 1)
    assert (found["answer_r2"][change == "contrast"] > 0.999).all()
    covered = found["answer_r2"][change == "occlusion"]
    assert (np.diff(np.vstack([np.ones(2), covered]), axis=0) < 0).all(), "the more is covered, the less is left"
    np.testing.assert_allclose(found["r2"][0], np.corrcoef(mean_level(IMAGES, [0])[:, 0], measured[:, 0])[0, 1] ** 2, atol=0.1)


def test_images_that_were_not_measured_and_constant_units_are_marked_and_do_not_disturb():
    def answers(images, units):
        return mean_level(images, units) * np.array([1.0, 0.0])[list(units)]

    measured = mean_level(IMAGES, [0, 1])
    measured[3] = np.nan
    found = robustness(answers, 2, IMAGES, measured, seed=0)
    assert np.isnan(found["r2"][:, 1]).all()
    assert found["r2"][0, 0] == pytest.approx(1)


def test_a_unit_that_was_never_measured_leaves_the_others_their_scores():
    measured = mean_level(IMAGES, [0, 1])
    measured[:, 1] = np.nan
    found = robustness(mean_level, 2, IMAGES, measured, seed=0)
    assert found["r2"][0, 0] == pytest.approx(1)
    assert np.isnan(found["r2"][:, 1]).all()
    assert np.isfinite(found["answer_r2"]).all()


def test_the_seed_decides():
    first, again, other = (robustness(mean_level, 1, IMAGES, mean_level(IMAGES, [0]), seed=seed)["answer_r2"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
