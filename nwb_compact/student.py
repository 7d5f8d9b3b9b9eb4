"""One compact student: five layers of 5 x 5 filters, the first a full convolution, four separable, and a readout of 28 x 28 places.

The architecture of the study (see docs/methods.md) without BatchNorm (of published models it is folded in), so that a student is nothing
but a dozen arrays (`results.StudentWeights`): each layer is relu(convolution + bias), the readout a weighted sum over the last 28 x 28 map.
Layers 2 and 3 halve the map, padded by one row and column before and two after, as the published models are.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float32, Integer, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from nwb_compact.operations import costing
from nwb_compact.results import IMAGE_PX, N_LAYERS, StudentWeights

KERNEL_PX = 5
STRIDES = (1, 2, 2, 1, 1)
"""Stride of layers 1 to 5."""
MAP_PX = IMAGE_PX // math.prod(STRIDES)
"""Side of the maps of the last layers."""
INPUT_MEAN = (116.222, 109.270, 100.381)
"""Mean red, green and blue of the study's images, subtracted from every image (see docs/methods.md)."""
ARCHITECTURE = (
    "images RGB 0..255 at 112 px minus input.mean; layer 1 convolution 5x5 stride 1 padding 2; layers 2 to 5 depthwise 5x5 with strides "
    "2 2 1 1 (padding 2 at stride 1; 1 before and 2 after at stride 2), then pointwise; each layer relu(x + bias); answer = "
    "sum(readout.weight * map) + readout.bias, expected spikes in the counting window; readout.weight is filter x 28 x 28, or the product "
    "of readout.filter (filter) and readout.space (28 x 28), or the sum of such products, (filter x product) and (product x 28 x 28)"
)
"""How the arrays of a student are used, stored with every run so that the file alone is enough to run it."""
STEPS = (
    ("input.mean", "layer1.kernel", "layer1.bias"),
    ("layer2.depthwise",), ("layer2.pointwise", "layer2.bias"),
    ("layer3.depthwise",), ("layer3.pointwise", "layer3.bias"),
    ("layer4.depthwise",), ("layer4.pointwise", "layer4.bias"),
    ("layer5.depthwise",), ("layer5.pointwise", "layer5.bias"),
)
"""Arrays of each convolution before the readout, in the order of the work."""
PREDICTION_BATCH = 2
"""Images a step, so few that their maps stay in the cache of the processor: at 64 an image takes about four times as long (median student
of the study, one core of an AMD EPYC 9005). Does not change the predictions."""
STEPS_WORTH_THREADS = 8
"""Steps for each of at least two threads below which starting them costs more than they save."""
FULL_CHANNELS = 8
"""Channels are filled up with zeros to a multiple of this many, which fit the vector units of the processor: 10 % faster."""
KEPT_BYTES = 31 * 2**20
"""Just below the largest block of which glibc learns (32 MiB) that blocks of this size come and go and are worth keeping."""


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
    answers, starts = np.empty((len(images), len(students)), np.float32), range(0, len(images), PREDICTION_BATCH)
    with torch.inference_mode():
        torch.empty(KEPT_BYTES, dtype=torch.uint8)  # freed at once, see there: else each map is asked anew from the system, page by page
        network = _branches(students, range(len(students)), STEPS)

    @torch.inference_mode()
    def answer(start: int) -> None:
        rows = slice(start, start + PREDICTION_BATCH)
        maps = _tensor(images[rows]).permute(0, 3, 1, 2)  # channels stay last in memory, which is what the CPU convolves fastest
        for branch in network:
            branch.answer(maps, answers[rows])

    with costing(len(images) * flop_an_image(students)):  # in several threads, which no counter sees
        _for_each(answer, starts)
    return answers


def flop_an_image(students: Sequence[StudentWeights]) -> int:
    """Floating-point operations of all answers to an image: two for each multiply-add; what students share is computed once.

    Examples
    --------
    >>> flop_an_image([example_student((47, 57, 3, 7, 3))])  # medians of the study
    115572576
    """
    held = {id(array): (name, array.size) for student in students for name, array in student.arrays.items()}
    return sum(2 * size * _places(name) for name, size in held.values())


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


def border(stride: int) -> tuple[int, int]:
    """Rows of zeros above and below a map, as columns left and right, with which a 5 x 5 filter keeps its size (stride 1) or halves it.

    Examples
    --------
    >>> border(1), border(2)                        # the odd one lies below and right, as TensorFlow pads 'same'
    ((2, 2), (1, 2))
    """
    return KERNEL_PX // 2 + 1 - stride, KERNEL_PX // 2


def same_padding(maps: Tensor, stride: int) -> Tensor:
    """The map with its border of zeros."""
    return functional.pad(maps, border(stride) * 2)


def example_student(filters: int | Sequence[int] = 3, seed: int = 0) -> StudentWeights:
    """A student with random weights, for documentation and tests; as many filters in each layer, or as many as are given for each.

    Examples
    --------
    >>> n_parameters(example_student((47, 57, 3, 7, 3)))  # medians of the study
    11737
    """
    rng = np.random.default_rng(seed)
    widths = [filters] * N_LAYERS if isinstance(filters, int) else filters

    def normal(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    arrays = {"input.mean": np.array(INPUT_MEAN, np.float32), "layer1.kernel": normal(widths[0], 3, KERNEL_PX, KERNEL_PX)}
    for layer, (below, above) in enumerate(pairwise(widths), start=2):
        arrays[f"layer{layer}.depthwise"] = normal(below, KERNEL_PX, KERNEL_PX)
        arrays[f"layer{layer}.pointwise"] = normal(above, below)
    arrays |= {f"layer{layer}.bias": normal(width) for layer, width in enumerate(widths, start=1)}
    return StudentWeights(arrays | {"readout.weight": normal(widths[-1], MAP_PX, MAP_PX), "readout.bias": normal(1)})


def _places(name: str) -> int:
    """How often a number of an array is multiplied for an image."""
    owner, kind = name.split(".")
    if owner == "readout":
        return {"weight": 1, "space": 1, "filter": MAP_PX**2, "bias": 0}[kind]
    if kind in ("mean", "bias"):
        return 0
    layer = int(owner.removeprefix("layer"))
    return int(IMAGE_PX // np.prod(STRIDES[:layer])) ** 2


def _for_each(work: Callable[[int], None], starts: range) -> None:
    """Steps side by side on all threads: threads that share one step wait for each other at every convolution, long on a busy machine."""
    if min(torch.get_num_threads(), len(starts) // STEPS_WORTH_THREADS) < 2:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=lambda: threadpool_limits(1, user_api="openmp")) as pool:
        list(pool.map(work, starts))  # and raise what was raised in a thread


@dataclass(frozen=True)
class _Branch:
    """A step that some students have in common, and what each of them does with its maps."""

    step: Callable[[Tensor], Tensor]
    units: Sequence[int]
    after: Sequence["_Branch"]
    """None after the readout."""

    def answer(self, maps: Tensor, answers: np.ndarray) -> None:
        """Fill in the answers (batch unit) of the units, from the maps (batch channel height width) before the step."""
        maps = self.step(maps)
        if not self.after:
            answers[:, self.units] = maps.numpy()
        for branch in self.after:
            branch.answer(maps, answers)


def _branches(students: Sequence[StudentWeights], units: Iterable[int], steps: Sequence[Sequence[str]]) -> list[_Branch]:
    """The steps to come of units that have all steps before in common; units that hold the same arrays of a step share it too."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for unit in units:
        arrays = students[unit].arrays
        same = tuple(id(arrays[name]) for name in steps[0]) if steps else _kind_of_readout(arrays)
        groups.setdefault(same, []).append(unit)
    if not steps:
        return [_Branch(_readouts([students[unit].arrays for unit in group]), group, ()) for group in groups.values()]
    return [_Branch(_step(students[group[0]].arrays, steps[0]), group, _branches(students, group, steps[1:])) for group in groups.values()]


def _step(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """One convolution, from maps with full channels to maps with full channels."""
    of = {name.partition(".")[2]: _tensor(arrays[name]) for name in names}
    if "kernel" in of:
        mean, kernel, bias = of["mean"][:, None, None], _full(of["kernel"]), _full(of["bias"])
        kernel = kernel.to(memory_format=torch.channels_last)
        return lambda images: functional.conv2d(images - mean, kernel, bias, padding=2).relu_()
    if "pointwise" in of:
        pointwise, bias = _full(_full(of["pointwise"]), axis=1)[:, :, None, None], _full(of["bias"])
        return lambda maps: _pointwise(maps, pointwise, bias).relu_()
    stride = STRIDES[int(names[0][len("layer")]) - 1]
    # A row and a column of zeros in front of the filter stand for the odd padding of `same_padding`, and spare a copy of the map.
    depthwise = _full(of["depthwise"] if stride == 1 else functional.pad(of["depthwise"], (1, 0, 1, 0)))[:, None]
    return lambda maps: functional.conv2d(maps, depthwise, stride=stride, padding=2, groups=len(depthwise))


def _kind_of_readout(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Readouts of the same maps are one matrix product, where they are of one kind: dense, or of as many products."""
    return arrays["readout.space"].shape if "readout.space" in arrays else ()


def _readouts(students: Sequence[Mapping[str, np.ndarray]]) -> Callable[[Tensor], Tensor]:
    """From the last maps to the answers (batch unit) of students that have them in common and read them out in the same way."""
    of = {name: _tensor(np.stack([arrays[name] for arrays in students])) for name in students[0] if name.startswith("readout")}
    bias = of["readout.bias"][:, 0]
    if "readout.filter" in of:
        n, n_filters = of["readout.filter"].shape[:2]
        filters = _full(of["readout.filter"].view(n, n_filters, -1), axis=1).transpose(1, 2).flatten(0, 1).T
        space = of["readout.space"].view(filters.shape[1], -1).T
        return lambda maps: ((maps.permute(0, 2, 3, 1).flatten(1, 2) @ filters) * space).sum(dim=1).unflatten(1, (n, -1)).sum(dim=2) + bias
    weight = _full(of["readout.weight"], axis=1).permute(2, 3, 1, 0).flatten(0, 2)
    return lambda maps: maps.permute(0, 2, 3, 1).flatten(1) @ weight + bias


def _pointwise(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What `conv2d` gives, by oneDNN, which it leaves for a matrix product of half the speed where maps are few."""
    if torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(maps, weight, bias, padding=(0, 0), stride=(1, 1), dilation=(1, 1), groups=1)
    return functional.conv2d(maps, weight, bias)


def _full(weights: Tensor, axis: int = 0) -> Tensor:
    missing = -weights.shape[axis] % FULL_CHANNELS
    return torch.cat([weights, weights.new_zeros(*weights.shape[:axis], missing, *weights.shape[axis + 1 :])], dim=axis)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=("C", "W")))  # torch warns of read-only arrays and takes no mirrored ones
