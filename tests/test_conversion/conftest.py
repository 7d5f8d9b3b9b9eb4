"""A small source in the published layout, written by the tests, so that every fault can be made on purpose."""

import gc
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

NAN = float("nan")
SESSION = "250101"
"""Not in the published list, so the number of units is free."""


@pytest.fixture(autouse=True)
def _left_open_is_closed() -> Iterator[None]:
    """Neo leaves vendors' files open; what is collected whenever garbage is would be a warning, so an error, of another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def jpeg(seed: int, height: int = 8, width: int = 8, mode: str = "RGB") -> bytes:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    content = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(content, "JPEG", quality=95)
    return content.getvalue()


@dataclass
class Source:
    """Three images, two units, 3, 1 and 2 repeats. Change what it holds, then `write`."""

    data: Path
    """What a user gives as --data."""
    session: str = SESSION
    inside: str = ""
    """Folder of the layout within `data`."""
    members: dict[str, bytes] = field(default_factory=lambda: {f"image{k:04d}.jpg": jpeg(k) for k in (3, 1, 2)})
    """Files of the zip in the order they are written: not that of their numbers."""
    raw: np.ndarray | None = field(
        default_factory=lambda: np.array([[[1, 0, 2], [5, NAN, NAN], [0, 1, NAN]], [[4, 4, 4], [0, NAN, NAN], [2, 3, NAN]]])
    )
    mean: np.ndarray | None = field(default_factory=lambda: np.array([[1.0, 5.0, 0.5], [4.0, 0.0, 2.5]]))

    @property
    def root(self) -> Path:
        return self.data / self.inside

    @property
    def zip(self) -> Path:
        return self.root / "images" / f"images_{self.session}.zip"

    @property
    def raw_file(self) -> Path:
        return self.root / "responses_raw" / f"responses_{self.session}.npy"

    @property
    def mean_file(self) -> Path:
        return self.root / "responses_repeat_averaged" / f"responses_{self.session}.npy"

    def write(self) -> "Source":
        for file in (self.zip, self.raw_file, self.mean_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with ZipFile(self.zip, "w", ZIP_DEFLATED) as zipped:
            for name, content in self.members.items():
                zipped.writestr(name, content)
        for file, values in ((self.raw_file, self.raw), (self.mean_file, self.mean)):
            if values is not None:
                np.save(file, values, allow_pickle=values.dtype.hasobject)
        return self


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "data")


@pytest.fixture
def make_jpeg():
    return jpeg


@pytest.fixture(scope="session")
def vendor() -> ModuleType:
    """The module that writes the smallest valid files of each recording system."""
    return loaded("vendor_files")


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """The module that writes small models in the published form."""
    return loaded("published_models")


def loaded(name: str) -> ModuleType:
    """A module of this folder, for the files that it makes."""
    spec = spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their own module there
    spec.loader.exec_module(module)
    return module


def write_images(place: Path, members: dict[str, bytes]) -> Path:
    """A folder of files, or a zip of them where the place ends in .zip."""
    if place.suffix == ".zip":
        with ZipFile(place, "w", ZIP_DEFLATED) as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
        return place
    place.mkdir(parents=True, exist_ok=True)
    for name, content in members.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


@pytest.fixture(name="write_images")
def _write_images():
    return write_images


def png(value: int, height: int = 4, width: int = 4, mode: str = "L") -> bytes:
    """An image of one grey level, in any mode."""
    content = BytesIO()
    Image.new("L", (width, height), value).convert(mode).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def make_png():
    return png


@pytest.fixture(params=["images", "images.zip"])
def image_place(request, tmp_path: Path) -> Path:
    """Where a lab may keep its images: what holds for one must hold for the other."""
    return tmp_path / request.param


@pytest.fixture
def write_log(tmp_path: Path):
    """A text file of rows, `log.csv` unless named."""

    def write(*lines: str, name: str = "log.csv") -> Path:
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return write
