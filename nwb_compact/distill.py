"""Distillation: a bank of students learns to answer as the teacher does, on many more images than the animal ever saw.

No recorded response is used here, and no image of the scored side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional

from nwb_compact import config
from nwb_compact.backbones import as_tensor, to_device
from nwb_compact.bank import Bank
from nwb_compact.out_of_memory import in_halves
from nwb_compact.progress import Advance, silent
from nwb_compact.streaming import on_device
from nwb_compact.student import IMAGE_PX, KERNEL_PX
from nwb_compact.training import Batch, Plan, Task, derived_seed, train
from nwb_compact.views import Pictures, views

EPOCHS = 20
"""A training is cut into so many equal parts: after each one a checkpoint may be written and the learning rate follows its cosine."""
READOUT_RATE = 0.1
"""Learning rate of the readout over that of the filters: its weights, one for each of 784 places, are about ten times smaller. With 1
instead, students of simulated neurons reached an r2 of 0.82 with their teacher after 5,000 images, against 0.92 (docs/measured.md)."""
BATCH_PREDICT = 64


@dataclass(frozen=True, eq=False)
class Lessons:
    """Images and what the teacher answers to them."""

    images: UInt8[np.ndarray, "lesson 112 112 3"]
    answer: Float32[np.ndarray, "lesson unit"]
    """Teacher's expected counts, z-scored by `offset` and `scale`."""
    offset: Float32[np.ndarray, "unit"]
    scale: Float32[np.ndarray, "unit"]
    """Mean and standard deviation of each unit's answers; 1 where the teacher never varies."""


def lessons(
    pictures: Pictures, answers: Callable[[np.ndarray, int], np.ndarray], settings: config.Distill, *, seed: int
) -> Lessons:
    """Ask the teacher about every view of every picture, once.

    Parameters
    ----------
    pictures
        What students may learn from: never an image of the scored side.
    answers
        The teacher: images, and the number of the view they are, to expected counts (image unit).
    settings
        How many views, and what they do.
    seed
        Source of the views.

    Examples
    --------
    >>> class Black:
    ...     def __len__(self): return 3
    ...     def read(self, rows): return np.zeros((len(rows), 112, 112, 3), np.uint8)
    >>> lessons(Black(), lambda x, view: np.ones((len(x), 2), np.float32), config.Distill(views=2), seed=0).answer.shape
    (6, 2)
    """
    every, n = np.arange(len(pictures)), len(pictures)
    images, answered = np.empty((settings.views * n, IMAGE_PX, IMAGE_PX, 3), np.uint8), []
    for number in range(settings.views):
        shown = images[number * n : (number + 1) * n]
        shown[:] = views(pictures, every, number, settings, seed=seed)
        answered.append(answers(shown, number))
    answer = np.concatenate(answered).astype(np.float32)
    offset, scale = answer.mean(axis=0), answer.std(axis=0)
    scale = np.where(scale < 1e-6, np.float32(1), scale)
    return Lessons(images, (answer - offset) / scale, offset, scale)


def train_bank(
    bank: Bank, taught: Lessons, settings: config.Distill, *, images_seen: int, learning_rate: float, seed: int, device: str = "cpu",
    checkpoint: Path | None = None, advance: Advance = silent,
) -> Bank:
    """Train all students of a bank on the teacher's answers by mean squared error; the bank is changed in place and returned.

    Spatial kernels of layers 2 to 5 are smoothed now and then (see docs/methods.md), which keeps filters readable and costs no accuracy.

    Parameters
    ----------
    bank
        New, or pruned and to be retrained.
    taught
        Images and answers.
    settings
        Batch size and smoothing.
    images_seen
        Length of the training, images.
    learning_rate
        At the start; falls along a cosine to 0.
    seed, device, checkpoint, advance
        As in `training.train`.

    Returns
    -------
    The same bank, in evaluation mode.
    """
    to_device(bank, device)
    per_epoch, n = -(-images_seen // EPOCHS), len(taught.images)

    def batches(epoch: int) -> Iterator[Batch]:
        drawn = _stream(n, epoch * per_epoch, per_epoch, seed)
        for chunk in np.array_split(drawn, max(1, round(len(drawn) / settings.batch_images))):
            yield (chunk,)

    def loss(part: Batch) -> Tensor:
        drawn, share = part
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            predicted = bank(as_tensor(taught.images[drawn], device))
        return share * functional.mse_loss(predicted.float(), torch.from_numpy(taught.answer[drawn]).to(device))

    smooth_after = {round(EPOCHS * 0.8 * (k + 1) / settings.blur_times) - 1 for k in range(settings.blur_times)}

    def after_epoch(epoch: int) -> None:
        if epoch in smooth_after and settings.kernel_blur_px > 0:
            smooth_kernels(bank, settings.kernel_blur_px)

    others = [parameter for parameter in bank.parameters() if parameter.requires_grad and parameter is not bank.readout]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": [bank.readout], "learning_rate_factor": READOUT_RATE}]
    task = Task(bank, groups, batches, loss, after_epoch=after_epoch)
    train(task, Plan(EPOCHS, learning_rate), seed=seed, checkpoint=checkpoint, advance=advance)
    return bank


def answers_of(
    bank: Bank, taught: Lessons, images: UInt8[np.ndarray, "image 112 112 3"], device: str = "cpu"
) -> Float32[np.ndarray, "image unit"]:
    """Expected counts of all students of a bank on each image."""
    return standardised_answers(bank, images, device) * taught.scale + taught.offset


def standardised_answers(
    bank: Bank, images: UInt8[np.ndarray, "image 112 112 3"], device: str = "cpu"
) -> Float32[np.ndarray, "image unit"]:
    """What a bank answers to each image, in the units it was trained on."""
    bank.eval()
    answers = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_PREDICT):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH_PREDICT]))
            answers.append(in_halves(lambda some: bank(on_device(some, device)).float().cpu(), batch, dim=0).numpy())
    return np.concatenate(answers)


def smooth_kernels(bank: Bank, sigma_px: float) -> None:
    """Convolve every spatial kernel of layers 2 to 5 with a Gaussian, in place."""
    x = torch.arange(KERNEL_PX) - KERNEL_PX // 2
    gauss = torch.exp(-(x**2) / (2 * sigma_px**2))
    blur = torch.outer(gauss, gauss) / gauss.sum() ** 2
    with torch.no_grad():
        for layer in bank.depthwise[max(bank.fixed_layers - 1, 0) :]:
            weight: Tensor = layer.weight
            weight.copy_(functional.conv2d(weight, blur.to(weight)[None, None], padding=KERNEL_PX // 2))


def _stream(n: int, start: int, length: int, seed: int) -> np.ndarray:
    """Places `start` to `start + length` of an endless sequence that visits all n lessons in a new order each pass."""
    passes = range(start // n, (start + length - 1) // n + 1)
    orders = [np.random.default_rng(derived_seed(seed, "pass", number)).permutation(n) for number in passes]
    return np.concatenate(orders)[start - passes[0] * n :][:length]
