import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from nwb_compact.bank import BankShape, new_bank
from nwb_compact.bank_training import KERNEL_RATE, READOUT_RATE, parameter_groups, smooth_kernels, standardised_answers
from nwb_compact.streaming import as_tensor

SHAPES = {
    "shared": BankShape(n_units=2, widths=(3, 3, 4, 4, 4), shared_layers=5),
    "own": BankShape(n_units=2, widths=(3, 3, 2, 2, 2), shared_layers=2),
    "dense": BankShape(n_units=2, widths=(3, 3, 2, 2, 2), shared_layers=2, readout="dense"),
}


def blobs():
    small = np.random.default_rng(0).integers(0, 256, (24, 14, 14, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(8, axis=1).repeat(8, axis=2))


def a_bank(shape=SHAPES["own"]):
    return new_bank(shape, as_tensor(blobs(), "cpu"), seed=0)


def test_what_learns_is_every_array_that_is_not_fixed_once_and_pixels_and_places_at_rates_of_their_own():
    for shape in SHAPES.values():
        bank = a_bank(shape)
        others, pixels, places = parameter_groups(bank)
        learning = [id(one) for group in (others, pixels, places) for one in group["params"]]
        assert sorted(learning) == sorted(id(one) for one in bank.parameters())
        assert (others["learning_rate_factor"], pixels["learning_rate_factor"]) == (1.0, KERNEL_RATE)
        assert pixels["params"] == [bank.kernel]
        assert places["learning_rate_factor"] == READOUT_RATE
        assert [one.numel() for one in places["params"]] == [2 * 784 * (2 if shape.readout == "dense" else 1)]
    others, places = parameter_groups(a_bank().fix(2))
    left = len(parameter_groups(a_bank())[0]["params"]) - len(others["params"])
    assert left + 1 == len(a_bank().arrays_of(1)) + len(a_bank().arrays_of(2)) == 5, "the one is the layer of pixels"
    assert places["learning_rate_factor"] == READOUT_RATE


def test_a_step_changes_the_filters_of_all_layers_by_about_the_same_share_of_what_they_are():
    """Pixels are some sixty times as loud as what other layers receive: at the same rate their filters would not last a few steps."""
    bank = a_bank()
    before = [parameter.detach().clone() for parameter in (bank.kernel, *bank.pointwise)]
    groups = [{"params": group["params"], "lr": 0.01 * group["learning_rate_factor"]} for group in parameter_groups(bank)]
    bank(as_tensor(blobs(), "cpu")).square().sum().backward()
    torch.optim.AdamW(groups, weight_decay=0.0).step()
    shares = [float((new.detach() - old).norm() / old.norm()) for new, old in zip((bank.kernel, *bank.pointwise), before, strict=True)]
    assert max(shares) < 20 * min(shares), "at the same rate it would be 700 times"


@pytest.mark.parametrize("shape", [SHAPES["shared"], SHAPES["own"]], ids=["shared", "own"])
def test_no_images_are_answered_with_none(shape):
    assert standardised_answers(a_bank(shape), blobs()[:0]).shape == (0, 2)


@pytest.mark.parametrize("sigma_px", [0.5, 1.0])
def test_smoothing_is_a_gaussian_on_the_kernels_of_layers_2_to_5(sigma_px):
    bank, smoothed = a_bank(), a_bank()
    smooth_kernels(smoothed, sigma_px)
    gauss = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma_px**2))
    blur = np.outer(gauss, gauss) / gauss.sum() ** 2
    for layer in range(4):
        before, after = (of.depthwise[layer].detach().numpy()[:, 0] for of in (bank, smoothed))
        for kernel, found in zip(before, after, strict=True):
            np.testing.assert_allclose(found, convolve(kernel, blur, mode="constant"), rtol=1e-4, atol=1e-6)
    for name, array in bank.named_parameters():
        if not name.startswith("depthwise"):
            assert torch.equal(array, smoothed.get_parameter(name)), name


def test_layers_that_are_fixed_are_not_smoothed():
    bank, smoothed = a_bank(), a_bank().fix(2)
    smooth_kernels(smoothed, 0.5)
    assert [torch.equal(one, two) for one, two in zip(bank.depthwise, smoothed.depthwise, strict=True)] == [True, False, False, False]
