"""One neuron's model in a file of its own, loaded and asked: `nwb_compact.load("unit-1.onnx")(images)`.

Three formats, none of which can run code when it is read (no pickle): ONNX, answered by onnxruntime alone; safetensors and npz, which hold
the arrays of the student (see `results.StudentWeights`) and are answered by `student.predict`. What needs torch is imported when asked.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from nwb_compact.errors import NwbCompactError, nearest, one_line
from nwb_compact.results import IMAGE_PX, StudentWeights
from nwb_compact.session import Pixels

METADATA = "nwb_compact"
"""Name under which safetensors and npz files keep their metadata, as JSON."""
FORMATS = ("onnx", "safetensors", "npz")
"""A file's name ends in a dot and its format."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A loaded model: call it with images."""

    metadata: Mapping[str, str]
    """Unit, run, session, scores and what else the file says of the model (docs/export.md)."""
    answer: Callable[[UInt8[np.ndarray, "image 112 112 3"]], Float32[np.ndarray, "image"]]

    def __call__(self, images: Pixels) -> Float32[np.ndarray, "image"]:
        """Expected count on each image.

        Parameters
        ----------
        images
            uint8, (image height width 3) RGB or (image height width) grey, square, of any size; answered at 112 px.

        Raises
        ------
        NwbCompactError
            If the images are of another kind, or not square.
        """
        pixels = np.asarray(images)
        one_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3 != pixels.shape[1])
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or one_image or (pixels.ndim == 4 and pixels.shape[3] != 3):
            found, expected = f"{pixels.dtype} {pixels.shape}", "uint8 (image height width 3), or without the 3 for grey"
            next_step = "give one image as image[None]" if one_image else "convert them, 0 black and 255 white"
            raise NwbCompactError("images", found=found, expected=expected, next_step=next_step)
        if len(pixels) == 0:
            return np.empty(0, np.float32)  # onnxruntime multiplies no empty matrices
        is_ready = pixels.shape[1:] == (IMAGE_PX, IMAGE_PX, 3)
        return self.answer(pixels if is_ready else import_module("nwb_compact.images").as_rgb(pixels))  # which imports torch


def load(file_path: str | Path) -> Exported:
    """The model in an exported file.

    Parameters
    ----------
    file_path
        A file that `nwb-compact export` wrote.

    Raises
    ------
    NwbCompactError
        If the file is missing, damaged, of another format or not ours; or, for ONNX, onnxruntime is not installed.

    Examples
    --------
    >>> load("no-such-file.onnx")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-file.onnx: found no file, expected an exported model. Next: correct the path
    """
    path = Path(file_path)
    name = path.suffix.lower().removeprefix(".")
    if name not in FORMATS:
        endings = [f".{one}" for one in FORMATS]
        found = f"a name that ends in '{path.suffix}'" if path.suffix else "a name without an ending"
        raise NwbCompactError(path, found=found, expected=" or ".join(endings), next_step=nearest(path.suffix, endings))
    if not path.is_file():
        raise NwbCompactError(path, found="no file", expected="an exported model", next_step="correct the path")
    try:
        return {"onnx": _from_onnx, "safetensors": _from_safetensors, "npz": _from_npz}[name](path.read_bytes())
    except NwbCompactError:
        raise
    except Exception as error:  # each library has errors of its own for bytes that are not its format
        found, expected = f"that it cannot be read ({one_line(error)})", f"a model exported as {name}"
        raise NwbCompactError(path, found=found, expected=expected, next_step="export it again: nwb-compact export") from error


def as_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Content of a safetensors file; the metadata are one entry, since the format leaves the order of several to chance."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, {METADATA: json.dumps(metadata, ensure_ascii=False)})


def as_npz(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Content of an npz file; the metadata are a text among the arrays."""
    content = BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays, **{METADATA: np.array(json.dumps(metadata, ensure_ascii=False))})
    return content.getvalue()


def missing_package(name: str) -> NwbCompactError:
    """What a user is told who wants ONNX files and lacks what writes or reads them.

    Examples
    --------
    >>> print(missing_package("onnxruntime"))
    ONNX: found no package onnxruntime, expected it installed. Next: pip install "nwb-compact[onnx]"
    """
    return NwbCompactError("ONNX", found=f"no package {name}", expected="it installed", next_step='pip install "nwb-compact[onnx]"')


def _from_onnx(content: bytes) -> Exported:
    try:
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise missing_package("onnxruntime") from error
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    if "unit" not in metadata:
        raise ValueError("another program made it")
    ends = session.get_inputs()[0].name, session.get_outputs()[0].name
    return Exported(metadata, lambda images: session.run([ends[1]], {ends[0]: images})[0])


def _from_safetensors(content: bytes) -> Exported:
    from safetensors.numpy import load as arrays_of

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return _of_arrays(arrays_of(content), header.get("__metadata__", {}).get(METADATA))


def _from_npz(content: bytes) -> Exported:
    with np.load(BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    return _of_arrays(arrays, arrays.pop(METADATA, None))


def _of_arrays(arrays: Mapping[str, np.ndarray], metadata: object) -> Exported:
    if metadata is None:
        raise ValueError("another program made it")
    student = StudentWeights({name: value.astype(np.float32) for name, value in arrays.items()})
    return Exported(json.loads(str(metadata)), lambda images: import_module("nwb_compact.student").predict(student, images))
