"""Similarity: how much the same layer of different units' students has in common, by centred kernel alignment of their maps.

Cowley et al. (Nature 2026) found layers 1 and 2 of different models alike and later layers not, although each model was trained by itself.
Two things must be kept in mind. Students that this package cuts from one network share early layers until the last pruning, so that
theirs are alike by construction. And layers with few filters vary along few directions, which makes them less alike than layers with many
even where the few were chosen at random.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional

from nwb_compact.interpretation.consolidation import N_PERMUTATIONS, sign_flip_p
from nwb_compact.interpretation.open_student import open_student
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.progress import Advance, silent
from nwb_compact.reliability import correlation, mean_of_known
from nwb_compact.results import StudentWeights, median
from nwb_compact.streaming import as_tensor
from nwb_compact.student import N_LAYERS
from nwb_compact.training import derived_seed

PLACES = 7
"""Places a side to which maps are averaged, 16 px of the image each. Places are kept, since two units that look for the same thing at
different places differ, and are equally many in all layers, so that layers differ by their filters and not by the size of their maps. On
14 published models and 150 images, medians over pairs stay within 0.04 for 4 to 28 places a side."""
BATCH_IMAGES = 4
"""Images a step, so few that their maps stay in the cache of the processor."""
FEWEST_IMAGES = 4
"""With fewer the unbiased estimate divides by 0."""
CONSTANT = 1e-10
"""Share of the variance over images in the mean square of a layer's maps below which they differ by rounding only."""


def similarity(
    students: Sequence[StudentWeights], images: UInt8[np.ndarray, "image 112 112 3"], *, places: int = PLACES, advance: Advance = silent
) -> Table:
    """Debiased linear CKA between the same layer of every two students, over a fixed set of images.

    CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) (Kornblith et al. 2019, ICML) with the unbiased HSIC of Song et al. (2012, JMLR
    13:1393), since the biased one nears 1 where features are more than images. 1: the same up to rotation and one factor; 0: unrelated,
    and slightly negative values occur. The factor is one for the whole layer: a filter that answers more strongly counts more.

    Parameters
    ----------
    students
        Those that hold the same arrays in all layers are computed once.
    images
        At least 4, natural ones. About 4 ms an image and student of the study's size on one core; n images and m students take
        10 n (n - 1) m bytes, 200 MB for 300 and 219.
    places
        Places a side to which maps are averaged.
    advance
        Told of students.

    Returns
    -------
    One row a layer: `layer` (1 to 5), `cka` (unit unit) and its median over pairs of units. NaN for a unit whose layer does not vary.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3), np.uint8)
    >>> found = similarity([example_student(seed=0), example_student(seed=1)], images)
    >>> found["cka"].shape, found["cka"][0].diagonal().round(3)
    ((5, 2, 2), array([1., 1.], dtype=float32))
    """
    if len(images) < FEWEST_IMAGES:
        raise ValueError(f"images: found {len(images)}, expected at least {FEWEST_IMAGES}")
    centred = np.empty((N_LAYERS, len(students), len(images) * (len(images) - 1) // 2), np.float32)
    computed: dict[tuple[int, ...], int] = {}
    for unit, student in enumerate(students):
        like = computed.setdefault(_layer_ids(student), unit)
        centred[:, unit] = centred[:, like] if like != unit else _centred_layers(student, images, places)
        advance(1)
    cka = np.stack([_alignment(of_layer) for of_layer in centred])
    pairs = np.triu_indices(len(students), 1)
    return Table(
        f"Similarity of the same layer of different students, over {len(images)} images and {places} x {places} places of each map",
        {
            "layer": Column("layer of the students, 1 to 5", np.arange(1, N_LAYERS + 1)),
            "cka": Column("debiased linear CKA (Kornblith et al. 2019), unit by unit in the order of interpretation_tuning", cka),
            "median_cka": Column("its median over pairs of different units", np.array([median(of_layer[pairs]) for of_layer in cka])),
        },
    )


def output_similarity(answers: Float[np.ndarray, "image unit"]) -> Table:
    """Squared correlation between the answers of every two units over the images (signal r2, of noiseless answers).

    Examples
    --------
    >>> output_similarity(np.array([[0.0, 3.0, 1.0], [1.0, 2.0, -2.0], [2.0, 1.0, 1.0]]))["r2"].round(3)
    array([[1., 1., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """
    exact = answers.astype(float)
    r2 = np.array([correlation(np.repeat(one[:, None], len(exact.T), axis=1), exact) ** 2 for one in exact.T])
    r2 = r2.reshape(len(exact.T), len(exact.T))
    others = np.where(np.eye(len(r2), dtype=bool), np.nan, r2)
    return Table(
        f"Similarity of the answers of different students over {len(answers)} images",
        {
            UNIT: Column("row of the unit in the run", np.arange(len(r2))),
            "r2": Column("squared correlation with the answers of every unit, in the order of these rows", r2),
            "mean_r2": Column("its mean over the other units", mean_of_known(others)),
        },
    )


def early_late_test(
    similar: Table, early: Sequence[int] = (1, 2), late: Sequence[int] = (4, 5), *, n_permutations: int = N_PERMUTATIONS, seed: int = 0
) -> Table:
    """Are early layers of different units more alike than late ones? Sign flips over pairs of units that have no unit in common.

    Each unit is in many pairs of units, so all pairs would count it many times. The units are therefore put together at random in
    pairs of which no two share a unit, and p takes only these. It still takes units for independent draws, which those of one session,
    one teacher or one shared network are not: it speaks of these students, not of other sessions or animals.

    Parameters
    ----------
    similar
        From `similarity`; units that are NaN in one of the layers are left out.
    early, late
        Layers, over which CKA is averaged.
    n_permutations, seed
        Of `sign_flip_p`; the seed also decides on the pairs.

    Returns
    -------
    One row: the medians over all pairs, and `n_pairs` and `p` of the pairs without a common unit. NaN where there is no pair.
    """
    of_early, of_late = (similar["cka"][np.isin(similar["layer"], layers)].mean(axis=0, dtype=float) for layers in (early, late))
    known = np.flatnonzero(np.isfinite(np.diag(of_early) + np.diag(of_late)))
    of_early, of_late = of_early[np.ix_(known, known)], of_late[np.ix_(known, known)]
    every, half = np.triu_indices(len(known), 1), len(known) // 2
    shuffled = np.random.default_rng(derived_seed(seed, "pairs of units")).permutation(len(known))
    p = sign_flip_p((of_early - of_late)[shuffled[:half], shuffled[half : 2 * half]], n_permutations, seed)
    early_name, late_name = (", ".join(map(str, layers)) for layers in (early, late))
    return Table(
        "Test that early layers of different students are more alike than late ones: sign flips over pairs that share no unit",
        {
            "median_early": Column(f"median over all pairs of units of CKA in layers {early_name}", np.array([median(of_early[every])])),
            "median_late": Column(f"median over all pairs of units of CKA in layers {late_name}", np.array([median(of_late[every])])),
            "n_pairs": Column("pairs of units that share no unit, of which p is", np.array([half])),
            "p": Column("one-sided p of early layers being no more alike than late ones", np.array([p])),
        },
    )


def u_centred(features: Float[np.ndarray, "image feature"]) -> Float[np.ndarray, "pair"]:
    """The U-centred Gram matrix above its diagonal, at length 1: the product of two such vectors is debiased linear CKA.

    With K~ = X X^T without its diagonal and row sums k, the U-centred matrix is K~_ij - (k_i + k_j) / (n - 2) + sum(k) / ((n-1) (n-2)), and
    the sum of the product of two of them is n (n - 3) times the unbiased HSIC (Szekely & Rizzo 2014, Ann. Statist. 42:2382; the same number
    as that of Song et al. 2012). So all pairs of students are one matrix product.

    Returns
    -------
    (pair,), NaN where the features do not vary or are no numbers.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(30, 4))
    >>> rotated = x[:, ::-1] * 3.0 + 7.0
    >>> round(float(u_centred(x) @ u_centred(rotated)), 6)
    1.0
    """
    return _u_centred(torch.from_numpy(features)).numpy()


def _u_centred(features: Tensor) -> Tensor:
    exact = features.double()
    x = exact - exact.mean(dim=0)  # changes nothing but rounding, U-centring takes out what a mean adds
    gram, n = (x @ x.T).fill_diagonal_(0.0), len(x)
    rows = gram.sum(dim=1)
    centred = gram - (rows[:, None] + rows) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    above = centred[tuple(torch.triu_indices(n, n, 1))]
    varies = x.square().sum() > CONSTANT * exact.square().sum()
    return above / above.norm() if varies else torch.full_like(above, torch.nan)


def _layer_ids(student: StudentWeights) -> tuple[int, ...]:
    """Which arrays the five layers of a student are."""
    return tuple(id(array) for name, array in sorted(student.arrays.items()) if not name.startswith("readout"))


def _centred_layers(
    student: StudentWeights, images: UInt8[np.ndarray, "image 112 112 3"], places: int
) -> Float32[np.ndarray, "layer pair"]:
    opened = open_student(student)
    pooled: list[list[Tensor]] = [[] for _ in range(N_LAYERS)]
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_IMAGES):
            for of_layer, maps in zip(pooled, opened.maps(as_tensor(images[start : start + BATCH_IMAGES], "cpu")), strict=True):
                of_layer.append(functional.adaptive_avg_pool2d(maps, places).flatten(1))
        return np.stack([_u_centred(torch.cat(of_layer)).float().numpy() for of_layer in pooled])


def _alignment(centred: Float32[np.ndarray, "unit pair"]) -> Float32[np.ndarray, "unit unit"]:
    """Products of all pairs of vectors of length 1; NaN where either is."""
    known = np.isfinite(centred).all(axis=1)
    product = np.where(known[:, None], centred, np.float32(0))
    return np.where(known[:, None] & known, product @ product.T, np.float32(np.nan))
