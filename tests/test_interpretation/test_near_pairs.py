import numpy as np
import pytest

from nwb_compact.interpretation.near_pairs import near_pairs

N_SCENES, N_VIEWS = 12, 4


@pytest.fixture(scope="module")
def scenes():
    """Twelve scenes, each seen four times with small differences, and what is measured: the scene's part and a part of the view."""
    rng = np.random.default_rng(0)
    scene = np.repeat(rng.integers(60, 190, (N_SCENES, 14, 14, 3)), 8, axis=1).repeat(8, axis=2)
    views = scene[:, None] + np.repeat(rng.normal(0, 3, (N_SCENES, N_VIEWS, 14, 14, 3)), 8, axis=2).repeat(8, axis=3)
    of_scene, of_view = rng.normal(0, 5, (N_SCENES, 1)), rng.normal(0, 1, (N_SCENES, N_VIEWS))
    images = views.reshape(-1, 112, 112, 3).clip(0, 255).astype(np.uint8)
    return images, (of_scene + of_view).reshape(-1), np.broadcast_to(of_scene, of_view.shape).reshape(-1)


def test_a_model_of_scenes_alone_cannot_tell_views_apart(scenes):
    images, measured, coarse = scenes
    rng = np.random.default_rng(1)
    predicted = np.stack([measured, coarse + 0.01 * rng.normal(size=48)], axis=1)
    found = near_pairs(predicted, np.stack([measured] * 2, axis=1), images, seed=0, n=N_SCENES * 6)
    np.testing.assert_allclose(found["near_r2"][0], 1)
    np.testing.assert_allclose(found["any_r2"][0], 1)
    assert found["near_r2"][1] < 0.15
    assert found["any_r2"][1] > 0.9
    assert found["near_step"][0] < 0.2


def test_the_nearest_pairs_are_views_of_one_scene(scenes):
    """Only within a scene is this unit predicted; all others it gets wrong."""
    images, measured, coarse = scenes
    within = measured - coarse
    found = near_pairs((within - coarse)[:, None], measured[:, None], images, seed=0, n=N_SCENES * 6)
    assert found["near_r2"][0] == pytest.approx(1)
    assert found["any_r2"][0] < 0.9


def test_what_was_not_measured_is_left_out_and_constants_are_nan(scenes):
    images, measured, _ = scenes
    known = np.where(np.arange(48) < 2, measured, np.nan)
    predicted = np.stack([measured, measured, 0 * measured], axis=1)
    wanted = np.stack([np.where(np.arange(48) < 24, measured, np.nan), known, measured], axis=1)
    found = near_pairs(predicted, wanted, images, seed=0)
    assert found["near_r2"][0] == pytest.approx(1)
    assert np.isnan(found["near_r2"][1:]).all()
