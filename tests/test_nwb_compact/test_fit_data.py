"""What the fit may see."""

from dataclasses import replace

import numpy as np
import pytest

from nwb_compact.config import configure
from nwb_compact.errors import NwbCompactError
from nwb_compact.fit_data import own_pixels, read_sessions, scored_pixels, teacher_sessions
from nwb_compact.images import as_rgb, same_picture
from nwb_compact.natural_images import natural_images
from nwb_compact.nwb_session import write_session
from nwb_compact.session import Images, image_sha256
from nwb_compact.simulate import simulate_session

SETTINGS = configure("quick")


@pytest.fixture(scope="module")
def session():
    return simulate_session(n_units=3, n_images=40, n_repeats=2, seed=0)


@pytest.fixture(scope="module")
def path(session, tmp_path_factory):
    file_path = tmp_path_factory.mktemp("fit") / "session.nwb"
    write_session(session, file_path)
    return file_path


def with_pixels(session, pixels):
    return replace(session, images=replace(session.images, pixels=pixels, sha256=tuple(image_sha256(image) for image in pixels)))


def test_own_images_are_the_fitting_side_of_all_sessions(path, session, tmp_path):
    write_session(with_pixels(session, natural_images(40, seed=7)), tmp_path / "lent.nwb")
    sessions = read_sessions([path], [tmp_path / "lent.nwb"], SETTINGS)
    fitted, lent = (session.images[session.rows("fit", "validation")] for session in sessions)
    assert (len(fitted), len(lent)) == (20, 40)
    np.testing.assert_array_equal(own_pixels(sessions), np.concatenate([fitted, lent]))
    assert not same_picture(own_pixels(sessions), scored_pixels(sessions)).any()


def test_a_lent_session_that_shows_scored_pictures_at_another_size_does_not_use_them(session, tmp_path):
    large = natural_images(40, seed=5, size_px=224)
    write_session(with_pixels(session, large), tmp_path / "large.nwb")
    write_session(with_pixels(session, as_rgb(large)), tmp_path / "small.nwb")
    fitted, lent = read_sessions([tmp_path / "large.nwb"], [tmp_path / "small.nwb"], SETTINGS)
    assert fitted.sides.count("scored") == 20
    assert lent.sides[20:] == ("unused",) * 20
    assert "fit" in lent.sides[:20]


def test_a_session_without_pixels_is_refused(session, tmp_path):
    hashes = replace(session, images=Images(session.images.name, session.images.sha256))
    write_session(hashes, tmp_path / "hashes.nwb")
    with pytest.raises(NwbCompactError, match="found hashes instead of images"):
        read_sessions([tmp_path / "hashes.nwb"], [], SETTINGS)


# A frozen backbone ----------------------------------------------------------------------------------------------------


def test_the_teacher_is_told_nothing_of_scored_images_and_which_sessions_are_lent(path, session, tmp_path):
    others = with_pixels(session, natural_images(40, seed=7))
    write_session(others, tmp_path / "lent.nwb")
    sessions = read_sessions([path], [tmp_path / "lent.nwb"], SETTINGS)
    fitted, lent = teacher_sessions(sessions, 1, [one.images for one in sessions])
    assert (fitted.is_lent, lent.is_lent) == (False, True)
    scored = sessions[0].rows("scored")
    assert len(scored) == 20
    assert np.isnan(fitted.mean[scored]).all()
    for told, read in ((fitted, sessions[0]), (lent, sessions[1])):
        rows = np.concatenate([told.fit_images, told.validation_images])
        assert np.array_equal(np.sort(rows), read.rows("fit", "validation"))
        np.testing.assert_array_equal(told.mean[rows], read.responses.mean[rows])
        np.testing.assert_array_equal(told.n_repeats, read.responses.n_repeats)


def test_pictures_saved_again_in_another_fitted_file_or_in_the_same_are_not_learned_from(session, tmp_path):
    large = natural_images(40, seed=5, size_px=224)
    write_session(with_pixels(session, large), tmp_path / "large.nwb")
    write_session(with_pixels(session, as_rgb(large)[::-1]), tmp_path / "small.nwb")  # its first half shows the other's second
    with pytest.raises(NwbCompactError, match=r"^split: found no image on the fit side of 40"):
        read_sessions([tmp_path / "large.nwb", tmp_path / "small.nwb"], [], SETTINGS)
    pixels = np.concatenate([large[:30], 255 - (255 - large[:10].astype(int)) * 99 // 100]).astype(np.uint8)  # ten shown again, paler
    write_session(with_pixels(session, pixels), tmp_path / "again.nwb")
    (one,) = read_sessions([tmp_path / "again.nwb"], [], SETTINGS)
    assert one.sides[:10] == ("unused",) * 10
    assert one.sides[20:] == ("scored",) * 20
    assert not same_picture(own_pixels([one]), scored_pixels([one])).any()
