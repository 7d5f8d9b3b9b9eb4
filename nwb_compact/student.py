"""One compact student: five layers of 5 x 5 filters, the first a full convolution, four separable, and a dense 28 x 28 readout.

The architecture of the study (see docs/methods.md) with BatchNorm folded into weights and biases, so that a student is nothing but a dozen
arrays (`results.StudentWeights`): each layer is relu(convolution + bias), the readout a weighted sum over the last 28 x 28 map.
Layers 2 and 3 halve the map, padded by one row and column before and two after, as the published models are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Integer, UInt8
from torch import Tensor
from torch.nn import functional

from nwb_compact.backbones import as_tensor
from nwb_compact.results import StudentWeights

IMAGE_PX = 112
MAP_PX = 28
KERNEL_PX = 5
STRIDES = (1, 2, 2, 1, 1)
"""Stride of layers 1 to 5."""
N_LAYERS = len(STRIDES)
INPUT_MEAN = (116.222, 109.270, 100.381)
"""Mean red, green and blue of the study's images, subtracted from every image (see docs/methods.md)."""
ARCHITECTURE = (
    "images RGB 0..255 at 112 px minus input.mean; layer 1 convolution 5x5 stride 1 padding 2; layers 2 to 5 depthwise 5x5 with strides "
    "2 2 1 1 (padding 2 at stride 1; 1 before and 2 after at stride 2), then pointwise; each layer relu(x + bias); answer = "
    "sum(readout.weight * map) + readout.bias, expected spikes in the counting window; readout.weight is filter x 28 x 28, or the product "
    "of readout.filter (filter) and readout.space (28 x 28)"
)
"""How the arrays of a student are used, stored with every run so that the file alone is enough to run it."""
STEPS = ("input", *(f"layer{layer}" for layer in range(1, N_LAYERS + 1)), "readout")
"""What a student does one after the other: the arrays of a step are named `<step>.<what>`."""
PREDICTION_BATCH = 64
"""Images a step; does not change the predictions."""


def predict(student: StudentWeights, images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "image"]:
    """Expected count of one unit on each image, by the student alone.

    Parameters
    ----------
    student
        The arrays of one student, as a results module holds them.
    images
        RGB, uint8, 112 x 112 px.

    Examples
    --------
    >>> predict(example_student(), np.zeros((2, 112, 112, 3), np.uint8)).shape
    (2,)
    """
    return predict_all([student], images)[:, 0]


def predict_all(
    students: Sequence[StudentWeights], images: UInt8[np.ndarray, "image 112 112 3"]
) -> Float32[np.ndarray, "image student"]:
    """Expected counts of many units on each image.

    Students that hold the same arrays (the very same objects) in their first layers share these layers, and each shared layer is computed
    once: many readouts of one shared core cost little more than one.

    Parameters
    ----------
    students
        Their arrays, as a results module holds them.
    images
        RGB, uint8, 112 x 112 px.

    Examples
    --------
    >>> first = example_student()
    >>> louder = StudentWeights(first.arrays | {"readout.bias": first.arrays["readout.bias"] + 1})
    >>> answers = predict_all([first, louder], np.zeros((2, 112, 112, 3), np.uint8))
    >>> (answers[:, 1] - answers[:, 0]).round(3)
    array([1., 1.], dtype=float32)
    """
    answers = np.empty((len(images), len(students)), np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), PREDICTION_BATCH):
            rows = slice(start, start + PREDICTION_BATCH)
            for unit, answer in _answers(students, range(len(students)), as_tensor(images[rows], "cpu"), STEPS):
                answers[rows, unit] = answer.numpy()
    return answers


def n_parameters(student: StudentWeights) -> int:
    """Numbers a student holds: kernels, weights, biases and readout, its three input means not counted.

    Examples
    --------
    >>> n_parameters(example_student())
    2929
    """
    return sum(value.size for name, value in student.arrays.items() if name != "input.mean")


def filters_per_layer(student: StudentWeights) -> Integer[np.ndarray, "5"]:
    """Spatial filters (5 x 5 kernels) of each layer: the depthwise kernels of a layer are as many as the filters of the one before.

    Examples
    --------
    >>> filters_per_layer(example_student())
    array([3, 3, 3, 3, 3])
    """
    return np.array([len(student.arrays["layer1.kernel"]), *(len(student.arrays[f"layer{n}.depthwise"]) for n in range(2, N_LAYERS + 1))])


def readout_weight(student: StudentWeights) -> Float32[np.ndarray, "filter 28 28"]:
    """Weight of every place of the last map, also where the student holds it as the product of a weight a filter and a weight a place."""
    arrays = student.arrays
    return arrays["readout.weight"] if "readout.weight" in arrays else arrays["readout.filter"][:, None, None] * arrays["readout.space"]


def same_padding(maps: Tensor, stride: int) -> Tensor:
    """Pad a map so that a 5 x 5 filter keeps its size (stride 1) or halves it (stride 2), with the odd row and column at the end."""
    before = 2 if stride == 1 else 1
    return functional.pad(maps, (before, 2, before, 2))


def example_student(filters: int = 3, seed: int = 0) -> StudentWeights:
    """A small student with random weights, for documentation and tests."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    arrays = {"input.mean": np.array(INPUT_MEAN, np.float32), "layer1.kernel": normal(filters, 3, KERNEL_PX, KERNEL_PX)}
    for layer in range(2, N_LAYERS + 1):
        arrays[f"layer{layer}.depthwise"] = normal(filters, KERNEL_PX, KERNEL_PX)
        arrays[f"layer{layer}.pointwise"] = normal(filters, filters)
    arrays |= {f"layer{layer}.bias": normal(filters) for layer in range(1, N_LAYERS + 1)}
    return StudentWeights(arrays | {"readout.weight": normal(filters, MAP_PX, MAP_PX), "readout.bias": normal(1)})


def _answers(
    students: Sequence[StudentWeights], units: Iterable[int], x: Tensor, steps: tuple[str, ...]
) -> Iterator[tuple[int, Tensor]]:
    """The answer of each of the units, in any order, from what the steps before made of the images for all of them alike."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for unit in units:
        groups.setdefault(tuple(id(value) for value in _of_step(students[unit], steps[0]).values()), []).append(unit)
    for group in groups.values():
        after = _step(_of_step(students[group[0]], steps[0]), steps[0], x)
        if len(steps) > 1:
            yield from _answers(students, group, after, steps[1:])
        else:
            yield from ((unit, after) for unit in group)


def _of_step(student: StudentWeights, step: str) -> Mapping[str, np.ndarray]:
    return {name: value for name, value in student.arrays.items() if name.startswith(step)}


def _step(arrays: Mapping[str, np.ndarray], step: str, x: Tensor) -> Tensor:
    of = {name.removeprefix(f"{step}."): torch.from_numpy(np.require(value, requirements="W")) for name, value in arrays.items()}
    if step == "input":
        return x - of["mean"][None, :, None, None]
    if step == "layer1":
        return torch.relu(functional.conv2d(x, of["kernel"], of["bias"], padding=2))
    if step == "readout":
        if "weight" in of:
            return (x * of["weight"]).sum(dim=(1, 2, 3)) + of["bias"]
        return torch.einsum("bchw,c,hw->b", x, of["filter"], of["space"]) + of["bias"]
    stride = STRIDES[int(step.removeprefix("layer")) - 1]
    x = functional.conv2d(same_padding(x, stride), of["depthwise"][:, None], stride=stride, groups=len(of["depthwise"]))
    return torch.relu(functional.conv2d(x, of["pointwise"][:, :, None, None], of["bias"]))
