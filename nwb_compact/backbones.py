"""What the teacher looks through: convolutions trained from scratch on the session, or a frozen network of the user's choice.

`conv` takes images as they are. The others are frozen, so their features are computed once an image: `vone`, the fixed Gabor front end of
`vone`; `hf:FOLDER` or `hf:OWNER/MODEL`, a network of the `transformers` library (`hf_backbone`); `torch:MODULE:FACTORY`, a factory
without arguments that returns a torch module from images (batch, 3, height, width), float in 0..255, to a feature map
(batch, channel, height, width) or to several by name, of which the teacher looks at one layer.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor, nn

from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.operations import alike
from nwb_compact.out_of_memory import is_out_of_memory
from nwb_compact.progress import Advance, silent
from nwb_compact.streaming import as_tensor, to_device
from nwb_compact.student import IMAGE_PX
from nwb_compact.vone import VOne

BATCH_IMAGES = 32
"""Images a step through a frozen backbone; fits every machine and does not change the features."""
FORMS = "conv, vone, hf:FOLDER, hf:OWNER/MODEL or torch:MODULE:FACTORY"
OURS = ("conv", "vone")
"""Those that run nothing that a file of a stranger could name."""
AUTO = "auto"
"""The layer's name that asks for the one that predicts best (`layer_choice`)."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network and what it is."""

    name: str
    """As the user named it."""
    network: nn.Module
    sha256: str
    """Over all its weights, its structure, and the file that a factory comes from: what decides the features."""
    layers: tuple[str, ...] = ("",)
    """Names of the maps that it gives; one empty name where there is but one map."""
    layer: str | None = ""
    """The one that the teacher looks at; None until it is chosen."""

    def at(self, layer: str) -> "Backbone":
        """The same network, looked at in one layer.

        Raises
        ------
        NwbCompactError
            If it has no layer of that name.
        """
        if layer in self.layers:
            return replace(self, layer=layer)
        if self.layers == ("",):
            next_step = "leave --layer out"
            raise NwbCompactError(f"--layer {layer}", found="a backbone of one map", expected="no layer's name", next_step=next_step)
        next_step = nearest(layer, list(self.layers))
        raise NwbCompactError(f"--layer {layer}", found="no such layer", expected=f"one of {self.name}", next_step=next_step)


def frozen_backbone(name: str, layer: str = AUTO, *, vone_visual_degrees: float = 8.0) -> Backbone | None:
    """The frozen network that `name` asks for, in evaluation mode; None for `conv`, which is trained with the teacher.

    It has answered one blank image of `student.IMAGE_PX`, so a network that does not take images of that size is found here.

    Parameters
    ----------
    name
        What `--backbone` takes (`FORMS`).
    layer
        Which of its maps to look at; `auto` leaves that open where there are several.
    vone_visual_degrees
        Width of the images in degrees of visual angle, which only `vone` asks for.

    Raises
    ------
    NwbCompactError
        If the name has another form, the network cannot be made or gives something else than maps, or it has no such layer.

    Examples
    --------
    >>> frozen_backbone("conv") is None
    True
    >>> frozen_backbone("resnet")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: --backbone: found 'resnet', expected conv, vone, hf:FOLDER, hf:OWNER/MODEL or
    torch:MODULE:FACTORY. Next: see docs/methods.md
    """
    if name == "conv":
        if layer != AUTO:
            found = "a layer of conv, which is trained with the teacher"
            raise NwbCompactError(f"--layer {layer}", found=found, expected="a frozen backbone", next_step="leave --layer out")
        return None
    network, source = _made(name, vone_visual_degrees)
    blank = np.full((1, IMAGE_PX, IMAGE_PX, 3), 128, np.uint8)
    layers = tuple(_one_batch(to_device(network.eval().requires_grad_(False), "cpu"), blank, "cpu"))
    backbone = Backbone(name, network, _identity(network, source), layers, layers[0] if len(layers) == 1 else None)
    return backbone if layer == AUTO else backbone.at(layer)


def features(
    network: nn.Module, images: UInt8[np.ndarray, "image height width 3"], *, layer: str = "", device: str = "cpu",
    advance: Advance = silent,
) -> Float16[np.ndarray, "image channel row column"]:
    """Feature maps of all images in one layer, as float16; `feature_cache.cached_features` keeps them on disk instead.

    Raises
    ------
    NwbCompactError
        If the network refuses the images, or returns something else than one finite map an image.

    Examples
    --------
    >>> features(nn.AvgPool2d(4), np.zeros((2, 8, 8, 3), np.uint8)).shape
    (2, 3, 2, 2)
    """
    return np.concatenate(list(feature_batches(network, images, layer=layer, device=device, advance=advance)))


def looked_at(backbone: Backbone | None, images: UInt8[np.ndarray, "image height width 3"], device: str = "cpu") -> np.ndarray:
    """What a teacher looks at: features of its frozen backbone in the layer that was chosen, or the images where it has none."""
    return images if backbone is None else features(backbone.network, images, layer=backbone.layer or "", device=device)


def feature_batches(
    network: nn.Module, images: UInt8[np.ndarray, "image height width 3"], *, layer: str = "", device: str = "cpu",
    advance: Advance = silent,
) -> Iterator[Float16[np.ndarray, "batch channel row column"]]:
    """The same, `BATCH_IMAGES` at a time, in order."""
    for maps in map_batches(network, images, device=device, advance=advance):
        yield as_half(maps[layer]).cpu().numpy()


def map_batches(
    network: nn.Module, images: UInt8[np.ndarray, "image height width 3"], *, device: str = "cpu", advance: Advance = silent
) -> Iterator[dict[str, Tensor]]:
    """The maps of all layers, `BATCH_IMAGES` at a time, as the network gives them."""
    network, known = to_device(network, device), dict[Any, int]()
    for start in range(0, len(images), BATCH_IMAGES):
        batch = images[start : start + BATCH_IMAGES]
        with alike(known, len(batch)):
            maps = _one_batch(network, batch, device)
        yield maps
        advance(len(batch))


def as_half(maps: Tensor) -> Tensor:
    """The same numbers as float16.

    Raises
    ------
    NwbCompactError
        If one of them is beyond what float16 holds.
    """
    half = maps.half()
    if torch.isnan(half).any():
        next_step = "look for a division by zero, or weights that were never loaded"
        raise NwbCompactError("--backbone", found="features that are no numbers", expected="numbers", next_step=next_step)
    if not torch.isfinite(half).all():
        next_step = "scale the features in the factory's module"
        raise NwbCompactError("--backbone", found="features that overflow float16", expected="values within 65,504", next_step=next_step)
    return half


# Making and asking networks ---------------------------------------------------------------------------------------------


def _made(name: str, vone_visual_degrees: float) -> tuple[nn.Module, bytes]:
    """The network, and the text of the program it comes from where that is not ours or a library's."""
    kind, _, place = name.partition(":")
    if name == "vone":
        return VOne(visual_degrees=vone_visual_degrees), b""
    if kind == "hf" and place:
        from nwb_compact.hf_backbone import hf_backbone  # transformers is an extra and takes seconds to import

        return hf_backbone(place), b""
    module_name, _, factory_name = place.partition(":")
    if kind != "torch" or not module_name or not factory_name:
        raise NwbCompactError("--backbone", found=f"'{name}'", expected=FORMS, next_step="see docs/methods.md")
    return _from_factory(name, module_name, factory_name)


def _from_factory(name: str, module_name: str, factory_name: str) -> tuple[nn.Module, bytes]:
    if str(Path.cwd()) not in sys.path:  # a lab's own factory usually lies in the folder it works in
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
        factory: Callable[[], nn.Module] = getattr(module, factory_name)
        network = factory()
    except Exception as error:  # the factory is the user's code: whatever it raises is theirs to read
        found = f"{type(error).__name__}: {error}"
        next_step = "put the module on PYTHONPATH; see examples/efficientnet_lite0.py"
        raise NwbCompactError(f"--backbone {name}", found=found, expected="a factory without arguments", next_step=next_step) from error
    if not isinstance(network, nn.Module):
        next_step = "return the network itself; see examples/efficientnet_lite0.py"
        raise NwbCompactError(f"--backbone {name}", found=type(network).__name__, expected="a torch.nn.Module", next_step=next_step)
    source = Path(module.__file__) if module.__file__ else None
    return network, source.read_bytes() if source is not None and source.suffix == ".py" else b""


def _identity(network: nn.Module, source: bytes) -> str:
    """SHA-256 of weights, structure and source: an edited stride or size of the input changes no weight but every feature."""
    digest = sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(network)).encode() + source)
    for key, value in network.state_dict().items():
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _one_batch(network: nn.Module, batch: UInt8[np.ndarray, "image height width 3"], device: str) -> dict[str, Tensor]:
    """The maps of all layers."""
    try:
        with torch.inference_mode():
            answer = network(as_tensor(batch, device))
    except Exception as error:  # the network is the user's code, too
        if is_out_of_memory(error):
            found, next_step = f"too little memory for {len(batch)} images", "choose another --backbone, or --device cpu"
            raise NwbCompactError("--backbone", found=found, expected="room for them", next_step=next_step) from error
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        expected = f"a network that takes images of {batch.shape[1]} x {batch.shape[2]} px"
        raise NwbCompactError("--backbone", found=found, expected=expected, next_step="resize inside the factory's module") from error
    maps = answer if isinstance(answer, dict) else {"": answer}
    for layer, one in maps.items():
        if not isinstance(one, Tensor) or one.ndim != 4 or len(one) != len(batch):
            found = f"{tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            found, next_step = found + (f" in layer {layer}" if layer else ""), "return the feature map of one layer, or a dict of them"
            raise NwbCompactError("--backbone", found=found, expected="a map (batch, channel, height, width)", next_step=next_step)
    if not maps:
        raise NwbCompactError("--backbone", found="a dict without maps", expected="a map a layer", next_step="name the layers in it")
    return {str(layer): one for layer, one in maps.items()}
