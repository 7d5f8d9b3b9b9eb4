"""Images made for one unit, as tables: which kinds of them, what its student answers, and how alike they are (`synthesis` makes them)."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Integer, Shaped, UInt8

from nwb_compact.config import Interpret
from nwb_compact.interpretation.synthesis import adversarial, faint_noise, synthesise
from nwb_compact.interpretation.tables import Column, Table, stacked
from nwb_compact.reliability import correlation
from nwb_compact.results import StudentWeights
from nwb_compact.student import IMAGE_PX, predict

SIMILARITY = (
    "mean Pearson correlation, over pixels and channels, of pairs of these images; NaN where fewer than two are answered more than the "
    "noise they started from"
)


def made_images(
    student: StudentWeights, natural: UInt8[np.ndarray, "natural 112 112 3"], settings: Interpret, *, seed: int
) -> tuple[Table, Table]:
    """Maximizing, minimizing and adversarial images of one unit.

    Parameters
    ----------
    student
        Of the unit.
    natural
        Some tens of natural images: maximizing and minimizing images have their average mean and contrast, and those of them whose answers
        are nearest to the unit's median are the ones that are changed.
    settings
        How many images of each kind, and how.
    seed
        Of the first image of each kind that starts from noise; those of the others follow it.

    Returns
    -------
    The images, and in one row how alike the maximizing ones are: where `seed_similarity` is high, one pattern in one place drives the unit;
    where it is low, several patterns do, or one in several places: pixels of stripes moved by a quarter of a period are not correlated.
    """
    images = stacked([_from_noise(student, natural, settings, seed), _from_natural(student, natural, settings)])
    alike = {"seed_similarity": Column(SIMILARITY, np.array([_seed_similarity(images)]))}
    return images, Table("How alike the maximizing images in colour are that started from different noise", alike)


def _from_noise(student: StudentWeights, natural: UInt8[np.ndarray, "natural 112 112 3"], settings: Interpret, seed: int) -> Table:
    mean_level, contrast = float(natural.mean()), float(natural.std(axis=(1, 2, 3)).mean())
    n = [settings.maximizing, settings.maximizing_grey, settings.minimizing, settings.minimizing_grey]
    kind, is_grey = np.repeat(["maximizing", "maximizing", "minimizing", "minimizing"], n), np.repeat([False, True, False, True], n)
    seeds = seed + np.concatenate([np.arange(of_kind) for of_kind in n])
    direction = np.where(kind == "maximizing", 1, -1)
    made = synthesise(student, direction, is_grey, seeds, settings, mean_level=mean_level, contrast=contrast)
    return _table(student, kind, is_grey, seeds, np.full(len(kind), -1), faint_noise(is_grey, seeds, mean_level), made)


def _from_natural(student: StudentWeights, natural: UInt8[np.ndarray, "natural 112 112 3"], settings: Interpret) -> Table:
    answers = predict(student, natural)
    ordinary = np.argsort(np.abs(answers - np.median(answers)), kind="stable")[: settings.adversarial]
    rows, direction = np.tile(ordinary, 2), np.repeat([1, -1], len(ordinary))
    kind = np.where(direction == 1, "adversarial-up", "adversarial-down")
    made = adversarial(student, natural[rows], direction, settings)
    return _table(student, kind, np.zeros(len(rows), bool), np.full(len(rows), -1), rows, natural[rows], made)


def _table(
    student: StudentWeights, kind: Shaped[np.ndarray, "image"], is_grey: Bool[np.ndarray, "image"],
    seed: Integer[np.ndarray, "image"], start_row: Integer[np.ndarray, "image"], start: UInt8[np.ndarray, "image 112 112 3"],
    made: UInt8[np.ndarray, "image 112 112 3"],
) -> Table:
    spikes = "expected spikes in the counting window"
    return Table("Images made to drive or to silence each unit's student", {
        "kind": Column("maximizing, minimizing, adversarial-up or adversarial-down", kind),
        "is_grey": Column("red, green and blue were kept equal", is_grey),
        "seed": Column("of the noise it started from; -1: it started from a natural image", seed),
        "start_row": Column("which of the natural images it started from; -1: noise", start_row),
        "image": Column("RGB, 0 to 255", made),
        "answer": Column(f"of the student, {spikes}", predict(student, made)),
        "start_answer": Column(f"of the student to the image it started from, {spikes}", predict(student, start)),
    })


def _seed_similarity(images: Table) -> float:
    driven = (images["kind"] == "maximizing") & ~images["is_grey"] & (images["answer"] > images["start_answer"])
    pairs = np.array(list(combinations(np.flatnonzero(driven), 2)))
    pixels = images["image"].reshape(len(images), 3 * IMAGE_PX**2).T.astype(float)
    return float(correlation(pixels[:, pairs[:, 0]], pixels[:, pairs[:, 1]]).mean()) if len(pairs) else float("nan")
