"""A compact model behind a fixed model of V1: does such a front end stand changes of images better than learned filters?

Networks that recognise objects do with it (Dapello et al. 2020). Here the front end is the `vone` backbone, and what is learned from the
teacher on top of it is about as large as a student: one member of our teacher, narrow.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from nwb_compact import config
from nwb_compact.backbones import frozen_backbone, looked_at
from nwb_compact.interpretation.receptive_field import Answers
from nwb_compact.teacher import TeacherSession, fit_teacher

VALIDATION_SHARE = 0.2
"""Of the images, on which the best epoch is chosen."""


def vone_student(
    images: UInt8[np.ndarray, "image 112 112 3"], taught: Float[np.ndarray, "image unit"], settings: config.Interpret, *,
    visual_degrees: float, seed: int,
) -> tuple[Answers, int]:
    """Train one for all units.

    Parameters
    ----------
    images
        That it may learn from.
    taught
        The teacher's answers to them, spikes in the counting window.
    settings
        Its width.
    visual_degrees
        Width of the images in degrees of visual angle.
    seed
        Source of weights and order.

    Returns
    -------
    The model, and how many numbers it learned for all units together.
    """
    backbone = frozen_backbone("vone", vone_visual_degrees=visual_degrees)
    held, learned = np.split(np.random.default_rng(seed).permutation(len(images)), [round(VALIDATION_SHARE * len(images))])
    session = TeacherSession(looked_at(backbone, images), taught, np.sort(learned), np.sort(held))
    wanted = config.Teacher(backbone="vone", members=1, channels=settings.vone_channels, core_blocks=1)
    model = fit_teacher([session], wanted, seed=seed)

    def answers(shown: UInt8[np.ndarray, "image 112 112 3"], units: Sequence[int]) -> Float[np.ndarray, "image some"]:
        return model.predict(looked_at(backbone, shown), 0)[:, list(units)].astype(np.float64)

    return answers, model.n_parameters
