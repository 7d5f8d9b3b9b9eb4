"""The teacher: an ensemble that predicts every neuron as well as we can, without regard to size.

Each member is a small convolutional core over the backbone's map, shared by all units of all sessions, and a factorised readout a unit
(Klindt et al. 2017, and the study's final map): a weight for each channel times a weight for each place. Members differ by
seed and are averaged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer
from torch import Tensor, nn

from nwb_compact import config
from nwb_compact.backbones import ConvTrunk, as_tensor, to_device
from nwb_compact.progress import Advance, silent
from nwb_compact.training import Batch, Plan, Task, derived_seed, train

SPATIAL_RATE = 30.0
"""Learning rate of the spatial weights, which start at 1, over that of the rest. On V4, 30 and 100 did the same on validation images."""
PREDICTION_BATCH = 128
"""Images a step when predicting; does not change the predictions."""


@dataclass(frozen=True, eq=False)
class TeacherSession:
    """What the teacher may know of one session."""

    inputs: np.ndarray
    """float16 feature maps (image channel row column) of a frozen backbone, or uint8 images (image height width 3) for `conv`."""
    mean: Float[np.ndarray, "image unit"]
    """Repeat averages; NaN where a unit has none, and on images it may not learn from."""
    fit_images: Integer[np.ndarray, "fit"]
    validation_images: Integer[np.ndarray, "held"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained ensemble. `predict` gives expected counts."""

    members: tuple["TeacherMember", ...]
    offset: tuple[Float32[np.ndarray, "_"], ...]
    """Mean count of each session's units over their fitting images, and their standard deviation below."""
    scale: tuple[Float32[np.ndarray, "_"], ...]
    validation_r2: tuple[float, ...]
    """Best validation score of each member."""
    device: str

    @property
    def n_parameters(self) -> int:
        """Trained numbers of all members (a frozen backbone's weights are not among them)."""
        return sum(parameter.numel() for member in self.members for parameter in member.parameters())

    def predict(self, inputs: np.ndarray, session: int) -> Float32[np.ndarray, "image unit"]:
        """Expected count of each unit of one session (its place in the training list) on each image, averaged over members."""
        total = np.zeros((len(inputs), len(self.scale[session])), np.float32)
        for member in self.members:
            total += _predict(member, inputs, session, self.device)
        return total / np.float32(len(self.members)) * self.scale[session] + self.offset[session]


def fit_teacher(
    sessions: Sequence[TeacherSession], settings: config.Teacher, *, seed: int, device: str = "cpu",
    checkpoints: Path | None = None, advance: Advance = silent,
) -> Teacher:
    """Train an ensemble on the fitting images of several sessions at once.

    Responses are z-scored by the fitting images (so that no unit outweighs another); the loss is their mean squared error; training
    stops on the validation images.

    Parameters
    ----------
    sessions
        All with inputs of the same kind; each gets readouts of its own.
    settings
        Sizes and rates.
    seed
        Source of all randomness.
    device
        cpu or cuda; on a GPU training runs in mixed precision.
    checkpoints
        Folder for resuming; a member that is complete there is not trained again.
    advance
        Told of every epoch of every member.

    Returns
    -------
    The ensemble; sessions keep their order.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> maps = rng.normal(size=(60, 4, 3, 3)).astype(np.float16)
    >>> mean = maps.astype(float).mean(axis=(2, 3)) @ np.ones((4, 1)) + 3
    >>> session = TeacherSession(maps, mean, np.arange(40), np.arange(40, 60))
    >>> teacher = fit_teacher([session], config.Teacher(backbone="none", members=1, epochs=2, channels=8), seed=0)
    >>> teacher.predict(maps, 0).shape
    (60, 1)
    """
    standard = [_standardise(session) for session in sessions]
    members, best = [], []
    for number in range(settings.members):
        member_seed = derived_seed(seed, "member", number)
        torch.manual_seed(member_seed)
        network = to_device(TeacherMember(sessions, settings), device)
        task = _task(network, sessions, [z for z, _, _ in standard], settings, member_seed, device)
        plan = Plan(settings.epochs, settings.learning_rate, settings.decay, settings.decay_after, settings.patience)
        checkpoint = checkpoints / f"teacher_{number}.pt" if checkpoints else None
        best.append(train(task, plan, seed=member_seed, checkpoint=checkpoint, advance=advance))
        members.append(network.requires_grad_(False))
    return Teacher(tuple(members), tuple(o for _, o, _ in standard), tuple(s for _, _, s in standard), tuple(best), device)


class TeacherMember(nn.Module):
    """One network: trunk (only for `conv`), core, factorised readouts."""

    def __init__(self, sessions: Sequence[TeacherSession], settings: config.Teacher):
        super().__init__()
        from_images = sessions[0].inputs.dtype == np.uint8
        self.trunk = ConvTrunk(settings.trunk_channels) if from_images else None
        shape, width = sessions[0].inputs.shape, settings.channels
        inputs = settings.trunk_channels if from_images else shape[1]
        rows, columns = (shape[1] // ConvTrunk.STRIDE, shape[2] // ConvTrunk.STRIDE) if from_images else shape[2:]
        self.core = nn.Sequential(
            nn.BatchNorm2d(inputs, affine=False), nn.Dropout2d(settings.dropout),
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            *(_Residual(width, 5 if from_images else 3) for _ in range(settings.core_blocks)), nn.BatchNorm2d(width),
        )
        self.readouts = nn.ModuleList(FactorisedReadout(session.mean.shape[1], width, rows * columns) for session in sessions)

    def forward(self, inputs: Tensor, session: int) -> Tensor:
        """Maps or images of one batch to z-scored responses (batch unit)."""
        maps = self.trunk(inputs) if self.trunk is not None else inputs
        return self.readouts[session](self.core(maps))


class FactorisedReadout(nn.Module):
    """A unit is a weight a channel times a weight a place: channel + row x column numbers instead of their product."""

    def __init__(self, n_units: int, channels: int, places: int):
        super().__init__()
        self.mixing = nn.Parameter(torch.randn(n_units, channels) / channels**0.5)
        self.spatial = nn.Parameter(1 + 0.2 * torch.randn(n_units, places))  # times 1 / places: a flat average is all ones
        self.bias = nn.Parameter(torch.zeros(n_units))

    def forward(self, maps: Tensor) -> Tensor:
        """(batch channel row column) to (batch unit)."""
        by_place = maps.permute(0, 2, 3, 1).flatten(1, 2)
        return ((by_place @ self.mixing.T) * self.spatial.T).mean(dim=1) + self.bias


class _Residual(nn.Module):
    """x + pointwise(relu(norm(depthwise(x)))): space and channels mixed apart, as in the study's teacher."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.norm, self.pointwise = nn.BatchNorm2d(width), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(torch.relu(self.norm(self.depthwise(x))))


def _standardise(
    session: TeacherSession,
) -> tuple[Float32[np.ndarray, "image unit"], Float32[np.ndarray, "unit"], Float32[np.ndarray, "unit"]]:
    """z-scored responses, with the mean and standard deviation over fitting images; a unit that never varies keeps a scale of 1."""
    fit = session.mean[session.fit_images]
    answered = np.isfinite(fit).any(axis=0)
    offset, scale = np.zeros(fit.shape[1]), np.ones(fit.shape[1])
    offset[answered], scale[answered] = np.nanmean(fit[:, answered], axis=0), np.nanstd(fit[:, answered], axis=0)
    scale[scale < 1e-9] = 1.0
    return ((session.mean - offset) / scale).astype(np.float32), offset.astype(np.float32), scale.astype(np.float32)


def _task(
    network: TeacherMember, sessions: Sequence[TeacherSession], targets: Sequence[np.ndarray], settings: config.Teacher,
    seed: int, device: str,
) -> Task:
    spatial = [readout.spatial for readout in network.readouts]
    own = {id(parameter) for parameter in spatial}
    others = [parameter for parameter in network.parameters() if id(parameter) not in own]
    # Adam moves a weight by at most the rate, decoupled decay pulls it back by rate x weight: with decay 1 no place can weigh more than
    # about its share of a flat average, so a readout stays broad unless the data insist (docs/methods.md).
    groups = [
        {"params": others, "weight_decay": settings.weight_decay},
        {"params": spatial, "weight_decay": 1.0, "learning_rate_factor": SPATIAL_RATE},
    ]

    def batches(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(derived_seed(seed, "batches", epoch))
        chunks = []
        for place, session in enumerate(sessions):
            if len(session.fit_images) == 0:
                continue  # all that was shown there is scored elsewhere
            order = rng.permutation(session.fit_images)
            n = max(1, round(len(order) / settings.batch_images))
            chunks += [(place, chunk) for chunk in np.array_split(order, n)]
        for chunk in rng.permutation(len(chunks)):
            yield chunks[chunk]

    def loss(batch: Batch) -> Tensor:
        place, images = batch
        target = torch.from_numpy(targets[place][images]).to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            predicted = network(_to_device(sessions[place].inputs[images], device), place)
        known = torch.isfinite(target)
        squares = torch.where(known, (predicted.float() - torch.nan_to_num(target)) ** 2, 0.0)
        return squares.sum() / known.sum().clamp(min=1)

    def validate() -> float:
        scores = []
        for place, session in enumerate(sessions):
            if len(session.validation_images) == 0:
                continue
            predicted = _predict(network, session.inputs[session.validation_images], place, device)
            scores.append(_mean_r2(predicted, targets[place][session.validation_images]))
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else 0.0

    return Task(network, groups, batches, loss, validate)


def _mean_r2(predicted: Float32[np.ndarray, "image unit"], target: Float32[np.ndarray, "image unit"]) -> float:
    """Mean over units of r2 where r is positive, over the images each unit has; NaN if no unit varies."""
    known = np.isfinite(target)
    n = np.maximum(known.sum(axis=0), 1)
    x, y = np.where(known, predicted, 0), np.where(known, target, 0)
    x, y = np.where(known, x - x.sum(axis=0) / n, 0), np.where(known, y - y.sum(axis=0) / n, 0)
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    varies = scale > 1e-9
    r = (x * y).sum(axis=0)[varies] / scale[varies]
    return float(np.mean(np.clip(r, 0, None) ** 2)) if varies.any() else float("nan")


def _to_device(inputs: np.ndarray, device: str) -> Tensor:
    if inputs.dtype == np.uint8:
        return as_tensor(inputs, device)
    return torch.from_numpy(np.ascontiguousarray(inputs)).to(device).float().contiguous(memory_format=torch.channels_last)


def _predict(member: TeacherMember, inputs: np.ndarray, session: int, device: str) -> Float32[np.ndarray, "image unit"]:
    member.eval()
    with torch.inference_mode():
        steps = range(0, len(inputs), PREDICTION_BATCH)
        answers = [member(_to_device(inputs[start : start + PREDICTION_BATCH], device), session).float().cpu().numpy() for start in steps]
    return np.concatenate(answers)
