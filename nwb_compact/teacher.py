"""The teacher: an ensemble that predicts every neuron as well as we can, without regard to size.

Each member is a small convolutional core over the backbone's map, shared by all units of all sessions, and a readout a unit (see
`ensemble`). Members differ by seed and by how much they heed each lent session, and are averaged; how far they disagree tells how sure
the average is.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer
from torch import Tensor
from torch.nn import functional

from nwb_compact import config
from nwb_compact.ensemble import Ensemble
from nwb_compact.operations import alike
from nwb_compact.out_of_memory import in_halves
from nwb_compact.progress import Advance, silent
from nwb_compact.reliability import standardising
from nwb_compact.streaming import on_device, one_ahead, read_rows
from nwb_compact.training import Batch, Plan, Task, cut, derived_seed, train

SPATIAL_RATE = 10.0
"""Learning rate of the spatial weights, which start at 1, over that of the rest (docs/measured.md)."""
CONV_RATE = 0.3
"""Learning rate where the trunk is trained too, over that on frozen features (docs/measured.md)."""
PREDICTION_BATCH = 128
"""Images a step when predicting; does not change the predictions."""
MEMBERS_TOGETHER = {"cpu": 1, "cuda": 32}
"""Members computed at once: on a CPU the maps of one stay in its cache, a GPU wants many."""
STANDARDISED_BY = 200
"""Images of each session from which the spread of a backbone's channels is taken."""
SMALLEST_RATE = 1e-3
"""Spikes in the counting window; keeps the Poisson likelihood finite."""


@dataclass(frozen=True, eq=False)
class TeacherSession:
    """What the teacher may know of one session."""

    inputs: np.ndarray
    """float16 feature maps (image channel row column) of a frozen backbone, or uint8 images (image height width 3) for `conv`."""
    mean: Float[np.ndarray, "image unit"]
    """Repeat averages; NaN where a unit has none, and on images it may not learn from."""
    fit_images: Integer[np.ndarray, "fit"]
    validation_images: Integer[np.ndarray, "held"]
    n_repeats: Float[np.ndarray, "image"] | None = None
    """Presentations behind each average, by which images are weighted; None where the source does not say."""
    is_lent: bool = False
    """Whether members may differ in how much they heed it."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained ensemble. `predict` gives expected counts."""

    network: Ensemble
    offset: tuple[Float32[np.ndarray, "_"], ...]
    """Mean count of each session's units over their fitting images, and their standard deviation below."""
    scale: tuple[Float32[np.ndarray, "_"], ...]
    loss: str
    """What it was trained on, which decides how answers become counts."""
    validation_r2: tuple[float, ...]
    """Validation score of the average of the first 1, 2, ... members."""
    member_validation_r2: tuple[float, ...]
    weight_decay: float
    device: str

    @property
    def n_parameters(self) -> int:
        """Trained numbers of all members (a frozen backbone's weights are not among them)."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def n_parameters_of(self, session: int) -> int:
        """Those that make the answer of one unit of a session: what all units share, and the unit's own readout."""
        sizes = {name: parameter.numel() for name, parameter in self.network.named_parameters()}
        shared = sum(size for name, size in sizes.items() if not name.startswith("readouts."))
        readout = sum(size for name, size in sizes.items() if name.startswith(f"readouts.{session}."))
        return shared + readout // len(self.offset[session])

    def predict(self, inputs: np.ndarray, session: int) -> Float32[np.ndarray, "image unit"]:
        """Expected count of each unit of one session (its place in the training list) on each image, averaged over members."""
        return self.predict_members(inputs, session).mean(axis=0)

    def predict_members(self, inputs: np.ndarray, session: int) -> Float32[np.ndarray, "member image unit"]:
        """The same of each member; where they disagree the teacher does not know."""
        z = _answers(self.network, inputs, session, self.device)
        return _counts(z, self.offset[session], self.scale[session], self.loss)


def fit_teacher(
    sessions: Sequence[TeacherSession], settings: config.Teacher, *, seed: int, device: str = "cpu",
    checkpoints: Path | None = None, advance: Advance = silent,
) -> Teacher:
    """Train an ensemble on the fitting images of several sessions at once, all members in one pass over the features.

    Responses are z-scored by the fitting images, so that no unit outweighs another, and images weighted by their repeats. The
    validation images choose the weight decay, if there is a choice, and the epoch that is kept.

    Parameters
    ----------
    sessions
        All with inputs of the same kind; each gets readouts of its own.
    settings
        Sizes and rates.
    seed
        Source of all randomness.
    device
        cpu or cuda; on a GPU training runs in mixed precision with a compiled core.
    checkpoints
        Folder for resuming: epochs that are complete there are not trained again.
    advance
        Told of every epoch; `all_epochs` in all.

    Returns
    -------
    The ensemble; sessions keep their order.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> maps = rng.normal(size=(60, 4, 3, 3)).astype(np.float16)
    >>> mean = maps.astype(float).mean(axis=(2, 3)) @ np.ones((4, 1)) + 3
    >>> session = TeacherSession(maps, mean, np.arange(40), np.arange(40, 60))
    >>> settings = config.Teacher(backbone="none", members=2, epochs=2, least_steps=1, channels=8)
    >>> teacher = fit_teacher([session], settings, seed=0)
    >>> teacher.predict(maps, 0).shape, teacher.predict_members(maps, 0).shape
    ((60, 1), (2, 60, 1))
    """
    training = _Training(tuple(sessions), tuple(_standardised(session) for session in sessions), settings, seed, device, checkpoints)
    decay = settings.weight_decay[0]
    if len(settings.weight_decay) > 1:
        pilots = [_pilot(training, value, advance) for value in settings.weight_decay]
        decay = settings.weight_decay[int(np.argmax(pilots))]
    network = _trained(training, decay, n_epochs(sessions, settings)[1], "teacher.pt", advance)
    held = _held_answers(network, training)
    return Teacher(
        network.requires_grad_(False), tuple(one.offset for one in training.known), tuple(one.scale for one in training.known),
        settings.loss, weight_decay=decay, device=device,
        validation_r2=tuple(_score([z[:n].mean(axis=0) for z in held], training) for n in range(1, settings.members + 1)),
        member_validation_r2=tuple(_score([z[member] for z in held], training) for member in range(settings.members)),
    )


def n_epochs(sessions: Sequence[TeacherSession], settings: config.Teacher) -> tuple[int, int]:
    """Epochs of the pilot of each weight decay (none where there is no choice), and of the training itself."""
    steps = sum(max(1, round(len(session.fit_images) / settings.batch_images)) for session in sessions if len(session.fit_images))
    epochs = max(settings.epochs, -(-settings.least_steps // max(steps, 1)))
    return math.ceil(settings.pilot_share * epochs) if len(settings.weight_decay) > 1 else 0, epochs


def all_epochs(sessions: Sequence[TeacherSession], settings: config.Teacher) -> int:
    """Epochs that `fit_teacher` tells of, pilots included."""
    pilot, epochs = n_epochs(sessions, settings)
    return len(settings.weight_decay) * pilot + epochs


# Targets and training, caller above what it calls ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Known:
    """Targets of one session."""

    z: Float32[np.ndarray, "image unit"]
    offset: Float32[np.ndarray, "unit"]
    scale: Float32[np.ndarray, "unit"]
    weight: Float32[np.ndarray, "image"]
    """Of each image, 1 on average over the fitting images."""
    answered: float
    """Share of the answers to fitting images that are known."""


@dataclass(frozen=True, eq=False)
class _Training:
    """What every training of an ensemble on these sessions has in common."""

    sessions: tuple[TeacherSession, ...]
    known: tuple[_Known, ...]
    settings: config.Teacher
    seed: int
    device: str
    checkpoints: Path | None


def _standardised(session: TeacherSession) -> _Known:
    """z-scored by mean and standard deviation over fitting images; a unit that never varies there keeps a scale of 1."""
    fit = session.mean[session.fit_images]
    offset, scale = standardising(fit)
    weight = np.ones(len(session.mean)) if session.n_repeats is None else session.n_repeats
    if len(session.fit_images):
        weight = weight / weight[session.fit_images].mean()
    z, known = (session.mean - offset) / scale, float(np.isfinite(fit).mean()) if fit.size else 0.0
    return _Known(z.astype(np.float32), offset.astype(np.float32), scale.astype(np.float32), weight.astype(np.float32), max(known, 1e-9))


def _pilot(training: _Training, decay: float, advance: Advance) -> float:
    """Validation score of one member after a short training with one weight decay."""
    alone = replace(training, settings=training.settings.model_copy(update={"members": 1}))
    epochs, _ = n_epochs(training.sessions, training.settings)
    network = _trained(alone, decay, epochs, f"teacher_pilot_{decay}.pt", advance)
    return _score([z[0] for z in _held_answers(network, alone)], alone)


def _trained(training: _Training, decay: float, epochs: int, checkpoint: str, advance: Advance) -> Ensemble:
    first, settings = training.sessions[0].inputs, training.settings
    n_units = [one.z.shape[1] for one in training.known]
    network = Ensemble(first.shape[1:], n_units, settings, from_images=first.dtype == np.uint8, seed=training.seed)
    if first.dtype != np.uint8:
        network.standardise_by(some.inputs[some.fit_images[:STANDARDISED_BY]] for some in training.sessions)
    network.to(training.device)
    if training.device == "cuda":
        network.compile_core()
    path = training.checkpoints / checkpoint if training.checkpoints else None
    seed, rate = derived_seed(training.seed, "teacher"), settings.learning_rate * (CONV_RATE if network.trunk is not None else 1)
    train(_task(network, training, decay), Plan(epochs, rate), seed=seed, checkpoint=path, advance=advance)
    return network


def _task(network: Ensemble, training: _Training, decay: float) -> Task:
    sessions, settings, device = training.sessions, training.settings, training.device
    heed = torch.from_numpy(_heed(training)).to(device)

    def batches(epoch: int) -> Iterator[Batch]:
        for step, batch in enumerate(one_ahead(_shuffled(training, epoch), read)):
            yield derived_seed(training.seed, "step", epoch, step), *batch

    def read(asked: tuple[int, np.ndarray]) -> tuple[int, Tensor, Tensor, Tensor]:
        place, rows = asked
        one = training.known[place]
        return place, read_rows(sessions[place].inputs, rows, device), read_rows(one.z, rows, device), read_rows(one.weight, rows, device)

    def parts(batch: Batch, pieces: int) -> Iterator[Batch]:
        key, place, inputs, *told = batch
        x = network.standardised(on_device(inputs, device))
        target, weight = (values.to(device, non_blocking=True) for values in told)
        for members in _together(settings.members, device):
            for number, piece in enumerate(cut((x, target, weight), pieces)):
                yield derived_seed(key, number), place, members, *piece

    def loss(part: Batch) -> Tensor:
        key, place, members, x, target, weight, share = part
        noise = [torch.Generator(device).manual_seed(derived_seed(key, member)) for member in range(members.start, members.stop)]
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            z = network(x, place, members, noise).float()
        error = _error(z, target.T, weight, training.known[place], settings.loss)
        return share * (error * heed[members, place]).sum()

    def validate() -> float:
        return _score([z.mean(axis=0) for z in _held_answers(network, training)], training)

    return Task(network, _parameter_groups(network, decay), batches, loss, parts, validate)


def _shuffled(training: _Training, epoch: int) -> list[tuple[int, Integer[np.ndarray, "batch"]]]:
    """The batches of an epoch, in a new order: the place of a session, and some of its fitting images."""
    rng = np.random.default_rng(derived_seed(training.seed, "batches", epoch))
    chunks = []
    for place, session in enumerate(training.sessions):
        if len(session.fit_images) == 0:
            continue  # all that was shown there is scored elsewhere
        order = rng.permutation(session.fit_images)
        chunks += [(place, rows) for rows in np.array_split(order, max(1, round(len(order) / training.settings.batch_images)))]
    return [chunks[chunk] for chunk in rng.permutation(len(chunks))]


def _heed(training: _Training) -> Float32[np.ndarray, "member session"]:
    """What each session's errors weigh for each member: for lent ones a Bayesian bootstrap (Rubin 1981), 1 on average, else 1."""
    lent = np.array([session.is_lent for session in training.sessions])
    weights = np.ones((training.settings.members, len(lent)), np.float32)
    for member, row in enumerate(weights if training.settings.resample_sessions and lent.any() else ()):
        drawn = np.random.default_rng(derived_seed(training.seed, "sessions", member)).exponential(size=lent.sum())
        row[lent] = drawn / drawn.mean()
    return weights


def _parameter_groups(network: Ensemble, decay: float) -> list[dict[str, Any]]:
    """Spatial weights apart.

    Adam moves a weight by at most the rate, decoupled decay pulls it back by rate x weight: with decay 1 no place can weigh more than about
    its share of a flat average, so a readout stays broad unless the data insist (docs/methods.md).
    """
    own = {name: parameter for name, parameter in network.named_parameters() if name.endswith((".spatial", ".place", ".spread"))}
    spatial = [parameter for name, parameter in own.items() if name.endswith(".spatial")]
    places = [parameter for name, parameter in own.items() if not name.endswith(".spatial")]
    others = [parameter for name, parameter in network.named_parameters() if name not in own]
    groups = [
        {"params": others, "weight_decay": decay},
        {"params": spatial, "weight_decay": 1.0, "learning_rate_factor": SPATIAL_RATE},
        {"params": places, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _error(
    z: Float[Tensor, "member unit batch"], target: Float[Tensor, "unit batch"], weight: Float[Tensor, "batch"], known: _Known, loss: str
) -> Float[Tensor, "member"]:
    """Mean error over the answers that are known, in z-scores, or a Poisson likelihood that weighs units about alike."""
    answered = torch.isfinite(target)
    target = torch.nan_to_num(target)
    if loss == "mse":
        error = (z - target) ** 2
    else:
        offset, scale = (torch.from_numpy(values)[:, None].to(z.device) for values in (known.offset, known.scale))
        rate = _rate(offset + scale * z)
        error = (rate - (offset + scale * target) * rate.log()) * offset.clamp(min=SMALLEST_RATE) / scale**2
    # Divided by how many answers a batch has on average, not by those of this piece, so that pieces add up to their batch.
    return torch.where(answered, error * weight, 0.0).mean(dim=(1, 2)) / known.answered


def _rate(x: Tensor) -> Tensor:
    """Expected count above 0: x itself where it is well above."""
    return functional.softplus(x, beta=4) + SMALLEST_RATE


# Answers and their score ----------------------------------------------------------------------------------------------


def _held_answers(network: Ensemble, training: _Training) -> list[Float32[np.ndarray, "member image unit"]]:
    """Expected counts for each session's validation images."""
    return [
        _counts(_answers(network, session.inputs, place, training.device, session.validation_images), one.offset, one.scale,
                training.settings.loss)
        for place, (session, one) in enumerate(zip(training.sessions, training.known, strict=True))
    ]


def _counts(
    z: Float32[np.ndarray, "member image unit"], offset: Float32[np.ndarray, "unit"], scale: Float32[np.ndarray, "unit"], loss: str
) -> Float32[np.ndarray, "member image unit"]:
    counts = z * scale + offset
    return counts if loss == "mse" else _rate(torch.from_numpy(counts)).numpy()


def _answers(
    network: Ensemble, inputs: np.ndarray, session: int, device: str, rows: Integer[np.ndarray, "some"] | None = None
) -> Float32[np.ndarray, "member image unit"]:
    """z-scored answers of every member, in one pass over the inputs."""
    rows = np.arange(len(inputs)) if rows is None else rows
    network.eval()
    known: dict[Any, int] = {}
    answers = [np.empty((network.n_members, 0, network.readouts[session].mixing.shape[1]), np.float32)]
    asked = [rows[start : start + PREDICTION_BATCH] for start in range(0, len(rows), PREDICTION_BATCH)]
    with torch.inference_mode():
        for read in one_ahead(asked, lambda some: read_rows(inputs, some, device)):
            with alike(known, len(read)):
                z = in_halves(lambda x: _of_all_members(network, x, session, device), read, dim=2)
            answers.append(z.transpose(1, 2).numpy())
    return np.concatenate(answers, axis=1)


def _of_all_members(network: Ensemble, read: Tensor, session: int, device: str) -> Float32[Tensor, "member unit batch"]:
    x = network.standardised(on_device(read, device))
    return torch.cat([network(x, session, members).float().cpu() for members in _together(network.n_members, device)])


def _together(n_members: int, device: str) -> list[slice]:
    n = MEMBERS_TOGETHER[device]
    return [slice(start, min(start + n, n_members)) for start in range(0, n_members, n)]


def _score(counts: Sequence[Float32[np.ndarray, "_ _"]], training: _Training) -> float:
    """Mean over sessions of the mean r2 over units, on validation images; 0 where no unit varies, NaN if the network diverged."""
    if not all(np.isfinite(one).all() for one in counts):
        return float("nan")
    scores = [_mean_r2(one, known.z[session.validation_images])
              for one, known, session in zip(counts, training.known, training.sessions, strict=True) if len(session.validation_images)]
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else 0.0


def _mean_r2(predicted: Float32[np.ndarray, "image unit"], target: Float32[np.ndarray, "image unit"]) -> float:
    """Mean over units of r2 where r is positive, over the images each unit has; NaN if no unit varies. A flat prediction explains 0."""
    known = np.isfinite(target)
    n = np.maximum(known.sum(axis=0), 1)
    x, y = np.where(known, predicted, 0), np.where(known, target, 0)
    x, y = np.where(known, x - x.sum(axis=0) / n, 0), np.where(known, y - y.sum(axis=0) / n, 0)
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    r = np.divide((x * y).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 1e-9)
    measured = (y**2).sum(axis=0) > 1e-9
    return float(np.mean(np.clip(r[measured], 0, None) ** 2)) if measured.any() else float("nan")
