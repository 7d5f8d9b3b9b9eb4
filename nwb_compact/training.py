"""The one training loop: batches in, a trained network out, the best epoch by validation kept, resumable to the same weights.

Nothing random is kept between epochs: every epoch derives its random numbers from the seed and its own number, so a training that was
killed and resumed at an epoch goes on exactly as one that was not.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nwb_compact.errors import NwbCompactError
from nwb_compact.first_calls import settle_first_calls
from nwb_compact.operations import alike, shapes
from nwb_compact.orthogonal_steps import OrthogonalMomentum
from nwb_compact.out_of_memory import free_what_is_kept, is_out_of_memory
from nwb_compact.progress import Advance, silent
from nwb_compact.unfinished import written_whole

Batch = tuple[Any, ...]
MOST_PIECES = 64
"""A batch that does not fit into memory in so many pieces will not fit at all."""


def cut(batch: Batch, pieces: int) -> Iterator[Batch]:
    """Cut a batch, a tuple of arrays whose first axis is the image, into about equal parts; each ends with its share of the batch.

    Examples
    --------
    >>> list(cut((np.arange(3),), 2))
    [(array([0, 1]), 0.66...), (array([2]), 0.33...)]
    """
    n = len(batch[0])
    edges = np.linspace(0, n, min(pieces, n) + 1).round().astype(int).tolist()
    for start, stop in pairwise(edges):
        yield (*(held[start:stop] for held in batch), (stop - start) / n)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    epochs: int
    learning_rate: float
    """At the start; falls along a cosine to 0."""
    warm_up_steps: int = 0
    """Steps over which it first rises from 0."""


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how good it is; functions of plain values so the loop knows nothing of neurons."""

    network: nn.Module
    parameter_groups: list[dict[str, Any]]
    """As torch.optim takes them; `learning_rate_factor` in a group multiplies the plan's rate. Groups with `shapes` are matrices, which
    `orthogonal_steps` moves; the others are moved by AdamW."""
    batches: Callable[[int], Iterable[Batch]]
    """The batches of an epoch; must depend on the epoch's number alone."""
    loss: Callable[[Batch], Tensor]
    """Of a part of a batch; the losses of all parts add up to the batch's."""
    parts: Callable[[Batch, int], Iterable[Batch]] = cut
    """What `loss` takes at a time: a batch whose images are cut into so many pieces."""
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
        Source of everything random inside the network.
    checkpoint
        File that is replaced after every epoch and read at the start if it exists.
    advance
        Told after every epoch, also where batches had to be cut because memory was too small.

    Returns
    -------
    Best validation score (NaN without `task.validate`).

    Raises
    ------
    NwbCompactError
        If not even a small piece of a batch fits into memory, or the training diverges.

    Examples
    --------
    >>> line, x = nn.Linear(1, 1), torch.linspace(-1, 1, 32)[:, None]
    >>> groups = [{"params": list(line.parameters())}]
    >>> task = Task(line, groups, batches=lambda epoch: [(x, 3 * x)], loss=lambda part: part[2] * ((line(part[0]) - part[1]) ** 2).mean())
    >>> _ = train(task, Plan(epochs=200, learning_rate=0.1), seed=0)
    >>> round(line.weight.item(), 1)
    3.0
    """
    settle_first_calls()
    optimizers, state = _optimizers(task, plan), _State()
    best_weights = copy.deepcopy(task.network.state_dict()) if task.validate is not None else {}
    if checkpoint is not None and checkpoint.exists():
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        task.network.load_state_dict(stored["network"])
        for optimizer, kept in zip(optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        best_weights, state = stored["best"], _State(**stored["state"])
        advance(state.epoch, "resumed")

    def step() -> None:
        state.steps += 1
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["learning_rate_factor"] * _rate(plan, state)
            optimizer.step()

    while state.epoch < plan.epochs:
        torch.manual_seed(derived_seed(seed, "epoch", state.epoch))
        loss = _one_epoch(task, step, state)
        if task.after_epoch is not None:
            task.after_epoch(state.epoch)
        best_weights = _judge(task, state, best_weights)
        state.epoch += 1
        if checkpoint is not None:
            moved = [optimizer.state_dict() for optimizer in optimizers]
            parts = {"network": task.network.state_dict(), "optimizers": moved, "best": best_weights, "state": vars(state)}
            save_atomically(parts, checkpoint)
        smaller = f", batches cut in {state.pieces} for want of memory" if state.pieces > 1 else ""
        advance(1, (f"validation {state.best:.3f}" if task.validate else f"loss {loss:.3f}") + smaller)
    if task.validate is not None:
        task.network.load_state_dict(best_weights)
    _require_numbers(task, state)
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
    with written_whole(file_path) as beside:
        torch.save(value, beside)


@dataclass
class _State:
    epoch: int = 0
    steps: int = 0
    best: float = float("nan")
    pieces: int = 1
    """Pieces into which batches are cut, doubled whenever memory was too small."""
    known: dict[Any, int] = field(default_factory=dict)
    """Operations of each kind of step: those on batches of the same shapes are alike. They are kept, so that what is resumed looks
    at (and on a GPU runs uncompiled) no kind that it has seen."""


def _optimizers(task: Task, plan: Plan) -> list[torch.optim.Optimizer]:
    groups = [{"learning_rate_factor": 1.0} | group for group in task.parameter_groups]
    matrices, others = [group for group in groups if "shapes" in group], [group for group in groups if "shapes" not in group]
    adam = torch.optim.AdamW(others, lr=plan.learning_rate, weight_decay=0.0)
    return [adam, OrthogonalMomentum(matrices, plan.learning_rate)] if matrices else [adam]


def _one_epoch(task: Task, step: Callable[[], None], state: _State) -> float:
    """One pass; the mean loss of its batches.

    Losses are added up and not kept: a few bytes that stay from each step come to lie in the room that its maps have left, and where the
    next step's maps no longer fit there, each step takes new room (18 GiB in one pass on 190923, once in some passes).
    """
    task.network.train()
    total, n = torch.zeros(()), 0
    for batch in task.batches(state.epoch):
        with alike(state.known, "step", shapes(batch), state.pieces):
            error = _gradient(task, batch, state)
            total = total.to(error.device) + error
            n += 1
            step()
    loss = float(total / n)
    if task.validate is None and not math.isfinite(loss):  # no later epoch can mend it, and a checkpoint would only be resumed
        raise _diverged()
    return loss


def _gradient(task: Task, batch: Batch, state: _State) -> Tensor:
    """Leave the gradient of a batch in the network, in smaller pieces where memory is too small, and return its loss."""
    while True:
        task.network.zero_grad(set_to_none=True)
        losses = []
        try:
            for part in task.parts(batch, state.pieces):
                loss = task.loss(part)
                loss.backward()
                losses.append(loss.detach())
            return torch.stack(losses).sum()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if state.pieces >= MOST_PIECES:
                next_step = "choose smaller numbers in the settings (docs/configuration.md), or another --device"
                found = f"too little memory for a batch in {state.pieces} pieces"
                raise NwbCompactError("training", found=found, expected="room for one", next_step=next_step) from None
        state.pieces *= 2
        free_what_is_kept()


def _judge(task: Task, state: _State, best_weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the best epoch so far."""
    if task.validate is None:
        return best_weights
    task.network.eval()
    with torch.inference_mode(), alike(state.known, "validate"):
        score = task.validate()
    if score > state.best or (math.isnan(state.best) and not math.isnan(score)):  # a network that diverged is never the best
        state.best = score
        return copy.deepcopy(task.network.state_dict())
    return best_weights


def _require_numbers(task: Task, state: _State) -> None:
    """What diverged is told here, and not learned by who is taught next."""
    never_better = task.validate is not None and math.isnan(state.best)
    if never_better or not all(bool(torch.isfinite(parameter).all()) for parameter in task.network.parameters()):
        raise _diverged()


def _diverged() -> NwbCompactError:
    found, next_step = "weights that are not numbers: the training diverged", "choose a smaller learning_rate (docs/configuration.md)"
    return NwbCompactError("training", found=found, expected="one that converges", next_step=next_step)


def _rate(plan: Plan, state: _State) -> float:
    warm = min(1.0, state.steps / plan.warm_up_steps) if plan.warm_up_steps else 1.0
    return plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * state.epoch / plan.epochs))
