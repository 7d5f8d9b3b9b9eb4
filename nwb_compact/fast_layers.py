"""The three layers that a bank is made of, with gradients that a CPU computes fast; on other devices torch's own.

Training a compact network spends its time where torch has no good kernel: torch computes the gradient of depthwise weights ten times as
slowly as it applies them, calls one small product after another for units that each have weights of their own, and copies the
largest map only to put a border around it. Everything here is float32, channels last in memory, and equals torch's plain operators.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nwb_compact.compiled import compiled, threads
from nwb_compact.operations import beside_torch
from nwb_compact.student import KERNEL_PX, border

BEFORE, AFTER = border(2)
"""Rows and columns of zeros around a map that is halved."""
CHANNELS_AT_ONCE = 192
"""Channels whose sums stay in the first-level cache while maps stream by."""


def first_layer(images: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Rectified 5 x 5 convolution of images (batch 3 112 112), with the border of zeros that layer 2 needs: (batch filter 115 115)."""
    before, after = KERNEL_PX // 2 + BEFORE, KERNEL_PX // 2 + AFTER
    if images.device.type != "cpu":
        maps = torch.relu(functional.conv2d(images, kernel, bias, padding=KERNEL_PX // 2))
        return functional.pad(maps, (BEFORE, AFTER, BEFORE, AFTER))
    padded = functional.pad(images, (before, after, before, after)).contiguous(memory_format=torch.channels_last)
    return _FirstLayer.apply(padded, kernel, bias)


def depthwise(padded: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Each channel with its own 5 x 5 kernel, weight (channel 1 5 5), on a map that has its border already."""
    if padded.device.type != "cpu":
        return functional.conv2d(padded, weight, stride=stride, groups=len(weight))
    return _Depthwise.apply(padded, weight, stride)


def pointwise(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rectified 1 x 1 convolution. weight (unit filter input): each unit reads its own inputs; of one unit: all inputs."""
    groups = len(weight)
    if groups == 1 or maps.device.type != "cpu":
        return torch.relu(functional.conv2d(maps, weight.flatten(0, 1)[:, :, None, None], bias, groups=groups))
    answers = _by_image(torch.bmm(_by_unit(maps, groups), weight.transpose(1, 2)), maps) + bias[:, None, None]
    return answers.relu_()


def _last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


class _FirstLayer(torch.autograd.Function):
    """The convolution makes the map with its border, which is then set to 0: the gradient of the rectifier is 0 there by itself."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        maps = functional.conv2d(padded, kernel, bias).relu_()
        maps[:, :, :BEFORE], maps[:, :, -AFTER:] = 0.0, 0.0
        maps[:, :, :, :BEFORE], maps[:, :, :, -AFTER:] = 0.0, 0.0
        ctx.save_for_backward(padded, kernel, maps)
        return maps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padded, kernel, maps = ctx.saved_tensors
        inner = torch.ops.aten.threshold_backward(_last(gradients[0]), maps, 0)
        _, of_kernel, of_bias = torch.ops.aten.convolution_backward(
            inner, padded, kernel, [len(kernel)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, True]
        )
        return None, of_kernel, of_bias


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(padded, weight)
        ctx.stride = stride
        return functional.conv2d(padded, weight, stride=stride, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padded, weight = ctx.saved_tensors
        gradient, stride, of_maps, of_weight = _last(gradients[0]), ctx.stride, None, None
        if ctx.needs_input_grad[0]:
            of_maps = torch.ops.aten.convolution_backward(
                gradient, padded, weight, None, [stride] * 2, [0, 0], [1, 1], False, [0, 0], len(weight), [True, False, False]
            )[0]
        if ctx.needs_input_grad[1]:
            of_weight = _depthwise_weight_gradient(_last(padded), gradient, stride)
        return of_maps, of_weight, None


def _by_unit(maps: Tensor, n_units: int) -> Tensor:
    """(batch unit*channel row column), channels last, as (unit place channel) without a copy."""
    return maps.permute(0, 2, 3, 1).reshape(-1, n_units, maps.shape[1] // n_units).transpose(0, 1)


def _by_image(by_unit: Tensor, like: Tensor) -> Tensor:
    """(unit place channel) back as a map of as many images, rows and columns as another, channels last."""
    batch, _, rows, columns = like.shape
    return by_unit.transpose(0, 1).reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)


def _depthwise_weight_gradient(padded: Tensor, gradient: Tensor, stride: int) -> Tensor:
    batch, channels, rows, columns = padded.shape
    sums = np.empty((threads(), KERNEL_PX**2, channels), np.float32)
    shape = (batch, rows, columns, channels, gradient.shape[2], gradient.shape[3])
    _sum_products(_flat(padded), _flat(gradient), shape, stride, sums)
    beside_torch(2 * KERNEL_PX**2 * gradient.numel())
    return torch.from_numpy(sums.sum(axis=0).T.reshape(channels, 1, KERNEL_PX, KERNEL_PX))


def _flat(maps: Tensor) -> np.ndarray:
    return maps.detach().permute(0, 2, 3, 1).reshape(-1).numpy()


@compiled(parallel=True)
def _sum_products(maps: Any, gradient: Any, shape: Any, stride: Any, sums: Any) -> None:
    """Sum of map x gradient for each of the 25 places of a kernel and each channel; every thread takes its share of the images.

    Flat arrays and unsigned places, since numba would test signed ones for counting from the end, and could then not vectorise.
    """
    batch, rows, columns, channels, out_rows, out_columns = shape
    for thread in numba.prange(len(sums)):
        for first in range(0, channels, CHANNELS_AT_ONCE):
            n = min(CHANNELS_AT_ONCE, channels - first)
            held = np.zeros(KERNEL_PX * KERNEL_PX * CHANNELS_AT_ONCE, np.float32)
            for image in range(thread, batch, len(sums)):
                for row in range(out_rows):
                    for i in range(KERNEL_PX):
                        line = (image * rows + row * stride + i) * columns
                        out_line = (image * out_rows + row) * out_columns
                        h0 = np.uintp(i * KERNEL_PX * CHANNELS_AT_ONCE)
                        h1 = h0 + np.uintp(CHANNELS_AT_ONCE)
                        h2 = h1 + np.uintp(CHANNELS_AT_ONCE)
                        h3 = h2 + np.uintp(CHANNELS_AT_ONCE)
                        h4 = h3 + np.uintp(CHANNELS_AT_ONCE)
                        for column in range(out_columns):
                            m0 = np.uintp((line + column * stride) * channels + first)
                            m1 = m0 + np.uintp(channels)
                            m2 = m1 + np.uintp(channels)
                            m3 = m2 + np.uintp(channels)
                            m4 = m3 + np.uintp(channels)
                            g = np.uintp((out_line + column) * channels + first)
                            for channel in range(n):
                                c = np.uintp(channel)
                                slope = gradient[g + c]
                                held[h0 + c] += maps[m0 + c] * slope
                                held[h1 + c] += maps[m1 + c] * slope
                                held[h2 + c] += maps[m2 + c] * slope
                                held[h3 + c] += maps[m3 + c] * slope
                                held[h4 + c] += maps[m4 + c] * slope
            for place in range(KERNEL_PX * KERNEL_PX):
                for channel in range(n):
                    sums[thread, place, first + channel] = held[place * CHANNELS_AT_ONCE + channel]
