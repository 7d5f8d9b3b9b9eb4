"""Images made for a neuron: those that its student answers most and least, and small changes of photographs that raise or lower its answer.

An image is moved along the gradient of the answer (activity maximisation: Erhan, Bengio, Courville & Vincent 2009). The study (Cowley,
Stan, Pillow & Smith, Nature 2026) starts from uniform noise of 128 to 178 and takes 1,000 steps of 10 grey levels along the gradient over
its RMS, blurred by 1 px; it blurs the image by 1 px each 50 steps and keeps the best image seen. Four things are ours:

- Contrast is matched: each image has the mean and the RMS contrast (SD over all pixels and channels) of natural images, so that none wins
  by contrast alone.
- Contrast grows from that of faint noise to the full one, so that little of it is left to what the noise happened to be.
- Steps shrink geometrically, so that 100 are enough and the last image is the one to keep.
- What a student answers, its neuron need not. Gradients are taken at shifted images (Olah, Mordvintsev & Schubert 2017), and colour weighs
  less in them than luminance, as it varies less in natural images. Images made so drive other models of the same neuron more.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float32, Integer, Shaped, UInt8
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from nwb_compact.config import Interpret
from nwb_compact.interpretation.open_student import OpenStudent, open_student
from nwb_compact.results import StudentWeights
from nwb_compact.streaming import as_tensor
from nwb_compact.student import IMAGE_PX

NOISE = (128.0, 178.0)
"""Grey levels between which the noise lies that an image starts from (the study's)."""
FAINT_CONTRAST = 10.0
"""RMS contrast of that noise at the start, grey levels."""
MATCHINGS = 4
"""Times that mean and contrast are set and levels clipped to 0..255, which moves both again, less each time."""
SHIFT_SEED = 0
"""Of the shifts, which all images share, so that an image follows from its own seed alone."""

Images = Float32[Tensor, "image 3 112 112"]


def synthesise(
    student: StudentWeights, direction: Integer[np.ndarray, "image"], is_grey: Bool[np.ndarray, "image"],
    seed: Integer[np.ndarray, "image"], settings: Interpret, *, mean_level: float, contrast: float,
) -> UInt8[np.ndarray, "image 112 112 3"]:
    """Images that a student answers most or least, at the mean and the contrast of natural images.

    Parameters
    ----------
    student
        Of one unit.
    direction
        Of each image: 1 for one that is answered most, -1 for one that is answered least.
    is_grey
        Whether its red, green and blue are to be equal.
    seed
        Of the noise it starts from. But for rounding, an image does not depend on which others are made beside it.
    settings
        How.
    mean_level, contrast
        Mean and SD over all pixels and channels that the images are to have, grey levels.

    Returns
    -------
    RGB. Where the answer depends on no pixel (a constant student, or one with NaN) it is blurred noise.

    Examples
    --------
    >>> from nwb_compact.student import example_student, predict
    >>> student, few = example_student(), Interpret(steps=10)
    >>> images = synthesise(student, np.array([1, -1]), np.zeros(2, bool), np.zeros(2, int), few, mean_level=110.0, contrast=40.0)
    >>> most, least = predict(student, images)
    >>> bool(most > least), images.std(axis=(1, 2, 3)).round().tolist()
    (True, [40.0, 40.0])
    """
    opened, sign = open_student(student), _of_images(direction)
    chroma = _of_images(np.where(is_grey, 0.0, settings.chroma))
    blur, image = _blur_matrix(settings.blur_px), _matched(_noise(is_grey, seed), mean_level, FAINT_CONTRAST)
    steps = _steps(settings.first_step, settings.last_step, settings.steps, settings.shift_px)
    for number, (size, shift) in enumerate(steps, start=1):
        image = image + sign * size * _conditioned(_gradient(opened, image, shift), chroma, blur)
        if number % settings.blur_every == 0 and number < settings.steps:
            image = _blurred(image, blur)
        grown = min(1.0, number / max(1.0, settings.growing_share * settings.steps))
        image = _matched(image, mean_level, FAINT_CONTRAST + grown * (contrast - FAINT_CONTRAST))
    return _as_images(image)


def adversarial(
    student: StudentWeights, images: UInt8[np.ndarray, "image 112 112 3"], direction: Integer[np.ndarray, "image"], settings: Interpret,
) -> UInt8[np.ndarray, "image 112 112 3"]:
    """Images changed a little, so that a student answers them more or less (projected gradient: Madry et al. 2018).

    Parameters
    ----------
    student
        Of one unit.
    images
        To be changed.
    direction
        Of each image: 1 to be answered more, -1 to be answered less.
    settings
        How, and how much: the mean absolute change over pixels and channels is at most `adversarial_budget`. A change that
        would be larger is made smaller in proportion, so that it keeps its shape.

    Returns
    -------
    RGB; the same images where the answer depends on no pixel.
    """
    opened, sign, chroma = open_student(student), _of_images(direction), torch.tensor(settings.chroma)
    blur, start = _blur_matrix(settings.blur_px), as_tensor(images, "cpu")
    change = torch.zeros_like(start)
    for size, shift in _steps(settings.adversarial_first_step, settings.last_step, settings.adversarial_steps, settings.shift_px):
        change = change + sign * size * _conditioned(_gradient(opened, start + change, shift), chroma, blur)
        change = (start + change).clamp(0, 255) - start
        change = change * (settings.adversarial_budget / _mean(change.abs()).clamp_min(1e-6)).clamp_max(1.0)
    return _within_budget(images, change, settings.adversarial_budget)


def faint_noise(
    is_grey: Bool[np.ndarray, "image"], seed: Integer[np.ndarray, "image"], mean_level: float
) -> UInt8[np.ndarray, "image 112 112 3"]:
    """What `synthesise` starts from."""
    return _as_images(_matched(_noise(is_grey, seed), mean_level, FAINT_CONTRAST))


def _steps(first: float, last: float, n: int, shift_px: int) -> Iterator[tuple[float, Integer[np.ndarray, "2"]]]:
    """Size of each step, grey levels, and by how many pixels, down and right, the image is shifted for it."""
    shifts = np.random.default_rng(SHIFT_SEED).integers(-shift_px, shift_px + 1, (n, 2))
    return zip(np.geomspace(first, last, n).tolist(), shifts, strict=True)


def _gradient(student: OpenStudent, images: Images, shift: Integer[np.ndarray, "2"]) -> Images:
    """Of each answer to the image shifted, its border reflected."""
    images, border = images.detach().requires_grad_(), int(np.abs(shift).max())
    top, left = (border - shift).tolist()
    shifted = functional.pad(images, (border,) * 4, mode="reflect")[:, :, top : top + IMAGE_PX, left : left + IMAGE_PX]
    answers = student.answer(shifted.contiguous(memory_format=torch.channels_last))
    return torch.nan_to_num(torch.autograd.grad(answers.sum(), images)[0], 0.0, 0.0, 0.0)


def _conditioned(gradient: Images, chroma: Tensor, blur: Tensor) -> Images:
    """A step of RMS 1 along the gradient, blurred and with less colour; 0 where there is no gradient."""
    grey = gradient.mean(dim=1, keepdim=True)
    smooth = _blurred(grey + chroma * (gradient - grey), blur)
    scaled = smooth / smooth.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)  # the square of a small gradient would vanish
    return scaled / _mean(scaled**2).sqrt().clamp_min(1e-6)


def _matched(images: Images, mean_level: float, contrast: float) -> Images:
    for _ in range(MATCHINGS):
        centred = images - _mean(images)
        images = (mean_level + centred * (contrast / _mean(centred**2).sqrt().clamp_min(1e-6))).clamp(0, 255)
    return images


def _noise(is_grey: Bool[np.ndarray, "image"], seed: Integer[np.ndarray, "image"]) -> Images:
    drawn = [np.random.default_rng(one).uniform(*NOISE, (IMAGE_PX, IMAGE_PX, 3)) for one in seed]
    pixels = np.reshape(drawn, (-1, IMAGE_PX, IMAGE_PX, 3))
    pixels[is_grey] = pixels[is_grey][..., :1]
    return torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)


def _blur_matrix(sigma_px: float) -> Float32[Tensor, "112 112"]:
    """What each line of an image becomes: a Gaussian over its neighbours, with borders reflected."""
    return torch.from_numpy(ndimage.gaussian_filter1d(np.eye(IMAGE_PX, dtype=np.float32), sigma_px, axis=0))


def _blurred(images: Images, blur: Float32[Tensor, "112 112"]) -> Images:
    return blur @ images @ blur.T


def _mean(images: Images) -> Float32[Tensor, "image 1 1 1"]:
    return images.mean(dim=(1, 2, 3), keepdim=True)


def _of_images(values: Shaped[np.ndarray, "image"]) -> Float32[Tensor, "image 1 1 1"]:
    return torch.from_numpy(values.astype(np.float32))[:, None, None, None]


def _as_images(images: Images) -> UInt8[np.ndarray, "image 112 112 3"]:
    return images.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def _within_budget(images: UInt8[np.ndarray, "image 112 112 3"], change: Images, budget: float) -> UInt8[np.ndarray, "image 112 112 3"]:
    """Whole grey levels, of which rounding may have added too many: then the change is made smaller until they fit."""
    while True:
        made = _as_images((as_tensor(images, "cpu") + change).clamp(0, 255))
        too_large = np.abs(made.astype(int) - images).mean(axis=(1, 2, 3)) > budget
        if not too_large.any():
            return made
        change = change * _of_images(np.where(too_large, 0.99, 1.0))
