"""The stacked network against members computed one by one with torch's own modules."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nwb_compact import config
from nwb_compact.ensemble import TRUNK_STRIDE, Ensemble

SETTINGS = config.Teacher(members=3, channels=6, core_blocks=2, trunk_channels=4, dropout=0.3)
MAPS = torch.randn(10, 4, 5, 7, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(10, 3, 32, 40, generator=torch.Generator().manual_seed(0))


def ensemble(*, from_images=False, seed=0, **changes):
    shape = (32, 40, 3) if from_images else (4, 5, 7)
    return Ensemble(shape, [3, 2], SETTINGS.model_copy(update=changes), from_images=from_images, seed=seed)


def generators(members):
    return [torch.Generator().manual_seed(100 + member) for member in range(members.start, members.stop)]


def unlike_at_the_start(network):
    """Normalisations that differ between members and channels, as after training."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("gain", "shift", "running_mean")):
                value.normal_(generator=torch.Generator().manual_seed(len(name)))
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    return network


def one_member(network, x, session, member):
    """The same network written with modules of torch, one member, in evaluation."""
    state = {name: value[member] for name, value in network.state_dict().items() if not name.startswith("input")}

    def norm(x, name):
        module = nn.BatchNorm2d(x.shape[1])
        module.load_state_dict({"weight": state[f"{name}.gain"], "bias": state[f"{name}.shift"],
                                "running_mean": state[f"{name}.running_mean"], "running_var": state[f"{name}.running_var"]}, strict=False)
        return module.eval()(x)

    if network.trunk is not None:
        x = torch.relu(norm(functional.conv2d(x, state["trunk.first.weight"], stride=2, padding=3), "trunk.first_norm"))
        x = torch.relu(norm(functional.conv2d(x, state["trunk.second.weight"], stride=2, padding=2), "trunk.second_norm"))
        x = functional.avg_pool2d(x, 2)
    x = torch.relu(norm(functional.conv2d(x, state["enter.weight"]), "enter_norm"))
    for block in range(len(network.blocks)):
        y = functional.conv2d(x, state[f"blocks.{block}.depthwise.weight"], padding=2, groups=x.shape[1])
        x = x + functional.conv2d(torch.relu(norm(y, f"blocks.{block}.norm")), state[f"blocks.{block}.pointwise.weight"])
    x = norm(x, "leave_norm")
    mixing, spatial = state[f"readouts.{session}.mixing"], state[f"readouts.{session}.spatial"]
    weights = mixing[:, :, None] * spatial[:, None] / spatial.shape[1]
    return torch.einsum("bcp,ucp->ub", x.flatten(2), weights) + state[f"readouts.{session}.bias"]


@pytest.mark.parametrize("from_images", [False, True])
@pytest.mark.parametrize("session", [0, 1])
def test_stacked_members_answer_as_each_alone_written_by_hand(from_images, session):
    network, x = unlike_at_the_start(ensemble(from_images=from_images)).eval(), IMAGES if from_images else MAPS
    with torch.no_grad():
        stacked = network(x, session, slice(0, 3))
        for member in range(3):
            torch.testing.assert_close(stacked[member], one_member(network, x, session, member), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("from_images", [False, True])
@pytest.mark.parametrize("readout", ["factorised", "gaussian"])
def test_gradients_and_running_statistics_are_those_of_members_one_after_the_other(from_images, readout):
    x, found = IMAGES if from_images else MAPS, []
    for groups in ([slice(0, 3)], [slice(0, 1), slice(1, 3)], [slice(0, 1), slice(1, 2), slice(2, 3)]):
        network = ensemble(from_images=from_images, readout=readout)
        for members in groups:
            network(x, 0, members, generators(members)).square().mean(dim=(1, 2)).sum().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
        found.append((gradients, {name: value for name, value in network.state_dict().items() if "running" in name}))
    for gradients, statistics in found[1:]:
        assert gradients.keys() == found[0][0].keys()
        for name in gradients:
            torch.testing.assert_close(gradients[name], found[0][0][name], rtol=1e-3, atol=1e-5)
        for name in statistics:
            torch.testing.assert_close(statistics[name], found[0][1][name])
            assert (statistics[name] != (1 if "var" in name else 0)).any()


def test_a_member_begins_alike_in_an_ensemble_of_any_size_and_unlike_the_others():
    one, three, other = ensemble(members=1), ensemble(), ensemble(seed=1)
    for name, parameter in three.named_parameters():
        torch.testing.assert_close(parameter[:1], dict(one.named_parameters())[name], rtol=0, atol=0)
        if parameter.std() > 0 and not name.endswith("spread"):
            assert (parameter[0] != parameter[1]).any(), name
            assert (parameter[0] != dict(other.named_parameters())[name][0]).any(), name


def test_whole_channels_are_dropped_for_each_image_and_the_rest_make_up_for_it():
    network, seen = ensemble(channels=4, core_blocks=0), []

    def core(x, members, learning):
        seen.append(x)
        return x if learning else x.repeat(1, 3, 1, 1)

    network.core = core
    network(torch.ones(400, 4, 5, 7), 0, slice(0, 3), generators(slice(0, 3)))
    by_member = seen[0].unflatten(1, (3, 4))
    np.testing.assert_allclose(np.unique(by_member), [0, 1 / 0.7], rtol=1e-6)
    assert (by_member == by_member[..., :1, :1]).all(), "a channel goes as a whole"
    np.testing.assert_allclose((by_member[..., 0, 0] == 0).float().mean(dim=(0, 2)), 0.3, atol=0.04)
    assert (by_member[:, 0] != by_member[:, 1]).any()
    seen.clear()
    network(torch.ones(4, 4, 5, 7), 0, slice(0, 3))
    assert (seen[0] == 1).all(), "nothing is dropped in evaluation"


def test_maps_are_standardised_by_channel_and_a_flat_channel_is_only_shifted():
    maps = np.random.default_rng(0).normal(3, 5, (50, 4, 5, 7)).astype(np.float16)
    maps[:, 2] = 7
    network = ensemble()
    network.standardise_by([maps[:20], maps[20:]])
    z = network.standardised(torch.from_numpy(maps).float())
    np.testing.assert_allclose(z.mean(dim=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(dim=(0, 2, 3)), [1, 1, 0, 1], atol=1e-3)


def test_the_trained_trunk_divides_the_sides_by_its_stride():
    network = ensemble(from_images=True)
    maps = network.trunk(torch.zeros(2, 3, 112, 112), slice(0, 2), learning=False)
    assert maps.shape == (2, 2 * 4, 112 // TRUNK_STRIDE, 112 // TRUNK_STRIDE)
    assert ensemble(from_images=True).readouts[0].spatial.shape == (3, 3, (32 // TRUNK_STRIDE) * (40 // TRUNK_STRIDE))


def test_a_compiled_core_learns_and_answers_as_the_plain_one(monkeypatch):
    """Traced but not translated to machine code, which takes a minute and is torch's own business."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled(function, backend="aot_eager", **options))
    found = []
    for compiles in (False, True):
        network = unlike_at_the_start(ensemble())
        if compiles:
            network.compile_core()
        for n in (10, 7):  # batches of two sizes
            network(MAPS[:n], 0, slice(0, 3), generators(slice(0, 3))).square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
        network.requires_grad_(False)
        with torch.inference_mode():
            found.append((gradients, dict(network.state_dict()), network.eval()(MAPS, 1, slice(0, 3))))
    (gradients, state, answers), (others, other_state, other_answers) = found
    for name in gradients:
        torch.testing.assert_close(others[name], gradients[name], rtol=1e-3, atol=1e-5)
    for name in state:
        torch.testing.assert_close(other_state[name], state[name])
    torch.testing.assert_close(other_answers, answers)


def test_a_core_that_cannot_be_compiled_runs_as_it_is(monkeypatch):
    def no_compiler(graph, inputs):
        raise RuntimeError("Failed to find C compiler")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled(function, backend=no_compiler, **options))
    plain, network = ensemble(), ensemble()
    network.compile_core()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it goes on without
        torch.testing.assert_close(network(MAPS, 0, slice(0, 3)), plain(MAPS, 0, slice(0, 3)))


def test_maps_stay_channels_last_through_the_core():
    """What CPUs and GPUs convolve fastest; a copy for each member must not change it."""
    seen, x = [], MAPS.contiguous(memory_format=torch.channels_last)
    for members in (slice(0, 1), slice(0, 3)):
        network = ensemble()
        network.core = lambda x, members, learning: seen.append(x) or torch.zeros(len(x), 6 * (members.stop - members.start), 5, 7)
        network(x, 0, members, generators(members))
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in seen)
    assert [one.shape[1] for one in seen] == [4, 12]
