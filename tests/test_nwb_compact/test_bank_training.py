import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from nwb_compact.bank import BankShape, new_bank
from nwb_compact.bank_training import MATRIX_RATE, READOUT_RATE, parameter_groups, smooth_kernels, standardised_answers
from nwb_compact.streaming import as_tensor
from nwb_compact.training import Plan, Task, train

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


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_learns_is_every_array_once_filters_as_matrices_and_places_at_a_rate_of_their_own(shape):
    bank = a_bank(shape)
    others, places, spatial, mixtures = parameter_groups(bank)
    learning = [id(one) for group in (others, places, spatial, mixtures) for one in group["params"]]
    assert sorted(learning) == sorted(id(one) for one in bank.parameters())
    assert {id(one) for one in spatial["params"]} == {id(one) for one in (bank.kernel, *bank.depthwise)}
    assert {id(one) for one in mixtures["params"]} == {id(one) for one in bank.pointwise}
    assert [one["learning_rate_factor"] for one in (places, spatial, mixtures)] == [READOUT_RATE, MATRIX_RATE, MATRIX_RATE]
    assert [one.numel() for one in places["params"]] == [2 * 784 * (2 if shape.readout == "dense" else 1)]


def test_matrices_are_those_of_a_unit_or_of_all_units_where_they_share_the_layer():
    """Of layer 3 the spatial filters are those of the maps of layer 2, which both units share, and the mixing is each unit's own."""
    *_, spatial, mixtures = parameter_groups(a_bank(SHAPES["own"]))
    assert spatial["shapes"] == [(1, 3, 75), (1, 3, 25), (1, 3, 25), (2, 2, 25), (2, 2, 25)]
    assert mixtures["shapes"] == [(1, 3, 3), (2, 2, 3), (2, 2, 2), (2, 2, 2)]


def test_only_mixtures_are_made_sparse():
    assert [group.get("sparsity", 0.0) for group in parameter_groups(a_bank(), 0.4)] == [0.0, 0.0, 0.0, 0.4]


def test_what_is_fixed_does_not_learn():
    bank = a_bank().fix(2)
    fixed = {id(one) for layer in (1, 2) for one in bank.arrays_of(layer)}
    others, places, spatial, mixtures = parameter_groups(bank)
    learning = [id(one) for group in (others, places, spatial, mixtures) for one in group["params"]]
    assert len(fixed) == 5
    assert sorted([*fixed, *learning]) == sorted(id(one) for one in bank.parameters())
    assert [len(group["params"]) for group in (spatial, mixtures)] == [len(group["shapes"]) for group in (spatial, mixtures)] == [3, 3]
    assert len(parameter_groups(a_bank())[0]["params"]) - len(others["params"]) == 2, "the biases"


def test_a_step_changes_the_filters_of_all_layers_by_the_same_share_of_what_they_are():
    """Also those on pixels, which are some sixty times as loud as what other layers receive."""
    bank = a_bank()
    before = [parameter.detach().clone() for parameter, _ in bank.matrices()]
    images = as_tensor(blobs(), "cpu")
    task = Task(bank, parameter_groups(bank), batches=lambda _: [(images,)], loss=lambda part: bank(part[0]).square().sum())
    train(task, Plan(epochs=1, learning_rate=0.01), seed=0)
    shares = [float((new.detach() - old).norm() / old.norm()) for (new, _), old in zip(bank.matrices(), before, strict=True)]
    np.testing.assert_allclose(shares, 0.01 * MATRIX_RATE, rtol=1e-3)


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
