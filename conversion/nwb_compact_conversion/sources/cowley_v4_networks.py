"""The published compact networks of Cowley, Stan, Pillow & Smith (Nature 2026) as students: weights rearranged, BatchNorm folded in.

Each network is five convolutions with BatchNorm and ReLU, of strides 1, 2, 2, 1, 1 with Keras' "same" padding (at stride 2 one row and
column before the map and two after), then a linear readout of the 28 x 28 map: dense in the model of one neuron, a weight a filter times a
weight a place in the shared models of 219 neurons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nwb_compact.errors import NwbCompactError
from nwb_compact.results import StudentWeights
from nwb_compact.student import INPUT_MEAN, KERNEL_PX, MAP_PX, N_LAYERS, STRIDES
from nwb_compact_conversion.sources.keras_files import KerasLayer, read_keras, read_weight_list
from nwb_compact_conversion.sources.source_files import FETCH_AGAIN

EPSILON = 1e-3
"""Added to BatchNorm's variance; Keras' default, which config.json of every published .keras file names."""
COLOURS = 3
_KERNEL = [KERNEL_PX, KERNEL_PX]
SHARED_LAYERS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("InputLayer", {}),
    *(
        layer
        for number, stride in enumerate(STRIDES)
        for layer in (
            ("SeparableConv2D" if number else "Conv2D",
             {"kernel_size": _KERNEL, "strides": [stride, stride], "padding": "same", "activation": "linear", "use_bias": True}),
            ("BatchNormalization", {"center": True, "scale": True}),
            ("Activation", {"activation": "relu"}),
        )
    ),
    ("Conv2D", {"kernel_size": [1, 1], "strides": [1, 1], "activation": "linear", "use_bias": True}),
    ("DepthwiseConv2D", {"kernel_size": [MAP_PX, MAP_PX], "padding": "valid", "activation": "linear", "use_bias": True}),
    ("Flatten", {}),
)
"""Layers of a shared model, in order: each one's class and what of its configuration its answer depends on."""


@dataclass(frozen=True, eq=False)
class Network:
    """One published network."""

    students: tuple[StudentWeights, ...]
    """One a neuron; those of a shared network hold its layers as the same objects."""
    n_parameters: int
    """As the study counts: four numbers of BatchNorm a filter beside its bias, which a student has folded into one."""


def compact_network(file_path: Path) -> Network:
    """The published network of one neuron, from the list of its weights.

    Raises
    ------
    NwbCompactError
        If the file cannot be read or holds weights of other shapes.
    """
    listed = read_weight_list(file_path)
    arrays = _Arrays(file_path, listed)
    layers, n_filters = _folded(arrays, (EPSILON,) * N_LAYERS)
    weight, bias = arrays.take(MAP_PX * MAP_PX * n_filters, 1), arrays.take(1)
    arrays.end()
    readout = weight.reshape(MAP_PX, MAP_PX, n_filters).transpose(2, 0, 1)  # Keras flattens a map row by row, filters last
    student = StudentWeights({**layers, "readout.weight": np.ascontiguousarray(readout), "readout.bias": bias})
    return Network((student,), sum(array.size for array in listed))


def shared_network(file_path: Path, n_units: int) -> Network:
    """A published network of many neurons, from its .keras archive.

    Parameters
    ----------
    file_path
        The archive.
    n_units
        Neurons it must answer for.

    Raises
    ------
    NwbCompactError
        If the file cannot be read, or holds another architecture, weights of other shapes or another number of neurons.
    """
    found = read_keras(file_path)
    _require_architecture(found, file_path)
    listed = [array for layer in found for array in layer.weights]
    arrays = _Arrays(file_path, listed)
    layers, n_filters = _folded(arrays, [float(layer.config["epsilon"]) for layer in found if layer.kind == "BatchNormalization"])
    mixing, mixing_bias = arrays.take(1, 1, n_filters, n_units)[0, 0], arrays.take(n_units)
    space, space_bias = arrays.take(MAP_PX, MAP_PX, n_units, 1)[..., 0], arrays.take(n_units)
    arrays.end()
    bias = (space_bias + mixing_bias * space.sum(axis=(0, 1), dtype=np.float64)).astype(np.float32)
    students = tuple(
        StudentWeights({
            **layers, "readout.filter": mixing[:, unit].copy(), "readout.space": space[:, :, unit].copy(),
            "readout.bias": bias[unit : unit + 1].copy(),
        })
        for unit in range(n_units)
    )
    return Network(students, sum(array.size for array in listed))


class _Arrays:
    """Weights in the order of the file, each taken as what it must be."""

    def __init__(self, file_path: Path, arrays: Sequence[np.ndarray]):
        self.file_path, self.arrays, self.n_taken = file_path, arrays, 0

    def take(self, *shape: int | None) -> np.ndarray:
        """The next array, which must have this shape; None is any number of filters."""
        number = self.n_taken = self.n_taken + 1
        if number > len(self.arrays):
            self._stop(f"{len(self.arrays)} arrays", "more")
        array = self.arrays[number - 1]
        wanted = tuple(found if size is None and found else size for found, size in zip(array.shape, shape, strict=False))
        if array.shape != wanted or len(array.shape) != len(shape):
            told = ", ".join("filters" if size is None else str(size) for size in shape)
            self._stop(f"array {number} of {len(self.arrays)} with shape {array.shape}", f"({told})")
        if not np.isfinite(array).all():
            self._stop(f"numbers in array {number} of {len(self.arrays)} that are not finite", "finite weights")
        return array

    def take_variance(self, n_filters: int) -> np.ndarray:
        """The last of BatchNorm's four arrays; their shapes are the same, so this is the one that tells a wrong order."""
        variance = self.take(n_filters)
        if (variance < 0).any():
            self._stop(f"negative numbers in array {self.n_taken} of {len(self.arrays)}", "the variance of BatchNorm")
        return variance

    def end(self) -> None:
        """All have been taken."""
        if self.n_taken < len(self.arrays):
            self._stop(f"{len(self.arrays)} arrays", f"{self.n_taken}")

    def _stop(self, found: str, expected: str) -> NoReturn:
        raise NwbCompactError(self.file_path, found=found, expected=f"{expected} as in the published networks", next_step=FETCH_AGAIN)


def _folded(arrays: _Arrays, epsilons: Sequence[float]) -> tuple[dict[str, np.ndarray], int]:
    """Layers 1 to 5, each scaled and shifted as its BatchNorm does in use, and how many filters the last has.

    Keras keeps kernels as (height width channel filter), and of BatchNorm gain, shift, mean and variance in this order.
    """
    folded, n_before = {"input.mean": np.array(INPUT_MEAN, np.float32)}, COLOURS
    for layer, epsilon in enumerate(epsilons, start=1):
        depthwise = None if layer == 1 else arrays.take(KERNEL_PX, KERNEL_PX, n_before, 1)[..., 0]
        weight = arrays.take(KERNEL_PX, KERNEL_PX, n_before, None) if depthwise is None else arrays.take(1, 1, n_before, None)
        n_before = weight.shape[3]
        bias, gain, shift, mean = (arrays.take(n_before).astype(np.float64) for _ in range(4))
        scale = gain / np.sqrt(arrays.take_variance(n_before).astype(np.float64) + epsilon)
        scaled = np.ascontiguousarray((weight * scale).transpose(3, 2, 0, 1), np.float32)
        if depthwise is None:
            folded["layer1.kernel"] = scaled
        else:
            folded[f"layer{layer}.depthwise"] = np.ascontiguousarray(depthwise.transpose(2, 0, 1))
            folded[f"layer{layer}.pointwise"] = scaled[:, :, 0, 0].copy()
        folded[f"layer{layer}.bias"] = ((bias - mean) * scale + shift).astype(np.float32)
    return folded, n_before


def _require_architecture(layers: Sequence[KerasLayer], file_path: Path) -> None:
    next_step = "name a model of the published compact architecture, or download the file again"
    kinds = [layer.kind for layer in layers]
    if kinds != [kind for kind, _ in SHARED_LAYERS]:
        different = next((k for k, (kind, (wanted, _)) in enumerate(zip(kinds, SHARED_LAYERS, strict=False)) if kind != wanted), None)
        found = f"{len(kinds)} layers" if different is None else f"{kinds[different]} as layer {different + 1}"
        expected = f"{len(SHARED_LAYERS)} layers" if different is None else f"{SHARED_LAYERS[different][0]}"
        raise NwbCompactError(file_path, found=found, expected=f"{expected} as in the shared models", next_step=next_step)
    for layer, (_, config) in zip(layers, SHARED_LAYERS, strict=True):
        wrong = next((key for key, value in config.items() if layer.config.get(key) != value), None)
        if wrong is not None:
            found, expected = f"{wrong} {layer.config.get(wrong)} in layer {layer.config.get('name')}", f"{config[wrong]}"
            raise NwbCompactError(file_path, found=found, expected=expected, next_step=next_step)
