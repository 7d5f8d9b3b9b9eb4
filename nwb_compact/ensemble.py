"""The network of the teacher: all members of the ensemble in one module, their parameters stacked along a first axis.

A member is a trunk (only where there is no frozen backbone), a small convolutional core and one readout a session. Members never
meet: convolutions are grouped by member. How many members a call computes is the caller's choice and does not change their answers:
a GPU is filled by all at once, while a CPU is fastest with one after the other, whose maps stay in its cache.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.nn import functional

from nwb_compact import config
from nwb_compact.readouts import READOUTS, Generators, normal
from nwb_compact.results import IMAGE_PX
from nwb_compact.training import derived_seed

BATCHNORM_MOMENTUM, BATCHNORM_EPS = 0.1, 1e-5
"""As in torch."""
TRUNK_STRIDE = 8
"""Image pixels a place of the trained trunk's map: 14 x 14 places of a 112 px image."""
BLOCK_KERNEL = 5
"""Places across which a residual block mixes; on validation images of V4 better than 3 (docs/measured.md)."""
MOST_MEMBERS = 1000
"""That a file may tell of; the study had 25."""
SMALLEST_SD = 1e-6
"""A channel that varies less is left as it is."""
PIXEL_MEAN, PIXEL_SD = 110.0, 60.0
"""About those of the study's images, 0..255."""


class Ensemble(nn.Module):
    """M members that answer the same maps (of a frozen backbone) or images (`conv`)."""

    input_mean: Tensor
    input_sd: Tensor
    blocks: Any
    readouts: Any
    """Lists of modules; `Any` because torch types what is in a list as a bare Module."""

    def __init__(
        self, shape: tuple[int, ...], n_units: Sequence[int], settings: config.Teacher, *, from_images: bool, seed: int
    ):
        """Build the members with random weights; member m is the same in an ensemble of any size.

        Parameters
        ----------
        shape
            Of one map (channel row column), or of one image (height width 3).
        n_units
            Units of each session.
        settings
            Sizes.
        from_images
            Whether inputs are images, for which a trunk is trained, too.
        seed
            Source of the weights.
        """
        super().__init__()
        draw = [torch.Generator().manual_seed(derived_seed(seed, "member", member)) for member in range(settings.members)]
        self.n_members, self.dropout, width = settings.members, settings.dropout, settings.channels
        self.trunk = _Trunk(settings.trunk_channels, draw) if from_images else None
        if from_images:
            channels, rows, columns = settings.trunk_channels, shape[0] // TRUNK_STRIDE, shape[1] // TRUNK_STRIDE
        else:
            channels, rows, columns = shape
        inputs = 3 if from_images else channels
        self.register_buffer("input_mean", torch.full((inputs, 1, 1), PIXEL_MEAN))
        self.register_buffer("input_sd", torch.full((inputs, 1, 1), PIXEL_SD))
        self.enter, self.enter_norm = _Convolution(channels, width, 1, draw), _Norm(width, len(draw))
        self.blocks = nn.ModuleList(_Residual(width, draw) for _ in range(settings.core_blocks))
        self.leave_norm = _Norm(width, len(draw))
        self.readouts = nn.ModuleList(READOUTS[settings.readout](n, width, rows, columns, draw) for n in n_units)

    def standardise_by(self, some: Iterable[np.ndarray]) -> None:
        """Take mean and SD of each channel of a frozen backbone from some maps of each session (image channel row column), one session
        in memory at a time; images have fixed ones.
        """
        axes, n, total, squares = (0, 2, 3), 0, np.zeros(1), np.zeros(1)
        for maps in some:
            n = n + maps[:, 0].size
            total = total + maps.sum(axis=axes, dtype=np.float64)
            squares = squares + np.square(maps, dtype=np.float32).sum(axis=axes, dtype=np.float64)
        mean = total / max(n, 1)
        sd = np.sqrt(np.maximum(squares / max(n, 1) - mean**2, 0))
        self.input_mean.copy_(torch.from_numpy(mean)[:, None, None])
        self.input_sd.copy_(torch.from_numpy(np.where(sd > SMALLEST_SD, sd, 1))[:, None, None])

    def standardised(self, inputs: Tensor) -> Tensor:
        """Inputs as `forward` takes them, once for all members."""
        return (inputs - self.input_mean) / self.input_sd

    def forward(self, x: Tensor, session: int, members: slice, noise: Generators | None = None) -> Tensor:
        """Answers of some members to one batch of standardised inputs (batch channel row column), z-scored: (member unit batch).

        `noise`, a generator for each of those members, is given in training and only then: it draws what is dropped out, and
        normalisation then takes the batch's own statistics.
        """
        n = members.stop - members.start
        if self.trunk is not None:
            x = self.trunk(x, members, learning=noise is not None)
        if noise is not None and self.dropout > 0:
            channels = x.shape[1] if self.trunk is None else x.shape[1] // n
            kept = torch.cat([torch.rand(len(x), channels, 1, 1, generator=own, device=own.device) >= self.dropout for own in noise], 1)
            own = x if self.trunk is not None or n == 1 else torch.cat([x] * n, 1)  # unlike repeat, this keeps channels last in memory
            x = own * (kept / (1 - self.dropout))
        return self.readouts[session](self.core(x, members, noise is not None), members, noise)

    def core(self, x: Tensor, members: slice, learning: bool) -> Tensor:
        """The part all sessions share: from channels (one set for all members, or one each) to maps (batch member*channel row column)."""
        x = torch.relu(self.enter_norm(self.enter(x, members), members, learning))
        for block in self.blocks:
            x = block(x, members, learning)
        return self.leave_norm(x, members, learning)

    def compile_core(self) -> None:
        """Compile the core for the device it is on; batches may differ in size. Where the compiler fails, it runs as it is."""
        torch._dynamo.config.suppress_errors = True
        self.core = torch.compile(self.core, dynamic=True)  # type: ignore[method-assign]


def ensemble_of(arrays: Mapping[str, np.ndarray]) -> Ensemble:
    """The network that has these arrays, as `state_dict` names them, of one session, ready to answer.

    Its sides are read off the arrays. It is made without memory of its own: two long sides of two small, damaged arrays would ask for
    terabytes.

    Raises
    ------
    Exception
        Of nearly any kind, if they are not those of an ensemble.

    Examples
    --------
    >>> made = Ensemble((112, 112, 3), [2], config.Teacher(members=2, channels=4, trunk_channels=4), from_images=True, seed=0)
    >>> ensemble_of({name: value.numpy() for name, value in made.state_dict().items()}).n_members
    2
    """
    n_members, width, inputs = arrays["enter.weight"].shape[:3]
    from_images, factorised = "trunk.first.weight" in arrays, "readouts.0.spatial" in arrays
    n_units, n_places = arrays["readouts.0.mixing"].shape[1], arrays["readouts.0.spatial"].shape[2] if factorised else 1
    if n_units < 1 or n_members > MOST_MEMBERS:
        raise ValueError(f"{n_members} members for {n_units} units")
    settings = config.Teacher(
        members=n_members, channels=width, trunk_channels=inputs if from_images else config.Teacher().trunk_channels,
        core_blocks=len({match[1] for name in arrays if (match := re.match(r"blocks\.(\d+)\.", name))}),
        readout="factorised" if factorised else "gaussian",
    )
    with torch.device("meta"):
        shape = (IMAGE_PX, IMAGE_PX, 3) if from_images else (inputs, n_places, 1)
        network = Ensemble(shape, [n_units], settings, from_images=from_images, seed=0)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, assign=True)
    return network.eval()


class _Convolution(nn.Module):
    """A convolution of each member; an input without a set of channels a member is every member's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, draw: Generators, *, depthwise: bool = False, stride: int = 1):
        super().__init__()
        fan_in = (1 if depthwise else inputs) * kernel**2
        self.weight = nn.Parameter(normal(draw, outputs, 1 if depthwise else inputs, kernel, kernel) / (3 * fan_in) ** 0.5)
        self.inputs, self.stride, self.padding, self.depthwise = inputs, stride, kernel // 2, depthwise

    def forward(self, x: Tensor, members: slice) -> Tensor:
        weight = self.weight[members]
        n = len(weight)
        groups = n * self.inputs if self.depthwise else 1 if x.shape[1] == self.inputs else n
        return functional.conv2d(x, weight.flatten(0, 1), stride=self.stride, padding=self.padding, groups=groups)


class _Norm(nn.Module):
    """Batch normalisation of each member's channels."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, n_members: int):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(n_members, width)), nn.Parameter(torch.zeros(n_members, width))
        self.register_buffer("running_mean", torch.zeros(n_members, width))
        self.register_buffer("running_var", torch.ones(n_members, width))

    def forward(self, x: Tensor, members: slice, learning: bool) -> Tensor:
        mean, var = self.running_mean[members].view(-1), self.running_var[members].view(-1)  # views: training changes the buffers
        gain, shift = self.gain[members].flatten(), self.shift[members].flatten()
        return functional.batch_norm(x, mean, var, gain, shift, learning, BATCHNORM_MOMENTUM, BATCHNORM_EPS)


class _Residual(nn.Module):
    """x + pointwise(relu(norm(depthwise(x)))): space and channels mixed apart, as in the study's teacher."""

    def __init__(self, width: int, draw: Generators):
        super().__init__()
        self.depthwise = _Convolution(width, width, BLOCK_KERNEL, draw, depthwise=True)
        self.norm, self.pointwise = _Norm(width, len(draw)), _Convolution(width, width, 1, draw)

    def forward(self, x: Tensor, members: slice, learning: bool) -> Tensor:
        return x + self.pointwise(torch.relu(self.norm(self.depthwise(x, members), members, learning)), members)


class _Trunk(nn.Module):
    """The trainable backbone: two strided convolutions, the first filters 7 px wide, averaged to a 14 x 14 map of a 112 px image.

    Small on purpose: it is fitted to a thousand images.
    """

    def __init__(self, channels: int, draw: Generators):
        super().__init__()
        self.first, self.first_norm = _Convolution(3, channels, 7, draw, stride=2), _Norm(channels, len(draw))
        self.second, self.second_norm = _Convolution(channels, channels, 5, draw, stride=2), _Norm(channels, len(draw))

    def forward(self, images: Tensor, members: slice, *, learning: bool) -> Tensor:
        """(batch 3 height width) to (batch member*channel height/8 width/8)."""
        x = torch.relu(self.first_norm(self.first(images, members), members, learning))
        x = torch.relu(self.second_norm(self.second(x, members), members, learning))
        return functional.avg_pool2d(x, 2)
