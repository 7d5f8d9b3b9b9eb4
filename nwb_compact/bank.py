"""The bank: the students of all units of a session trained at once, as one network whose channels are stacked by unit.

The first layers may be shared by all units, since the study found early filters to be the same across neurons while later layers
consolidate, each unit its own way (see docs/methods.md). Sharing makes the cost of a unit small; a student that leaves the bank takes
its own copy of the filters it uses and is a network of the published architecture (see `student`).

Per-unit layers are padded to the widest unit. A filter that a unit does not have gets a normalisation of gain 0 and shift 0: it answers
0, and since the slope of relu at 0 is 0 in torch, it never learns to answer anything else.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn

from nwb_compact.results import StudentWeights
from nwb_compact.student import INPUT_MEAN, KERNEL_PX, MAP_PX, N_LAYERS, STRIDES, same_padding


@dataclass(frozen=True)
class BankShape:
    """How many filters a bank has and which layers its units share."""

    n_units: int
    widths: tuple[int, ...]
    """Filters of layers 1 to 5: of the layer where it is shared, of each unit where it is not."""
    shared_layers: int
    """Layers 1 to this one are shared, the others are each unit's own; at least 1 and at most 4."""

    def total(self, layer: int) -> int:
        """Channels of layer 1 to 5 in the stacked network."""
        return self.widths[layer - 1] * (1 if layer <= self.shared_layers else self.n_units)


class Bank(nn.Module):
    """All students of a session as one stacked network; layers are numbered from 1, as everywhere."""

    mean: Tensor
    depthwise: Any
    pointwise: Any
    norm: Any
    """Lists of torch modules; `Any` because torch types what is in a list as a bare Module."""

    def __init__(self, shape: BankShape, masks: tuple[Bool[np.ndarray, "unit filter"], ...] | None = None):
        """Build a bank with random weights.

        Parameters
        ----------
        shape
            Widths and sharing.
        masks
            Which filters each unit has, one array (unit filter) a layer; for the last shared layer: which of its filters the unit
            uses. The shared layers before it have no mask, since the last one reads all of them. None: all.

        Raises
        ------
        ValueError
            If a unit leaves out a filter of a shared layer that another shared layer reads.
        """
        super().__init__()
        self.shape, self.fixed_layers = shape, 0
        masks = masks or tuple(np.ones((shape.n_units, width), bool) for width in shape.widths)
        if not all(mask.all() for mask in masks[: shape.shared_layers - 1]):
            raise ValueError("a unit can leave out filters only of the last shared layer: the shared layer above reads all of them")
        self.register_buffer("mean", torch.tensor(INPUT_MEAN)[None, :, None, None])
        self.first = nn.Conv2d(3, shape.total(1), KERNEL_PX, padding=2, bias=False)
        self.depthwise, self.pointwise = nn.ModuleList(), nn.ModuleList()
        for layer in range(2, N_LAYERS + 1):
            inputs, outputs = shape.total(layer - 1), shape.total(layer)
            own = layer - 1 > shape.shared_layers  # a unit's filters see only that unit's
            stride = STRIDES[layer - 1]
            self.depthwise.append(nn.Conv2d(inputs, inputs, KERNEL_PX, stride=stride, groups=inputs, bias=False))
            self.pointwise.append(nn.Conv2d(inputs, outputs, 1, groups=shape.n_units if own else 1, bias=False))
        self.norm = nn.ModuleList(nn.BatchNorm2d(shape.total(layer)) for layer in range(1, N_LAYERS + 1))
        self.readout = nn.Parameter(torch.randn(MAP_PX, MAP_PX, shape.total(N_LAYERS)) * 0.01 / MAP_PX)
        self.bias = nn.Parameter(torch.zeros(shape.n_units))
        for layer, mask in enumerate(masks, start=1):
            self.register_buffer(f"has_{layer}", torch.from_numpy(mask))
            if layer > shape.shared_layers:
                missing = ~torch.from_numpy(mask).flatten()
                with torch.no_grad():
                    self.norm[layer - 1].weight[missing] = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch 3 112 112) in 0..255 to answers (batch unit), in the units the bank was trained on."""
        learning = torch.is_grad_enabled()
        with torch.set_grad_enabled(learning and self.fixed_layers == 0):
            x = self.enter(images)
        for layer in range(2, N_LAYERS + 1):
            with torch.set_grad_enabled(learning and layer > self.fixed_layers):
                x = self.mix(self.spatial(x, layer), layer)
        return self.contributions(x).sum(dim=2) + self.bias

    def fix(self, layers: int) -> "Bank":
        """Leave layers 1 to `layers` as they are in all training to come: nothing flows back through the large maps, which cost most."""
        self.fixed_layers = layers
        for module in self._fixed():
            module.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "Bank":
        """As in torch; the normalisation of fixed layers stays in evaluation."""
        super().train(mode)
        for module in self._fixed():
            module.eval()
        return self

    def enter(self, images: Tensor) -> Tensor:
        """Layer 1: images (batch 3 112 112) in 0..255 to its rectified maps."""
        return torch.relu(self.norm[0](self.first(images - self.mean)))

    def spatial(self, x: Tensor, layer: int) -> Tensor:
        """The depthwise half of a layer."""
        return self.depthwise[layer - 2](same_padding(x, STRIDES[layer - 1]))

    def mix(self, x: Tensor, layer: int) -> Tensor:
        """The pointwise half of a layer, normalised and rectified; filters a unit does not have give 0."""
        shape, pointwise = self.shape, self.pointwise[layer - 2]
        weight = pointwise.weight
        if layer == shape.shared_layers + 1:  # here the units part: each sees only the shared filters it uses
            uses = self.has(layer - 1).repeat_interleave(shape.widths[layer - 1], dim=0)
            weight = weight * uses[:, :, None, None]
        return torch.relu(self.norm[layer - 1](nn.functional.conv2d(x, weight, groups=pointwise.groups)))

    def contributions(self, x: Tensor) -> Tensor:
        """The dense readout: what each filter of the last layer adds to its unit's answer (batch unit filter)."""
        by_filter = torch.einsum("bhwc,hwc->bc", x.permute(0, 2, 3, 1), self.readout)
        return by_filter.unflatten(1, (self.shape.n_units, -1))

    def has(self, layer: int) -> Tensor:
        """(unit filter) bool: the filters of a layer each unit has or, in a shared layer, uses."""
        return getattr(self, f"has_{layer}")

    def cut(
        self, scale: Float32[np.ndarray, "unit"], offset: Float32[np.ndarray, "unit"]
    ) -> tuple[StudentWeights, ...]:
        """Every unit's student as a network of its own, answering scale x bank + offset.

        Returns
        -------
        One `StudentWeights` a unit; `student.predict` of it equals the bank's answer up to rounding.

        Examples
        --------
        >>> bank = Bank(BankShape(n_units=2, widths=(6, 5, 4, 3, 3), shared_layers=2)).eval()
        >>> [student.arrays["readout.weight"].shape for student in bank.cut(np.ones(2, np.float32), np.zeros(2, np.float32))]
        [(3, 28, 28), (3, 28, 28)]
        """
        return tuple(self._cut_one(unit, float(scale[unit]), float(offset[unit])) for unit in range(self.shape.n_units))

    def channels(self, unit: int, layer: int) -> Tensor:
        """Stacked channels of a layer that one unit has (or uses)."""
        kept = torch.nonzero(self.has(layer)[unit]).flatten()
        return kept if layer <= self.shape.shared_layers else kept + unit * self.shape.widths[layer - 1]

    def normalisation(self, layer: int) -> tuple[Tensor, Tensor]:
        """BatchNorm of a layer in evaluation, as gain and shift a channel."""
        norm = self.norm[layer - 1]
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return gain.detach(), (norm.bias - gain * norm.running_mean).detach()

    def _fixed(self) -> list[nn.Module]:
        n = self.fixed_layers
        return [self.first, *self.norm[:n], *self.depthwise[: n - 1], *self.pointwise[: n - 1]] if n else []

    def _cut_one(self, unit: int, scale: float, offset: float) -> StudentWeights:
        arrays = {"input.mean": self.mean.flatten()}
        for layer in range(1, N_LAYERS + 1):
            kept, (gain, shift) = self.channels(unit, layer), self.normalisation(layer)
            if layer == 1:
                arrays["layer1.kernel"] = self.first.weight[kept] * gain[kept, None, None, None]
            else:
                before = self.channels(unit, layer - 1)
                # Within its group a unit's pointwise weights count only its own inputs.
                column = before if layer - 1 <= self.shape.shared_layers else before - unit * self.shape.widths[layer - 2]
                arrays[f"layer{layer}.depthwise"] = self.depthwise[layer - 2].weight[before, 0]
                arrays[f"layer{layer}.pointwise"] = self.pointwise[layer - 2].weight[kept][:, column, 0, 0] * gain[kept, None]
            arrays[f"layer{layer}.bias"] = shift[kept]
        arrays["readout.weight"] = scale * self.readout[:, :, self.channels(unit, N_LAYERS)].permute(2, 0, 1)
        arrays["readout.bias"] = scale * self.bias[unit : unit + 1] + offset
        return StudentWeights({name: np.ascontiguousarray(value.detach().cpu().float().numpy()) for name, value in arrays.items()})
