from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from nwb_compact.bank import Bank, BankShape, new_bank
from nwb_compact.streaming import as_tensor
from nwb_compact.student import INPUT_MEAN, STRIDES, filters_per_layer, n_parameters, predict, predict_all, same_padding

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 7, 7, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
WIDTHS, N_UNITS = (5, 4, 3, 4, 3), 3
READOUTS = [(shared_layers, "separable") for shared_layers in range(1, 6)] + [(shared_layers, "dense") for shared_layers in range(1, 5)]
"""All there are: how many layers are shared, and how the last is read out."""


def masks_of(shared_layers, seed=0):
    """Each unit has some of the filters of every layer that may be masked, never none."""
    rng = np.random.default_rng(seed)
    masks = []
    for layer, width in enumerate(WIDTHS, start=1):
        mask = rng.random((N_UNITS, width)) < 0.6
        mask[:, 0] = True
        masks.append(mask if layer >= shared_layers else np.ones_like(mask))
    return tuple(masks)


def bank_of(shared_layers, readout="separable", *, masked=False, n_units=N_UNITS, products=1):
    """A bank in which every filter does something, none has the bias of a new bank and no two places weigh the same."""
    shape, generator = BankShape(n_units, WIDTHS, shared_layers, readout, products), torch.Generator().manual_seed(0)
    bank = Bank(shape, masks_of(shared_layers) if masked else None)
    with torch.no_grad():
        for parameter, scaled in zip(bank.parameters(), new_bank(shape, as_tensor(IMAGES, "cpu"), seed=0).parameters(), strict=True):
            parameter.copy_(scaled)
        for layer, bias in enumerate(bank.bias, start=1):
            bias.add_(0.3 + 0.3 * torch.randn(len(bias), generator=generator))
            if layer > shared_layers:
                bank.pointwise[layer - 2][~bank.has(layer)] = 0.0
                bias[~bank.has(layer).flatten()] = 0.0
        for parameter in (bank.offset, *(getattr(bank, name) for name in readout_names(bank))):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return bank.eval()


def readout_names(bank):
    return ["readout_filter", "readout_space"] if bank.shape.readout == "separable" else ["readout"]


def answers(bank, images=IMAGES):
    with torch.inference_mode():
        return bank(as_tensor(images, "cpu")).numpy()


def alone(bank, scale=None, offset=None):
    """What the students answer that are cut out of a bank, each by itself."""
    ones = np.ones(bank.shape.n_units, np.float32)
    students = bank.cut(ones if scale is None else scale, 0 * ones if offset is None else offset)
    return np.stack([predict(student, IMAGES) for student in students], axis=1)


def learn(bank, steps=3):
    bank.train()
    optimizer = torch.optim.AdamW(bank.parameters(), lr=0.01, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        (bank(as_tensor(IMAGES, "cpu")) - 3.0).pow(2).mean().backward()
        optimizer.step()
    bank.eval()


# Students that leave it -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("shared_layers", "readout"), READOUTS)
@pytest.mark.parametrize("masked", [False, True])
def test_a_student_that_leaves_the_bank_answers_as_it_did_there(shared_layers, readout, masked):
    bank = bank_of(shared_layers, readout, masked=masked)
    scale, offset = np.array([1.0, 2.5, 0.3], np.float32), np.array([0.0, -4.0, 10.0], np.float32)
    expected = answers(bank) * scale + offset
    assert (expected.std(axis=0) > 0.01).all(), "or any student would do"
    np.testing.assert_allclose(alone(bank, scale, offset), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    together = predict_all(bank.cut(scale, offset), IMAGES)
    np.testing.assert_allclose(together, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shared_layers", [1, 2, 5])
def test_so_does_one_whose_readout_is_a_sum_of_products(shared_layers):
    bank = bank_of(shared_layers, masked=True, products=3)
    expected, ones = answers(bank), np.ones(N_UNITS, np.float32)
    assert {student.arrays["readout.space"].shape for student in bank.cut(ones, ones)} == {(3, 28, 28)}
    np.testing.assert_allclose(alone(bank), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("shared_layers", "readout"), READOUTS)
def test_so_does_the_only_student_of_a_bank(shared_layers, readout):
    bank = bank_of(shared_layers, readout, n_units=1)
    expected = answers(bank)
    assert expected.shape == (5, 1)
    assert expected.std() > 0.01
    np.testing.assert_allclose(alone(bank), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("shared_layers", "readout"), [(1, "separable"), (2, "separable"), (5, "separable"), (1, "dense"), (2, "dense")])
def test_a_student_takes_only_the_filters_it_has(shared_layers, readout):
    masks = masks_of(shared_layers)
    ones = np.ones(N_UNITS, np.float32)
    for unit, student in enumerate(bank_of(shared_layers, readout, masked=True).cut(ones, ones)):
        n = [int(mask[unit].sum()) for mask in masks]
        np.testing.assert_array_equal(filters_per_layer(student), [n[0], *n[:4]])
        separable = sum(below * 25 + below * above + above for below, above in pairwise(n))
        assert n_parameters(student) == n[0] * 76 + separable + (n[-1] + 784 if readout == "separable" else n[-1] * 784) + 1
        assert all(value.dtype == np.float32 for value in student.arrays.values())


@pytest.mark.parametrize(("shared_layers", "masked", "common"), [
    (5, False, {"input.mean", "layer1", "layer2", "layer3", "layer4", "layer5"}),
    (5, True, {"input.mean", "layer1", "layer2", "layer3", "layer4", "layer5.depthwise"}),
    (2, False, {"input.mean", "layer1", "layer2", "layer3.depthwise"}),
    (2, True, {"input.mean", "layer1", "layer2.depthwise"}),
    (1, True, set()),
])
def test_what_all_units_have_in_common_is_one_object(shared_layers, masked, common):
    ones = np.ones(N_UNITS, np.float32)
    first, *others = bank_of(shared_layers, masked=masked).cut(ones, ones)
    for name, array in first.arrays.items():
        same = {other.arrays[name] is array for other in others}
        assert same == {name in common or name.partition(".")[0] in common}, name


@pytest.mark.parametrize("shared_layers", [1, 2])
def test_filters_that_a_unit_does_not_have_are_zeros_which_count_in_no_norm(shared_layers):
    masks = masks_of(shared_layers)
    bank = Bank(BankShape(N_UNITS, WIDTHS, shared_layers), masks)
    for layer in range(shared_layers + 1, 6):
        absent = ~torch.from_numpy(masks[layer - 1])
        assert not bank.pointwise[layer - 2][absent].any()
        assert not bank.bias[layer - 1][absent.flatten()].any()
        if layer < 5:
            assert not bank.depthwise[layer - 1][absent.flatten()].any()
            assert bank.depthwise[layer - 1][~absent.flatten()].any(dim=(1, 2, 3)).all()


def test_a_student_that_left_does_not_learn_on():
    bank = bank_of(5)
    student, *_ = bank.cut(np.ones(N_UNITS, np.float32), np.zeros(N_UNITS, np.float32))
    before = {name: array.copy() for name, array in student.arrays.items()}
    learn(bank, steps=1)
    for name, array in before.items():
        np.testing.assert_array_equal(student.arrays[name], array)


# What a unit does not have --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("shared_layers", "readout"), [(1, "separable"), (2, "separable"), (5, "separable"), (1, "dense"), (2, "dense")])
def test_what_a_unit_does_not_have_does_not_answer(shared_layers, readout):
    """Whatever weights those who read the missing filters hold."""
    bank, other = (bank_of(shared_layers, readout, masked=True) for _ in range(2))
    with torch.no_grad():
        for layer in range(shared_layers, 6):
            missing = ~bank.has(layer)
            assert missing.any()
            if layer == 5:
                getattr(other, readout_names(other)[0])[missing] += 100.0
                continue
            other.pointwise[layer - 1] += 100.0 * missing[:, None, :]
            if layer > shared_layers:
                other.depthwise[layer - 1][missing.flatten()] += 100.0
    np.testing.assert_allclose(answers(other), answers(bank), rtol=1e-5)


@pytest.mark.parametrize(("shared_layers", "readout"), [(1, "separable"), (2, "separable"), (1, "dense"), (2, "dense")])
def test_what_a_unit_does_not_have_does_not_learn(shared_layers, readout):
    bank = bank_of(shared_layers, readout, masked=True)
    before = [bias.detach().clone() for bias in bank.bias]
    learn(bank)
    for layer in range(shared_layers + 1, 6):
        missing, bias = ~bank.has(layer), bank.bias[layer - 1].detach()
        assert (bias[missing.flatten()] == 0).all()
        assert (bank.pointwise[layer - 2][missing] == 0).all()
        assert (bias[~missing.flatten()] != before[layer - 1][~missing.flatten()]).any()
    expected = answers(bank)
    np.testing.assert_allclose(alone(bank), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_a_bank_with_missing_filters_starts_with_them_silent(readout):
    """As `prune` makes it: before any weight is filled in."""
    bank = Bank(BankShape(N_UNITS, WIDTHS, 2, readout), masks_of(2))
    for layer in range(3, 6):
        missing = ~bank.has(layer)
        assert (bank.pointwise[layer - 2][missing] == 0).all()
        assert (bank.pointwise[layer - 2][~missing] != 0).any()
        assert (bank.bias[layer - 1] == 0).all()


def test_filters_of_a_shared_layer_that_another_reads_cannot_be_left_out():
    masks = list(masks_of(2))
    masks[0] = masks[0].copy()
    masks[0][1, 2] = False
    with pytest.raises(ValueError, match="a unit can leave out filters only of the last shared layer"):
        Bank(BankShape(N_UNITS, WIDTHS, 2), tuple(masks))


def test_filters_that_all_share_cannot_be_read_out_densely():
    with pytest.raises(ValueError, match=r"^a dense readout needs filters of layer 5 that are each unit's own$"):
        Bank(BankShape(N_UNITS, WIDTHS, 5, "dense"))


# Units and images apart -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("shared_layers", "readout"), [(1, "separable"), (3, "separable"), (5, "separable"), (1, "dense"), (3, "dense")])
def test_units_do_not_see_each_others_filters(shared_layers, readout):
    """Changing all that is unit 1's own changes the answer of unit 1 alone."""
    bank, other = (bank_of(shared_layers, readout) for _ in range(2))
    with torch.no_grad():
        for layer in range(shared_layers + 1, 6):
            other.pointwise[layer - 2][1] *= -1
            other.bias[layer - 1][other.channels(1, layer)] += 0.1
            if layer < 5:
                other.depthwise[layer - 1][other.channels(1, layer)] *= 2
        for name in readout_names(other):
            getattr(other, name)[1] += 1.0
    changed = np.abs(answers(other) - answers(bank)).max(axis=0) > 1e-5
    np.testing.assert_array_equal(changed, [False, True, False])


@pytest.mark.parametrize(("shared_layers", "readout"), [(2, "separable"), (5, "separable"), (2, "dense")])
def test_an_answer_does_not_depend_on_the_other_images_of_the_batch(shared_layers, readout):
    bank = bank_of(shared_layers, readout, masked=True)
    whole, tolerance = answers(bank), 1e-4 * np.abs(answers(bank)).max()
    np.testing.assert_allclose(answers(bank, IMAGES[3:4]), whole[3:4], rtol=1e-4, atol=tolerance)
    order = np.array([4, 0, 3, 1, 2])
    np.testing.assert_allclose(answers(bank, IMAGES[order]), whole[order], rtol=1e-4, atol=tolerance)


# Its arrays -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("shared_layers", "totals"), [
    (1, [5, 12, 9, 12, 9]), (2, [5, 4, 9, 12, 9]), (4, [5, 4, 3, 4, 9]), (5, [5, 4, 3, 4, 3]),
])
def test_shared_layers_are_there_once_and_others_once_a_unit(shared_layers, totals):
    shape = BankShape(N_UNITS, WIDTHS, shared_layers)
    assert [shape.total(layer) for layer in range(1, 6)] == totals
    bank = Bank(shape)
    assert [len(bias) for bias in bank.bias] == totals
    assert [len(depthwise) for depthwise in bank.depthwise] == totals[:4]
    assert [pointwise[..., 0].numel() for pointwise in bank.pointwise] == totals[1:]


@pytest.mark.parametrize(("shared_layers", "readout"), READOUTS)
def test_every_parameter_is_of_one_layer_or_the_readout(shared_layers, readout):
    bank = Bank(BankShape(N_UNITS, WIDTHS, shared_layers, readout))
    listed = [id(parameter) for layer in range(1, 6) for parameter in bank.arrays_of(layer)]
    read = {id(parameter) for parameter in (*bank.readout_arrays(), *(getattr(bank, name) for name in readout_names(bank)), bank.offset)}
    assert sorted([*listed, *read]) == sorted(id(parameter) for parameter in bank.parameters())


@pytest.mark.parametrize("n_units", [1, 3])
@pytest.mark.parametrize("shared_layers", [1, 2, 5])
def test_every_filter_of_a_new_bank_answers_with_mean_0_and_sd_1_before_it_is_rectified(shared_layers, n_units):
    """Worked out by torch's plain operators, one unit after another."""
    bank = new_bank(BankShape(n_units, WIDTHS, shared_layers), as_tensor(IMAGES, "cpu"), seed=0)
    with torch.inference_mode():
        centred = as_tensor(IMAGES, "cpu") - torch.tensor(INPUT_MEAN)[:, None, None]
        for unit in range(n_units):
            own = functional.conv2d(centred, bank.kernel, bank.bias[0], padding=2)
            standardised(own)
            for layer in range(2, 6):
                x = same_padding(torch.relu(own), STRIDES[layer - 1])
                kernels = bank.depthwise[layer - 2][bank.channels(unit, layer - 1)]
                x = functional.conv2d(x, kernels, stride=STRIDES[layer - 1], groups=len(kernels))
                weights = bank.pointwise[layer - 2][unit if layer > shared_layers else 0]
                own = torch.einsum("bihw,fi->bfhw", x, weights) + bank.bias[layer - 1][bank.channels(unit, layer)][:, None, None]
                standardised(own)


def standardised(own):
    np.testing.assert_allclose(own.mean(dim=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(own.std(dim=(0, 2, 3)), 1, atol=1e-3)


def test_a_new_bank_answers_images_that_are_all_the_same_grey():
    """Its filters have nothing to be scaled by but the borders, and beyond layer 1 perhaps not even those."""
    grey = np.full((2, 112, 112, 3), 116, np.uint8)
    assert np.isfinite(answers(new_bank(BankShape(2, WIDTHS, 5), as_tensor(grey, "cpu"), seed=0), grey)).all()


def test_kernels_on_pixels_begin_smooth():
    """Neighbouring weights of white noise blurred by 1 px correlate by exp(-1/4) = 0.78, near the edges of a kernel a little less."""
    kernel = new_bank(BankShape(1, (400, *WIDTHS[1:]), 1), as_tensor(IMAGES, "cpu"), seed=0).kernel.detach()
    beside = np.corrcoef(kernel[..., 2, 1].flatten(), kernel[..., 2, 2].flatten())[0, 1]
    corners = np.corrcoef(kernel[..., 0, 0].flatten(), kernel[..., 4, 4].flatten())[0, 1]
    assert 0.7 < beside < 0.9
    assert abs(corners) < 0.15


def test_the_seed_decides_on_a_new_bank():
    shape, images = BankShape(2, WIDTHS, 2), as_tensor(IMAGES, "cpu")
    first, again, other = (answers(new_bank(shape, images, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


# Fixed layers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fixed", [1, 2, 3, 5])
@pytest.mark.parametrize("shared_layers", [1, 2, 5])
def test_fixed_layers_stay_as_they_are_and_the_others_learn(shared_layers, fixed):
    bank = bank_of(shared_layers).fix(fixed)
    before = {layer: [array.detach().clone() for array in bank.arrays_of(layer)] for layer in range(1, 6)}
    fixed_arrays = [not array.requires_grad for layer in range(1, 6) for array in bank.arrays_of(layer)]
    assert fixed_arrays == [layer <= fixed for layer in range(1, 6) for _ in bank.arrays_of(layer)], "fixed, so given to no optimizer"
    space = bank.readout_space.detach().clone()
    learn(bank)
    for layer, arrays in before.items():
        same = [torch.equal(array, after) for array, after in zip(arrays, bank.arrays_of(layer), strict=True)]
        assert same == [layer <= fixed] * len(arrays)
    assert not torch.equal(space, bank.readout_space)


@pytest.mark.parametrize("fixed", [0, 1, 2, 3])
def test_the_others_learn_what_they_would_learn_anyway(fixed):
    free, part = bank_of(2), bank_of(2).fix(fixed)
    np.testing.assert_array_equal(answers(part), answers(free))
    for bank in (free, part):
        (bank(as_tensor(IMAGES, "cpu")) - 3.0).pow(2).mean().backward()
    for layer in range(1, 6):
        for array, whole in zip(part.arrays_of(layer), free.arrays_of(layer), strict=True):
            assert whole.grad is not None
            if layer <= fixed:
                assert array.grad is None
            else:
                torch.testing.assert_close(array.grad, whole.grad, rtol=1e-4, atol=1e-5 * float(whole.grad.abs().max()))


@pytest.mark.parametrize("shared_layers", [2, 5])
def test_the_error_of_each_unit_is_weighed_by_what_it_lately_was(shared_layers):
    bank = Bank(BankShape(3, WIDTHS, shared_layers)).train()
    images, wanted = 255 * torch.rand(4, 3, 112, 112), torch.randn(4, 3) * torch.tensor([0.01, 1.0, 100.0])
    with torch.no_grad():
        errors = ((bank(images) - wanted) ** 2).mean(dim=0)
        torch.testing.assert_close(bank.loss(images, wanted), errors.mean())
        remembered = 0.98 + 0.02 * errors
        torch.testing.assert_close(bank.unit_error, remembered)
        torch.testing.assert_close(bank.loss(images, wanted), (errors / remembered).mean() * remembered.mean())
        bank.unit_error.copy_(errors)
        torch.testing.assert_close(bank.eval().loss(images, wanted), errors.mean())
        torch.testing.assert_close(bank.unit_error, errors)


@pytest.mark.parametrize("shared_layers", [2, 5])
def test_no_unit_is_so_well_predicted_that_it_counts_for_all(shared_layers):
    bank = Bank(BankShape(2, WIDTHS, shared_layers)).train()
    images = 255 * torch.rand(4, 3, 112, 112)
    with torch.no_grad():
        right = bank(images)
        for _ in range(400):
            bank.loss(images, right)
    torch.testing.assert_close(bank.unit_error, torch.full((2,), 1e-3))
