"""What the teacher looks through: convolutions trained from scratch on the session, or a frozen network of the user's choice.

`conv` takes images as they are. `torch:MODULE:FACTORY` names a factory without arguments that returns a torch module from images
(batch, 3, height, width), float in 0..255, to a feature map (batch, channel, height, width); it is frozen, so its features are computed
once an image.
"""

import importlib
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor, nn

from nwb_compact.errors import NwbCompactError
from nwb_compact.progress import Advance, silent

Network = TypeVar("Network", bound=nn.Module)
BATCH_IMAGES = 32
"""Images a step through a frozen backbone; fits every machine and does not change the features."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network and what it is."""

    network: nn.Module
    sha256: str
    """Over names and values of all its weights."""


def frozen_backbone(name: str) -> Backbone | None:
    """The frozen network that `name` asks for, in evaluation mode; None for `conv`, which is trained with the teacher.

    Raises
    ------
    NwbCompactError
        If the name is neither `conv` nor `torch:MODULE:FACTORY`, or the factory cannot be imported or called.

    Examples
    --------
    >>> frozen_backbone("conv") is None
    True
    >>> frozen_backbone("resnet")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: --backbone: found 'resnet', expected conv or torch:MODULE:FACTORY. Next: see ...
    """
    if name == "conv":
        return None
    kind, _, place = name.partition(":")
    module_name, _, factory_name = place.partition(":")
    if kind != "torch" or not module_name or not factory_name:
        expected = "conv or torch:MODULE:FACTORY"
        raise NwbCompactError("--backbone", found=f"'{name}'", expected=expected, next_step="see examples/efficientnet_lite0.py")
    if str(Path.cwd()) not in sys.path:  # a lab's own factory usually lies in the folder it works in
        sys.path.append(str(Path.cwd()))
    try:
        network = getattr(importlib.import_module(module_name), factory_name)()
    except Exception as error:  # the factory is the user's code: whatever it raises is theirs to read
        found = f"{type(error).__name__}: {error}"
        next_step = "put the module on PYTHONPATH; see examples/efficientnet_lite0.py"
        raise NwbCompactError(f"--backbone {name}", found=found, expected="a factory without arguments", next_step=next_step) from error
    if not isinstance(network, nn.Module):
        next_step = "return the network itself; see examples/efficientnet_lite0.py"
        raise NwbCompactError(f"--backbone {name}", found=type(network).__name__, expected="a torch.nn.Module", next_step=next_step)
    weights = sha256()
    for key, value in network.state_dict().items():
        weights.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return Backbone(network.eval().requires_grad_(False), weights.hexdigest())


def features(
    network: nn.Module, images: UInt8[np.ndarray, "image height width 3"], *, device: str = "cpu", advance: Advance = silent
) -> Float16[np.ndarray, "image channel row column"]:
    """Feature maps of all images, as float16.

    Raises
    ------
    NwbCompactError
        If the network refuses the images, or returns something else than one finite map an image.

    Examples
    --------
    >>> features(nn.AvgPool2d(4), np.zeros((2, 8, 8, 3), np.uint8)).shape
    (2, 3, 2, 2)
    """
    network = to_device(network, device)
    maps = []
    for start in range(0, len(images), BATCH_IMAGES):
        batch = images[start : start + BATCH_IMAGES]
        maps.append(_one_batch(network, batch, device))
        advance(len(batch))
    return np.concatenate(maps)


def as_tensor(images: UInt8[np.ndarray, "image height width 3"], device: str) -> Tensor:
    """uint8 images as float (image 3 height width) in 0..255, channels last in memory, which is what the CPU convolves fastest."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return batch.float().contiguous(memory_format=torch.channels_last)


def to_device(network: Network, device: str) -> Network:
    """The network on a device, channels last in memory, as its inputs are."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


class ConvTrunk(nn.Module):
    """The trainable backbone: two strided convolutions, the first filters 7 px wide, averaged to a 14 x 14 map of a 112 px image.

    Small on purpose: it is fitted to a thousand images.
    """

    STRIDE = 8

    def __init__(self, channels: int):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.AvgPool2d(2),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch 3 height width) in 0..255 to (batch channel height/8 width/8)."""
        return self.network((images - 110.0) / 60.0)


def _one_batch(network: nn.Module, batch: UInt8[np.ndarray, "image height width 3"], device: str) -> Float16[np.ndarray, "image c h w"]:
    try:
        with torch.inference_mode():
            maps = network(as_tensor(batch, device))
    except Exception as error:  # the network is the user's code, too
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        expected = f"a network that takes images of {batch.shape[1]} x {batch.shape[2]} px"
        raise NwbCompactError("--backbone", found=found, expected=expected, next_step="resize inside the factory's module") from error
    if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != len(batch):
        found = f"{tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
        next_step = "return the feature map of one layer from the factory's module"
        raise NwbCompactError("--backbone", found=found, expected="a map (batch, channel, height, width)", next_step=next_step)
    half = maps.half()
    if not torch.isfinite(half).all():
        next_step = "scale the features in the factory's module"
        raise NwbCompactError("--backbone", found="features that overflow float16", expected="values within 65,504", next_step=next_step)
    return half.cpu().numpy()
