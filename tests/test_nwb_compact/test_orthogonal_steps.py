import numpy as np
import pytest
import torch
from torch import nn

from nwb_compact.orthogonal_steps import MOMENTUM, OrthogonalMomentum, orthogonal

SHAPES = [(1, 40, 75), (3, 24, 56), (2, 8, 8), (4, 96, 25), (1, 1, 7)]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay_and_singular_values_become_about_one(shape):
    matrices = drawn(*shape)
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert float(values.max()) < 1.3
    assert float(values.min()) > 0.3, "the smallest need more iterations"
    assert float((values > 0.6).float().mean()) > 0.9
    x, _, y = torch.linalg.svd(matrices, full_matrices=False)
    closest = x @ y  # the nearest matrix whose directions are all alike
    cosine = (orthogonal(matrices) * closest).sum(dim=(1, 2)) / orthogonal(matrices).norm(dim=(1, 2)) / closest.norm(dim=(1, 2))
    assert float(cosine.min()) > 0.95


def test_each_matrix_of_a_stack_is_turned_as_it_is_alone():
    stack = torch.stack([drawn(6, 9), 100 * drawn(6, 9, seed=1)])
    torch.testing.assert_close(orthogonal(stack), torch.cat([orthogonal(one[None]) for one in stack]))


def test_rows_and_columns_of_zeros_stay_so_and_leave_the_others_alone():
    padded = torch.zeros(1, 7, 9)
    padded[:, :4, :5] = drawn(1, 4, 5)
    turned = orthogonal(padded)
    torch.testing.assert_close(turned[:, :4, :5], orthogonal(padded[:, :4, :5]))
    turned[:, :4, :5] = 0
    assert not turned.any()
    assert not orthogonal(torch.zeros(2, 3, 4)).any()


def test_what_has_faded_counts_as_0_so_that_nothing_is_multiplied_as_slowly_as_the_smallest_numbers_are():
    faded = drawn(1, 7, 9)
    faded[:, 4:] *= 1e-38
    assert bool((faded[:, 4:] != 0).any())
    turned = orthogonal(faded)
    assert not turned[:, 4:].any()
    torch.testing.assert_close(turned[:, :4], orthogonal(faded[:, :4]))


def stepped(parameter, shape, gradients, lr=0.1, **of_group):
    """Values after each step."""
    optimizer, values = OrthogonalMomentum([{"params": [parameter], "shapes": [shape], **of_group}], lr=lr), []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        values.append(parameter.detach().clone())
    return values


def test_a_step_goes_down_the_gradient_by_a_share_of_the_norm_at_first():
    first = torch.cat([drawn(1, 4, 1, 6), 50 * drawn(1, 4, 1, 6, seed=1)])
    gradients = [drawn(2, 4, 1, 6, seed=seed) for seed in (2, 3)]
    one, two = stepped(nn.Parameter(first.clone()), (2, 4, 6), gradients)
    norms = first.flatten(1).norm(dim=1)
    for before, after in ((first, one), (one, two)):
        torch.testing.assert_close((after - before).flatten(1).norm(dim=1), 0.1 * norms)
    change = (one - first)[:, :, 0]
    assert ((change * gradients[0][:, :, 0]).sum(dim=(1, 2)) < 0).all()
    expected = orthogonal(gradients[0][:, :, 0] * (1 - MOMENTUM**2))
    torch.testing.assert_close(-change / change.norm(dim=(1, 2), keepdim=True), expected / expected.norm(dim=(1, 2), keepdim=True))


def test_sparsity_brings_all_weights_of_a_matrix_nearer_to_0_by_a_share_of_what_the_step_adds():
    """Each matrix by its own share: those that are loud move in large steps."""
    first = torch.cat([drawn(1, 4, 6), 50 * drawn(1, 4, 6, seed=1)])
    first[:, 0, 0] = 0.0
    gradient = drawn(2, 4, 6, seed=2)
    (plain,) = stepped(nn.Parameter(first.clone()), (2, 4, 6), [gradient])
    (sparse,) = stepped(nn.Parameter(first.clone()), (2, 4, 6), [gradient], sparsity=0.5)
    by = 0.5 * (plain - first).square().mean(dim=(1, 2), keepdim=True).sqrt().expand(-1, 4, 6)
    reach = plain.abs() <= by
    assert 0 < int(reach.sum()) < reach.numel() / 2
    assert not sparse[reach].any()
    torch.testing.assert_close(plain - sparse, torch.where(reach, plain, plain.sign() * by))


def test_weights_that_no_gradient_keeps_up_vanish_and_those_it_asks_for_stay():
    wanted = torch.zeros(1, 6, 6)
    wanted[0, range(6), range(6)] = 1.0
    parameter = nn.Parameter(wanted + 0.3 * drawn(1, 6, 6))
    optimizer = OrthogonalMomentum([{"params": [parameter], "shapes": [(1, 6, 6)], "sparsity": 0.5}], lr=0.02)
    inputs = drawn(200, 6, seed=1)
    inputs[:, 5] = inputs[:, 4]  # what the fifth gives the sixth gives as well: either or both of them do
    for _ in range(150):
        optimizer.zero_grad()
        ((inputs @ (parameter - wanted)[0].T) ** 2).mean().backward()
        optimizer.step()
    off = (wanted == 0) & (parameter.detach() == 0)
    assert int(off.sum()) > 15
    assert float(parameter.detach()[0].diag()[:4].min()) > 0.8


def test_momentum_remembers_the_step_before():
    first, gradient = drawn(1, 5, 6), drawn(1, 5, 6, seed=1)
    _, after = stepped(nn.Parameter(first.clone()), (1, 5, 6), [gradient, torch.zeros_like(gradient)])
    (once,) = stepped(nn.Parameter(first.clone()), (1, 5, 6), [gradient])
    torch.testing.assert_close(after - once, once - first)  # the same direction, and steps are of one length


def test_a_matrix_of_zeros_and_one_without_a_gradient_stay():
    still = nn.Parameter(drawn(2, 3))
    assert torch.equal(stepped(nn.Parameter(torch.zeros(1, 3, 4)), (1, 3, 4), [drawn(1, 3, 4)])[0], torch.zeros(1, 3, 4))
    before = still.detach().clone()
    OrthogonalMomentum([{"params": [still], "shapes": [(1, 2, 3)]}], lr=1.0).step()
    assert torch.equal(still.detach(), before)


def test_what_is_kept_and_read_again_goes_on_alike():
    gradients = [drawn(2, 4, 6, seed=seed) for seed in range(4)]
    whole = stepped(nn.Parameter(drawn(2, 4, 6)), (2, 4, 6), gradients)[-1]
    parameter = nn.Parameter(drawn(2, 4, 6))
    first = OrthogonalMomentum([{"params": [parameter], "shapes": [(2, 4, 6)]}], lr=0.1)
    for gradient in gradients[:2]:
        parameter.grad = gradient
        first.step()
    later = OrthogonalMomentum([{"params": [parameter], "shapes": [(2, 4, 6)]}], lr=0.7)
    later.load_state_dict(first.state_dict())
    for gradient in gradients[2:]:
        parameter.grad = gradient
        later.step()
    np.testing.assert_array_equal(parameter.detach(), whole)


def test_threads_are_as_before_also_where_a_step_fails():
    parameter, before = nn.Parameter(drawn(2, 3)), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        parameter.grad = drawn(2, 3)
        with pytest.raises(RuntimeError, match="shape"):
            OrthogonalMomentum([{"params": [parameter], "shapes": [(1, 7, 7)]}], lr=1.0).step()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
