"""A student taken apart: its layers one by one, as differentiable torch operations on plain tensors.

`student.predict_all` answers fast; this answers slowly and lets one look inside, silence a filter, or ask how the image should change.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nwb_compact.results import StudentWeights, readout_weight
from nwb_compact.student import KERNEL_PX, N_LAYERS, STRIDES, same_padding


@dataclass(frozen=True, eq=False)
class OpenStudent:
    """The arrays of a student as tensors; layers are numbered from 1."""

    arrays: Mapping[str, Tensor]

    def n_filters(self, layer: int) -> int:
        """Filters of a layer: the channels of its maps."""
        return len(self.arrays[f"layer{layer}.bias"])

    def first(self, images: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch filter 112 112"]:
        """Layer 1 on images in 0..255."""
        centred = images - self.arrays["input.mean"][:, None, None]
        return torch.relu(functional.conv2d(centred, self.arrays["layer1.kernel"], self.arrays["layer1.bias"], padding=KERNEL_PX // 2))

    def spatial(self, maps: Float[Tensor, "batch filter row column"], layer: int) -> Float[Tensor, "batch filter row_after column_after"]:
        """The spatial half of layers 2 to 5: each map below with the 5 x 5 kernel that belongs to it."""
        kernels = self.arrays[f"layer{layer}.depthwise"][:, None]
        return functional.conv2d(same_padding(maps, STRIDES[layer - 1]), kernels, stride=STRIDES[layer - 1], groups=len(kernels))

    def mix(self, filtered: Float[Tensor, "batch filter row column"], layer: int) -> Float[Tensor, "batch filter_after row column"]:
        """The other half: weighted sums of what `spatial` gives, rectified."""
        weights = self.arrays[f"layer{layer}.pointwise"][:, :, None, None]
        return torch.relu(functional.conv2d(filtered, weights, self.arrays[f"layer{layer}.bias"]))

    def readout(self, maps: Float[Tensor, "batch filter 28 28"]) -> Float[Tensor, "batch"]:
        """Expected spikes from the maps of layer 5."""
        return (maps * self.arrays["readout.weight"]).sum(dim=(1, 2, 3)) + self.arrays["readout.bias"]

    def maps(self, images: Float[Tensor, "batch 3 112 112"]) -> tuple[Tensor, ...]:
        """The maps (batch filter row column) of layers 1 to 5."""
        of_layers = [self.first(images)]
        for layer in range(2, N_LAYERS + 1):
            of_layers.append(self.mix(self.spatial(of_layers[-1], layer), layer))
        return tuple(of_layers)

    def answer(self, images: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch"]:
        """Expected spikes in the counting window for images in 0..255; equals `student.predict` up to rounding."""
        return self.readout(self.maps(images)[-1])


def open_student(student: StudentWeights) -> OpenStudent:
    """Take a student apart.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> [maps.shape[1] for maps in open_student(example_student((6, 5, 4, 3, 3))).maps(torch.zeros(1, 3, 112, 112))]
    [6, 5, 4, 3, 3]
    """
    dense = {"readout.weight": readout_weight(student)}
    kept = {name: array for name, array in student.arrays.items() if name not in ("readout.filter", "readout.space")}
    return OpenStudent({name: torch.from_numpy(np.array(array, np.float32)) for name, array in (kept | dense).items()})
