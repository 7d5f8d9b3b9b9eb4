"""Ablation: which filters a student needs, found by silencing each alone and asking what changes.

To silence a filter is to set its rectified map to 0 everywhere. Three things may then change: how well the student predicts the neuron,
how its answers to natural images are ordered, and whether it still prefers dots of one size. The last is what the study asked of one
model that detects dots (Cowley et al. 2026, Fig. 4): its index is 1 for a filter that is necessary for size selectivity and 0 for one
that is irrelevant. It was near 0 for all filters of one layer and near 1 for a single filter of the next.

A filter here is a map that a layer gives. The study counts the 5 x 5 kernels of a layer, of which layers 2 to 5 have one for each map
below. What it calls filter k of layer 3, 4 or 5 therefore stands here as filter k of layer 2, 3 or 4; the maps of layer 5 are read by
no kernel, only by the readout.
"""

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from nwb_compact.interpretation.open_student import OpenStudent, open_student
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.reliability import correlation
from nwb_compact.results import StudentWeights
from nwb_compact.streaming import as_tensor
from nwb_compact.student import N_LAYERS

TOGETHER = 4
"""Images a step: with fewer the calls cost more than the work, with more the maps leave the processor's cache. Does not change answers."""
ROUNDING = 1e-5
"""Answers whose range is below this share of the largest of them differ by the rounding of float32 alone."""
SILENT = 1e-4
"""After silencing, answers whose range is below this share of the intact range are taken for constant. Ours: well above rounding."""
LEAST_RANGE = 0.01
"""A curve whose range is below this share of the intact curve's is flat: it selects no size. Ours."""
LEAST_SELECTIVITY = 0.1
"""Size selectivity of the intact curve below which there is none that a filter could be necessary for. Ours."""


def ablate(
    student: StudentWeights,
    images_natural: UInt8[np.ndarray, "image 112 112 3"],
    measured: Float[np.ndarray, "image"],
    curve_images: UInt8[np.ndarray, "stimulus 112 112 3"],
) -> Table:
    """What each filter is needed for: one row for each filter of layers 1 to 5, silenced alone.

    Parameters
    ----------
    student
        The network of one unit.
    images_natural
        RGB, 0..255.
    measured
        Average response to each, spikes in the counting window; NaN where there is none.
    curve_images
        Dots of growing diameter on the unit's receptive field; the first is the blank grey image.

    Returns
    -------
    Columns `layer`, `filter`, `r2_change`, `r2_with_intact`, `mean_change`, `size_index` (see `size_index`) and `curve`. Answers that
    silencing makes constant explain nothing: their r2 is 0. Scores are NaN where the intact student's answers or the measured ones do
    not vary.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    >>> found = ablate(example_student((4, 3, 3, 3, 2)), images, np.array([1.0, 3.0, 2.0]), images)
    >>> found["layer"], found["curve"].shape
    (array([1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5], dtype=int8), (15, 3))
    """
    intact, silenced = answers_without_each(student, images_natural)
    curve, curves = answers_without_each(student, curve_images)
    layer, number = filters(student)
    before, after = _r2(intact[:, None], measured, intact), _r2(silenced, measured, intact)
    columns = {
        "layer": Column("layer that gives the map, 1 to 5", layer),
        "filter": Column("number of the filter in its layer, from 0", number),
        "r2_change": Column("squared correlation with the measured responses, filter silenced minus intact", after - before),
        "r2_with_intact": Column("squared correlation with the intact student's answers to natural images", _r2(silenced, intact, intact)),
        "mean_change": Column("mean answer to natural images, filter silenced minus intact, spikes", (silenced - intact[:, None]).mean(0)),
        "size_index": Column("1: necessary for size selectivity, 0: irrelevant; NaN: no size is selected", size_index(curves, curve)),
        "curve": Column("answers to the dots of growing size (first: blank) with the filter silenced, spikes", curves.T),
    }
    return Table("each filter of a student silenced alone: its map set to 0 everywhere", columns)


def size_selectivity(curves: Float[np.ndarray, "stimulus curve"], least_range: float = 0.0) -> Float[np.ndarray, "curve"]:
    """By how much of its range each dot-size curve r has fallen at the largest dot: (max r - r_last) / (max r - min r).

    Parameters
    ----------
    curves
        Answers to the blank image, then to dots of growing diameter.
    least_range
        Curves of a smaller range than this are flat, and their selectivity is 0.

    Examples
    --------
    >>> size_selectivity(np.array([[0.0, 0.0, 1.0], [4.0, 2.0, 1.0], [1.0, 4.0, 1.0]]))   # falls again, only grows, is flat
    array([0.75, 0.  , 0.  ])
    """
    highest, span = curves.max(axis=0).astype(float), np.ptp(curves, axis=0).astype(float)
    flat = np.where(np.isnan(span), np.nan, 0.0)
    return np.divide(highest - curves[-1], span, out=flat, where=(span > 0) & (span >= least_range))


def size_index(silenced: Float[np.ndarray, "stimulus filter"], intact: Float[np.ndarray, "stimulus"]) -> Float[np.ndarray, "filter"]:
    """How necessary each filter is for size selectivity: 1 - S_silenced / S_intact, within 0..1, S as `size_selectivity` defines it.

    The meaning of its ends is the study's (1: necessary, 0: irrelevant; Cowley et al. 2026, Fig. 4); the formula is ours, since theirs
    is not published. S of a silenced curve is 0 where its range is below 1 % of the intact one's. It asks whether the answer still falls
    towards large dots, so a filter that only drives the student is irrelevant as long as something else makes that fall.

    Parameters
    ----------
    silenced
        Answers to the blank image and to dots of growing diameter, with each filter silenced.
    intact
        The same of the intact student.

    Returns
    -------
    (filter,); NaN where the intact curve is flat or has a selectivity below 0.1.

    Examples
    --------
    >>> size_index(np.array([[0.0, 0.0], [4.0, 4.0], [4.0, 2.0]]), np.array([0.0, 4.0, 1.0])).round(2)
    array([1.  , 0.33])
    """
    intact_selectivity = size_selectivity(intact[:, None], ROUNDING * float(np.abs(intact).max()))[0]
    if not intact_selectivity >= LEAST_SELECTIVITY:  # or NaN
        return np.full(silenced.shape[1], np.nan)
    left = size_selectivity(silenced, LEAST_RANGE * float(np.ptp(intact)))
    return 1 - np.clip(left / intact_selectivity, 0, 1)


def filters(student: StudentWeights) -> tuple[Integer[np.ndarray, "filter"], Integer[np.ndarray, "filter"]]:
    """Layer of each filter of a student, 1 to 5, and its number in this layer, from 0: the order of `answers_without_each`."""
    widths = [len(student.arrays[f"layer{layer}.bias"]) for layer in range(1, N_LAYERS + 1)]
    layer = np.repeat(np.arange(1, N_LAYERS + 1, dtype=np.int8), widths)
    return layer, np.concatenate([np.arange(width, dtype=np.int16) for width in widths])


def answers_without_each(
    student: StudentWeights, images: UInt8[np.ndarray, "image 112 112 3"]
) -> tuple[Float32[np.ndarray, "image"], Float32[np.ndarray, "image filter"]]:
    """Answers of the intact student, and with each filter silenced alone, in the order of `filters`; spikes, NaN if not finite.

    Layers below a filter do not notice that it is silent, so their maps are computed once. The layer above adds up what its kernels make
    of each map, so the part of the silent one is subtracted from sums that are computed once, too: only what follows is computed anew.

    One thread does it, since steps this short are over before several have met; to use more, work on several units side by side.
    """
    opened = open_student(student)
    with torch.inference_mode(), threadpool_limits(1, user_api="openmp"):
        steps = [_without_each(opened, as_tensor(images[at : at + TOGETHER], "cpu")) for at in range(0, len(images), TOGETHER)]
        intact, silenced = (torch.cat(parts).numpy() for parts in zip(*steps, strict=True))
    return _finite(intact), _finite(silenced)


def _without_each(
    student: OpenStudent, images: Float[Tensor, "batch 3 112 112"]
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch filter"]]:
    maps, answers = student.first(images), []
    for below, above in pairwise(range(1, N_LAYERS + 1)):
        filtered, weights = student.spatial(maps, above), student.arrays[f"layer{above}.pointwise"][:, :, None, None]
        sums = functional.conv2d(filtered, weights, student.arrays[f"layer{above}.bias"])
        for k in range(student.n_filters(below)):
            without = torch.addcmul(sums, filtered[:, k : k + 1], weights[:, k], value=-1)
            answers.append(_answer(student, without.relu_(), above))
        maps = sums.relu_()
    intact = student.readout(maps)
    last = intact[:, None] - (maps * student.arrays["readout.weight"]).sum(dim=(2, 3))
    return intact, torch.cat([torch.stack(answers, dim=1), last], dim=1)


def _answer(student: OpenStudent, maps: Tensor, layer: int) -> Float[Tensor, "batch"]:
    """The answer that follows from the maps of a layer."""
    for above in range(layer + 1, N_LAYERS + 1):
        maps = student.mix(student.spatial(maps, above), above)
    return student.readout(maps)


def _finite(answers: Float32[np.ndarray, "*any"]) -> Float32[np.ndarray, "*any"]:
    return np.where(np.isfinite(answers), answers, np.float32(np.nan))


def _r2(
    answers: Float[np.ndarray, "image filter"], target: Float[np.ndarray, "image"], intact: Float[np.ndarray, "image"]
) -> Float[np.ndarray, "filter"]:
    """Squared correlation with the target where it is known; 0 for answers that only silencing made constant."""
    known = np.isfinite(target)
    if not known.any():
        return np.full(answers.shape[1], np.nan)
    answers, target, intact = answers[known].astype(float), target[known].astype(float), intact[known].astype(float)
    span = np.ptp(intact)
    if not (span > ROUNDING * np.abs(intact).max() and np.ptp(target) > 0):  # or NaN
        return np.full(answers.shape[1], np.nan)
    r2 = correlation(answers, np.broadcast_to(target[:, None], answers.shape)) ** 2
    return np.where(np.ptp(answers, axis=0) < SILENT * span, 0.0, r2)
