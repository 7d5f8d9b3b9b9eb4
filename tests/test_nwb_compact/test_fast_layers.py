import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from nwb_compact.fast_layers import depthwise, first_layer, pointwise


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def gradients(function, *tensors):
    """Answer and gradients of a loss that weighs every place differently."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    answer = function(*leaves)
    (answer * drawn(*answer.shape, seed=9)).sum().backward()
    return [answer.detach(), *(leaf.grad for leaf in leaves)]


def agree(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_the_first_layer_is_a_rectified_convolution_with_the_border_that_tensorflow_adds():
    images, kernel, bias = drawn(3, 3, 112, 112), drawn(7, 3, 5, 5), drawn(7)
    found = gradients(lambda k, b: first_layer(images, k, b), kernel, bias)

    def plain(k, b):
        return functional.pad(torch.relu(functional.conv2d(images, k, b, padding=2)), (1, 2, 1, 2))

    agree(found, gradients(plain, kernel, bias))
    assert found[0].shape == (3, 7, 115, 115)


@pytest.mark.parametrize(("channels", "size", "stride"), [(5, 19, 2), (33, 12, 1), (200, 12, 1), (385, 11, 2), (1, 5, 1)])
def test_depthwise_and_its_gradients_are_those_of_torch(channels, size, stride):
    maps, weight = drawn(4, channels, size, size), drawn(channels, 1, 5, 5)
    found = gradients(lambda x, w: depthwise(x.contiguous(memory_format=torch.channels_last), w, stride), maps, weight)
    agree(found, gradients(lambda x, w: functional.conv2d(x, w, stride=stride, groups=channels), maps, weight))


@pytest.mark.parametrize("threads", [1, 2])
def test_more_threads_than_images_change_nothing(threads):
    before = torch.get_num_threads()
    maps, weight = drawn(1, 4, 8, 8), drawn(4, 1, 5, 5)
    try:
        torch.set_num_threads(threads)
        found = gradients(lambda x, w: depthwise(x.contiguous(memory_format=torch.channels_last), w, 1), maps, weight)
    finally:
        torch.set_num_threads(before)
    agree(found, gradients(lambda x, w: functional.conv2d(x, w, groups=4), maps, weight))


@pytest.mark.parametrize(("units", "filters", "inputs"), [(1, 6, 4), (3, 2, 5), (7, 4, 1)])
def test_each_unit_mixes_its_own_inputs(units, filters, inputs):
    maps, weight, bias = drawn(2, units * inputs, 6, 5), drawn(units, filters, inputs), drawn(units * filters)
    found = gradients(lambda x, w, b: pointwise(x.contiguous(memory_format=torch.channels_last), w, b), maps, weight, bias)
    alone = [torch.relu(functional.conv2d(part, w[:, :, None, None], b))
             for part, w, b in zip(maps.chunk(units, dim=1), weight, bias.chunk(units), strict=True)]
    torch.testing.assert_close(found[0], torch.cat(alone, dim=1), rtol=1e-4, atol=1e-5)

    def plain(x, w, b):
        return torch.relu(functional.conv2d(x, w.flatten(0, 1)[:, :, None, None], b, groups=units))

    agree(found, gradients(plain, maps, weight, bias))


def test_as_many_threads_as_the_user_said():
    """Numba tells OpenMP, of which torch has its number too, to use every core."""
    code = (
        "import torch, nwb_compact.fit; from nwb_compact.fast_layers import depthwise; x = torch.randn(2, 4, 9, 9);"
        "depthwise(x, torch.randn(4, 1, 5, 5, requires_grad=True), 1).sum().backward(); print(torch.get_num_threads())"
    )
    asked = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
