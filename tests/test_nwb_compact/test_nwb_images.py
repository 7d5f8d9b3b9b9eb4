"""Images read lazily are those that were written, in either layout, and what was shown when points at them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
import pytest

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import open_session, read_session, write_session
from nwb_compact.session import Images, example_session, image_sha256

LAYOUTS = {"objects": 500, "stack": 0}


@pytest.mark.parametrize("objects_limit", LAYOUTS.values(), ids=LAYOUTS)
def test_lazy_pixels_index_as_numpy_does(tmp_path: Path, objects_limit: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 120, 160, 3), dtype=np.uint8)  # about 17 images a chunk
    session = replace(example_session(60), images=Images(("",) * 60, tuple(map(image_sha256, pixels)), pixels))
    write_session(session, tmp_path / "a.nwb", objects_limit=objects_limit)
    with open_session(tmp_path / "a.nwb") as read:
        lazy = read.images.pixels
        assert lazy is not None
        assert not isinstance(lazy, np.ndarray)
        assert lazy.shape == pixels.shape
        mask = np.arange(60) % 7 == 0
        wanted = (5, -1, slice(None), slice(40, 3, -9), [59, 0, 0, 18, 17], np.array([], int), mask, np.array([[1, 2], [2, 1]]))
        for index in wanted:
            np.testing.assert_array_equal(lazy[index], pixels[index])
        np.testing.assert_array_equal(np.asarray(lazy), pixels)
        for wrong in (60, [0, -61], "a", (0, 0)):
            with pytest.raises(IndexError):
                lazy[wrong]


def test_many_images_become_one_compressed_stack_of_whole_images(tmp_path: Path) -> None:
    pixels = np.zeros((c.IMAGES_AS_OBJECTS_LIMIT + 1, 60, 60, 3), np.uint8)
    session = replace(example_session(len(pixels)), images=Images(("",) * len(pixels), ("0",) * len(pixels), pixels))
    write_session(session, tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb") as file:
        stack = file[f"stimulus/templates/{c.IMAGES}/data"]
        assert stack.chunks == (92, 60, 60, 3)
        assert stack.compression == "gzip"
        assert stack.shuffle


def test_lazy_pixels_can_be_written_again(tmp_path: Path, assert_same: Callable[[Any, Any], None]) -> None:
    write_session(example_session(), tmp_path / "a.nwb", objects_limit=0)
    with open_session(tmp_path / "a.nwb") as session:
        write_session(session, tmp_path / "b.nwb")
    assert_same(example_session(), read_session(tmp_path / "b.nwb"))


def test_index_series_agrees_with_the_presentations(tmp_path: Path) -> None:
    session = example_session()
    assert session.presentations is not None
    start = np.random.default_rng(1).permutation(len(session.presentations)) / 4
    timed = replace(session.presentations, start_time_s=start, stop_time_s=start + 0.1)
    write_session(replace(session, presentations=timed), tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        series = io.read().stimulus[c.IMAGE_INDEX_SERIES]
        shown = dict(zip(start, timed.image_index, strict=True))
        assert [shown[time] for time in series.timestamps[:]] == series.data[:].tolist()
        assert np.all(np.diff(series.timestamps[:]) > 0)


def test_pixels_that_are_damaged_are_told_in_a_line_when_they_are_read(tmp_path: Path) -> None:
    """Opening a file reads none of them."""
    write_session(example_session(60), tmp_path / "a.nwb", objects_limit=0)
    with h5py.File(tmp_path / "a.nwb") as file:
        chunk = file[f"stimulus/templates/{c.IMAGES}/data"].id.get_chunk_info(0)
    with (tmp_path / "a.nwb").open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(bytes(chunk.size))
    with open_session(tmp_path / "a.nwb") as session, pytest.raises(NwbCompactError, match="stimulus_images: found damage") as error:
        session.images.pixels[3]
    assert len(str(error.value).splitlines()) == 1
