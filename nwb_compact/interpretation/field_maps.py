"""Two more maps of where a unit looks, beside that of `receptive_field`: sparse noise, as in an experiment, and the gradient of a student.

A single square on grey drives few neurons beyond V1, and a gradient tells of a small change only, not of a cover. Where the three agree,
the place can be believed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from nwb_compact.interpretation.open_student import OpenStudent, open_student
from nwb_compact.interpretation.stimuli import CONTRAST, GREY
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.results import IMAGE_PX, StudentWeights
from nwb_compact.streaming import as_tensor
from nwb_compact.student import predict_all

SQUARES = 14
"""Places a side at which a square is shown, 8 px each."""
GRADIENT_PLACES = 28
"""Places a side to which gradients are pooled, 4 px each: as many as a student's readout has."""
BATCH_IMAGES = 8


def field_maps(students: Sequence[StudentWeights], images: UInt8[np.ndarray, "image 112 112 3"]) -> Table:
    """Answers to sparse noise, and how strongly the answer to natural images depends on each place.

    Parameters
    ----------
    students
        One a unit.
    images
        Some tens of natural images.

    Returns
    -------
    One row a unit: `sparse_bright` and `sparse_dark` (14 14), answers to one square less the answer to the blank screen, spikes; and
    `gradient_map` (28 28), RMS over images, colours and pixels of a place of the answer's gradient, spikes a grey level.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> maps = field_maps([example_student()], np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8))
    >>> maps["sparse_dark"].shape, maps["gradient_map"].shape
    ((1, 14, 14), (1, 28, 28))
    """
    answers = predict_all(students, sparse_noise())
    squares = (answers[1:] - answers[0]).T.reshape(len(students), 2, SQUARES, SQUARES)
    gradients = np.stack([gradient_map(open_student(student), images) for student in students])
    return Table("where each student looks, from sparse noise and from gradients", {
        UNIT: Column("the unit", np.arange(len(students))),
        "sparse_bright": Column("answer to a bright square at each place (row column), above the blank screen, spikes", squares[:, 0]),
        "sparse_dark": Column("the same of a dark square", squares[:, 1]),
        "gradient_map": Column("RMS gradient of the answer to natural images at each place (row column), spikes a grey level", gradients),
    })


def sparse_noise() -> UInt8[np.ndarray, "stimulus 112 112 3"]:
    """The blank screen, then one bright square at each place along rows, then one dark square.

    Examples
    --------
    >>> squares = sparse_noise()
    >>> squares.shape, np.unique(squares).tolist()
    ((393, 112, 112, 3), [22, 112, 202])
    """
    side = IMAGE_PX // SQUARES
    images = np.full((1 + 2 * SQUARES**2, IMAGE_PX, IMAGE_PX, 3), round(GREY), np.uint8)
    for number, image in enumerate(images[1:]):
        polarity, place = divmod(number, SQUARES**2)
        top, left = (side * index for index in divmod(place, SQUARES))
        image[top : top + side, left : left + side] = round(GREY * (1 - CONTRAST if polarity else 1 + CONTRAST))
    return images


def gradient_map(student: OpenStudent, images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "28 28"]:
    """RMS gradient of a student's answer at each place; NaN where the answer is not a number."""
    squares = torch.zeros(IMAGE_PX, IMAGE_PX)
    for start in range(0, len(images), BATCH_IMAGES):
        some = as_tensor(images[start : start + BATCH_IMAGES], "cpu").requires_grad_()
        squares += torch.autograd.grad(student.answer(some).sum(), some)[0].square().sum(dim=(0, 1))
    side = IMAGE_PX // GRADIENT_PLACES
    pooled = squares.reshape(GRADIENT_PLACES, side, GRADIENT_PLACES, side).mean(dim=(1, 3))
    return (pooled / (3 * len(images))).sqrt().numpy()
