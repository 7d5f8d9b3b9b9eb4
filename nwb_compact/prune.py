"""Pruning: each student keeps the filters it needs, layer by layer from the last to the first (the criterion of the study's code).

Last layer: filters are ranked by the standard deviation of what they add to the answer and dropped while r2 with the whole student stays
above a share. Layers 4 to 1: filters are ranked by (variance of what the next layer's spatial filter makes of them) x (sum of its
squared weights), and the fewest are kept from which the next layer's answer can be rebuilt to a share of its variance.

Two things are ours. The weights of the kept filters are refitted by least squares to stand in for the dropped ones (the same covariance
gives both the test and the refit), so retraining starts close to where it should end. And a filter of the next layer counts by what it
gives to the unit's answer, not by its variance: a rectified filter times 10 and what is made of it divided by 10 are the same network,
so its variance says nothing, and what carries an answer can be lost for what hardly does.

It is done in two steps, since early filters are shared as long as possible (see `bank`): `specialise` makes a bank in which layers 3
to 5 are each unit's own, with the filters of layer 2 it uses, and, given such a bank, a smaller one; `narrow` then leaves out filters of
layer 1, too, and layer 2 is no longer shared.
"""

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from nwb_compact import config
from nwb_compact.bank import ABOVE_ARE_OWN, Bank, BankShape
from nwb_compact.streaming import as_tensor
from nwb_compact.student import KERNEL_PX, MAP_PX, N_LAYERS

BATCH_IMAGES = 32
LESS_VARIANCE, MOST_TIMES = 0.98, 300
"""Factor by which less variance is asked for while a student is too large, and how often: to 0.2 % of it, then the fewest filters stay."""


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
    """By layer, of those that are refitted."""
    bias_moves: dict[int, Float[np.ndarray, "kept_filter"]]
    """By how much the mean that dropped filters gave moves the bias of each kept filter."""
    readout_gain: Float[np.ndarray, "kept_last"]
    """By how much the kept filters of layer 5 are turned up for those that are dropped."""


def specialise(
    bank: Bank, images: UInt8[np.ndarray, "image 112 112 3"], most: tuple[int, int, int], settings: config.Prune, *,
    readout: Literal["separable", "dense"] = "separable", device: str = "cpu",
) -> Bank:
    """A new bank in which layers 3 to 5 are each unit's own and have only the filters it keeps; layers 1 and 2 stay shared.

    Parameters
    ----------
    bank
        Trained: one network for all units, or what this made of one.
    images
        On which variances are measured.
    most
        Filters of layers 3, 4 and 5 that a unit may keep.
    settings
        Criteria and the largest size of a student.
    readout
        Of the students.
    device
        Where the bank is.

    Returns
    -------
    A bank whose students answer nearly as before and are to be retrained.
    """
    measured = measure(bank, images, device)
    bank = copy.deepcopy(bank).cpu()  # moving filters about is no work for a GPU
    kept = [_specialised(bank, measured, unit, most, settings, readout) for unit in range(bank.shape.n_units)]
    return _rebuilt(bank, kept, _lowest(bank), readout)


def narrow(
    bank: Bank, images: UInt8[np.ndarray, "image 112 112 3"], settings: config.Prune, *, device: str = "cpu"
) -> Bank:
    """A new bank in which each unit also reads only the filters of layer 1 it needs; from layer 2 on all are its own.

    Parameters
    ----------
    bank, images, settings, device
        As for `specialise`, whose bank this takes once it is retrained.
    """
    measured = measure(bank, images, device)
    bank = copy.deepcopy(bank).cpu()
    kept = []
    for unit in range(bank.shape.n_units):
        own = tuple(np.arange(len(_kept(bank, unit, layer))) for layer in range(2, N_LAYERS + 1))
        needed = _spread(measured.contribution[:, unit, _kept(bank, unit, N_LAYERS)])
        for layer in range(N_LAYERS, 2, -1):
            _, covariance, weights = _read(bank, measured.inputs[layer], unit, layer)
            needed = _needed_of(covariance, weights, needed)
        first, weights, move, _ = _fewer_inputs(
            bank, measured.inputs[2], unit, 2, own[0], needed, settings.kept_first, settings.min_filters
        )
        kept.append(Kept((first, *own), {2: weights}, {2: move}, np.ones(len(own[-1]))))
    return _rebuilt(bank, kept, 1, bank.shape.readout)


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
            contributions.append(bank.contributions(x).double().cpu().numpy())
    return Statistics({layer: _inputs(*sums[layer]) for layer in sums}, np.concatenate(contributions))


def smallest_sufficient(
    covariance: Float[np.ndarray, "input input"], weights: Float[np.ndarray, "filter input"], kept_variance: float, min_filters: int,
    most_filters: int | None = None,
) -> Integer[np.ndarray, "kept"]:
    """The fewest inputs, in the order of their rank, from which weights @ inputs can be rebuilt to `kept_variance` of its variance.

    Parameters
    ----------
    covariance
        Of the inputs.
    weights
        Of the filters that read them.
    kept_variance
        Share of the summed variance of the filters that must be rebuilt by least squares; 0: the fewest filters will do.
    min_filters, most_filters
        Fewest and most that are kept.

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
    total = _variance(weights, covariance)
    high = len(rank) if most_filters is None else min(len(rank), most_filters)
    low = min(min_filters, high)
    high = high if kept_variance > 0 else low
    while low < high:  # rebuilt variance grows with every input, so halving finds the smallest set
        middle = (low + high) // 2
        kept = rank[:middle]
        rebuilt = refitted(covariance, weights, kept)
        explained = _variance(rebuilt, covariance[np.ix_(kept, kept)])
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
    ridge = 1e-6 * np.diag(np.maximum(np.diag(inner), 1e-12))  # of each its own, so that no loud filter drowns a quiet one
    return np.linalg.solve(inner + ridge, covariance[kept] @ weights.T).T


def _variance(weights: np.ndarray, covariance: np.ndarray) -> float:
    """Of weights @ inputs, summed over filters."""
    return float(((weights @ covariance) * weights).sum())


def _specialised(
    bank: Bank, measured: Statistics, unit: int, most: tuple[int, int, int], settings: config.Prune, readout: str
) -> Kept:
    """Prune to the criterion; if that leaves too many parameters, keep less and less variance until they fit."""
    contribution = measured.contribution[:, unit, _kept(bank, unit, N_LAYERS)]
    last = _last_layer(contribution, most[2], settings)
    if readout == "dense":  # which may take half of the room
        last = last[: max(settings.min_filters, settings.max_parameters // (2 * MAP_PX**2))]
    last = np.sort(last)
    gain = _gain(contribution, last)
    for times in range(MOST_TIMES):
        kept_variance = settings.kept_variance * LESS_VARIANCE**times
        kept = _pruned_layers(bank, measured, unit, last, gain, kept_variance, most, settings.min_filters)
        smallest = all(len(filters) <= settings.min_filters for filters in kept.filters[_lowest(bank) - 1 : -1])
        if _size(kept, readout, bank.shape.products) <= settings.max_parameters or smallest:
            return kept
    return _pruned_layers(bank, measured, unit, last, gain, 0.0, most, settings.min_filters)


def _lowest(bank: Bank) -> int:
    """The lowest layer of which `specialise` leaves filters out, the last that stays shared."""
    return min(ABOVE_ARE_OWN, bank.shape.shared_layers)


def _last_layer(contribution: np.ndarray, most: int, settings: config.Prune) -> np.ndarray:
    """Filters of layer 5 that are kept, strongest first."""
    rank = np.argsort(-contribution.std(axis=0), kind="stable")
    whole = contribution.sum(axis=1)
    for n in range(min(settings.min_filters, len(rank)), min(most, len(rank))):
        if _r2(contribution[:, rank[:n]].sum(axis=1), whole) > settings.last_layer_r2:
            return rank[:n]
    return rank[:most]


def _pruned_layers(
    bank: Bank, measured: Statistics, unit: int, last: np.ndarray, gain: np.ndarray, kept_variance: float, most: tuple[int, int, int],
    min_filters: int,
) -> Kept:
    filters, weights, moves = [last], {}, {}
    needed = _spread(gain * measured.contribution[:, unit, _kept(bank, unit, N_LAYERS)[last]])
    for layer in range(N_LAYERS, _lowest(bank), -1):
        limit = most[layer - 4] if layer > 3 else None
        kept, weights[layer], moves[layer], needed = _fewer_inputs(
            bank, measured.inputs[layer], unit, layer, filters[0], needed, kept_variance, min_filters, limit
        )
        filters.insert(0, kept)
    first = [np.arange(width) for width in bank.shape.widths[: _lowest(bank) - 1]]
    return Kept((*first, *filters), weights, moves, gain)


def _fewer_inputs(
    bank: Bank, inputs: Inputs, unit: int, layer: int, filters: np.ndarray, needed: np.ndarray, kept_variance: float, min_filters: int,
    most_filters: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which inputs these filters of a layer keep, the weights on them, by how much the mean of the others moves the bias, and `needed`.

    That is how much the unit's answer needs each filter, and then each input that is kept.
    """
    mean, covariance, weights = _read(bank, inputs, unit, layer)
    full = weights[filters]
    kept = smallest_sufficient(covariance, _as_needed(covariance, full, needed), kept_variance, min_filters, most_filters)
    few = refitted(covariance, full, kept)
    return kept, few, full @ mean - few @ mean[kept], _needed_of(covariance[np.ix_(kept, kept)], few, needed)


def _read(bank: Bank, inputs: Inputs, unit: int, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a unit's filters of a layer read: mean and covariance, and their weights on it."""
    group, own = 0 if len(inputs.mean) == 1 else unit, _kept(bank, unit, layer - 1)
    return inputs.mean[group][own], inputs.covariance[group][np.ix_(own, own)], bank.weights_of(unit, layer).double().cpu().numpy()


def _spread(contribution: np.ndarray) -> np.ndarray:
    """How much a unit's answer needs the filters of the last layer: SD of what each adds; of an answer that never varies, all alike."""
    spread = contribution.std(axis=0)
    return spread if spread.any() else np.ones(len(spread))


def _needed_of(covariance: np.ndarray, weights: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """How much a unit's answer needs each input: the SD of what it gives to each filter, as that is needed, over all of them."""
    return np.sqrt(np.diag(covariance) * (_as_needed(covariance, weights, needed) ** 2).sum(axis=0))


def _as_needed(covariance: np.ndarray, weights: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Weights of filters whose SD is as much as they are needed."""
    spread = np.sqrt(np.maximum(((weights @ covariance) * weights).sum(axis=1), 0))
    return weights * np.divide(needed, spread, out=np.zeros(len(spread)), where=spread > 0)[:, None]


def _kept(bank: Bank, unit: int, layer: int) -> np.ndarray:
    return bank.kept(unit, layer).cpu().numpy()


def _gain(contribution: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Least squares: what the kept filters must be multiplied by to add up to what all did."""
    centred = contribution - contribution.mean(axis=0)
    few, whole = centred[:, kept], centred.sum(axis=1)
    ridge = 1e-3 * max(float((few**2).sum(axis=0).mean()), 1e-12) * np.eye(len(kept))
    return np.linalg.solve(few.T @ few + ridge, few.T @ whole + ridge @ np.ones(len(kept)))


def _size(kept: Kept, readout: str, products: int) -> int:
    n = [len(filters) for filters in kept.filters]
    separable = sum(below * KERNEL_PX**2 + below * above + above for below, above in pairwise(n))
    places = products * (n[-1] + MAP_PX**2) if readout == "separable" else n[-1] * MAP_PX**2
    return n[0] * (3 * KERNEL_PX**2 + 1) + separable + places + 1


def _r2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1] ** 2) if a.std() > 0 and b.std() > 0 else 0.0


def _added(sums: tuple[Tensor, Tensor, int] | None, x: Tensor, groups: int) -> tuple[Tensor, Tensor, int]:
    by_group = x.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (groups, -1)).transpose(0, 1)
    total, square, n = by_group.sum(dim=1).double(), (by_group.transpose(1, 2) @ by_group).double(), by_group.shape[1]
    return (total, square, n) if sums is None else (sums[0] + total, sums[1] + square, sums[2] + n)


def _inputs(total: Tensor, square: Tensor, n: int) -> Inputs:
    mean = (total / n).cpu().numpy()
    return Inputs(mean, square.cpu().numpy() / n - mean[:, :, None] * mean[:, None, :])


def _rebuilt(bank: Bank, kept: list[Kept], shared: int, readout: Literal["separable", "dense"]) -> Bank:
    """The pruned bank: filters moved to the front of each unit's room, weights refitted. Layers 1 to `shared` are as they were."""
    widest = [max(len(unit.filters[layer - 1]) for unit in kept) for layer in range(1, N_LAYERS + 1)]
    widths = (*bank.shape.widths[:shared], *widest[shared:])
    uses = np.zeros((len(kept), widths[shared - 1]), bool)
    for unit, what in enumerate(kept):
        uses[unit, _kept(bank, unit, shared)[what.filters[shared - 1]]] = True
    whole = tuple(np.ones((len(kept), width), bool) for width in widths[: shared - 1])
    pruned = Bank(
        BankShape(len(kept), widths, shared, readout, bank.shape.products),
        (*whole, uses, *(_front(kept, layer, widths[layer - 1]) for layer in range(shared + 1, N_LAYERS + 1))),
    )
    with torch.no_grad():
        for layer in range(1, shared + 1):
            for new, old in zip(pruned.arrays_of(layer), bank.arrays_of(layer), strict=True):
                new.copy_(old)
        pruned.depthwise[shared - 1].copy_(bank.depthwise[shared - 1])
        for unit, what in enumerate(kept):
            for layer in range(shared + 1, N_LAYERS + 1):
                _carry(bank, pruned, unit, what, layer)
            _carry_readout(bank, pruned, unit, what)
        pruned.offset.copy_(bank.offset)
    return pruned.eval()


def _front(kept: list[Kept], layer: int, width: int) -> Bool[np.ndarray, "unit filter"]:
    return np.arange(width)[None, :] < np.array([[len(unit.filters[layer - 1])] for unit in kept])


def _carry(bank: Bank, pruned: Bank, unit: int, what: Kept, layer: int) -> None:
    source = bank.channels(unit, layer)[torch.from_numpy(what.filters[layer - 1])]
    target = pruned.channels(unit, layer)
    # The layer that reads shared filters has a column for each of them, others for the unit's own, which stand in front.
    first = layer == pruned.shape.shared_layers + 1
    below = what.filters[layer - 2]
    columns = torch.from_numpy(_kept(bank, unit, layer - 1)[below] if first else np.arange(len(below)))
    weights = torch.from_numpy(what.weights[layer]) if layer in what.weights else bank.weights_of(unit, layer)
    into: Tensor = pruned.pointwise[layer - 2][unit]
    into[:] = 0.0
    into[: len(target), columns] = weights.float()
    pruned.bias[layer - 1][target] = bank.bias[layer - 1][source]
    if layer in what.bias_moves:
        pruned.bias[layer - 1][target] += torch.from_numpy(what.bias_moves[layer]).float()
    if layer < N_LAYERS:
        pruned.depthwise[layer - 1][target] = bank.depthwise[layer - 1][source]


def _carry_readout(bank: Bank, pruned: Bank, unit: int, what: Kept) -> None:
    kept, gain = torch.from_numpy(what.filters[-1]), torch.from_numpy(what.readout_gain).float()
    n = len(kept)
    if bank.shape.readout == "dense":
        pruned.readout[unit], pruned.readout[unit, :n] = 0.0, bank.readout[unit, kept] * gain[:, None]
        return
    weights = bank.readout_filter[unit, kept] * gain[:, None]
    if pruned.shape.readout == "dense":
        pruned.readout[unit], pruned.readout[unit, :n] = 0.0, weights @ bank.readout_space[unit]
    else:
        pruned.readout_filter[unit], pruned.readout_filter[unit, :n] = 0.0, weights
        pruned.readout_space[unit] = bank.readout_space[unit]
