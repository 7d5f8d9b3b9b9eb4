"""Pruning: each student keeps the filters it needs, layer by layer from the last to the first (the criterion of the study's code).

Last layer: filters are ranked by the standard deviation of what they add to the answer and dropped while r2 with the teacher stays
above a share of the unpruned student's. Layers 4 to 1: filters are ranked by (variance of what the next layer's spatial filter makes of
them) x (sum of its squared weights), and the fewest are kept from which the next layer's answer can be rebuilt to a share of its variance.

One thing is ours: the weights of the kept filters are refitted by least squares to stand in for the dropped ones (the same covariance
gives both the test and the refit), so retraining starts close to where it should end.
"""

import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from nwb_compact import config
from nwb_compact.backbones import as_tensor
from nwb_compact.bank import Bank, BankShape
from nwb_compact.distill import Lessons
from nwb_compact.student import KERNEL_PX, MAP_PX, N_LAYERS

BATCH_IMAGES = 32


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the pointwise half of one layer receives from the filters below: mean and covariance over images and places."""

    mean: Float[np.ndarray, "group input"]
    covariance: Float[np.ndarray, "group input input"]
    """One group for all units where the layer below is shared, else one a unit."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What pruning needs to know of a bank at work."""

    inputs: dict[int, Inputs]
    """By layer, 2 to 5."""
    contribution: Float[np.ndarray, "image unit filter"]
    """What each filter of the last layer adds to the answer."""


@dataclass(frozen=True, eq=False)
class Kept:
    """The filters one unit keeps, by layer, and the refitted pointwise weights between them."""

    filters: tuple[Integer[np.ndarray, "_"], ...]
    """Indices among the unit's filters of layers 1 to 5, ascending."""
    weights: dict[int, Float[np.ndarray, "kept_filter kept_input"]]
    """By layer, 2 to 5."""
    mean_moves: dict[int, Float[np.ndarray, "kept_filter"]]
    """By how much the mean input of each kept filter's normalisation moved."""


def prune(bank: Bank, taught: Lessons, settings: config.Prune, *, seed: int, device: str = "cpu") -> Bank:
    """A new bank in which each unit has only the filters it keeps. Only layer 1 stays shared.

    Parameters
    ----------
    bank
        Trained, in which every unit has (or uses) all filters.
    taught
        The teacher's answers; `settings.images` of them measure variances.
    settings
        Criteria and the largest size of a student.
    seed
        Chooses the images.
    device
        Where the bank is.

    Returns
    -------
    A bank whose students answer nearly as before and are to be retrained.
    """
    chosen = np.random.default_rng(seed).permutation(len(taught.images))[: settings.images]
    measured = measure(bank, taught.images[chosen], device)
    bank = copy.deepcopy(bank).cpu()  # moving filters about is no work for a GPU
    kept = [_prune_unit(bank, measured, taught.answer[chosen, unit], unit, settings) for unit in range(bank.shape.n_units)]
    return _rebuilt(bank, kept)


def measure(bank: Bank, images: UInt8[np.ndarray, "image 112 112 3"], device: str = "cpu") -> Statistics:
    """Run images through a bank and collect the covariances and contributions that pruning looks at."""
    bank.eval()
    sums: dict[int, tuple[Tensor, Tensor, int]] = {}
    contributions = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_IMAGES):
            x = bank.enter(as_tensor(images[start : start + BATCH_IMAGES], device))
            for layer in range(2, N_LAYERS + 1):
                x = bank.spatial(x, layer)
                sums[layer] = _added(sums.get(layer), x, 1 if layer - 1 <= bank.shape.shared_layers else bank.shape.n_units)
                x = bank.mix(x, layer)
            contributions.append(bank.contributions(x).double().cpu())
    inputs = {layer: _inputs(*sums[layer]) for layer in sums}
    return Statistics(inputs, torch.cat(contributions).numpy())


def smallest_sufficient(
    covariance: Float[np.ndarray, "input input"], weights: Float[np.ndarray, "filter input"], kept_variance: float, min_filters: int
) -> Integer[np.ndarray, "kept"]:
    """The fewest inputs, in the order of their rank, from which weights @ inputs can be rebuilt to `kept_variance` of its variance.

    Parameters
    ----------
    covariance
        Of the inputs.
    weights
        Of the filters that read them.
    kept_variance
        Share of the summed variance of the filters that must be rebuilt by least squares.
    min_filters
        Fewest that are kept.

    Returns
    -------
    Indices, ascending.

    Examples
    --------
    >>> smallest_sufficient(np.diag([4.0, 1.0, 0.1]), np.ones((1, 3)), 0.9, 1)
    array([0, 1])
    >>> smallest_sufficient(np.diag([4.0, 1.0, 0.1]), np.ones((1, 3)), 0.7, 1)
    array([0])
    """
    rank = np.argsort(-np.diag(covariance) * (weights**2).sum(axis=0), kind="stable")
    total = np.einsum("fi,ij,fj->", weights, covariance, weights)
    low, high = min(min_filters, len(rank)), len(rank)
    while low < high:  # rebuilt variance grows with every input, so halving finds the smallest set
        middle = (low + high) // 2
        kept = rank[:middle]
        rebuilt = refitted(covariance, weights, kept)
        explained = np.einsum("fi,ij,fj->", rebuilt, covariance[np.ix_(kept, kept)], rebuilt)
        low, high = (low, middle) if explained >= kept_variance * total else (middle + 1, high)
    return np.sort(rank[:low])


def refitted(
    covariance: Float[np.ndarray, "input input"], weights: Float[np.ndarray, "filter input"], kept: Integer[np.ndarray, "kept"]
) -> Float[np.ndarray, "filter kept"]:
    """Weights on the kept inputs alone that come closest to weights @ inputs: least squares on their covariance.

    Examples
    --------
    >>> twins = np.ones((2, 2))                                     # two inputs that are always equal
    >>> refitted(twins, np.array([[1.0, 1.0]]), np.array([0])).round(3)
    array([[2.]])
    """
    inner = covariance[np.ix_(kept, kept)]
    ridge = 1e-6 * max(np.trace(inner) / len(kept), 1e-12) * np.eye(len(kept))
    return np.linalg.solve(inner + ridge, covariance[kept] @ weights.T).T


def _prune_unit(bank: Bank, measured: Statistics, answer: np.ndarray, unit: int, settings: config.Prune) -> Kept:
    """Prune to the criterion; if that leaves too many parameters, keep less and less variance until they fit."""
    last = _last_layer(measured.contribution[:, unit], answer, settings)
    most = max(settings.min_filters, settings.max_parameters // (2 * MAP_PX**2))  # the readout may take half of the room
    if len(last) > most:
        spread = measured.contribution[:, unit].std(axis=0)
        last = np.sort(last[np.argsort(-spread[last], kind="stable")[:most]])
    kept_variance = settings.kept_variance
    while True:
        kept = _prune_layers(bank, measured, unit, last, kept_variance, settings.min_filters)
        smallest = all(len(filters) <= settings.min_filters for filters in kept.filters[:-1])
        if _size(kept) <= settings.max_parameters or smallest:
            return kept
        kept_variance *= 0.98


def _last_layer(contribution: np.ndarray, answer: np.ndarray, settings: config.Prune) -> np.ndarray:
    rank = np.argsort(-contribution.std(axis=0), kind="stable")
    whole = _r2(contribution.sum(axis=1), answer)
    for n in range(min(settings.min_filters, len(rank)), len(rank)):
        if _r2(contribution[:, rank[:n]].sum(axis=1), answer) > settings.last_layer_r2 * whole:
            return np.sort(rank[:n])
    return np.arange(len(rank))


def _prune_layers(bank: Bank, measured: Statistics, unit: int, last: np.ndarray, kept_variance: float, min_filters: int) -> Kept:
    filters, weights, moves = [last], {}, {}
    for layer in range(N_LAYERS, 1, -1):
        full = _unit_weights(bank, unit, layer)[filters[0]]
        inputs = measured.inputs[layer]
        group = 0 if len(inputs.mean) == 1 else unit
        # Filters are weighed as their normalisation weighs them, so a loud filter that is turned down later does not decide.
        gain = bank.normalisation(layer)[0][bank.channels(unit, layer)].double().cpu().numpy()[filters[0]]
        kept = smallest_sufficient(inputs.covariance[group], full * gain[:, None], kept_variance, min_filters)
        weights[layer] = refitted(inputs.covariance[group], full, kept)
        moves[layer] = weights[layer] @ inputs.mean[group][kept] - full @ inputs.mean[group]
        filters.insert(0, kept)
    return Kept(tuple(filters), weights, moves)


def _unit_weights(bank: Bank, unit: int, layer: int) -> np.ndarray:
    """Pointwise weights (filter input) of one unit's filters."""
    return bank.pointwise[layer - 2].weight[bank.channels(unit, layer)][:, :, 0, 0].detach().double().cpu().numpy()


def _size(kept: Kept) -> int:
    n = [len(filters) for filters in kept.filters]
    separable = sum(below * KERNEL_PX**2 + below * above + above for below, above in pairwise(n))
    return n[0] * (3 * KERNEL_PX**2 + 1) + separable + n[-1] * MAP_PX**2 + 1


def _r2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1] ** 2) if a.std() > 0 and b.std() > 0 else 0.0


def _added(sums: tuple[Tensor, Tensor, int] | None, x: Tensor, groups: int) -> tuple[Tensor, Tensor, int]:
    by_group = x.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (groups, -1)).transpose(0, 1)
    total, square, n = by_group.sum(dim=1).double(), (by_group.transpose(1, 2) @ by_group).double(), by_group.shape[1]
    return (total, square, n) if sums is None else (sums[0] + total, sums[1] + square, sums[2] + n)


def _inputs(total: Tensor, square: Tensor, n: int) -> Inputs:
    mean = (total / n).cpu().numpy()
    return Inputs(mean, square.cpu().numpy() / n - mean[:, :, None] * mean[:, None, :])


def _rebuilt(bank: Bank, kept: list[Kept]) -> Bank:
    """The pruned bank: filters moved to the front of each unit's room, weights refitted, normalisation carried along."""
    n_units, first = len(kept), bank.shape.widths[0]
    widths = (first, *(max(len(unit.filters[layer]) for unit in kept) for layer in range(1, N_LAYERS)))
    shape = BankShape(n_units, widths, shared_layers=1)
    uses_first = np.zeros((n_units, first), bool)
    for unit, what in enumerate(kept):
        uses_first[unit, what.filters[0]] = True
    pruned = Bank(shape, (uses_first, *(_front(kept, layer, widths[layer - 1]) for layer in range(2, N_LAYERS + 1))))
    with torch.no_grad():
        pruned.first.weight.copy_(bank.first.weight)
        pruned.norm[0].load_state_dict(bank.norm[0].state_dict())
        pruned.depthwise[0].weight.copy_(bank.depthwise[0].weight)
        for unit, what in enumerate(kept):
            for layer in range(2, N_LAYERS + 1):
                _carry(bank, pruned, unit, what, layer)
        pruned.bias.copy_(bank.bias)
    return pruned.eval()


def _front(kept: list[Kept], layer: int, width: int) -> Bool[np.ndarray, "unit filter"]:
    return np.arange(width)[None, :] < np.array([[len(unit.filters[layer - 1])] for unit in kept])


def _carry(bank: Bank, pruned: Bank, unit: int, what: Kept, layer: int) -> None:
    source = bank.channels(unit, layer)[torch.from_numpy(what.filters[layer - 1])]
    target = pruned.channels(unit, layer)
    columns = torch.from_numpy(what.filters[0]) if layer == 2 else torch.arange(len(what.filters[layer - 2]))
    pointwise: Tensor = pruned.pointwise[layer - 2].weight
    pointwise[target] = 0.0
    pointwise[target[:, None], columns[None, :], 0, 0] = torch.from_numpy(what.weights[layer]).float()
    old, new = bank.norm[layer - 1], pruned.norm[layer - 1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(new, name)[target] = getattr(old, name)[source]
    new.running_mean[target] += torch.from_numpy(what.mean_moves[layer]).float()
    if layer < N_LAYERS:
        pruned.depthwise[layer - 1].weight[target] = bank.depthwise[layer - 1].weight[source]
    else:
        pruned.readout[:, :, target] = bank.readout[:, :, source]
