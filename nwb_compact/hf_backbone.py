"""A backbone of the `transformers` library, frozen, with its stages as layers: ResNet, DINOv2, ConvNeXt and all else that it calls one.

`hf:FOLDER` names a folder as `save_pretrained` leaves it and needs no network; `hf:OWNER/MODEL` is fetched once from huggingface.co into
that site's own cache. The study looked through stage 3 of `microsoft/resnet-50` (docs/methods.md).
"""

import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nwb_compact.errors import NwbCompactError, one_line

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0..1, over the images of ImageNet: what a network was most likely trained with if it does not say."""
USUAL_SIZE_PX = 224
"""Side of the images that most networks of ImageNet were trained with."""
MADE_HERE = "hidden_states_norms."
"""Weights that a checkpoint may lack: the identity scale and shift after each stage that ConvNeXt and Swin begin with."""
MODES = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Names in torch of Pillow's numbers for ways to resample; any other is taken as bilinear."""


@dataclass(frozen=True)
class Preparation:
    """What a network expects of an image: side lengths, and the scale of its values."""

    size_px: tuple[int, int] | None = (USUAL_SIZE_PX, USUAL_SIZE_PX)
    """Height and width; None leaves images as they are."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    rescale: float = 1 / 255
    mode: str = "bilinear"


class HfBackbone(nn.Module):
    """Images (batch 3 height width) in 0..255 to the map of every stage, by name."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, stages: tuple[str, ...], preparation: Preparation):
        super().__init__()
        self.network, self.stages, self.preparation = network, stages, preparation
        # Buffers, so that the hash over the weights tells networks apart that only see images differently.
        self.register_buffer("mean", torch.tensor(preparation.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preparation.std).reshape(1, 3, 1, 1))

    def extra_repr(self) -> str:
        """What else decides the features; part of the backbone's hash."""
        return str(self.preparation)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The whole image is resized; nothing is cropped, since the animal saw all of it."""
        size = self.preparation.size_px
        if size is not None and tuple(images.shape[2:]) != size:
            images = functional.interpolate(images, size=size, mode=self.preparation.mode, antialias=self.preparation.mode != "nearest")
            images = images.clamp(0, 255)  # a bicubic resize overshoots
        maps = self.network((images * self.preparation.rescale - self.mean) / self.std).feature_maps
        return dict(zip(self.stages, maps, strict=True))


def hf_backbone(place: str) -> HfBackbone:
    """The network in a folder or of a hub id, with all its stages; in float32, in evaluation.

    Parameters
    ----------
    place
        What follows `hf:`.

    Raises
    ------
    NwbCompactError
        If transformers is not installed, the hub cannot be asked, or the folder holds no image network with a backbone class and all of
        its weights.

    Examples
    --------
    >>> hf_backbone("./no-such-folder")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: --backbone hf:./no-such-folder: found no such folder, expected one with config.json and
    weights, or a hub id such as microsoft/resnet-50. Next: correct the name
    """
    _require_transformers(place)
    with _silence(bars=sys.stderr.isatty()):  # a download of hundreds of megabytes should show that it moves
        folder = _folder(place)
    with _silence(bars=False):
        network, stages = _network(folder, place)
        wrapped = HfBackbone(network, stages, preparation(folder)).eval()
        _require_fit(wrapped, folder)
    return wrapped


def preparation(folder: Path) -> Preparation:
    """What `preprocessor_config.json` says of the images; ImageNet's usual values at 224 px where there is no such file.

    A file that asks for a centre crop means a network that sees images of the size after it.

    Raises
    ------
    NwbCompactError
        If the file cannot be understood.

    Examples
    --------
    >>> preparation(Path("no-such-folder")).size_px
    (224, 224)
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return Preparation()
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        normalises = said.get("do_normalize", True)
        return Preparation(
            _size(said),
            _three(said.get("image_mean", IMAGENET_MEAN)) if normalises else (0.0, 0.0, 0.0),
            _three(said.get("image_std", IMAGENET_STD)) if normalises else (1.0, 1.0, 1.0),
            float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0,
            MODES.get(said.get("resample"), "bilinear"),
        )
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        expected = "size, image_mean and image_std as transformers writes them"
        found = f"what cannot be used ({type(error).__name__}: {one_line(error)})"
        raise NwbCompactError(path, found=found, expected=expected, next_step="correct the file, or remove it for 224 px") from error


# Finding it -------------------------------------------------------------------------------------------------------------


def _require_transformers(place: str) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "transformers"
        found = "no transformers package" if missing else f"transformers that cannot be imported ({one_line(error)})"
        next_step = 'pip install "nwb-compact[hf]"'
        raise NwbCompactError(f"--backbone hf:{place}", found=found, expected="a working one", next_step=next_step) from error


def _folder(place: str) -> Path:
    """The folder itself, or the one that the hub's files were put in."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            expected, next_step = "one, as save_pretrained writes it", "name the folder that holds it"
            raise NwbCompactError(f"--backbone hf:{place}", found="no config.json in the folder", expected=expected, next_step=next_step)
        return folder
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", place):
        expected = "one with config.json and weights, or a hub id such as microsoft/resnet-50"
        raise NwbCompactError(f"--backbone hf:{place}", found="no such folder", expected=expected, next_step="correct the name")
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(place, allow_patterns=["*.json", "*.safetensors"]))
        if not any(found.glob("*.safetensors")):
            found = Path(snapshot_download(place, allow_patterns=["*.json", "pytorch_model*.bin"]))
        return found
    except Exception as error:  # no network, a name that the hub does not know, a full disk: each has its own class, not all public
        said = f"no folder of that name, and no answer for it from huggingface.co ({one_line(str(error).partition(chr(10))[0])})"
        next_step = f"where there is a network: hf download {place} --local-dir FOLDER; then --backbone hf:FOLDER"
        expected = "a folder or a hub id that can be reached"
        raise NwbCompactError(f"--backbone hf:{place}", found=said, expected=expected, next_step=next_step) from error


def _network(folder: Path, place: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The backbone with its weights, and the names of its stages."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    where = f"--backbone hf:{place}"
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever its parsing meets
        found, expected = f"a config.json that cannot be read ({one_line(error)})", "one of a model that transformers knows"
        raise NwbCompactError(where, found=found, expected=expected, next_step="correct it, or update transformers") from error
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        expected = "an image network with a backbone class, for example ResNet, DINOv2 or ConvNeXt"
        found = f"'{config.model_type}', which has none"
        raise NwbCompactError(where, found=found, expected=expected, next_step="name another, or write a factory for torch:MODULE:FACTORY")
    stages = tuple(config.stage_names)
    config.out_features = list(stages)
    model_class: Any = MODEL_FOR_BACKBONE_MAPPING[type(config)]
    try:
        network, loaded = model_class.from_pretrained(str(folder), config=config, local_files_only=True, output_loading_info=True)
    except Exception as error:  # likewise
        found = f"weights that cannot be used ({one_line(error)})"
        expected = f"those of the {model_class.__name__} that config.json describes"
        raise NwbCompactError(where, found=found, expected=expected, next_step="fetch the folder again") from error
    _require_weights(loaded, where, model_class.__name__)
    return network.float(), stages


def _require_weights(loaded: Mapping[str, Any], where: str, class_name: str) -> None:
    """A weight that is not in the file would be random: the features would be too, without a word."""
    missing = sorted(name for name in loaded["missing_keys"] if MADE_HERE not in name)
    wrong = sorted(str(entry[0]) for entry in loaded["mismatched_keys"])
    if missing or wrong:
        found = f"{len(missing)} weights missing and {len(wrong)} of another shape, for example {(wrong + missing)[0]}"
        raise NwbCompactError(where, found=found, expected=f"all weights of a {class_name}", next_step="fetch the folder again")


def _require_fit(wrapped: HfBackbone, folder: Path) -> None:
    """Ask at once whether the network takes images of the size that it will be given."""
    config: Any = wrapped.network.config
    size = wrapped.preparation.size_px
    where, next_step = folder / "preprocessor_config.json", "give 'size' there a side that the network takes"
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        found = f"a network for images of {channels} channel(s)"
        raise NwbCompactError(folder / "config.json", found=found, expected="3: red, green and blue", next_step="name another network")
    patch = getattr(config, "patch_size", None)
    if size is not None and isinstance(patch, int) and any(side % patch for side in size):
        found, expected = f"images of {size[0]} x {size[1]} px", f"sides that the network's patches of {patch} px divide"
        raise NwbCompactError(where, found=found, expected=expected, next_step=next_step)
    height, width = size or (USUAL_SIZE_PX, USUAL_SIZE_PX)
    try:
        with torch.inference_mode():
            wrapped(torch.full((1, 3, height, width), 128.0))
    except Exception as error:  # whatever the network's layers raise
        found, expected = f"images of {height} x {width} px ({one_line(error)})", "a size that the network takes"
        raise NwbCompactError(where, found=found, expected=expected, next_step=next_step) from error


def _size(said: Mapping[str, Any]) -> tuple[int, int] | None:
    crops = said.get("do_center_crop", False) and "crop_size" in said
    if not crops and not said.get("do_resize", True):
        return None
    size = said["crop_size"] if crops else said.get("size", USUAL_SIZE_PX)
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else size["shortest_edge"]
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"a size of {height} x {width} px")
    return int(height), int(width)


def _three(values: Any) -> tuple[float, ...]:
    three = tuple(float(value) for value in values)
    if len(three) != 3:
        raise ValueError(f"{len(three)} values for 3 channels")
    return three


@contextmanager
def _silence(*, bars: bool) -> Iterator[None]:
    """Neither reports nor advice of the libraries, and progress bars only where they are asked for."""
    from transformers.utils import logging as speech

    hub = logging.getLogger("huggingface_hub")
    levels, had_bars = (speech.get_verbosity(), hub.level), speech.is_progress_bar_enabled()
    speech.set_verbosity(logging.CRITICAL)
    hub.setLevel(logging.CRITICAL)
    if not bars:
        speech.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to people who train, not to who looks through a frozen network
            yield
    finally:
        speech.set_verbosity(levels[0])
        hub.setLevel(levels[1])
        if had_bars:
            speech.enable_progress_bar()
