"""Does a model tell images apart that are nearly the same, as its neuron does? Differences of the most alike pairs.

A model may rank all images well because it knows their coarse content, and yet miss what a small change does. So of all pairs of scored
images the most alike are taken, and the difference that is predicted is compared with the one measured, beside as many pairs at random.
"""

import numpy as np
from jaxtyping import Float, UInt8

from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.reliability import correlation_where_known

PAIRS, FEWEST_PAIRS = 200, 3
POOLED_PX = 8
"""Likeness is that of images averaged over squares of this side: two views of one thing differ in every pixel."""


def near_pairs(
    predicted: Float[np.ndarray, "image unit"], measured: Float[np.ndarray, "image unit"], images: UInt8[np.ndarray, "image 112 112 3"],
    *, seed: int, n: int = PAIRS, model: str = "student",
) -> Table:
    """Squared correlation of predicted and measured differences between images that are alike, and between any two.

    Parameters
    ----------
    predicted, measured
        Answers and repeat averages of the responses to scored images; NaN where not measured.
    images
        These images.
    seed
        Of the pairs at random.
    n
        Most pairs of either kind.
    model
        What predicts.

    Returns
    -------
    One row a unit: `near_r2`, `any_r2` and `near_step`, how far apart the pairs are: the median RMS difference over that of any two.
    NaN where fewer than `FEWEST_PAIRS` pairs were measured or nothing varies.
    """
    flat = _pooled(images)
    one, other = np.triu_indices(len(images), 1)
    distance = np.sqrt(np.maximum(_squared_distances(flat)[one, other], 0))
    near = np.argsort(distance, kind="stable")[:n]
    anywhere = np.random.default_rng(seed).permutation(len(one))[:n]
    step = float(np.median(distance[near]) / max(np.median(distance), 1e-9)) if len(distance) else float("nan")
    pairs = [(one[rows], other[rows]) for rows in (near, anywhere)]
    r2 = [correlation_where_known(predicted[a] - predicted[b], measured[a] - measured[b], fewest=FEWEST_PAIRS) ** 2 for a, b in pairs]
    meaning = f"squared correlation of predicted and measured differences between the {len(near)} most alike pairs of scored images"
    return Table(f"whether the {model} tells apart images that are nearly the same", {
        UNIT: Column("the unit", np.arange(predicted.shape[1])),
        "near_r2": Column(meaning, r2[0]),
        "any_r2": Column("the same of as many pairs at random; they differ more, so noise of the averages hides less", r2[1]),
        "near_step": Column("how far apart these pairs are: median RMS difference over that of any two", np.full(predicted.shape[1], step)),
    })


def _pooled(images: UInt8[np.ndarray, "image 112 112 3"]) -> Float[np.ndarray, "image value"]:
    n, side, *_ = images.shape
    parts = images.reshape(n, side // POOLED_PX, POOLED_PX, side // POOLED_PX, POOLED_PX, 3)
    return parts.mean(axis=(2, 4), dtype=np.float64).reshape(n, -1)


def _squared_distances(flat: Float[np.ndarray, "image value"]) -> Float[np.ndarray, "image image"]:
    centred = flat - flat.mean(axis=0)  # loses fewer digits
    square = (centred**2).mean(axis=1)
    return square[:, None] + square - 2 * centred @ centred.T / flat.shape[1]
