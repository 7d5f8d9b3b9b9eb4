"""How well a model still predicts when images are not as they were: noise, blur, contrast, luminance, occlusion, small shifts.

The recorded responses are to the intact images, so this asks two things: how much of the prediction survives a change of the image (`r2`
with what was measured to the intact one), and how far the model's answer moves (`answer_r2` with its own intact answer). A change that
the animal would hardly notice should move neither.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

from nwb_compact.interpretation.receptive_field import Answers
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.progress import Advance, silent
from nwb_compact.reliability import correlation_where_known
from nwb_compact.student import IMAGE_PX

LEVELS: Mapping[str, tuple[float, ...]] = {
    "noise": (4.0, 8.0, 16.0, 32.0),
    "blur": (0.5, 1.0, 2.0, 4.0),
    "contrast": (0.75, 0.5, 0.25),
    "luminance": (-40.0, -20.0, 20.0, 40.0),
    "occlusion": (0.05, 0.1, 0.2),
    "shift": (1.0, 2.0, 4.0, 8.0),
}
MEANING = (
    "noise: SD of Gaussian noise, grey levels; blur: SD of a Gaussian, pixels; contrast: factor about the mean of the image; luminance: "
    "grey levels added; occlusion: share of the image that a square in its mean grey covers, somewhere; shift: pixels, in some direction"
)
"""What the levels are."""


def robustness(
    answers: Answers, n_units: int, images: UInt8[np.ndarray, "image 112 112 3"], measured: Float[np.ndarray, "image unit"], *, seed: int,
    model: str = "student", advance: Advance = silent,
) -> Table:
    """Scores on images that were changed.

    Parameters
    ----------
    answers
        The model.
    n_units
        Units it answers for.
    images
        Scored images.
    measured
        Repeat averages of the responses to them, NaN where there is none.
    seed
        Source of noise, places of occlusion and directions of shift.
    model
        What it is called.
    advance
        Told of changes.

    Returns
    -------
    One row a change and level, the first of all "none": `r2` and `answer_r2`, one column a unit.
    """
    units, steps = list(range(n_units)), [("none", 0.0), *((change, level) for change, levels in LEVELS.items() for level in levels)]
    intact = answers(images, units)
    r2, answer_r2 = np.empty((len(steps), n_units)), np.empty((len(steps), n_units))
    for row, (change, level) in enumerate(steps):
        rng = np.random.default_rng([seed, row])
        found = intact if change == "none" else answers(changed(images, change, level, rng), units)
        r2[row], answer_r2[row] = correlation_where_known(found, measured) ** 2, correlation_where_known(found, intact) ** 2
        advance(1)
    wide = "one column a unit, in the order of interpretation_tuning"
    return Table(f"scores of the {model} on scored images that were changed", {
        "change": Column(f"what was done to the images: none, {', '.join(LEVELS)}", np.array([change for change, _ in steps])),
        "level": Column(MEANING, np.array([level for _, level in steps])),
        "r2": Column(f"squared correlation with the responses measured to the intact images; {wide}", r2),
        "answer_r2": Column(f"squared correlation with the {model}'s answers to the intact images; {wide}", answer_r2),
    })


def changed(
    images: UInt8[np.ndarray, "image 112 112 3"], change: str, level: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "image 112 112 3"]:
    """Images after one change of `LEVELS`.

    Examples
    --------
    >>> half = changed(np.full((1, 112, 112, 3), 100, np.uint8), "luminance", 20.0, np.random.default_rng(0))
    >>> int(half[0, 0, 0, 0])
    120
    """
    return np.clip(np.rint(_CHANGES[change](images.astype(np.float32), level, rng)), 0, 255).astype(np.uint8)


def _occluded(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    side = round(IMAGE_PX * share**0.5)
    for image, (top, left) in zip(images, rng.integers(0, IMAGE_PX - side + 1, (len(images), 2)), strict=True):
        image[top : top + side, left : left + side] = image.mean()
    return images


def _shifted(images: np.ndarray, distance: float, rng: np.random.Generator) -> np.ndarray:
    """By whole pixels; what comes in at the border mirrors what is there."""
    angle = rng.uniform(0, 2 * np.pi, len(images))
    moves = np.rint(distance * np.stack([np.sin(angle), np.cos(angle)], axis=1)).astype(int)
    pad = round(distance)
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    return np.stack([one[pad + down : pad + down + IMAGE_PX, pad + right : pad + right + IMAGE_PX]
                     for one, (down, right) in zip(padded, moves, strict=True)])


_CHANGES: Mapping[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "noise": lambda images, level, rng: images + rng.normal(0, level, images.shape).astype(np.float32),
    "blur": lambda images, level, rng: gaussian_filter(images, (0, level, level, 0)),
    "contrast": lambda images, level, rng: level * images + (1 - level) * images.mean(axis=(1, 2, 3), keepdims=True),
    "luminance": lambda images, level, rng: images + level,
    "occlusion": _occluded,
    "shift": _shifted,
}
