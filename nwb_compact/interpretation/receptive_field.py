"""Where in an image a unit looks: what covering a place of natural images does to its answers.

Occlusion needs nothing but answers, so it is the same for a student, its teacher and a simulated neuron, and natural images drive also
neurons that no square of sparse noise drives (Zeiler & Fergus 2014).
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from nwb_compact.interpretation.stimuli import inside
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.progress import Advance, silent
from nwb_compact.results import IMAGE_PX

Answers = Callable[[UInt8[np.ndarray, "image 112 112 3"], Sequence[int]], Float[np.ndarray, "image chosen"]]
"""A model: what the chosen units answer to images, expected spikes in the counting window."""

PLACES = 8
"""Places a side that are covered in turn, each 14 px wide."""
NEAR_PX = 4.0
"""Receptive fields are taken as this near to each other at least, so that units nearby see the same images, drawn once."""
SOFT_PX = 4.0
"""Over how many pixels a cover fades out, so that it brings no edge of its own."""


def receptive_fields(answers: Answers, n_units: int, images: UInt8[np.ndarray, "image 112 112 3"]) -> Table:
    """Centre, size and map of each unit's receptive field.

    Parameters
    ----------
    answers
        The model.
    n_units
        Units it answers for.
    images
        Some tens of natural images.

    Returns
    -------
    One row a unit: `rf_row_px` and `rf_column_px` from the centre of the image, `rf_diameter_px`, and `rf_map` (8 8), the mean squared
    change of the answer over images as a share of its sum. The field is where the change is at least half of the largest (its square
    a quarter), since students answer a little to all places; its centre is the mean of these places, weighted by their share, its
    diameter that of a disk of their area. NaN where no cover changes anything.
    """
    units = list(range(n_units))
    whole = answers(images, units)
    change = np.stack([((answers(covered(images, place), units) - whole) ** 2).mean(axis=0) for place in range(PLACES**2)], axis=1)
    total = change.sum(axis=1, keepdims=True)
    share = np.divide(change, total, out=np.full(change.shape, np.nan), where=total > 0)
    field = np.where(share >= share.max(axis=1, keepdims=True) / 4, share, 0 * share)
    row, column = (_centre_px(index) for index in np.divmod(np.arange(PLACES**2), PLACES))
    area_px, weight = (field > 0).sum(axis=1) * (IMAGE_PX / PLACES) ** 2, field.sum(axis=1)
    return Table("receptive fields of the students, from covering places of natural images", {
        UNIT: Column("the unit", np.arange(n_units)),
        "rf_row_px": Column("centre of the receptive field, pixels downwards from the centre of the image", field @ row / weight),
        "rf_column_px": Column("the same, to the right", field @ column / weight),
        "rf_diameter_px": Column(
            "of a disk of the area where the change is at least half of the largest, pixels of the 112 of an image",
            np.where(area_px > 0, 2 * np.sqrt(area_px / np.pi), np.nan),
        ),
        "rf_map": Column("share of the mean squared change of the answer when a place is covered (row column)",
                         share.reshape(n_units, PLACES, PLACES)),
    })


def shown_at_fields(
    answers: Answers, receptive_fields: Table, draw: Callable[[float, float], UInt8[np.ndarray, "stimulus 112 112 3"]], *,
    advance: Advance = silent,
) -> Float[np.ndarray, "stimulus unit"]:
    """What every unit answers to images that are made for the place where it looks.

    Parameters
    ----------
    answers
        The model.
    receptive_fields
        From `receptive_fields`; a unit without one is shown images made for the middle.
    draw
        Images for a place, pixels downwards and to the right of the centre of an image.
    advance
        Told of units.
    """
    centre = np.stack([receptive_fields["rf_row_px"], receptive_fields["rf_column_px"]], axis=1)
    near = np.rint(np.nan_to_num(centre) / NEAR_PX).astype(int)
    found = []
    for place in np.unique(near, axis=0):
        units = np.flatnonzero((near == place).all(axis=1))
        found.append((units, answers(draw(*(place * NEAR_PX).tolist()), units.tolist())))
        advance(len(units))
    order = np.argsort(np.concatenate([units for units, _ in found]))
    return np.concatenate([of_units for _, of_units in found], axis=1)[:, order]


def covered(images: UInt8[np.ndarray, "image 112 112 3"], place: int) -> UInt8[np.ndarray, "image 112 112 3"]:
    """Images with one of the 64 places, counted along rows, painted over in the image's own mean colour.

    Examples
    --------
    >>> images = np.zeros((1, 112, 112, 3), np.uint8)
    >>> images[:, :14, :14] = 255
    >>> int(covered(images, 0)[0, 5, 5, 0])
    4
    """
    away = [np.abs(np.arange(IMAGE_PX) - (IMAGE_PX - 1) / 2 - _centre_px(np.array([index]))) for index in divmod(place, PLACES)]
    opacity = np.outer(*(inside(IMAGE_PX / PLACES / 2 - distance, SOFT_PX) for distance in away))[None, :, :, None]
    mean = images.mean(axis=(1, 2), keepdims=True)
    return np.rint(images + opacity * (mean - images)).astype(np.uint8)


def _centre_px(index: np.ndarray) -> np.ndarray:
    """Centre of a place from the centre of the image."""
    return (index - (PLACES - 1) / 2) * (IMAGE_PX / PLACES)
