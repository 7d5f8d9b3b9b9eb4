"""The smallest circuit: the few filters of a student that suffice for its dot-size curve, and how they are connected.

The study silenced filters of its dot detector one after another until about ten of a layer were left, few enough to be looked at: four
that see the curved edge of a small dot and excite, two that see large edges and inhibit (Cowley et al. 2026, Fig. 4). How it chose them
is not published; here it is backward elimination. Filters of all five layers may go: a filter of layer 1 that no dot drives would only
hide the others in a drawing. Nothing is refitted, so what is left is part of the student and no new model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8

from nwb_compact.interpretation.ablation import ROUNDING, answers_without_each, filters
from nwb_compact.interpretation.open_student import open_student
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.results import StudentWeights
from nwb_compact.streaming import as_tensor
from nwb_compact.student import N_LAYERS, predict

DROPPED = 10
"""One in so many of the remaining filters is silenced at a time, at least one. Ours: one by one takes three times as long and left no fewer
of two published models."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """What is left of one student."""

    filters: Table
    """One row for each kept filter: `layer`, `filter`, `sign`, `effect` and `effect_curve`."""
    connections: Table
    """One row for each pair of kept filters in neighbouring layers: `layer`, `filter`, `input` and `weight`."""
    summary: Table
    """One row: `explained`, `n_kept`, `n_filters`, `curve` and `curve_intact`."""


def smallest_circuit(student: StudentWeights, curve_images: UInt8[np.ndarray, "stimulus 112 112 3"], keep: float = 0.9) -> Circuit:
    """The filters that suffice for a student's dot-size curve, found by backward elimination.

    Again and again each remaining filter is silenced in turn, and the tenth without which the curve stays closest to the intact one is
    left out for good; half as many, and half of these, where that would explain too little. It ends where no single filter can go.

    Parameters
    ----------
    student
        The network of one unit.
    curve_images
        Dots of growing diameter on the unit's receptive field; the first is the blank grey image.
    keep
        Share of the intact curve's variance over stimuli, in 0..1, that the rest must explain: 1 - SSE / SST.

    Returns
    -------
    Effects and connections are measured in the intact student, so they tell what a kept filter does there; only the choice of filters is
    by elimination. Tables of filters and connections are empty, and `explained` is NaN, where the intact curve does not vary.

    Raises
    ------
    ValueError
        If `keep` is not above 0 and at most 1.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), np.uint8)
    >>> found = smallest_circuit(example_student((4, 3, 3, 3, 2)), images).summary
    >>> bool(found["explained"][0] >= 0.9), found["n_filters"][0]
    (True, array([4, 3, 3, 3, 2]))
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, found {keep}")
    intact, silenced = answers_without_each(student, curve_images)
    layer, number = filters(student)
    kept = np.zeros(len(layer), bool)
    if np.ptp(intact) > ROUNDING * np.abs(intact).max():  # and not NaN
        kept = _eliminated(student, curve_images, intact, keep)
    curve = predict(only(student, kept), curve_images) if kept.any() else np.full_like(intact, np.nan)
    summary = {
        "explained": Column("share of the intact curve's variance that the circuit explains", np.array([explained(curve, intact)])),
        "n_kept": Column("filters of layers 1 to 5 in the circuit", _counts(layer[kept])[None]),
        "n_filters": Column("filters of layers 1 to 5 in the student", _counts(layer)[None]),
        "curve": Column("answers of the circuit to the dots of growing size (first: blank), spikes", curve[None]),
        "curve_intact": Column("answers of the whole student to the same, spikes", intact[None]),
    }
    return Circuit(
        _effects(layer[kept], number[kept], (intact[:, None] - silenced)[:, kept], intact),
        _connections(student, curve_images, kept),
        Table("the filters that suffice for a dot-size curve, altogether", summary),
    )


def explained(curve: Float[np.ndarray, "stimulus"], intact: Float[np.ndarray, "stimulus"]) -> float:
    """Share of the intact curve's variance that a curve explains as it is: 1 - SSE / SST; negative where it is worse than the mean.

    Examples
    --------
    >>> explained(np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    0.5
    """
    total = np.sum((intact.astype(float) - intact.mean()) ** 2)
    return float(1 - np.sum((curve.astype(float) - intact) ** 2) / total) if total > 0 else float("nan")


def only(student: StudentWeights, kept: Bool[np.ndarray, "filter"]) -> StudentWeights:
    """The student that is left when all other filters are silenced; `kept` in the order of `ablation.filters`, some in each layer.

    Examples
    --------
    >>> from nwb_compact.student import example_student, filters_per_layer
    >>> filters_per_layer(only(example_student(2), np.array([1, 1, 1, 0, 0, 1, 1, 1, 1, 0], bool)))
    array([2, 2, 1, 1, 2])
    """
    arrays = dict(student.arrays)
    layer, _ = filters(student)
    for n in range(1, N_LAYERS + 1):
        of_layer = kept[layer == n]
        own = (f"layer{n}.kernel", f"layer{n}.pointwise", f"layer{n}.bias")
        readers = (f"layer{n + 1}.depthwise",) if n < N_LAYERS else ("readout.weight", "readout.filter")
        arrays |= {name: arrays[name][of_layer] for name in (*own, *readers) if name in arrays}
        if n < N_LAYERS:
            arrays[f"layer{n + 1}.pointwise"] = arrays[f"layer{n + 1}.pointwise"][:, of_layer]
    return StudentWeights(arrays)


def _eliminated(student: StudentWeights, images: np.ndarray, intact: np.ndarray, keep: float) -> Bool[np.ndarray, "filter"]:
    """Which filters no further one of which can be silenced."""
    kept = np.ones(len(filters(student)[0]), bool)
    while True:
        _, curves = answers_without_each(only(student, kept), images)
        rank = np.flatnonzero(kept)[np.argsort([-explained(curve, intact) for curve in curves.T], kind="stable")]
        n = max(1, len(rank) // DROPPED)
        while n and not _suffices(student, _without(kept, rank[:n]), images, intact, keep):
            n //= 2
        if n == 0:
            return kept
        kept = _without(kept, rank[:n])


def _without(kept: Bool[np.ndarray, "filter"], dropped: Integer[np.ndarray, "_"]) -> Bool[np.ndarray, "filter"]:
    left = kept.copy()
    left[dropped] = False
    return left


def _suffices(student: StudentWeights, kept: np.ndarray, images: np.ndarray, intact: np.ndarray, keep: float) -> bool:
    """Whether these filters explain enough; never where a layer has none, since the answer is then constant."""
    return bool(_counts(filters(student)[0][kept]).all()) and explained(predict(only(student, kept), images), intact) >= keep


def _effects(layer: np.ndarray, number: np.ndarray, effect: np.ndarray, intact: np.ndarray) -> Table:
    at_preferred = effect[np.argmax(intact)]
    columns = {
        "layer": Column("layer that gives the map, 1 to 5", layer),
        "filter": Column("number of the filter in its layer, from 0", number),
        "sign": Column("1 excites, -1 inhibits, 0 neither, at the preferred size", np.sign(np.nan_to_num(at_preferred)).astype(np.int8)),
        "effect": Column("answer at the preferred size, intact minus filter silenced, spikes", at_preferred),
        "effect_curve": Column("the same at every size (first: blank), spikes", effect.T),
    }
    return Table("filters that suffice for a dot-size curve", columns)


def _connections(student: StudentWeights, images: np.ndarray, kept: np.ndarray) -> Table:
    """Pointwise weights, each times the standard deviation of what it weighs, so that weights of different inputs compare.

    The sign is that of the weight and of the sum of the kernel before it: the one could undo the other.
    """
    opened, (layer, number) = open_student(student), filters(student)
    rows: list[tuple[int, int, int, float]] = []
    with torch.inference_mode():
        maps = opened.first(as_tensor(images, "cpu"))
        for above in range(2, N_LAYERS + 1):
            filtered = opened.spatial(maps, above)
            sign = torch.where(opened.arrays[f"layer{above}.depthwise"].sum(dim=(1, 2)) < 0, -1.0, 1.0)
            weights = (opened.arrays[f"layer{above}.pointwise"] * sign * filtered.std(dim=(0, 2, 3), correction=0)).numpy()
            read, below = number[kept & (layer == above)], number[kept & (layer == above - 1)]
            rows += [(above, int(k), int(i), float(weights[k, i])) for k in read for i in below]
            maps = opened.mix(filtered, above)
    meaning = (
        "weight x standard deviation over stimuli and places of what it weighs; above 0: what the kernel lets through, where its weights "
        "sum to more than 0, excites"
    )
    columns = {
        "layer": Column("layer of the filter that reads, 2 to 5", np.array([row[0] for row in rows], np.int8)),
        "filter": Column("number of this filter in its layer, from 0", np.array([row[1] for row in rows], np.int16)),
        "input": Column("number of the filter that is read, in the layer below", np.array([row[2] for row in rows], np.int16)),
        "weight": Column(meaning, np.array([row[3] for row in rows])),
    }
    return Table("connections among the filters that suffice for a dot-size curve", columns)


def _counts(layer: Integer[np.ndarray, "_"]) -> Integer[np.ndarray, "5"]:
    return np.bincount(layer, minlength=N_LAYERS + 1)[1:]
