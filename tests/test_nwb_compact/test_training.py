from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nwb_compact.errors import NwbCompactError
from nwb_compact.progress import silent
from nwb_compact.training import Plan, Task, cut, derived_seed, save_atomically, train

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :1] - 2 * X[:, 1:2]).tanh()


class Killed(Exception):
    """What a kill looks like from within."""


def kill_after(epochs):
    done = []

    def advance(n=1, note=""):
        done.append(n)
        if sum(done) == epochs:
            raise Killed

    return advance


def task(*, dropout=0.3, factor=1.0, scores=None, seen=None):
    """A small network with dropout and BatchNorm; validation by its own loss, or by a list of given scores."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))
    epoch_now = []

    def batches(epoch):
        epoch_now.append(epoch)
        order = np.random.default_rng(epoch).permutation(64)
        return [(torch.from_numpy(chunk),) for chunk in np.array_split(order, 4)]

    def loss(part):
        rows, share = part
        return share * ((network(X[rows]) - Y[rows]) ** 2).mean()

    def validate():
        if scores is not None:
            return scores[epoch_now[-1]]
        return -float(((network(X) - Y) ** 2).mean())

    groups = [{"params": list(network[0].parameters()), "learning_rate_factor": factor, "weight_decay": 0.1},
              {"params": [*network[1].parameters(), *network[4].parameters()]}]
    after = None if seen is None else lambda epoch: seen.append({name: value.clone() for name, value in network.state_dict().items()})
    return Task(network, groups, batches, loss, validate=validate, after_epoch=after)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Resuming -------------------------------------------------------------------------------------------------------------
PLAN = Plan(7, 0.03)


@pytest.mark.parametrize("killed_after", range(1, 7))
@pytest.mark.parametrize("scores", [None, [0.1, 0.5, 0.2, 0.3, 0.1, 0.2, 0.1]], ids=["improves", "was best early"])
def test_a_killed_training_ends_bit_for_bit_as_one_that_was_not(tmp_path, killed_after, scores):
    whole = task(scores=scores)
    best = train(whole, PLAN, seed=1)
    first, second = task(scores=scores), task(scores=scores)
    with pytest.raises(Killed):
        train(first, PLAN, seed=1, checkpoint=tmp_path / "a.pt", advance=kill_after(killed_after))
    torch.manual_seed(123)  # whatever else happened in the new process
    with torch.no_grad():
        for parameter in second.network.parameters():
            parameter.add_(1.0)
    assert train(second, PLAN, seed=1, checkpoint=tmp_path / "a.pt") == best
    assert same(second.network.state_dict(), whole.network.state_dict())


def test_a_training_killed_between_epochs_repeats_only_the_epoch_it_was_in(tmp_path):
    first = task()

    def dies(epoch):
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train(replace(first, validate=None, after_epoch=dies), PLAN, seed=1, checkpoint=tmp_path / "a.pt")
    told = []
    second = task(seen=(seen := []))
    train(second, PLAN, seed=1, checkpoint=tmp_path / "a.pt", advance=lambda n=1, note="": told.append((n, note)))
    assert len(seen) == 4
    assert told[0] == (3, "resumed")


def test_a_finished_training_is_not_repeated(tmp_path):
    whole = task()
    best = train(whole, PLAN, seed=1, checkpoint=tmp_path / "a.pt")
    again = task(seen=(seen := []))
    assert train(again, PLAN, seed=1, checkpoint=tmp_path / "a.pt") == best
    assert seen == []
    assert same(again.network.state_dict(), whole.network.state_dict())


def test_the_seed_decides():
    states = []
    for seed in (1, 1, 2):
        trained = task()
        train(trained, PLAN, seed=seed)
        states.append(trained.network.state_dict())
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


# Judging --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("best_epoch", range(5))
def test_the_best_epoch_is_restored(best_epoch):
    scores = [0.5 - 0.1 * abs(epoch - best_epoch) for epoch in range(5)]
    trained = task(scores=scores, seen=(seen := []))
    assert train(trained, Plan(5, 0.03), seed=0) == 0.5
    assert same(trained.network.state_dict(), seen[best_epoch])
    assert not trained.network.training


@pytest.mark.parametrize("scores", [[float("nan"), 0.4, 0.3, float("nan"), 0.2], [0.4, float("nan"), float("nan"), 0.3, 0.1]])
def test_a_network_that_diverged_is_never_the_best(scores):
    trained = task(scores=scores, seen=(seen := []))
    assert train(trained, Plan(5, 0.03), seed=0) == 0.4
    assert same(trained.network.state_dict(), seen[scores.index(0.4)])


@pytest.mark.parametrize("validated", [True, False])
def test_a_training_that_diverges_is_told_in_one_line(validated):
    given = task(scores=[float("nan")] * 3)
    with pytest.raises(NwbCompactError, match=r"^training: found weights .*: the training diverged, .* smaller learning_rate"):
        train(given if validated else replace(given, validate=None, loss=lambda part: network_times_nan(given)), Plan(3, 0.03), seed=0)


def test_a_training_that_diverges_stops_there_and_leaves_no_checkpoint_of_it(tmp_path):
    given, notes = task(), []

    def diverging(part):
        return network_times_nan(given) if len(notes) == 2 else given.loss(part)

    with pytest.raises(NwbCompactError, match="the training diverged"):
        train(replace(given, validate=None, loss=diverging), Plan(9, 0.03), seed=0, checkpoint=tmp_path / "a.pt",
              advance=lambda n=1, note="": notes.append(note))
    assert len(notes) == 2
    kept = torch.load(tmp_path / "a.pt", weights_only=True)
    assert kept["state"]["epoch"] == 2
    assert all(torch.isfinite(value).all() for value in kept["network"].values())


def network_times_nan(given):
    return sum(parameter.sum() for parameter in given.network.parameters()) * float("nan")


def test_without_validation_the_last_epoch_is_kept():
    given = task(seen=(seen := []))
    notes = []
    score = train(replace(given, validate=None), Plan(4, 0.03), seed=0, advance=lambda n=1, note="": notes.append(note))
    assert np.isnan(score)
    assert same(given.network.state_dict(), seen[-1])
    losses = [float(note.removeprefix("loss ")) for note in notes if note]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


def test_a_group_can_learn_faster_than_the_plan():
    moved = []
    for factor in (0.0, 1.0, 10.0):
        trained = task(factor=factor, dropout=0.0)
        before = trained.network[0].weight.detach().clone()
        train(trained, Plan(1, 0.001), seed=0)
        moved.append(float((trained.network[0].weight.detach() - before).abs().max()))
    assert moved[0] == 0.0
    assert moved[2] > 5 * moved[1] > 0


def test_the_cosine_starts_at_the_rate_and_ends_near_0():
    weight = nn.Linear(1, 1, bias=False)
    steps = []

    def after(epoch):
        steps.append(weight.weight.item())

    start = weight.weight.item()
    given = Task(weight, [{"params": list(weight.parameters())}], lambda epoch: [(X,)], lambda part: weight.weight.sum(), after_epoch=after)
    train(given, Plan(10, 0.1), seed=0)  # a constant gradient: Adam moves by the rate
    moved = -np.diff([start, *steps])
    np.testing.assert_allclose(moved, 0.05 * (1 + np.cos(np.pi * np.arange(10) / 10)), rtol=1e-3)


def rates(plan, steps_an_epoch, *, factor=1.0, checkpoint=None, advance=silent):
    """The rate of every step: with a constant gradient Adam moves by the rate."""
    weight, places = nn.Linear(1, 1, bias=False), []

    def batches(epoch):
        for _ in range(steps_an_epoch):
            places.append(weight.weight.item())
            yield (X,)

    given = Task(weight, [{"params": list(weight.parameters()), "learning_rate_factor": factor}], batches, lambda part: weight.weight.sum(),
                 after_epoch=lambda epoch: places.append(weight.weight.item()))
    with suppress(Killed):
        train(given, plan, seed=0, checkpoint=checkpoint, advance=advance)
    return np.concatenate([-np.diff(epoch) for epoch in np.reshape(places, (-1, steps_an_epoch + 1))])


def warm_rates(epochs, steps_an_epoch, rate, warm_up_steps):
    """By hand: a line from 0, reached at the last step of the warm-up, on a cosine that falls with the epochs."""
    return [rate * min(1, (step + 1) / max(warm_up_steps, 1)) * 0.5 * (1 + np.cos(np.pi * (step // steps_an_epoch) / epochs))
            for step in range(epochs * steps_an_epoch)]


@pytest.mark.parametrize("warm_up_steps", [0, 1, 3, 4, 10, 1000])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_the_rate_first_rises_along_a_line_over_steps_not_epochs(warm_up_steps, factor):
    found = rates(Plan(5, 0.1, warm_up_steps), 4, factor=factor)
    np.testing.assert_allclose(found, factor * np.array(warm_rates(5, 4, 0.1, warm_up_steps)), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("killed_after", [1, 2, 4])
def test_a_resumed_training_goes_on_with_its_warm_up(tmp_path, killed_after):
    plan = Plan(5, 0.1, 10)
    before = rates(plan, 4, checkpoint=tmp_path / "a.pt", advance=kill_after(killed_after))
    assert len(before) == 4 * killed_after
    found = [*before, *rates(plan, 4, checkpoint=tmp_path / "a.pt")]
    np.testing.assert_allclose(found, warm_rates(5, 4, 0.1, 10), rtol=1e-2, atol=1e-6)


def test_a_killed_training_with_a_warm_up_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    plan = Plan(7, 0.03, 11)
    whole, first, second, cold = task(), task(), task(), task()
    train(whole, plan, seed=1)
    with pytest.raises(Killed):
        train(first, plan, seed=1, checkpoint=tmp_path / "a.pt", advance=kill_after(2))
    train(second, plan, seed=1, checkpoint=tmp_path / "a.pt")
    train(cold, PLAN, seed=1)
    assert same(second.network.state_dict(), whole.network.state_dict())
    assert not same(cold.network.state_dict(), whole.network.state_dict())


def test_a_batch_in_pieces_is_one_step_of_the_warm_up():
    """A step is counted where the weights move, however often the batch had to be cut before."""
    trained = []
    for rows_that_fit in (64, 20):
        torch.manual_seed(0)
        network = nn.Linear(5, 1)
        train(fits(network, rows_that_fit, MemoryError()), Plan(4, 0.03, 8), seed=0)
        trained.append(network)
    torch.testing.assert_close(trained[0].weight, trained[1].weight)


# Too little memory ----------------------------------------------------------------------------------------------------
def fits(network, rows_that_fit, error):
    """A task whose loss has room for a few images at a time."""

    def loss(part):
        x, y, share = part
        if len(x) > rows_that_fit:
            raise error
        return share * ((network(x) - y) ** 2).mean()

    return Task(network, [{"params": list(network.parameters())}], lambda epoch: [(X, Y)] * 3, loss)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError()])
def test_too_little_memory_cuts_batches_says_so_and_learns_the_same(error):
    trained, notes = [], []
    for rows_that_fit in (64, 20):
        torch.manual_seed(0)
        network = nn.Linear(5, 1)
        train(fits(network, rows_that_fit, error), Plan(4, 0.03), seed=0, advance=lambda n=1, note="": notes.append(note))
        trained.append(network)
    torch.testing.assert_close(trained[0].weight, trained[1].weight)
    assert not any("memory" in note for note in notes[:4])
    assert all(note.endswith(", batches cut in 4 for want of memory") for note in notes[4:])


def test_memory_for_not_even_a_piece_is_told_in_one_line():
    with pytest.raises(NwbCompactError, match=r"^training: found too little memory for a batch in 64 pieces, expected room for one\."):
        train(fits(nn.Linear(5, 1), 0, MemoryError()), Plan(1, 0.03), seed=0)


def test_another_fault_is_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(fits(nn.Linear(5, 1), 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), Plan(1, 0.03), seed=0)


def test_a_resumed_training_keeps_its_batches_cut(tmp_path):
    torch.manual_seed(0)
    first = nn.Linear(5, 1)
    with pytest.raises(Killed):
        train(fits(first, 20, MemoryError()), Plan(4, 0.03), seed=0, checkpoint=tmp_path / "a.pt", advance=kill_after(2))
    calls = []
    second = fits(nn.Linear(5, 1), 20, MemoryError())
    counted = replace(second, loss=lambda part: calls.append(len(part[0])) or second.loss(part))
    train(counted, Plan(4, 0.03), seed=0, checkpoint=tmp_path / "a.pt")
    assert calls == [16] * (4 * 3 * 2)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 100])
def test_the_pieces_of_a_batch_are_all_of_it_and_their_shares_add_up_to_1(pieces):
    rows, twice = np.arange(7), 2 * np.arange(7)
    cuts = list(cut((rows, twice), pieces))
    assert len(cuts) == min(pieces, 7)
    np.testing.assert_array_equal(np.concatenate([piece for piece, _, _ in cuts]), rows)
    np.testing.assert_array_equal(np.concatenate([piece for _, piece, _ in cuts]), twice)
    np.testing.assert_allclose(sum(share for _, _, share in cuts), 1)


# Seeds and files ------------------------------------------------------------------------------------------------------
def test_seeds_of_different_purposes_differ_and_those_of_one_do_not():
    purposes = [(seed, name, number) for seed in range(3) for name in ("member", "epoch") for number in range(5)]
    seeds = {derived_seed(*purpose) for purpose in purposes}
    assert len(seeds) == len(purposes)
    assert seeds == {derived_seed(*purpose) for purpose in purposes}
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_saving_replaces_the_file_and_makes_its_folder(tmp_path):
    place = tmp_path / "new" / "folder" / "a.pt"
    for value in (1, 2):
        save_atomically({"value": value}, place)
        assert torch.load(place, weights_only=True) == {"value": value}
    assert [path.name for path in place.parent.iterdir()] == ["a.pt"]


def test_a_kill_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    place = tmp_path / "a.pt"
    save_atomically({"value": 1}, place)

    def half_written(value: object, file_path: Path) -> None:
        Path(file_path).write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", half_written)
        with pytest.raises(Killed):
            save_atomically({"value": 2}, place)
    assert torch.load(place, weights_only=True) == {"value": 1}
    save_atomically({"value": 3}, place)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
