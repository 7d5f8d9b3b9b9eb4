"""What is counted is what a hand counts: two operations for each multiply-add."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from nwb_compact.bank import Bank, BankShape
from nwb_compact.fast_layers import depthwise
from nwb_compact.operations import alike, counted, shapes
from nwb_compact.training import Plan, Task, train


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_each_gradient_of_a_convolution_costs_as_much_as_itself_in_any_number_of_groups(kind, groups):
    convolution = kind(12, 24, 3, stride=2, padding=1, groups=groups, bias=False)
    x = torch.randn(2, 12, 9, 9, requires_grad=True)
    with counted() as forwards:
        answer = convolution(x)
    places = answer[0, 0].numel() if kind is nn.Conv2d else 9 * 9  # where a kernel is laid: of the answer, or of what is spread
    by_hand = 2 * 2 * places * 9 * 12 * 24 // groups
    assert forwards.flop == by_hand
    with counted() as backwards:
        answer.sum().backward()
    assert backwards.flop == 2 * by_hand
    with counted() as weights_alone:
        convolution(x.detach()).sum().backward()
    assert weights_alone.flop == 2 * by_hand


def test_products_of_all_kinds_are_counted():
    a, b, v, q = torch.randn(4, 5), torch.randn(5, 6), torch.randn(5), torch.randn(2, 3, 7, 8)
    for compute, by_hand in (
        (lambda: a @ b, 2 * 4 * 5 * 6),
        (lambda: a @ v, 2 * 4 * 5),
        (lambda: torch.einsum("bhwc,hwc->bc", torch.randn(2, 5, 6, 7), torch.randn(5, 6, 7)), 2 * 2 * 5 * 6 * 7),
        (lambda: nn.functional.scaled_dot_product_attention(q, q, q), 2 * 2 * 2 * 3 * 7 * 7 * 8),
        (lambda: torch.relu(a) + a, 0),
    ):
        with counted() as learning, torch.inference_mode(False):
            compute()
        with counted() as answering, torch.inference_mode():
            compute()
        assert (learning.flop, answering.flop) == (by_hand, by_hand)


@pytest.mark.parametrize("shared_layers", [1, 2, 5])
def test_a_step_of_a_bank_costs_what_its_layers_say(shared_layers):
    units, widths, batch = 3, (6, 5, 4, 3, 3), 2
    bank = Bank(BankShape(units, widths, shared_layers)).train()
    x = torch.rand(batch, 3, 112, 112)
    with counted() as count:
        bank(x).sum().backward()
    channels = [width * (1 if layer <= shared_layers else units) for layer, width in enumerate(widths, start=1)]
    pixels = (115**2, 56**2, 28**2, 28**2, 28**2)  # the first layer also computes the border that the second needs
    first = channels[0] * 3 * 25 * pixels[0]
    depthwise = sum(below * 25 * here for below, here in zip(channels[:-1], pixels[1:], strict=True))
    seen = (None, widths[0], widths[1], widths[2], widths[3])  # inputs of a filter: those of its own unit
    pointwise = sum(channels[layer] * seen[layer] * pixels[layer] for layer in range(1, 5))
    readout = units * widths[4] * 28**2  # of own filters: the product of a weight a filter and a weight a place, made once a batch
    forwards = 2 * (batch * (first + depthwise + pointwise) + readout * (batch if shared_layers == 5 else 1))
    assert count.flop == 3 * forwards - 2 * batch * first, "no gradient of the images"


def test_what_numba_computes_is_counted_as_often_as_it_is_done_and_only_where_somebody_counts():
    """Gradients of depthwise weights, on maps of each stride."""
    for stride in (1, 2):
        maps, weight, known = torch.rand(2, 7, 13, 13), torch.rand(7, 1, 5, 5, requires_grad=True), {}
        places = {1: 9, 2: 5}[stride] ** 2
        by_hand = 2 * 25 * 7 * 2 * places
        depthwise(maps, weight, stride).sum().backward()
        with counted() as count:
            for _ in range(3):
                with alike(known, stride):
                    depthwise(maps, weight, stride).sum().backward()
        assert known == {(stride,): 2 * by_hand}, "the layer and one gradient: that of the maps is not asked for"
        assert count.flop == 3 * 2 * by_hand


def test_hooks_of_modules_are_left_alone_in_inference_mode():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.inference_mode(), counted() as count:
        nn.Conv2d(3, 4, 1)(x)
    assert count.flop == 2 * 2 * 3 * 4 * 64


# Repeated work --------------------------------------------------------------------------------------------------------
def test_repeated_work_is_looked_at_once_and_counted_each_time():
    a, looked, known = torch.randn(4, 4), [], {}
    with counted() as count:
        for n in (2, 2, 3, 2):
            with alike(known, n):
                looked.append(_get_current_dispatch_mode() is not None)
                a[:n] @ a
        a @ a
    assert looked == [True, False, True, False]
    assert count.flop == (2 + 2 + 3 + 2 + 4) * 2 * 4 * 4


def test_repeated_work_inside_repeated_work_is_not_counted_twice():
    a, known = torch.randn(4, 4), {}
    with counted() as count:
        for _ in range(3):
            with alike(known, "outer"):
                inner = {}
                for _ in range(5):
                    with alike(inner, "inner"):
                        a @ a
    assert count.flop == 3 * 5 * 2 * 4**3


def test_work_that_fails_is_counted_as_far_as_it_came_and_not_taken_for_its_kind():
    a, known = torch.randn(4, 4), {}
    with counted() as count:
        with pytest.raises(ZeroDivisionError), alike(known, 1):
            print(a @ a, 1 / 0)
        assert known == {}
        for _ in range(2):
            with alike(known, 1):
                a @ a @ a
        with pytest.raises(ZeroDivisionError), alike(known, 1):
            print(1 / 0)
        assert count.flop == 5 * 2 * 4**3
        a @ a
    assert count.flop == 6 * 2 * 4**3


def test_where_nobody_counts_nothing_is_known():
    known = {}
    with alike(known, 1):
        pass

    def elsewhere():
        with alike(known, 1):
            pass

    other = threading.Thread(target=elsewhere)
    with counted():
        other.start()
        other.join()
    assert known == {}


def test_compiled_code_is_counted_as_if_it_were_not():
    ran = []

    def backend(graph, _):
        def run(*inputs):
            ran.append(1)
            return graph(*inputs)
        return run

    a = torch.randn(4, 4)
    compiled = torch.compile(lambda x: x @ x @ x, backend=backend, dynamic=False)
    compiled(a)
    with counted() as count:
        compiled(a)
        for _ in range(2):
            with alike({"known": 1}, "other"):
                compiled(a)
    assert count.flop == 3 * 2 * 2 * 4**3
    known = {("kind",): 7}
    with counted() as count, alike(known, "kind"):
        compiled(a)
    assert (len(ran), count.flop) == (2, 7)


def test_the_kind_of_a_batch_is_its_shapes():
    batch = (3, torch.zeros(2, 5), np.zeros(4), slice(0, 1), 0.5)
    assert shapes(batch) == ((2, 5), (4,))
    assert {type(size) for shape in shapes(batch) for size in shape} == {int}


# Training -------------------------------------------------------------------------------------------------------------
N = 50
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0))


def task(most=None):
    """A small network on batches of 17, 17 and 16; more than `most` images at a time are too many for the memory."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))

    def loss(part):
        rows, share = part
        if most is not None and len(rows) > most:
            raise MemoryError
        return share * (network(X[rows]) ** 2).mean()

    def batches(epoch):
        return [(torch.from_numpy(rows),) for rows in np.array_split(np.random.default_rng(epoch).permutation(N), 3)]

    groups = [{"params": list(network.parameters())}]
    return Task(network, groups, batches, loss, validate=lambda: float(network(X).mean()))


EPOCH = 2 * N * ((5 * 8 + 8) * 3 - 5 * 8) + 2 * N * (5 * 8 + 8)
"""Forwards, two gradients but none of the images, and validation."""


def test_a_training_is_counted_by_its_first_steps():
    with counted() as count:
        train(task(), Plan(4, 0.01), seed=0)
    assert count.flop == 4 * EPOCH


def test_batches_that_had_to_be_cut_are_counted_too():
    with counted() as count:
        train(task(most=6), Plan(4, 0.01), seed=0)
    assert count.flop == 4 * EPOCH


def test_what_is_resumed_counts_what_it_does_and_looks_at_no_step_again(tmp_path):
    class Killed(Exception): ...

    def kill(n=1, note=""):
        raise Killed

    with counted() as before, pytest.raises(Killed):
        train(task(), Plan(4, 0.01), seed=0, checkpoint=tmp_path / "a.pt", advance=kill)
    looked, again = [], task()
    with counted() as after:
        again.network.register_forward_pre_hook(lambda *_: looked.append(_get_current_dispatch_mode()))
        train(again, Plan(4, 0.01), seed=0, checkpoint=tmp_path / "a.pt")
    assert (before.flop, after.flop) == (EPOCH, 3 * EPOCH)
    assert set(looked) == {None}


def test_counting_changes_no_weight():
    alone, watched = task(), task()
    train(alone, Plan(3, 0.01), seed=0)
    with counted():
        train(watched, Plan(3, 0.01), seed=0)
    for name, weight in alone.network.state_dict().items():
        assert torch.equal(weight, watched.network.state_dict()[name])
