"""The bank: the students of all units of a session as one network, whose channels are shared by all units or stacked by unit.

The study found early filters to be the same across neurons while later layers consolidate, each unit its own way (see docs/methods.md).
So a bank shares its first layers, which makes the cost of a unit small: all five while it learns the teacher, two once each unit has been
pruned its own way, and one when units have also left filters of the first layer out. A student that leaves the bank holds
only the filters it uses and is a network of the published architecture (see `student`).

There is no normalisation: a new bank's filters are scaled once so that they answer images with mean 0 and variance 1, and from then
on its arrays are those of its students. Per-unit layers are padded to the widest unit. A filter that a unit does not have gets weights
and bias of 0: it answers 0, and since the slope of relu at 0 is 0, it never learns to answer anything else.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn
from torch.nn import functional

from nwb_compact.fast_layers import depthwise, first_layer, pointwise
from nwb_compact.fused_layers import OwnLayers, squared_error
from nwb_compact.results import StudentWeights
from nwb_compact.student import INPUT_MEAN, KERNEL_PX, MAP_PX, N_LAYERS, STRIDES, same_padding

ABOVE_ARE_OWN = 2
"""The last layer that units share when students are cut out (`prune`); those above are trained as each unit's own (`fused_layers`)."""
REMEMBERED, LEAST_ERROR = 0.98, 1e-3
"""Share of a unit's error of before that each step keeps (some 50 steps count), and the least that one is divided by; z-scored answers vary
by 1."""
SPACE = 10.0
"""Sum of a new separable readout over its places; of that size, filters and places learn about equally fast."""
SCALED_BY = 64
"""Images by which the filters of a new bank are scaled."""
QUIET = 1e-4
"""Least standard deviation by which a filter is scaled."""
FIRST_BLUR_PX = 1.0
"""SD of the Gaussian that smooths the random kernels on pixels of a new bank. Training hardly changes what natural images hardly show, so
the finest part of a filter stays what it was at first: without smoothing, noise that is drawn and means nothing (docs/measured.md)."""


@dataclass(frozen=True)
class BankShape:
    """How many filters a bank has and which layers its units share."""

    n_units: int
    widths: tuple[int, ...]
    """Filters of layers 1 to 5: of the layer where it is shared, of each unit where it is not."""
    shared_layers: int
    """Layers 1 to this one are shared, the others are each unit's own; 1 to 5."""
    readout: Literal["separable", "dense"] = "separable"
    """separable: a weight a filter times a weight a place. dense: a weight for each filter and place; only where each unit has a layer 5
    of its own."""
    products: int = 1
    """Of a separable readout: so many products of a weight a filter and a weight a place are added up."""

    def total(self, layer: int) -> int:
        """Channels of layer 1 to 5 in the stacked network."""
        return self.widths[layer - 1] * (1 if layer <= self.shared_layers else self.n_units)


class Bank(nn.Module):
    """All students of a session as one stacked network; layers are numbered from 1, as everywhere."""

    mean: Tensor
    unit_error: Tensor

    def __init__(self, shape: BankShape, masks: tuple[Bool[np.ndarray, "unit filter"], ...] | None = None):
        """Build a bank with random weights; `new_bank` also scales them to images.

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
            If a unit leaves out a filter of a shared layer that another shared layer reads, or a dense readout is asked of shared filters.
        """
        super().__init__()
        self.shape, self.fixed_layers = shape, 0
        masks = masks or tuple(np.ones((shape.n_units, width), bool) for width in shape.widths)
        if not all(mask.all() for mask in masks[: shape.shared_layers - 1]):
            raise ValueError("a unit can leave out filters only of the last shared layer: the shared layer above reads all of them")
        if shape.readout == "dense" and shape.shared_layers == N_LAYERS:
            raise ValueError("a dense readout needs filters of layer 5 that are each unit's own")
        self.register_buffer("mean", torch.tensor(INPUT_MEAN)[None, :, None, None])
        self.register_buffer("unit_error", torch.ones(shape.n_units))  # kept with the weights, so that what is resumed goes on the same
        n_units, widths = shape.n_units, shape.widths
        self.kernel = nn.Parameter(torch.randn(widths[0], 3, KERNEL_PX, KERNEL_PX))
        self.bias = nn.ParameterList(torch.zeros(shape.total(layer)) for layer in range(1, N_LAYERS + 1))
        self.depthwise, self.pointwise = nn.ParameterList(), nn.ParameterList()
        for layer in range(2, N_LAYERS + 1):
            groups, inputs = 1 if layer <= shape.shared_layers else n_units, widths[layer - 2]
            self.depthwise.append(torch.randn(shape.total(layer - 1), 1, KERNEL_PX, KERNEL_PX) / KERNEL_PX)
            self.pointwise.append(torch.randn(groups, widths[layer - 1], inputs) / inputs**0.5)
        self.offset = nn.Parameter(torch.zeros(n_units))
        if shape.readout == "separable":
            weights = torch.randn(n_units, widths[-1], shape.products) / (widths[-1] * shape.products) ** 0.5
            self.readout_filter = nn.Parameter(0.3 * weights)
            self.readout_space = nn.Parameter(torch.full((n_units, shape.products, MAP_PX**2), SPACE / MAP_PX**2))
        else:
            self.readout = nn.Parameter(torch.randn(n_units, widths[-1], MAP_PX**2) * 0.01 / MAP_PX)
        for layer, mask in enumerate(masks, start=1):
            self.register_buffer(f"has_{layer}", torch.from_numpy(mask))
            if layer > shape.shared_layers:
                with torch.no_grad():  # nothing random where there is no filter: it would be part of the norm of its matrix
                    self.pointwise[layer - 2][~torch.from_numpy(mask)] = 0.0
                    if layer < N_LAYERS:
                        self.depthwise[layer - 1][~torch.from_numpy(mask).flatten()] = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch 3 112 112) in 0..255 to answers (batch unit), in the units the bank was trained on."""
        return self.contributions(self._maps(images, N_LAYERS)).sum(dim=2) + self.offset

    def loss(self, images: Tensor, wanted: Tensor) -> Tensor:
        """What training makes small: the mean squared error of the answers (batch unit), each unit's over what it lately was.

        A plain mean would leave shared layers to the units that are hard to predict: of what an easy unit still lacks, the gradient is
        small. Divided by itself, the error of each unit counts alike, as in maximum likelihood with a noise of its own for each unit
        (Kendall, Gal & Cipolla 2018). Times the mean of all, the loss stays what it would be.
        """
        weights = self.unit_error.mean() / self.unit_error
        if images.device.type == "cpu" and self.shape.shared_layers <= ABOVE_ARE_OWN:
            maps = self.spatial(self._maps(images, ABOVE_ARE_OWN), ABOVE_ARE_OWN + 1)
            loss, errors = squared_error(maps, self._own_layers(), wanted, weights)
        else:
            errors = ((self(images).float() - wanted) ** 2).mean(dim=0)
            loss = (weights * errors).mean()
        if self.training:  # by each part of a batch that memory does not hold at once: what matters is the average over many
            self.unit_error.lerp_(errors.detach(), 1 - REMEMBERED).clamp_(min=LEAST_ERROR)
        return loss

    def _maps(self, images: Tensor, last_layer: int) -> Tensor:
        """What a layer makes of images; nothing flows back through layers that are fixed."""
        learning = torch.is_grad_enabled()
        with torch.set_grad_enabled(learning and self.fixed_layers == 0):
            x = self.enter(images)
        for layer in range(2, last_layer + 1):
            with torch.set_grad_enabled(learning and layer > self.fixed_layers):
                x = self.mix(self.spatial(x, layer), layer)
        return x

    def _own_layers(self) -> OwnLayers:
        """Layers 3 to 5 and the readout, each unit's weights for the filters of layer 2 that it uses or has."""
        n_units, used = self.shape.n_units, self.has(ABOVE_ARE_OWN)
        sizes = torch.stack([self.has(layer).sum(dim=1) for layer in range(ABOVE_ARE_OWN, N_LAYERS + 1)], dim=1)
        most = int(sizes[:, 0].max())
        reads = used.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        third, fourth, fifth = list(self.pointwise)[ABOVE_ARE_OWN - 1 :]
        third = (third * used[:, None]).gather(2, reads[:, None].expand(-1, third.shape[1], -1))
        if self.shape.shared_layers < ABOVE_ARE_OWN:
            reads = reads + torch.arange(n_units)[:, None] * self.shape.widths[ABOVE_ARE_OWN - 1]
        return OwnLayers(
            reads, sizes, (third, fourth, fifth),
            tuple(kernel.reshape(n_units, -1, KERNEL_PX**2) for kernel in list(self.depthwise)[ABOVE_ARE_OWN:]),
            tuple(bias.reshape(n_units, -1) for bias in list(self.bias)[ABOVE_ARE_OWN:]),
            self._over_places(), self.offset,
        )

    def fix(self, layers: int) -> "Bank":
        """Leave layers 1 to `layers` as they are in all training to come: nothing flows back through the large maps, which cost most."""
        self.fixed_layers = layers
        for layer in range(1, layers + 1):
            for parameter in self.arrays_of(layer):
                parameter.requires_grad_(False)
        return self

    def arrays_of(self, layer: int) -> list[nn.Parameter]:
        """The parameters of one layer."""
        of_layer = [self.kernel] if layer == 1 else [self.depthwise[layer - 2], self.pointwise[layer - 2]]
        return [*of_layer, self.bias[layer - 1]]

    def matrices(self) -> list[tuple[nn.Parameter, tuple[int, int, int]]]:
        """Weights of filters, each with the shape of the stack of matrices (unit filter input) that it is; one where layers are shared."""
        found: list[tuple[nn.Parameter, tuple[int, int, int]]] = [(self.kernel, (1, len(self.kernel), self.kernel[0].numel()))]
        for layer in range(2, N_LAYERS + 1):
            spatial, mixing = self.depthwise[layer - 2], self.pointwise[layer - 2]
            groups = 1 if layer - 1 <= self.shape.shared_layers else self.shape.n_units
            found.append((spatial, (groups, len(spatial) // groups, KERNEL_PX**2)))
            found.append((mixing, (*mixing.shape,)))
        return found

    def readout_arrays(self) -> list[nn.Parameter]:
        """The parameters that weigh places, which learn at a rate of their own."""
        return [self.readout_space] if self.shape.readout == "separable" else [self.readout]

    def enter(self, images: Tensor) -> Tensor:
        """Layer 1: images (batch 3 112 112) in 0..255 to its rectified maps, with the border that layer 2 needs."""
        return first_layer(images - self.mean, self.kernel, self.bias[0])

    def spatial(self, x: Tensor, layer: int) -> Tensor:
        """The depthwise half of a layer."""
        stride = STRIDES[layer - 1]
        if layer > 2:  # the maps of layer 1 come with their border
            x = same_padding(x, stride).contiguous(memory_format=torch.channels_last)
        return depthwise(x, self.depthwise[layer - 2], stride)

    def mix(self, x: Tensor, layer: int) -> Tensor:
        """The pointwise half of a layer, rectified; filters a unit does not have give 0."""
        weight = self.pointwise[layer - 2]
        if layer == self.shape.shared_layers + 1:  # here the units part: each sees only the shared filters it uses
            weight = (weight * self.has(layer - 1)[:, None, :]).flatten(0, 1)[None]
        return pointwise(x, weight, self.bias[layer - 1])

    def contributions(self, x: Tensor) -> Tensor:
        """The readout: what each filter of the last layer adds to its unit's answer (batch unit filter)."""
        places = x.permute(0, 2, 3, 1).flatten(1, 2)
        if self.shape.shared_layers == N_LAYERS:
            pooled = torch.matmul(self.readout_space.flatten(0, 1), places).unflatten(1, self.readout_space.shape[:2])
            return (pooled * self.readout_filter.transpose(1, 2)).sum(dim=2) * self.has(N_LAYERS)
        by_unit = places.unflatten(2, (self.shape.n_units, -1))
        return (by_unit * self._over_places().permute(2, 0, 1)).sum(dim=1)

    def _over_places(self) -> Tensor:
        """Weights of the readout (unit filter place)."""
        return torch.bmm(self.readout_filter, self.readout_space) if self.shape.readout == "separable" else self.readout

    def has(self, layer: int) -> Tensor:
        """(unit filter) bool: the filters of a layer each unit has or, in a shared layer, uses."""
        return getattr(self, f"has_{layer}")

    def cut(
        self, scale: Float32[np.ndarray, "unit"], offset: Float32[np.ndarray, "unit"]
    ) -> tuple[StudentWeights, ...]:
        """Every unit's student as a network of its own, answering scale x bank + offset.

        Returns
        -------
        One `StudentWeights` a unit; `student.predict` of it equals the bank's answer up to rounding. An array that all units have in
        common is the same object in all of them.

        Examples
        --------
        >>> bank = Bank(BankShape(n_units=2, widths=(6, 5, 4, 3, 3), shared_layers=2)).eval()
        >>> [student.arrays["readout.filter"].shape for student in bank.cut(np.ones(2, np.float32), np.zeros(2, np.float32))]
        [(3,), (3,)]
        """
        common = self._common()
        return tuple(StudentWeights(self._cut_one(unit, float(scale[unit]), float(offset[unit]), common))
                     for unit in range(self.shape.n_units))

    def channels(self, unit: int, layer: int) -> Tensor:
        """Stacked channels of a layer that one unit has (or uses)."""
        kept = self.kept(unit, layer)
        return kept if layer <= self.shape.shared_layers else kept + unit * self.shape.widths[layer - 1]

    def weights_of(self, unit: int, layer: int) -> Tensor:
        """Pointwise weights (filter input) of one unit in a layer from 2: its filters, and those it reads."""
        group = 0 if layer <= self.shape.shared_layers else unit
        return self.pointwise[layer - 2][group][self.kept(unit, layer)][:, self.kept(unit, layer - 1)].detach()

    def kept(self, unit: int, layer: int) -> Tensor:
        """Where in its layer the filters stand that a unit has or, in a shared layer, uses."""
        return torch.nonzero(self.has(layer)[unit]).flatten()

    def _common(self) -> dict[str, np.ndarray]:
        """Arrays that no unit leaves anything out of, made once for all units."""
        made: dict[str, np.ndarray] = {}
        for layer in range(1, N_LAYERS + 1):
            arrays = self._layer(0, layer)
            if layer > self.shape.shared_layers or not self.has(layer).all():
                below = f"layer{layer}.depthwise"  # belongs to the filters below, which all units have
                made |= {below: arrays[below]} if below in arrays else {}
                break
            made |= arrays
        return made | self._input_mean() if made else {}  # students that have no filter in common share nothing

    def _input_mean(self) -> dict[str, np.ndarray]:
        return {"input.mean": _array(self.mean.flatten())}

    def _layer(self, unit: int, layer: int) -> dict[str, np.ndarray]:
        kept = self.channels(unit, layer)
        arrays = {f"layer{layer}.bias": _array(self.bias[layer - 1][kept])}
        if layer == 1:
            return arrays | {"layer1.kernel": _array(self.kernel[kept])}
        arrays[f"layer{layer}.depthwise"] = _array(self.depthwise[layer - 2][self.channels(unit, layer - 1), 0])
        return arrays | {f"layer{layer}.pointwise": _array(self.weights_of(unit, layer))}

    def _cut_one(self, unit: int, scale: float, offset: float, common: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = self._input_mean() | common
        for layer in range(1, N_LAYERS + 1):
            if f"layer{layer}.bias" not in common:
                arrays = self._layer(unit, layer) | arrays
        kept = self.kept(unit, N_LAYERS)
        if self.shape.readout == "separable":
            weights, space = scale * self.readout_filter[unit, kept], self.readout_space[unit].unflatten(1, (MAP_PX, MAP_PX))
            one = self.shape.products == 1  # which has no axis of its own, as in files of before there could be several
            arrays |= {"readout.filter": _array(weights[:, 0] if one else weights), "readout.space": _array(space[0] if one else space)}
        else:
            arrays["readout.weight"] = _array(scale * self.readout[unit, kept].unflatten(1, (MAP_PX, MAP_PX)))
        arrays["readout.bias"] = _array(scale * self.offset[unit : unit + 1] + offset)
        return arrays


def new_bank(shape: BankShape, images: Tensor, *, seed: int) -> Bank:
    """A bank whose every filter answers the images (batch 3 112 112, in 0..255) with mean 0 and variance 1 before it is rectified.

    Without that, and without a normalisation, layers would start too loud or too faint to learn (Mishkin & Matas 2016).
    """
    torch.manual_seed(seed)
    bank = Bank(shape)
    with torch.no_grad():
        bank.kernel.copy_(blurred(bank.kernel, FIRST_BLUR_PX))
        centred = images - bank.mean
        _scale(functional.conv2d(centred, bank.kernel, padding=KERNEL_PX // 2), bank.kernel, bank.bias[0])
        x = bank.enter(images)
        for layer in range(2, N_LAYERS + 1):
            x, weight = bank.spatial(x, layer), bank.pointwise[layer - 2]
            groups = len(weight) if layer > shape.shared_layers + 1 else 1
            _scale(functional.conv2d(x, weight.flatten(0, 1)[:, :, None, None], groups=groups), weight, bank.bias[layer - 1])
            x = bank.mix(x, layer)
    return bank


def blurred(kernels: Float32[Tensor, "filter input 5 5"], sigma_px: float) -> Float32[Tensor, "filter input 5 5"]:
    """Kernels smoothed with a Gaussian of that SD, each for itself; around them there is nothing.

    Examples
    --------
    >>> point = functional.pad(torch.ones(1, 1, 1, 1), (2, 2, 2, 2))
    >>> blurred(point, 0.5)[0, 0, 2].numpy().round(2)
    array([0.  , 0.08, 0.62, 0.08, 0.  ], dtype=float32)
    """
    x = torch.arange(KERNEL_PX) - KERNEL_PX // 2
    gauss = torch.exp(-(x**2) / (2 * sigma_px**2))
    blur = (torch.outer(gauss, gauss) / gauss.sum() ** 2).to(kernels)
    return functional.conv2d(kernels.flatten(0, 1)[:, None], blur[None, None], padding=KERNEL_PX // 2).view(kernels.shape)


def _scale(answers: Tensor, weight: Tensor, bias: Tensor) -> None:
    spread = answers.std(dim=(0, 2, 3)).clamp_min(QUIET)
    weight.div_(spread.reshape(*weight.shape[:2], 1) if weight.ndim == 3 else spread[:, None, None, None])
    bias.copy_(-answers.mean(dim=(0, 2, 3)) / spread)


def _array(values: Tensor) -> np.ndarray:
    return np.array(values.detach().cpu().float().numpy(), order="C")  # a copy, which does not learn on with the bank
