"""Consolidation: many filters in the early layers, few after them, and where between the layers the number falls.

Cowley et al. (Nature 2026) found that pruned models keep many filters in layers 1 to 3 and few in layers 4 and 5, and called the fall
between them a consolidation step. Filters are counted as they did, by spatial kernels: a separable layer has one for each map that it
reads, so its kernels are as many as the filters of the layer below. Layer 2 therefore always counts as many as layer 1, and the fall
after layer 3 says that layer 3 passes on far fewer maps than it reads.
"""

import numpy as np
from jaxtyping import Float, Integer

from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.student import N_LAYERS

N_PERMUTATIONS = 10_000
TIE = 1e-9
"""Share of the sum of sizes by which two sums count as equal: that of the same numbers in another order differs by rounding."""


def consolidation(filters_per_layer: Integer[np.ndarray, "unit layer"]) -> Table:
    """After which layer each unit's filters fall most, and by how many.

    Parameters
    ----------
    filters_per_layer
        Kernels of layers 1 to 5, as `Results.filters_per_layer` and `student.filters_per_layer` count them.

    Examples
    --------
    >>> found = consolidation(np.array([[47, 47, 57, 3, 7], [3, 3, 3, 3, 5]]))
    >>> found["largest_drop_after_layer"], found["largest_drop"], found["drop_3_to_4"]
    (array([3, 0]), array([54,  0]), array([54,  0]))
    """
    drops = _drops(filters_per_layer)
    largest = drops.max(axis=1)
    return Table(
        "How the number of spatial filters (5 x 5 kernels) falls from layer to layer of each student",
        {
            UNIT: Column("row of the unit in the run", np.arange(len(drops))),
            "largest_drop_after_layer": Column(
                "layer after which the number of filters falls most, the first of equals; 0 where it never falls",
                np.where(largest > 0, drops.argmax(axis=1) + 1, 0),
            ),
            "largest_drop": Column("filters of that layer minus filters of the next; 0 where it never falls", np.maximum(largest, 0)),
            "drop_3_to_4": Column("filters of layer 3 minus filters of layer 4", drops[:, 2]),
        },
    )


def drop_test(
    filters_per_layer: Integer[np.ndarray, "unit layer"], layer: int = 3, *, n_permutations: int = N_PERMUTATIONS, seed: int = 0
) -> Table:
    """Does the number of filters fall after a layer? The paired permutation test of the study, over units.

    The p value takes units for independent. Students that were cut from one network and share a layer are not: where all share the
    layers in question there is one network, not many, and p means nothing.

    Parameters
    ----------
    filters_per_layer
        Kernels of layers 1 to 5.
    layer
        1 to 4: this layer is compared with the next.
    n_permutations, seed
        Of `sign_flip_p`.

    Examples
    --------
    >>> found = drop_test(np.array([[47, 47, 57, 3, 7]] * 20), n_permutations=999)
    >>> found["median_drop"], found["p"]
    (array([54.]), array([0.001]))
    """
    if not 1 <= layer < N_LAYERS:
        raise ValueError(f"layer: found {layer}, expected 1 to {N_LAYERS - 1}, a layer that has one after it")
    drop = _drops(filters_per_layer)[:, layer - 1].astype(float)
    p = sign_flip_p(drop, n_permutations, seed)
    return Table(
        "Paired permutation test of a fall in the number of spatial filters, over units",
        {
            "after_layer": Column("the fall from this layer to the next is tested", np.array([layer])),
            "n_units": Column("units", np.array([len(drop)])),
            "median_drop": Column("median over units of the fall, filters", np.array([np.median(drop) if drop.size else np.nan])),
            "p": Column("one-sided p of no fall, sign flips of each unit's difference", np.array([p])),
        },
    )


def sign_flip_p(differences: Float[np.ndarray, "pair"], n_permutations: int = N_PERMUTATIONS, seed: int = 0) -> float:
    """One-sided p of the hypothesis that paired differences are as often of one sign as of the other, against a positive mean.

    The signs of all differences are drawn anew `n_permutations` times. p = (1 + number of draws whose sum is at least the one found) /
    (1 + draws), which is never 0 and keeps to its level (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).

    Parameters
    ----------
    differences
        One a pair, of pairs that are independent of each other.
    n_permutations
        Draws; 1 / (1 + draws) is the smallest p there can be.
    seed
        Of the draws.

    Returns
    -------
    p, or NaN where there is no difference to flip or one is not finite.

    Examples
    --------
    >>> sign_flip_p(np.ones(30), n_permutations=99), sign_flip_p(-np.ones(30), n_permutations=99)
    (0.01, 1.0)
    """
    if not differences.size or not np.isfinite(differences).all():
        return float("nan")
    rng, tie = np.random.default_rng(seed), TIE * np.abs(differences).sum()
    # A flip takes a difference away twice, so a draw reaches the sum found where what it flips adds up to nothing or less.
    n_as_large = sum(rng.integers(0, 2, differences.size) @ differences <= tie for _ in range(n_permutations))
    return float((1 + n_as_large) / (1 + n_permutations))


def _drops(filters_per_layer: Integer[np.ndarray, "unit layer"]) -> Integer[np.ndarray, "unit step"]:
    """Filters of each layer minus those of the next; counts may be stored without a sign."""
    return -np.diff(filters_per_layer.astype(int), axis=1)
