"""The one training loop: batches in, a trained network out, stopped when validation says so, resumable to the same weights.

Nothing random is kept between epochs: every epoch derives its random numbers from the seed and its own number, so a training that was
killed and resumed at an epoch goes on exactly as one that was not.
"""

import copy
import hashlib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nwb_compact.progress import Advance, silent

Batch = tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    epochs: int
    learning_rate: float
    decay: float = 0.3
    decay_after: int = 0
    """Epochs without a better validation score before the learning rate is decayed; 0: a cosine over all epochs instead."""
    patience: int = 3
    """Decays without improvement before training stops."""


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how good it is; functions of plain values so the loop knows nothing of neurons."""

    network: nn.Module
    parameter_groups: list[dict[str, Any]]
    """As torch.optim takes them; `learning_rate_factor` in a group multiplies the plan's rate."""
    batches: Callable[[int], Iterable[Batch]]
    """The batches of an epoch; must depend on the epoch's number alone."""
    loss: Callable[[Batch], Tensor]
    validate: Callable[[], float] | None = None
    """A score that grows as the network gets better; None: the last epoch is kept."""
    after_epoch: Callable[[int], None] | None = None


def train(task: Task, plan: Plan, *, seed: int, checkpoint: Path | None = None, advance: Advance = silent) -> float:
    """Train `task.network` in place and leave the weights of the best epoch in it.

    Parameters
    ----------
    task, plan
        What and how long.
    seed
        Source of everything random inside the network (dropout) and of the order of epochs.
    checkpoint
        File that is replaced after every epoch and read at the start if it exists.
    advance
        Told after every epoch; also told of epochs that early stopping saved.

    Returns
    -------
    Best validation score (NaN without `task.validate`).

    Examples
    --------
    >>> line, x = nn.Linear(1, 1), torch.linspace(-1, 1, 32)[:, None]
    >>> task = Task(line, [{"params": list(line.parameters())}], lambda epoch: [(x, 3 * x)], lambda b: ((line(b[0]) - b[1]) ** 2).mean())
    >>> _ = train(task, Plan(epochs=200, learning_rate=0.1), seed=0)
    >>> round(line.weight.item(), 1)
    3.0
    """
    groups = [{k: v for k, v in group.items() if k != "learning_rate_factor"} for group in task.parameter_groups]
    factors = [group.get("learning_rate_factor", 1.0) for group in task.parameter_groups]
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=0.0)
    state = _State(rate=plan.learning_rate)
    best_weights = copy.deepcopy(task.network.state_dict())
    if checkpoint is not None and checkpoint.exists():
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        task.network.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        best_weights, state = stored["best"], _State(**stored["state"])
        advance(state.epoch, "resumed")
    while state.epoch < plan.epochs and not state.stopped:
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] = factor * (state.rate if plan.decay_after else _cosine(plan, state.epoch))
        torch.manual_seed(derived_seed(seed, "epoch", state.epoch))
        state.loss = _one_epoch(task, optimizer, state.epoch)
        if task.after_epoch is not None:
            task.after_epoch(state.epoch)
        best_weights = _judge(task, plan, state, best_weights)
        state.epoch += 1
        if checkpoint is not None:
            parts = {"network": task.network.state_dict(), "optimizer": optimizer.state_dict(), "best": best_weights, "state": vars(state)}
            save_atomically(parts, checkpoint)
        advance(1, f"validation {state.best:.3f}" if task.validate else f"loss {state.loss:.3f}")
    if state.epoch < plan.epochs:
        advance(plan.epochs - state.epoch)
    if task.validate is not None:
        task.network.load_state_dict(best_weights)
    task.network.eval()
    return state.best


def derived_seed(*parts: object) -> int:
    """A seed for one purpose, from the fit's seed and names, so that no two purposes share random numbers.

    Examples
    --------
    >>> derived_seed(0, "member", 1) != derived_seed(0, "member", 2)
    True
    """
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:7], "big")


def save_atomically(value: object, file_path: Path) -> None:
    """Replace a checkpoint so that a kill at any moment leaves the old or the new one, never half of either."""
    file_path.parent.mkdir(parents=True, exist_ok=True)
    beside = file_path.with_name(file_path.name + ".part")
    torch.save(value, beside)
    os.replace(beside, file_path)


@dataclass
class _State:
    rate: float
    epoch: int = 0
    best: float = float("nan")
    since_best: int = 0
    decays: int = 0
    stopped: bool = False
    loss: float = float("nan")


def _one_epoch(task: Task, optimizer: torch.optim.Optimizer, epoch: int) -> float:
    """One pass; the mean loss of its batches."""
    task.network.train()
    losses = []
    for batch in task.batches(epoch):
        loss = task.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def _judge(task: Task, plan: Plan, state: _State, best_weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep the best weights; where the score no longer grows, return to them with a smaller step, and stop after enough such returns."""
    if task.validate is None:
        return best_weights
    task.network.eval()
    with torch.inference_mode():
        score = task.validate()
    if score > state.best or (math.isnan(state.best) and not math.isnan(score)):  # a network that diverged is never the best
        state.best, state.since_best = score, 0
        return copy.deepcopy(task.network.state_dict())
    state.since_best += 1
    if plan.decay_after and state.since_best >= plan.decay_after:
        state.rate, state.since_best, state.decays = state.rate * plan.decay, 0, state.decays + 1
        state.stopped = state.decays >= plan.patience
        task.network.load_state_dict(best_weights)
    return best_weights


def _cosine(plan: Plan, epoch: int) -> float:
    return plan.learning_rate * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * epoch / plan.epochs))))
