"""Layers that are each unit's own, trained in one pass: the error and the gradients must be those of the layers one by one."""

import numpy as np
import pytest
import torch

from nwb_compact.bank import Bank, BankShape
from nwb_compact.operations import counted

N_IMAGES = 3


def bank_of(shape, missing=False, seed=0):
    """A bank with random biases, of which some units lack some filters."""
    rng = np.random.default_rng(seed)
    masks = [np.ones((shape.n_units, width), bool) for width in shape.widths]
    if missing:
        last_shared, width = masks[shape.shared_layers - 1], shape.widths[shape.shared_layers - 1]
        for unit in range(shape.n_units):
            last_shared[unit, rng.permutation(width)[: rng.integers(0, (width + 1) // 2)]] = False
            for mask in masks[shape.shared_layers :]:
                mask[unit, rng.integers((mask.shape[1] + 1) // 2, mask.shape[1] + 1) :] = False
    torch.manual_seed(seed)
    bank = Bank(shape, tuple(masks)).eval()  # in training the errors by which units are weighed would change between two calls
    with torch.no_grad():
        bank.kernel.mul_(0.01)  # answers of about the size of the biases, so that most filters are rectified at some places only
        for layer, bias in enumerate(bank.bias, start=1):
            bias.normal_(2, 3)
            if layer > shape.shared_layers:
                bias.mul_(bank.has(layer).flatten())
        bank.unit_error.uniform_(0.2, 1.0)
        weights = bank.readout_filter if shape.readout == "separable" else bank.readout
        weights[~bank.has(5)] = 0.0
    return bank


def lesson(shape, n_images=N_IMAGES):
    drawn = torch.Generator().manual_seed(1)
    return 255 * torch.rand(n_images, 3, 112, 112, generator=drawn), torch.randn(n_images, shape.n_units, generator=drawn)


def layer_by_layer(bank, images, wanted):
    weights = bank.unit_error.mean() / bank.unit_error
    return (weights * (bank(images) - wanted) ** 2).mean()


def in_one_pass(bank, images, wanted):
    return bank.loss(images, wanted)


def learned(bank, error_of, images, wanted, share=0.3):
    bank.zero_grad()
    error = share * error_of(bank, images, wanted)
    error.backward()
    return error.detach(), {name: parameter.grad for name, parameter in bank.named_parameters() if parameter.grad is not None}


def assert_agree(bank, images, wanted):
    error, of = learned(bank, in_one_pass, images, wanted)
    expected, of_expected = learned(bank, layer_by_layer, images, wanted)
    torch.testing.assert_close(error, expected, rtol=1e-5, atol=0)
    assert of.keys() == of_expected.keys()
    for name, gradient in of.items():
        size = float(of_expected[name].norm())
        assert size > 0, f"{name}: the test asks nothing"
        # a place that is rectified in one and, by rounding, not in the other, is one of 784 in a map
        assert float((gradient - of_expected[name]).norm()) < 1e-3 * size, name


@pytest.mark.parametrize("readout", ["separable", "dense"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("widths", [(5, 6, 7, 5, 3), (4, 8, 8, 4, 4), (3, 9, 1, 2, 1)])
@pytest.mark.parametrize("shared_layers", [1, 2])
@pytest.mark.parametrize("n_units", [1, 3])
def test_error_and_gradients_are_those_of_the_layers_one_by_one(n_units, shared_layers, widths, missing, readout):
    shape = BankShape(n_units, widths, shared_layers, readout)
    assert_agree(bank_of(shape, missing), *lesson(shape))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_any_number_of_threads_shares_out_any_number_of_images(threads, n_images):
    before, shape = torch.get_num_threads(), BankShape(5, (4, 6, 5, 4, 3), 2)
    try:
        torch.set_num_threads(threads)
        assert_agree(bank_of(shape, missing=True), *lesson(shape, n_images))
    finally:
        torch.set_num_threads(before)


def test_what_is_fixed_gets_no_gradient():
    shape = BankShape(2, (4, 6, 5, 4, 3), 2)
    bank = bank_of(shape).fix(2)
    _, of = learned(bank, in_one_pass, *lesson(shape))
    assert {name for name, _ in bank.named_parameters()} - set(of) == {"kernel", "bias.0", "bias.1", "depthwise.0", "pointwise.0"}


@pytest.mark.parametrize("shared_layers", [3, 5])
def test_layers_that_units_share_above_the_second_are_left_to_torch(shared_layers):
    shape = BankShape(2, (4, 6, 5, 4, 3), shared_layers)
    assert_agree(bank_of(shape), *lesson(shape))


def test_no_filter_and_no_input_that_a_unit_does_not_have_is_counted():
    whole, some = (bank_of(BankShape(2, (4, 8, 8, 8, 4), 2), missing) for missing in (False, True))
    operations = []
    for bank in (whole, some):
        with counted() as count:
            in_one_pass(bank.fix(2), *lesson(bank.shape))
        operations.append(count.flop)
    n = [whole.has(layer).sum(dim=1) - some.has(layer).sum(dim=1) for layer in range(2, 6)]
    assert any(int(missing.sum()) for missing in n)

    def products(bank):
        two, three, four, five = (bank.has(layer).sum(dim=1) for layer in range(2, 6))
        return int((two * three + 25 * three + three * four + 25 * four + four * five + five).sum())

    assert operations[0] - operations[1] == N_IMAGES * 3 * 2 * 784 * (products(whole) - products(some))
