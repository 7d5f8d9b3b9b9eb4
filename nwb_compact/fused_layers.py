"""Layers 3 to 5 and the readout of units that have them each for itself, forward and backward in one pass on a CPU.

What takes the time in these layers is not arithmetic: the stacked maps of 33 units do not fit into a cache, and layer by layer each of
them is written and read again. Here a thread takes one image and one unit at a time, whose maps (some hundred KiB) stay in its cache from
the first product to the last gradient (docs/measured.md has the ratio).

A map of 28 x 28 places is a plane of `PITCH` floats: rows of 32, of which the last 4 are 0, with zeros before and after. A place and
the one above it are always 32 apart, and the zeros that end a row are the border of the next, so a 5 x 5 filter is 25 shifted sums along
the whole plane: no border is put around, and nothing asks where a row ends. Filters and inputs go four at a time; their number is made
up to a multiple of four by some that weigh 0.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn import functional

from nwb_compact.compiled import compiled, threads
from nwb_compact.operations import beside_torch
from nwb_compact.student import KERNEL_PX, MAP_PX

ROW = MAP_PX + KERNEL_PX - 1
FRONT = (ROW + 1) * (KERNEL_PX // 2)
"""Zeros before the first place: two rows and two columns, as far as a filter reaches."""
BODY = MAP_PX * ROW
PITCH = 1040
"""Floats of a plane: front, body and at least as many zeros behind it, in whole lines of the cache."""
AT_ONCE = 4


@dataclass(frozen=True)
class OwnLayers:
    """Weights of layers 3 to 5 and of the readout, stacked by unit."""

    reads: Int64[Tensor, "unit input"]
    """Maps that each unit reads; after as many as `sizes` tells, any, with weights of 0."""
    sizes: Int64[Tensor, "unit 4"]
    """Of each unit the maps it reads and its filters of layers 3, 4 and 5; they stand in front, those behind weigh 0."""
    pointwise: tuple[
        Float32[Tensor, "unit three input"], Float32[Tensor, "unit four three"], Float32[Tensor, "unit five four"]
    ]
    """Of layers 3, 4 and 5."""
    depthwise: tuple[Float32[Tensor, "unit three 25"], Float32[Tensor, "unit four 25"]]
    """Of layers 4 and 5, which filter what the layer below answers."""
    bias: tuple[Float32[Tensor, "unit three"], Float32[Tensor, "unit four"], Float32[Tensor, "unit five"]]
    """Of layers 3, 4 and 5."""
    readout: Float32[Tensor, "unit five 784"]
    offset: Float32[Tensor, "unit"]


def squared_error(
    maps: Float32[Tensor, "batch map 28 28"], layers: OwnLayers, wanted: Float32[Tensor, "batch unit"], weights: Float32[Tensor, "unit"]
) -> tuple[Float32[Tensor, ""], Float32[Tensor, "unit"]]:
    """Error of all units' answers, whose gradients are computed with it, while the maps are at hand.

    Parameters
    ----------
    maps
        What the spatial half of layer 3 makes of images.
    layers
        What stands above.
    wanted
        Answers.
    weights
        Of units.

    Returns
    -------
    Mean over units of weight x mean squared error, which can be differentiated, and the mean squared error of each unit, which cannot.
    """
    arrays = [
        *(_in_fours(weight, 2) for weight in layers.pointwise), *(_in_fours(kernel, 1) for kernel in layers.depthwise),
        *(_in_fours(bias, 1) for bias in layers.bias), _in_fours(_as_planes(layers.readout), 1),
    ]
    return _SquaredError.apply(maps, wanted, weights, _in_fours(layers.reads, 1), layers.sizes, layers.offset, *arrays)


def _in_fours(weight: Tensor, axes: int) -> Tensor:
    """Zeros put behind, along so many axes after that of units, up to a multiple of four."""
    behind = [(-size % AT_ONCE if axis < axes else 0) for axis, size in enumerate(weight.shape[1:])]
    return functional.pad(weight, [side for more in reversed(behind) for side in (0, more)])


def _as_planes(readout: Tensor) -> Tensor:
    in_rows = functional.pad(readout.unflatten(2, (MAP_PX, MAP_PX)), (0, ROW - MAP_PX)).flatten(2)
    return functional.pad(in_rows, (FRONT, PITCH - FRONT - BODY))


def _places(planes: np.ndarray) -> np.ndarray:
    """The places of planes, without the zeros around them: rows and columns, not a copy."""
    return planes[..., FRONT : FRONT + BODY].reshape(*planes.shape[:-1], MAP_PX, ROW)[..., :MAP_PX]


INSIDE = np.zeros(PITCH, np.float32)
"""1 at the places of a plane, else 0."""
_places(INSIDE)[:] = 1.0


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, wanted: Tensor, weights: Tensor, reads: Tensor, sizes: Tensor, offset: Tensor, *layers: Tensor
    ) -> tuple[Tensor, Tensor]:
        planes = np.zeros((*maps.shape[:2], PITCH), np.float32)
        _places(planes)[:] = maps.detach().numpy()
        arrays = tuple(weight.detach().contiguous().numpy() for weight in layers)
        scale = (2 * weights / wanted.numel()).numpy()
        turned = tuple(np.ascontiguousarray(weight.transpose(0, 2, 1)) for weight in arrays[:3])
        in_fours = -(-sizes.numpy() // AT_ONCE) * AT_ONCE
        by_image, by_unit = _lanes(threads(), *wanted.shape)
        sums = tuple(np.zeros((by_image, *array.shape), np.float32) for array in arrays)
        of_maps, errors = np.zeros((by_unit, *planes.shape), np.float32), np.empty(wanted.shape, np.float32)
        _learn(
            planes, reads.numpy(), in_fours, arrays, turned, offset.detach().numpy(), wanted.numpy(), scale, INSIDE, sums, of_maps, errors
        )
        beside_torch(_flop(sizes.numpy()) * len(maps))
        of_offset = torch.from_numpy(errors.sum(axis=0) * scale)
        of_weights = (torch.from_numpy(of_parts.sum(axis=0)) for of_parts in sums)
        ctx.save_for_backward(torch.from_numpy(_places(of_maps.sum(axis=0))), of_offset, *of_weights)
        of_units = torch.from_numpy((errors**2).mean(axis=0))
        ctx.mark_non_differentiable(of_units)
        return (weights * of_units).mean(), of_units

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_maps, *of_layers = (held * gradients[0] for held in ctx.saved_tensors)
        return of_maps, None, None, None, None, *of_layers


def _lanes(most: int, n_images: int, n_units: int) -> tuple[int, int]:
    """Into how many parts images go, and units; each part of the one with each part of the other is a thread's."""
    by_image = min(most, n_images)
    return by_image, min(most // by_image, n_units)


def _flop(sizes: np.ndarray) -> int:
    """Of one image: forward, and twice as many for the gradients of weights and of maps."""
    read, three, four, five = sizes.T
    macs = read * three + KERNEL_PX**2 * three + three * four + KERNEL_PX**2 * four + four * five + five
    return int(3 * 2 * MAP_PX**2 * macs.sum())


@compiled()
def _add_products(out: Any, weights: Any, maps: Any, out_rows: Any, rows: Any, n_out: Any, n_in: Any) -> None:
    """out[o] += sum of weights[o, i] * maps[i]; sixteen products for eight planes read and four written, of which all stay in a cache."""
    for o in range(0, n_out, AT_ONCE):
        out0, out1, out2, out3 = out[out_rows[o]], out[out_rows[o + 1]], out[out_rows[o + 2]], out[out_rows[o + 3]]
        for i in range(0, n_in, AT_ONCE):
            map0, map1, map2, map3 = maps[rows[i]], maps[rows[i + 1]], maps[rows[i + 2]], maps[rows[i + 3]]
            w00, w01, w02, w03 = weights[o, i], weights[o, i + 1], weights[o, i + 2], weights[o, i + 3]
            w10, w11, w12, w13 = weights[o + 1, i], weights[o + 1, i + 1], weights[o + 1, i + 2], weights[o + 1, i + 3]
            w20, w21, w22, w23 = weights[o + 2, i], weights[o + 2, i + 1], weights[o + 2, i + 2], weights[o + 2, i + 3]
            w30, w31, w32, w33 = weights[o + 3, i], weights[o + 3, i + 1], weights[o + 3, i + 2], weights[o + 3, i + 3]
            for p in range(FRONT, FRONT + BODY):
                a, b, c, d = map0[p], map1[p], map2[p], map3[p]
                out0[p] += w00 * a + w01 * b + w02 * c + w03 * d
                out1[p] += w10 * a + w11 * b + w12 * c + w13 * d
                out2[p] += w20 * a + w21 * b + w22 * c + w23 * d
                out3[p] += w30 * a + w31 * b + w32 * c + w33 * d


@compiled()
def _add_inner(out: Any, left: Any, right: Any, rows: Any, n_left: Any, n_right: Any) -> None:
    """out[l, r] += sum over places of left[l] * right[r]."""
    for o in range(0, n_left, AT_ONCE):
        left0, left1, left2, left3 = left[o], left[o + 1], left[o + 2], left[o + 3]
        for i in range(0, n_right, AT_ONCE):
            map0, map1, map2, map3 = right[rows[i]], right[rows[i + 1]], right[rows[i + 2]], right[rows[i + 3]]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = np.float32(0)
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = np.float32(0)
            for p in range(FRONT, FRONT + BODY):
                a, b, c, d = map0[p], map1[p], map2[p], map3[p]
                l0, l1, l2, l3 = left0[p], left1[p], left2[p], left3[p]
                s00, s01, s02, s03 = s00 + l0 * a, s01 + l0 * b, s02 + l0 * c, s03 + l0 * d
                s10, s11, s12, s13 = s10 + l1 * a, s11 + l1 * b, s12 + l1 * c, s13 + l1 * d
                s20, s21, s22, s23 = s20 + l2 * a, s21 + l2 * b, s22 + l2 * c, s23 + l2 * d
                s30, s31, s32, s33 = s30 + l3 * a, s31 + l3 * b, s32 + l3 * c, s33 + l3 * d
            for j, total in enumerate((s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23, s30, s31, s32, s33)):
                out[o + j // AT_ONCE, i + j % AT_ONCE] += total


@compiled()
def _filtered(out: Any, maps: Any, kernels: Any, n: Any, turned: Any) -> None:
    """Each plane with its own 5 x 5 kernel; `turned` by half a circle, it carries gradients back to where they came from."""
    for one in range(n):
        filtered, plane, kernel = out[one], maps[one], kernels[one]
        filtered[FRONT : FRONT + BODY] = 0.0
        for i in range(KERNEL_PX):
            first, step = (KERNEL_PX * (KERNEL_PX - 1 - i) + KERNEL_PX - 1, -1) if turned else (KERNEL_PX * i, 1)
            w0, w1, w2, w3, w4 = (kernel[first], kernel[first + step], kernel[first + 2 * step], kernel[first + 3 * step],
                                  kernel[first + 4 * step])
            around = plane[i * ROW :]
            inside = filtered[FRONT:]
            for p in range(BODY):
                inside[p] += w0 * around[p] + w1 * around[p + 1] + w2 * around[p + 2] + w3 * around[p + 3] + w4 * around[p + 4]


@compiled()
def _add_kernel_gradients(of_kernels: Any, slopes: Any, maps: Any, n: Any) -> None:
    """Sum over places of slope times what lay around it."""
    for one in range(n):
        slope, plane = slopes[one, FRONT:], maps[one]
        for i in range(KERNEL_PX):
            around = plane[i * ROW :]
            s0 = s1 = s2 = s3 = s4 = np.float32(0)
            for p in range(BODY):
                g = slope[p]
                s0, s1, s2 = s0 + g * around[p], s1 + g * around[p + 1], s2 + g * around[p + 2]
                s3, s4 = s3 + g * around[p + 3], s4 + g * around[p + 4]
            for j, total in enumerate((s0, s1, s2, s3, s4)):
                of_kernels[one, KERNEL_PX * i + j] += total


@compiled()
def _mixed(out: Any, weights: Any, bias: Any, maps: Any, out_rows: Any, rows: Any, inside: Any, n_out: Any, n_in: Any) -> None:
    """The pointwise half of a layer, rectified, with zeros between rows."""
    for one in range(n_out):
        out[one, FRONT : FRONT + BODY] = bias[one]
    _add_products(out, weights, maps, out_rows, rows, n_out, n_in)
    for one in range(n_out):
        plane = out[one]
        for p in range(FRONT, FRONT + BODY):
            plane[p] = max(plane[p], np.float32(0)) * inside[p]


@compiled()
def _products(out: Any, weights: Any, maps: Any, rows: Any, n_out: Any, n_in: Any) -> None:
    out[:n_out] = 0.0
    _add_products(out, weights, maps, rows, rows, n_out, n_in)


@compiled()
def _add_bias_gradients(of_bias: Any, slopes: Any, answers: Any, n: Any) -> None:
    """Sum over places of what comes through the rectifier; the rest of `slopes` becomes 0."""
    for one in range(n):
        slope, answer = slopes[one], answers[one]
        total = np.float32(0)
        for p in range(FRONT, FRONT + BODY):
            slope[p] = slope[p] if answer[p] > 0 else np.float32(0)
            total += slope[p]
        of_bias[one] += total


@compiled()
def _read(maps: Any, readout: Any, n: Any) -> Any:
    """Sum over filters and places of map times weight."""
    total = np.float32(0)
    for one in range(n):
        plane, weights = maps[one], readout[one]
        for p in range(FRONT, FRONT + BODY):
            total += plane[p] * weights[p]
    return total


@compiled()
def _read_back(slope: Any, of_readout: Any, maps: Any, readout: Any, of_answer: Any, n: Any) -> None:
    """From the slope of an answer to those of the maps it was read from, and of the weights."""
    for one in range(n):
        plane, weights, of_plane, of_weights = maps[one], readout[one], slope[one], of_readout[one]
        for p in range(FRONT, FRONT + BODY):
            of_plane[p] = of_answer * weights[p]
            of_weights[p] += of_answer * plane[p]


@compiled()
def _learn_one(
    maps: Any, reads: Any, sizes: Any, weights: Any, turned: Any, offset: Any, wanted: Any, scale: Any, inside: Any, unit: Any, lane: Any,
    planes: Any, sums: Any, of_maps: Any,
) -> Any:
    """One image through one unit and back: its error; adds to the sums of gradients."""
    mix3, mix4, mix5, kernel4, kernel5, bias3, bias4, bias5, readout = weights
    of_mix3, of_mix4, of_mix5, of_kernel4, of_kernel5, of_bias3, of_bias4, of_bias5, of_readout = sums
    back3, back4, back5 = turned
    n_read, n3, n4, n5 = sizes
    own = np.arange(planes.shape[1])
    y3, d4, y4, d5, y5 = planes[0], planes[1], planes[2], planes[3], planes[4]  # taken apart in one go, numba would not know them whole
    slope, below = planes[5], planes[6]

    _mixed(y3, mix3[unit], bias3[unit], maps, own, reads, inside, n3, n_read)
    _filtered(d4, y3, kernel4[unit], n3, False)
    _mixed(y4, mix4[unit], bias4[unit], d4, own, own, inside, n4, n3)
    _filtered(d5, y4, kernel5[unit], n4, False)
    _mixed(y5, mix5[unit], bias5[unit], d5, own, own, inside, n5, n4)
    error = _read(y5, readout[unit], n5) + offset - wanted
    _read_back(slope, of_readout[lane, unit], y5, readout[unit], scale * error, n5)

    _add_bias_gradients(of_bias5[lane, unit], slope, y5, n5)
    _add_inner(of_mix5[lane, unit], slope, d5, own, n5, n4)
    _products(below, back5[unit], slope, own, n4, n5)
    _add_kernel_gradients(of_kernel5[lane, unit], below, y4, n4)
    _filtered(slope, below, kernel5[unit], n4, True)

    _add_bias_gradients(of_bias4[lane, unit], slope, y4, n4)
    _add_inner(of_mix4[lane, unit], slope, d4, own, n4, n3)
    _products(below, back4[unit], slope, own, n3, n4)
    _add_kernel_gradients(of_kernel4[lane, unit], below, y3, n3)
    _filtered(slope, below, kernel4[unit], n3, True)

    _add_bias_gradients(of_bias3[lane, unit], slope, y3, n3)
    _add_inner(of_mix3[lane, unit], slope, maps, reads, n3, n_read)
    _add_products(of_maps, back3[unit], slope, reads, own, n_read, n3)
    return error


@compiled(parallel=True)
def _learn(
    maps: Any, reads: Any, sizes: Any, weights: Any, turned: Any, offset: Any, wanted: Any, scale: Any, inside: Any,
    sums: Any, of_maps: Any, errors: Any,
) -> None:
    """Errors (image unit), gradients of weights summed over each part of the images, and of maps summed over each part of the units."""
    by_image, by_unit = len(sums[0]), len(of_maps)
    n_images, n_units = errors.shape
    most = max(sizes[:, 1].max(), sizes[:, 2].max(), sizes[:, 3].max())
    for lane in numba.prange(by_image * by_unit):
        image_lane, unit_lane = lane % by_image, lane // by_image
        planes = np.zeros((7, most, PITCH), np.float32)
        for image in range(image_lane, n_images, by_image):
            for unit in range(unit_lane, n_units, by_unit):
                errors[image, unit] = _learn_one(
                    maps[image], reads[unit], sizes[unit], weights, turned, offset[unit], wanted[image, unit], scale[unit],
                    inside, unit, image_lane, planes, sums, of_maps[unit_lane, image],
                )
