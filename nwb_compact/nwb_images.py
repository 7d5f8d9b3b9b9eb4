"""The three ways a session file keeps its images, behind one writer and one lazy reader.

Few images are `Images` objects, which every NWB viewer shows. Many are one stack, since an HDF5 object an image costs a
millisecond on every open. Images that may not be redistributed are kept as hashes only. See docs/nwb_layout.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
from hdmf.data_utils import GenericDataChunkIterator
from pynwb import H5DataIO, NWBFile
from pynwb.base import ImageReferences
from pynwb.base import Images as NwbImages
from pynwb.image import GrayscaleImage, IndexSeries, OpticalSeries, RGBImage

from nwb_compact.contract import IMAGE_INDEX_SERIES, IMAGES
from nwb_compact.errors import NwbCompactError, told_as_damage
from nwb_compact.session import Pixels, Presentations

CHUNK_BYTES = 1_000_000
"""Whole images up to about this many bytes make one chunk: small enough to fetch one image, large enough to fetch many."""


@dataclass(frozen=True, eq=False)
class LazyPixels:
    """Pixels on disk that are read when indexed along the image axis, with numpy's own rules for what an index means."""

    shape: tuple[int, ...]
    """(image height width) or (image height width channel)."""
    block: int
    """Images that are read at once, a chunk of the file."""
    read: Callable[[int, int], np.ndarray]
    """The images from start to stop."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Pixels of the images that an integer, slice, mask or integer array names, in the order named, repeats included."""
        rows = np.arange(len(self))[index]
        wanted = np.ravel(rows)
        pixels = np.empty((wanted.size, *self.shape[1:]), np.uint8)
        for block in np.unique(wanted // self.block):
            start = int(block) * self.block
            here = wanted // self.block == block
            pixels[here] = self.read(start, min(start + self.block, len(self)))[wanted[here] - start]
        return pixels.reshape(*np.shape(rows), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def add_images(nwbfile: NWBFile, pixels: Pixels, *, objects_limit: int) -> None:
    """Put the pixels into /stimulus/templates, as objects up to the limit and as one stack above it.

    Raises
    ------
    NwbCompactError
        If the pixels are not uint8 in grey or RGB.
    """
    _require_pixels(pixels)
    nwbfile.add_stimulus_template(_objects(pixels) if pixels.shape[0] <= objects_limit else _stack(pixels))


def add_index_series(nwbfile: NWBFile, presentations: Presentations) -> None:
    """Tell readers that know only `IndexSeries` what was shown when; needs the `Images` layout and times."""
    assert presentations.start_time_s is not None
    in_time = np.argsort(presentations.start_time_s, kind="stable")
    nwbfile.add_stimulus(
        IndexSeries(
            name=IMAGE_INDEX_SERIES,
            description="derived from the table of presentations, which is the source of truth",
            data=presentations.image_index[in_time].astype(np.uint32),
            timestamps=presentations.start_time_s[in_time],
            indexed_images=nwbfile.stimulus_template[IMAGES],
            unit="N/A",
        )
    )


def lazy_pixels(hdf5: h5py.File) -> LazyPixels | None:
    """The images of an open session file, whichever way they are kept; None where only their hashes are.

    Raises
    ------
    NwbCompactError
        If the images have no order, differ in size or are not uint8.
    """
    kept = hdf5.get(f"stimulus/templates/{IMAGES}")
    if kept is None:
        return None
    pixels = _lazy_stack(kept["data"]) if "data" in kept else _lazy_objects(hdf5, kept)
    if len(pixels.shape) not in (3, 4) or (len(pixels.shape) == 4 and pixels.shape[3] != 3):
        raise _wrong(hdf5, f"images of shape {pixels.shape}", "(image height width) or (image height width 3)")
    return replace(pixels, read=_told(pixels.read, _place(hdf5)))


def _require_pixels(pixels: Pixels) -> None:
    first = np.asarray(pixels[:1])
    if first.dtype != np.uint8 or first.ndim not in (3, 4) or (first.ndim == 4 and first.shape[3] != 3):
        found = f"{first.dtype} pixels of shape {tuple(pixels.shape)}"
        expected = "uint8, (image height width) or (image height width 3)"
        raise NwbCompactError("images", found=found, expected=expected, next_step="convert the images to 8-bit grey or RGB")


def _objects(pixels: Pixels) -> NwbImages:
    kind = GrayscaleImage if len(pixels.shape) == 3 else RGBImage
    # Real names may hold a slash or occur twice, which HDF5 does not allow; they are in the image table.
    images = [
        kind(name=f"image_{index + 1:06d}", description=f"row {index} of the image table",
             data=H5DataIO(np.asarray(pixels[index]), compression="gzip", shuffle=True))
        for index in range(pixels.shape[0])
    ]
    order = ImageReferences(name="order_of_images", data=images)
    description = "the images shown; row i of the image table describes image i of order_of_images"
    return NwbImages(name=IMAGES, description=description, images=images, order_of_images=order)


def _stack(pixels: Pixels) -> OpticalSeries:
    chunk = (_images_a_chunk(pixels.shape), *pixels.shape[1:])
    return OpticalSeries(
        name=IMAGES,
        description="the images shown, one a frame; row i of the image table describes frame i. The rate has no meaning.",
        data=H5DataIO(_Blocks(pixels, chunk), compression="gzip", compression_opts=4, shuffle=True),
        unit="n.a.",
        format="raw",
        orientation="row 0 is the top of the image, column 0 its left",
        starting_time=0.0,
        rate=1.0,
    )


def _images_a_chunk(shape: tuple[int, ...]) -> int:
    return int(np.clip(CHUNK_BYTES // max(int(np.prod(shape[1:])), 1), 1, shape[0]))


class _Blocks(GenericDataChunkIterator):
    """Hands pixels to the writer some chunks at a time, so that a stack larger than memory can be written."""

    def __init__(self, pixels: Pixels, chunk: tuple[int, ...]):
        self.pixels = pixels
        images = min(32 * chunk[0], pixels.shape[0])
        super().__init__(buffer_shape=(images, *chunk[1:]), chunk_shape=chunk, display_progress=False)

    def _get_data(self, selection: tuple[slice, ...]) -> np.ndarray:
        return np.asarray(self.pixels[selection[0]])

    def _get_maxshape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape)

    def _get_dtype(self) -> np.dtype:
        return np.dtype(np.uint8)


def _lazy_stack(data: h5py.Dataset) -> LazyPixels:
    if data.dtype != np.uint8:
        raise _wrong(data.file, f"{data.dtype} pixels", "uint8")
    return LazyPixels(data.shape, data.chunks[0] if data.chunks else 1, lambda start, stop: data[start:stop])


def _lazy_objects(hdf5: h5py.File, kept: h5py.Group) -> LazyPixels:
    if "order_of_images" not in kept:
        raise _wrong(hdf5, "images without order_of_images", "an order, since HDF5 lists names alphabetically")
    images = [hdf5[reference] for reference in kept["order_of_images"][:]]
    layouts = {(image.shape, image.dtype.name) for image in images}
    if len(layouts) != 1 or images[0].dtype != np.uint8:
        raise _wrong(hdf5, f"images of {len(layouts)} shapes or types ({sorted(layouts)[:3]})", "one shape, uint8")
    return LazyPixels((len(images), *images[0].shape), 1, lambda start, stop: np.stack([image[()] for image in images[start:stop]]))


def _told(read: Callable[[int, int], np.ndarray], where: str) -> Callable[[int, int], np.ndarray]:
    """The same, with damage told in a line: of pixels it is found when they are read, long after the file was opened."""
    def told(start: int, stop: int) -> np.ndarray:
        with told_as_damage(where, "images that can be read"):
            return read(start, stop)

    return told


def _place(hdf5: h5py.File) -> str:
    return f"{hdf5.filename}: /stimulus/templates/{IMAGES}"


def _wrong(hdf5: h5py.File, found: str, expected: str) -> NwbCompactError:
    return NwbCompactError(_place(hdf5), found=found, expected=expected, next_step="convert the session again; see docs/nwb_layout.md")
