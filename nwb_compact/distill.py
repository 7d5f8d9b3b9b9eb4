"""Distillation: a bank of students learns to answer as the teacher does, on many more images than the animal ever saw.

No recorded response is used here, and no image of the scored side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Integer, UInt8
from torch import Tensor

from nwb_compact import config
from nwb_compact.bank import SCALED_BY, Bank, BankShape, new_bank
from nwb_compact.bank_training import WARM_UP_STEPS, parameter_groups, smooth_kernels
from nwb_compact.progress import Advance, silent
from nwb_compact.streaming import as_tensor, one_ahead, to_device
from nwb_compact.training import Batch, Plan, Task, derived_seed, train
from nwb_compact.views import Pictures, views

EPOCHS = 20
"""A training is cut into so many equal parts: after each one a checkpoint may be written and the learning rate follows its cosine."""
SMOOTHED_SHARE = 0.8
"""Share of the first training in which kernels are smoothed; `config.Distill.blur_times` allows as many times as it has parts."""
ASKED_TOGETHER = 1024
"""Images that the teacher is asked about at a time; they and the backbone's features of them are in memory together."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """Views of images and what the teacher answers to them; lesson i is view i // n of picture i % n, where n is the number of pictures."""

    pictures: Pictures
    settings: config.Distill
    seed: int
    """Source of the views."""
    answers: tuple[Float32[np.ndarray, "picture unit"], ...]
    """Teacher's expected counts, one array a view, perhaps on a disk."""
    offset: Float32[np.ndarray, "unit"]
    scale: Float32[np.ndarray, "unit"]
    """Mean and standard deviation of each unit's answers, by which they are z-scored; 1 where the teacher never varies."""

    def __len__(self) -> int:
        return len(self.pictures) * len(self.answers)

    @property
    def n_units(self) -> int:
        """Units that the teacher answers for."""
        return len(self.scale)

    def images(self, drawn: Integer[np.ndarray, "lesson"]) -> UInt8[np.ndarray, "lesson 112 112 3"]:
        """What is shown."""
        number, row = np.divmod(drawn, len(self.pictures))
        return views(self.pictures, row, number, self.settings, seed=self.seed)

    def z(self, drawn: Integer[np.ndarray, "lesson"]) -> Float32[np.ndarray, "lesson unit"]:
        """What is wanted, z-scored."""
        number, row = np.divmod(drawn, len(self.pictures))
        wanted = np.stack([self.answers[view][picture] for view, picture in zip(number, row, strict=True)])
        return (wanted - self.offset) / self.scale


def n_views(n_pictures: int, settings: config.Fit) -> int:
    """How many views of each picture the teacher is asked about: `distill.views`, or as many as trainings can see where pictures are many.

    Examples
    --------
    >>> [n_views(n, config.configure()) for n in (16_000, 100_000, 1_000_000)]
    [8, 3, 1]
    >>> n_views(100_000, config.configure(changes={"prune": {"tolerance": (0.05,)}}))  # which retrains once a rung
    8
    """
    rungs = len(settings.prune.ladder) if settings.prune.tolerance else 1
    retrainings = rungs if settings.student.kind == "own" else 0
    seen = settings.distill.images_seen + retrainings * settings.prune.images_seen
    return min(settings.distill.views, -(-seen // n_pictures))


def asked(
    teacher: Callable[[np.ndarray], np.ndarray], pictures: Pictures, number: int, settings: config.Distill, *, seed: int,
    advance: Advance = silent,
) -> Float32[np.ndarray, "picture unit"]:
    """The teacher's answers to one view of every picture, some pictures at a time.

    Parameters
    ----------
    teacher
        Images (image 112 112 3) to expected counts (image unit).
    pictures
        What students may learn from: never an image of the scored side.
    number
        Which view.
    settings
        What views do.
    seed
        Source of the views.
    advance
        Told of pictures.
    """
    answers = np.empty((0, 0), np.float32)
    for start in range(0, len(pictures), ASKED_TOGETHER):
        rows = np.arange(start, min(start + ASKED_TOGETHER, len(pictures)))
        some = teacher(views(pictures, rows, number, settings, seed=seed))
        answers = answers if start else np.empty((len(pictures), some.shape[1]), np.float32)  # never in memory twice
        answers[rows] = some
        advance(len(rows))
    return answers


def lessons(
    pictures: Pictures, answers: tuple[Float32[np.ndarray, "picture unit"], ...], settings: config.Distill, *, seed: int
) -> Lessons:
    """Pictures and the answers to each view of them, made with the same settings and seed, as lessons.

    Examples
    --------
    >>> class Black:
    ...     def __len__(self): return 3
    ...     def read(self, rows): return np.zeros((len(rows), 112, 112, 3), np.uint8)
    >>> taught = lessons(Black(), (np.ones((3, 2), np.float32),) * 4, config.Distill(), seed=0)
    >>> len(taught), taught.images(np.array([0, 11])).shape, taught.z(np.array([11]))
    (12, (2, 112, 112, 3), array([[0., 0.]], dtype=float32))
    """
    some = [view[start : start + ASKED_TOGETHER] for view in answers for start in range(0, len(view), ASKED_TOGETHER)]  # lie on the disk
    n = sum(len(part) for part in some)
    offset = sum(part.sum(axis=0, dtype=np.float64) for part in some) / n
    spread = np.sqrt(sum(((part - offset) ** 2).sum(axis=0) for part in some) / n)
    scale = np.where(spread < 1e-6, 1.0, spread)
    return Lessons(pictures, settings, seed, answers, offset.astype(np.float32), scale.astype(np.float32))


def bank_for(taught: Lessons, shape: BankShape, *, seed: int) -> Bank:
    """A new bank, its filters scaled to a sample of the lessons."""
    some = np.random.default_rng(derived_seed(seed, "scale")).permutation(len(taught))[:SCALED_BY]
    return new_bank(shape, as_tensor(taught.images(some), "cpu"), seed=seed)


def train_bank(
    bank: Bank, taught: Lessons, settings: config.Distill, *, images_seen: int, learning_rate: float, seed: int, device: str = "cpu",
    checkpoint: Path | None = None, advance: Advance = silent,
) -> Bank:
    """Train all students of a bank on the teacher's answers (`Bank.loss`); the bank is changed in place and returned.

    Spatial kernels of layers 2 to 5 are smoothed now and then (see docs/methods.md), which keeps filters readable and costs no accuracy.

    Parameters
    ----------
    bank
        New, or pruned and to be retrained.
    taught
        Images and answers.
    settings
        Batch size, smoothing and sparsity.
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
    per_epoch = -(-images_seen // EPOCHS)

    def batches(epoch: int) -> Iterator[Batch]:
        drawn = _stream(len(taught), epoch * per_epoch, per_epoch, seed)
        chunks = np.array_split(drawn, max(1, round(len(drawn) / settings.batch_images)))
        return map(read, chunks) if device == "cpu" else one_ahead(chunks, read)  # a CPU's step uses every core: a second thread costs 30 %

    def read(chunk: np.ndarray) -> Batch:
        return taught.images(chunk), taught.z(chunk)

    def loss(part: Batch) -> Tensor:
        images, z, share = part
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            return share * bank.loss(as_tensor(images, device), torch.from_numpy(z).to(device))

    smooth_after = {round(EPOCHS * SMOOTHED_SHARE * (k + 1) / settings.blur_times) - 1 for k in range(settings.blur_times)}

    def after_epoch(epoch: int) -> None:
        if epoch in smooth_after and settings.kernel_blur_px > 0:
            smooth_kernels(bank, settings.kernel_blur_px)

    task = Task(bank, parameter_groups(bank, settings.sparsity), batches, loss, after_epoch=after_epoch)
    train(task, Plan(EPOCHS, learning_rate, WARM_UP_STEPS), seed=seed, checkpoint=checkpoint, advance=advance)
    return bank


def _stream(n: int, start: int, length: int, seed: int) -> np.ndarray:
    """Places `start` to `start + length` of an endless sequence that visits all n lessons in a new order each pass."""
    passes = range(start // n, (start + length - 1) // n + 1)
    orders = [np.random.default_rng(derived_seed(seed, "pass", number)).permutation(n) for number in passes]
    return np.concatenate(orders)[start - passes[0] * n :][:length]
