from dataclasses import FrozenInstanceError, fields, replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nwb_compact.session import Pixels, example_session, image_sha256, kept_presentations

IMAGES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=4) | st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3)))


@given(IMAGES, IMAGES)
def test_two_images_have_one_hash_only_if_they_are_one_picture(one, other):
    same = one.shape == other.shape and bool((one == other).all())
    assert (image_sha256(one) == image_sha256(other)) == same


def test_the_hash_is_the_one_that_the_layout_page_describes():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert image_sha256(pixels) == sha256(b"2x4x3:" + bytes(range(24))).hexdigest()
    assert image_sha256(pixels[..., 0]) == sha256(b"2x4:" + bytes(range(0, 24, 3))).hexdigest()


def test_the_layout_in_memory_does_not_matter_but_the_shape_does():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert image_sha256(np.asfortranarray(pixels)) == image_sha256(pixels)
    assert image_sha256(pixels.reshape(6, 4, 3)) != image_sha256(pixels)


def test_kept_presentations_are_rows_of_the_counts():
    session = example_session()
    assert session.presentations is not None
    assert session.counts is not None
    valid = np.ones(60, bool)
    valid[[3, 59]] = False
    reverse = replace(session.counts, presentation_index=session.counts.presentation_index[::-1].copy())
    kept = kept_presentations(replace(session, presentations=replace(session.presentations, is_valid=valid), counts=reverse))
    np.testing.assert_array_equal(kept, np.setdiff1d(np.arange(60), [0, 56]))


@pytest.mark.parametrize("absent", ["counts", "presentations"])
def test_averages_have_no_presentations_to_choose_from(absent):
    with pytest.raises(ValueError, match="keeps repeat averages only"):
        kept_presentations(replace(example_session(), **{absent: None}))


def test_the_example_is_whole_and_the_same_every_time(assert_same):
    session = example_session(n_images=5, n_units=3)
    assert_same(session, example_session(n_images=5, n_units=3))
    assert len(session.images) == 5
    assert len(session.units) == 3
    assert session.presentations is not None
    assert len(session.presentations) == 12
    assert isinstance(session.images.pixels, Pixels)
    assert session.images.sha256 == tuple(image_sha256(image) for image in session.images.pixels[:])
    shown = np.bincount(session.presentations.image_index)
    assert [int(session.presentations.repeat[session.presentations.image_index == image].max()) + 1 for image in range(5)] == list(shown)


def test_a_session_cannot_be_changed():
    session = example_session()
    for item in fields(session):
        with pytest.raises(FrozenInstanceError):
            setattr(session, item.name, None)
