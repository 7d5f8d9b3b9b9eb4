"""Does a unit need what phases make of an image, contours and objects, or only its spectrum? Natural images against scrambled ones.

Neurons of V2 and V4 answer natural texture more than noise of the same spectrum, those of V1 do not (Freeman, Ziemba, Heeger, Simoncelli
& Movshon 2013, Nature Neuroscience 16:974). Here the images are the session's own and the noise is each image with random phases, so that
power, orientations and colours are the same and only their arrangement is lost.
"""

import numpy as np
from jaxtyping import Float, UInt8

from nwb_compact.interpretation.physiology import modulation_index
from nwb_compact.interpretation.receptive_field import Answers, shown_at_fields
from nwb_compact.interpretation.stimuli import APERTURE_PX, FADE_PX, GREY, RMS_CONTRAST, inside
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.results import IMAGE_PX


def structure(answers: Answers, receptive_fields: Table, images: UInt8[np.ndarray, "image 112 112 3"], *, seed: int) -> Table:
    """Mean answers to natural images and to the same with random phases, in an aperture on each unit's receptive field.

    Parameters
    ----------
    answers
        The model.
    receptive_fields
        From `receptive_field.receptive_fields`.
    images
        Some tens of natural images.
    seed
        Of the phases.

    Returns
    -------
    One row a unit: `natural_answer`, `scrambled_answer` (spikes) and `structure_modulation`, (natural - scrambled) / (natural + scrambled)
    of answers of at least 0, as Freeman et al. 2013; NaN where both are 0.
    """
    both = np.concatenate([images, scrambled(images, np.random.default_rng(seed))])
    found = shown_at_fields(answers, receptive_fields, lambda row_px, column_px: in_aperture(both, row_px, column_px))
    natural, noise = (np.maximum(part, 0).mean(axis=0) for part in np.split(found, 2))
    return Table(f"answers to {len(images)} natural images in an aperture, and to the same with random phases", {
        UNIT: Column("the unit", np.arange(len(natural))),
        "natural_answer": Column("mean answer of the student to natural images in an aperture, at equal contrast, spikes", natural),
        "scrambled_answer": Column("the same with random phases, spikes", noise),
        "structure_modulation": Column(
            "(natural - scrambled) / (natural + scrambled) (Freeman et al. 2013)", modulation_index(natural, noise)),
    })


def scrambled(images: UInt8[np.ndarray, "image 112 112 3"], rng: np.random.Generator) -> Float[np.ndarray, "image 112 112 3"]:
    """Images whose phases are changed at random, by the same in all three colours; not clipped.

    Examples
    --------
    >>> image = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    >>> noise = scrambled(image, np.random.default_rng(1))
    >>> power = [np.abs(np.fft.fft2(one[0, :, :, 1])) for one in (image, noise)]
    >>> bool(np.allclose(*power)), bool(abs(np.corrcoef(image.ravel(), noise.ravel())[0, 1]) < 0.1)
    (True, True)
    """
    phases = np.angle(np.fft.fft2(rng.standard_normal((len(images), IMAGE_PX, IMAGE_PX)), axes=(1, 2)))
    phases[:, 0, 0] = 0  # the mean stays
    spectrum = np.fft.fft2(images, axes=(1, 2)) * np.exp(1j * phases)[..., None]
    return np.fft.ifft2(spectrum, axes=(1, 2)).real


def in_aperture(
    images: Float[np.ndarray, "image 112 112 3"] | UInt8[np.ndarray, "image 112 112 3"], row_px: float, column_px: float
) -> UInt8[np.ndarray, "image 112 112 3"]:
    """What of images lies in an aperture about a place, at the mean and the contrast of gratings; grey elsewhere.

    Examples
    --------
    >>> image = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    >>> shown = in_aperture(image, 0.0, 0.0)
    >>> shown[0, 0, 0].tolist(), round(float(shown[0, 40:72, 40:72].std()) / 112, 1)
    ([112, 112, 112], 0.2)
    """
    place = np.arange(IMAGE_PX) - (IMAGE_PX - 1) / 2
    distance = np.hypot((place - row_px)[:, None], (place - column_px)[None, :])
    opacity = inside(APERTURE_PX / 2 - distance, FADE_PX)[None, :, :, None]
    weight = opacity / opacity.sum() / 3
    centred = images - (weight * images).sum(axis=(1, 2, 3), keepdims=True)
    contrast = np.sqrt((weight * centred**2).sum(axis=(1, 2, 3), keepdims=True))
    scaled = centred * (GREY * RMS_CONTRAST / np.maximum(contrast, 1e-6))
    return np.clip(np.rint(GREY + opacity * scaled), 0, 255).astype(np.uint8)
