from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from nwb_compact.backbones import as_tensor
from nwb_compact.bank import Bank, BankShape
from nwb_compact.student import filters_per_layer, n_parameters, predict

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 7, 7, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
WIDTHS, N_UNITS = (5, 4, 3, 4, 3), 3


def masks_of(shared_layers, seed=0):
    """Each unit has some of the filters of every layer that may be masked, never none."""
    rng = np.random.default_rng(seed)
    masks = []
    for layer, width in enumerate(WIDTHS, start=1):
        mask = rng.random((N_UNITS, width)) < 0.6
        mask[:, 0] = True
        masks.append(mask if layer >= shared_layers else np.ones_like(mask))
    return tuple(masks)


def lively(bank, seed=0):
    """Random normalisations of about the size of the maps, so that every filter does something and none is as in a new bank."""
    generator = torch.Generator().manual_seed(seed)
    for norm in bank.norm:
        norm.momentum = 1.0
    with torch.no_grad():
        bank.train()(as_tensor(IMAGES, "cpu"))
        for norm in bank.norm:
            there = norm.weight != 0
            noise = torch.randn(len(there), generator=generator)
            norm.running_mean.add_(0.5 * noise * norm.running_var.sqrt())
            norm.running_var.mul_(0.5 + torch.rand(len(there), generator=generator))
            norm.weight[there] = 0.5 + torch.rand(int(there.sum()), generator=generator)
            norm.bias[there] = 0.5 + 0.3 * torch.randn(int(there.sum()), generator=generator)
        bank.bias.copy_(torch.randn(len(bank.bias), generator=generator))
        bank.readout.mul_(50)
    return bank.eval()


def bank_of(shared_layers, *, masked, seed=0):
    torch.manual_seed(seed)
    return lively(Bank(BankShape(N_UNITS, WIDTHS, shared_layers), masks_of(shared_layers) if masked else None))


def answers(bank, images=IMAGES):
    with torch.inference_mode():
        return bank(as_tensor(images, "cpu")).numpy()


@pytest.mark.parametrize("shared_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_a_student_that_leaves_the_bank_answers_as_it_did_there(shared_layers, masked):
    bank = bank_of(shared_layers, masked=masked)
    scale, offset = np.array([1.0, 2.5, 0.3], np.float32), np.array([0.0, -4.0, 10.0], np.float32)
    expected = answers(bank) * scale + offset
    assert (expected.std(axis=0) > 0.01).all(), "or any student would do"
    found = np.stack([predict(student, IMAGES) for student in bank.cut(scale, offset)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shared_layers", [1, 2])
def test_a_student_takes_only_the_filters_it_has(shared_layers):
    masks = masks_of(shared_layers)
    ones = np.ones(N_UNITS, np.float32)
    for unit, student in enumerate(bank_of(shared_layers, masked=True).cut(ones, ones)):
        n = [int(mask[unit].sum()) for mask in masks]
        np.testing.assert_array_equal(filters_per_layer(student), [n[0], *n[:4]])
        separable = sum(below * 25 + below * above + above for below, above in pairwise(n))
        assert n_parameters(student) == n[0] * 76 + separable + n[-1] * 784 + 1
        assert all(value.dtype == np.float32 for value in student.arrays.values())


@pytest.mark.parametrize("shared_layers", [1, 2])
def test_what_a_unit_does_not_have_does_not_answer(shared_layers):
    """Whatever weights the missing filters hold."""
    bank, other = bank_of(shared_layers, masked=True), bank_of(shared_layers, masked=True)
    with torch.no_grad():
        for layer in range(shared_layers + 1, 6):
            missing = ~bank.has(layer).flatten()
            assert missing.any()
            other.pointwise[layer - 2].weight[missing] += 100.0
            if layer < 5:
                other.depthwise[layer - 1].weight[missing] += 100.0
        other.readout[:, :, ~bank.has(5).flatten()] += 100.0
    np.testing.assert_allclose(answers(other), answers(bank), rtol=1e-5)


@pytest.mark.parametrize("shared_layers", [1, 2])
def test_what_a_unit_does_not_have_does_not_learn(shared_layers):
    bank = bank_of(shared_layers, masked=True)
    before = {layer: bank.norm[layer - 1].weight.detach().clone() for layer in range(1, 6)}
    bank.train()
    optimizer = torch.optim.AdamW(bank.parameters(), lr=0.01, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        (bank(as_tensor(IMAGES, "cpu")) - 3.0).pow(2).mean().backward()
        optimizer.step()
    for layer in range(shared_layers + 1, 6):
        missing = ~bank.has(layer).flatten()
        after = bank.norm[layer - 1].weight.detach()
        assert (after[missing] == 0).all()
        assert (bank.norm[layer - 1].bias[missing] == 0).all()
        assert (after[~missing] != before[layer][~missing]).any()
    bank.eval()
    ones = np.ones(N_UNITS, np.float32)
    found = np.stack([predict(student, IMAGES) for student in bank.cut(ones, 0 * ones)], axis=1)
    expected = answers(bank)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shared_layers", [1, 3])
def test_units_do_not_see_each_others_filters(shared_layers):
    """Changing all that is unit 1's own changes the answer of unit 1 alone."""
    bank, other = bank_of(shared_layers, masked=False), bank_of(shared_layers, masked=False)
    with torch.no_grad():
        for layer in range(shared_layers + 1, 6):
            other.pointwise[layer - 2].weight[other.channels(1, layer)] *= -1
        other.readout[:, :, other.channels(1, 5)] += 1.0
    changed = np.abs(answers(other) - answers(bank)).max(axis=0) > 1e-5
    np.testing.assert_array_equal(changed, [False, True, False])


def test_an_answer_does_not_depend_on_the_other_images_of_the_batch():
    bank = bank_of(2, masked=True)
    np.testing.assert_allclose(answers(bank, IMAGES[3:4]), answers(bank)[3:4], rtol=1e-4)


def test_filters_of_a_shared_layer_that_another_reads_cannot_be_left_out():
    masks = list(masks_of(2))
    masks[0] = masks[0].copy()
    masks[0][1, 2] = False
    with pytest.raises(ValueError, match="a unit can leave out filters only of the last shared layer"):
        Bank(BankShape(N_UNITS, WIDTHS, 2), tuple(masks))


@pytest.mark.parametrize(("shared_layers", "totals"), [(1, [5, 12, 9, 12, 9]), (2, [5, 4, 9, 12, 9]), (4, [5, 4, 3, 4, 9])])
def test_shared_layers_are_there_once_and_others_once_a_unit(shared_layers, totals):
    shape = BankShape(N_UNITS, WIDTHS, shared_layers)
    assert [shape.total(layer) for layer in range(1, 6)] == totals
    bank = Bank(shape)
    assert [len(norm.weight) for norm in bank.norm] == totals


def test_the_normalisation_is_that_of_batchnorm_in_evaluation():
    bank = bank_of(2, masked=False)
    x = torch.randn(2, bank.shape.total(3), 4, 4)
    gain, shift = bank.normalisation(3)
    norm: nn.BatchNorm2d = bank.norm[2]
    torch.testing.assert_close(x * gain[:, None, None] + shift[:, None, None], norm(x).detach())
