"""One training of neuralpredictors for `benchmarks/teacher.py`, which starts it with the python of the peer's own environment.

    python benchmarks/teacher_peer.py DATA.npz ANSWERS.npy BUDGET_S THREADS SETTINGS

Stacked2dCore and one FullGaussian2d a session, as in the baseline of the Sensorium competition (Willeke et al. 2022, arXiv:2206.08666;
github.com/sinzlab/sensorium): images z-scored, responses divided by their standard deviation, Poisson loss scaled by
sqrt(images / batch) plus the peer's own regularisers, Adam, and its `early_stopping` on the validation correlation, which decays the
rate and returns to the best weights. Three things are done for its sake, because its training has no notion of a budget: what it holds
when the time is over is judged once more, an epoch may be cut into rounds, and the rate may fall along a cosine over the budget.

Its release 0.3.0 imports torchvision, which does not import beside a CPU build of torch, and collections.Iterable, which Python 3.10
removed. Both are put in place before the import; what is used here touches neither.

This file imports nothing of nwb_compact: the peer's environment does not have it.
"""

import collections
import collections.abc
import copy
import json
import math
import sys
import time
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from peak_memory import peak_mib
from torch import Tensor, nn
from torch.nn import functional

collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]
sys.modules["torchvision"] = types.ModuleType("torchvision")

from neuralpredictors.layers.cores.conv2d import Stacked2dCore  # noqa: E402
from neuralpredictors.layers.encoders import FiringRateEncoder  # noqa: E402
from neuralpredictors.layers.readouts import FullGaussian2d, MultiReadoutBase  # noqa: E402
from neuralpredictors.measures.modules import PoissonLoss  # noqa: E402
from neuralpredictors.training.early_stopping import early_stopping  # noqa: E402
from neuralpredictors.utils import get_module_output  # noqa: E402

CORE = {
    "hidden_channels": 64, "layers": 4, "input_kern": 9, "hidden_kern": 7, "depth_separable": True, "gamma_input": 6.3831,
    "pad_input": False, "stride": 1, "hidden_dilation": 1, "stack": -1, "laplace_padding": None, "input_regularizer": "LaplaceL2norm",
    "bias": True, "momentum": 0.1, "independent_bn_bias": True, "use_avg_reg": False,
}
READOUT = {"bias": True, "init_mu_range": 0.3, "init_sigma": 0.1, "gauss_type": "full", "feature_reg_weight": 0.0076}
TRAINING = {"image_px": 56, "batch": 128, "accumulate": 9, "rounds": 1, "lr": 0.009, "lr_min": 1e-4, "decays": 4, "decay": 0.3,
            "patience": 5, "tolerance": 1e-6, "cosine": False, "seed": 0, "verbose": False}
"""The Sensorium baseline's numbers. `image_px`: side of the images. `accumulate`: batches, one a session in turn, behind one step.
`rounds`: parts of an epoch, each with a validation of its own. `cosine`: the rate also falls along a cosine over the budget."""
EVALUATION_BATCH = 128
LAST_SHARE = 1.7
"""What is still to do when time is over, in validations: one more, and the scored images, half as many here; a little is left over."""


class Clock:
    """Seconds since training began, and when to stop so that the answers are ready in time."""

    def __init__(self, budget_s: float):
        self.begin, self.budget_s, self.reserve_s = time.monotonic(), budget_s, 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.begin

    @property
    def is_over(self) -> bool:
        return self.elapsed_s + self.reserve_s >= self.budget_s


@dataclass
class Best:
    """The weights that were best on validation images, kept here too because a training that ran out of time never hands over its own."""

    score: float = -math.inf
    weights: dict[str, Tensor] | None = None

    def judge(self, score: float, model: nn.Module) -> None:
        if score > self.score:
            self.score, self.weights = score, copy.deepcopy(model.state_dict())


def main() -> None:
    """Train until the budget is over; leave the answers to the scored images, and one line of JSON about the training."""
    data_path, answers_path, budget_s, threads, changes = sys.argv[1:]
    torch.set_num_threads(int(threads))
    warnings.filterwarnings("ignore")
    settings = CORE | READOUT | TRAINING | json.loads(changes)
    torch.manual_seed(settings["seed"])
    with np.load(data_path) as data:
        stored = dict(data)
    clock = Clock(float(budget_s))
    sessions, scored = prepared(stored, settings["image_px"])
    stored.clear()
    model = built(sessions, settings)
    best, epochs = trained(model, sessions, settings, clock)
    model.load_state_dict(best.weights)
    predicted = answers(model, scored, "0", sessions["0"].image_mean, sessions["0"].image_sd)
    np.save(answers_path, predicted * sessions["0"].scale)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    seconds = clock.elapsed_s
    notes = f"{settings['image_px']} px, {epochs:.1f} epochs, validation r {best.score:.3f}, {parameters:,} parameters"
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(), "notes": notes}))


@dataclass(frozen=True, eq=False)
class PeerSession:
    """Images and responses as the peer takes them."""

    images: Tensor
    """uint8 (image 3 row column)."""
    responses: Tensor
    """Means over standard deviation (image unit); NaN where a unit has none."""
    fit: np.ndarray
    validation: np.ndarray
    scale: np.ndarray
    image_mean: float
    image_sd: float


def prepared(data: dict[str, np.ndarray], image_px: int) -> tuple[dict[str, PeerSession], Tensor]:
    """Sessions by key, and the scored images, all at the size asked for."""
    n_sessions = sum(name.startswith("mean_") for name in data)
    small = {str(k): resized(data[f"images_{k}"], image_px) for k in range(n_sessions)}
    seen = torch.cat([small[str(k)][data[f"fit_{k}"]].flatten() for k in range(n_sessions)])
    level, sd = float(seen.float().mean()), float(seen.float().std())
    sessions = {}
    for k in range(n_sessions):
        fit = data[f"fit_{k}"]
        scale = np.nanstd(data[f"mean_{k}"][fit], axis=0)
        scale[~(scale > 1e-9)] = 1.0
        responses = torch.from_numpy((data[f"mean_{k}"] / scale).astype(np.float32))
        sessions[str(k)] = PeerSession(small[str(k)], responses, fit, data[f"validation_{k}"], scale, level, sd)
    return sessions, resized(data["scored_images"], image_px)


def resized(images: np.ndarray, image_px: int) -> Tensor:
    """uint8 (image row column 3) to uint8 (image 3 image_px image_px)."""
    parts = []
    for start in range(0, len(images), 256):
        part = torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2)
        if image_px != images.shape[1]:
            part = functional.interpolate(part.float(), size=(image_px, image_px), mode="bilinear", antialias=True).round().clamp(0, 255)
        parts.append(part.to(torch.uint8))
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def built(sessions: dict[str, PeerSession], settings: dict) -> nn.Module:
    """Core, readouts, and the peer's encoder around them."""
    px = settings["image_px"]
    core = Stacked2dCore(input_channels=3, **{name: settings[name] for name in CORE})
    shape = get_module_output(core, (1, 3, px, px), use_cuda=False)[1:]
    # The encoder answers elu(x) + 1. The baseline starts with the mean as bias and so answers too much; from this one it answers the mean.
    means = {key: torch.nanmean(one.responses[one.fit], dim=0).clamp(min=0.02) for key, one in sessions.items()}
    bias = {key: torch.where(mean > 1, mean - 1, mean.log()) for key, mean in means.items()}
    units = {key: one.responses.shape[1] for key, one in sessions.items()}
    readout = MultiReadoutBase(dict.fromkeys(sessions, tuple(shape)), units, FullGaussian2d, mean_activity_dict=bias,
                               **{name: settings[name] for name in READOUT})
    return FiringRateEncoder(core, readout)


def trained(model: nn.Module, sessions: dict[str, PeerSession], settings: dict, clock: Clock) -> tuple[Best, float]:
    """The best weights on validation images, and how many epochs there were time for."""
    best = Best()

    def objective(model: nn.Module) -> float:
        begin = time.monotonic()
        score = validation_r(model, sessions)
        clock.reserve_s = LAST_SHARE * (time.monotonic() - begin)  # for the last judgement and the answers
        best.judge(score, model)
        if settings["verbose"]:
            print(f"{clock.elapsed_s:.1f} s, validation r {score:.4f}", file=sys.stderr)
        return score

    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=settings["decay"], patience=settings["patience"], threshold=settings["tolerance"],
        min_lr=settings["lr_min"], threshold_mode="abs",
    )
    criterion, n_batches, per_epoch = PoissonLoss(avg=False), 0, epoch_batches(sessions, settings)
    batches = endless(sessions, settings)
    model.train()
    rounds = early_stopping(
        model, objective, interval=1, patience=settings["patience"], max_iter=100_000, tolerance=settings["tolerance"],
        scheduler=scheduler, lr_decay_steps=settings["decays"],
    )
    for _ in rounds:
        for _ in range(max(1, per_epoch // settings["rounds"])):
            key, images = next(batches)
            loss(model, criterion, sessions[key], key, images).backward()
            n_batches += 1
            if n_batches % settings["accumulate"] == 0:
                step(optimizer, settings, clock)
            if clock.is_over:
                break
        if clock.is_over:
            break
    if clock.is_over:
        model.eval()
        objective(model)
    return best, n_batches / per_epoch


def step(optimizer: torch.optim.Optimizer, settings: dict, clock: Clock) -> None:
    """One step of Adam, its rate scaled by a cosine over the budget where that is asked for."""
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, clock.elapsed_s / clock.budget_s))) if settings["cosine"] else 1.0
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] *= share
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):  # the scheduler knows nothing of the cosine
        group["lr"] = rate


def loss(model: nn.Module, criterion: nn.Module, session: PeerSession, key: str, images: np.ndarray) -> Tensor:
    """Poisson loss of one batch over the units that have responses, scaled as the baseline does, and the regularisers."""
    target = session.responses[images]
    predicted = model(as_input(session.images[images], session.image_mean, session.image_sd), data_key=key)
    known = torch.isfinite(target)
    scale = math.sqrt(len(session.fit) / len(images))
    return scale * criterion(predicted[known], target[known]) + model.regularizer(key)


def epoch_batches(sessions: dict[str, PeerSession], settings: dict) -> int:
    """Batches in which every session's images are seen once, on average."""
    return sum(max(1, round(len(one.fit) / settings["batch"])) for one in sessions.values())


def endless(sessions: dict[str, PeerSession], settings: dict) -> Iterator[tuple[str, np.ndarray]]:
    """One batch of each session in turn, each session begun again when its images are used up (the peer's LongCycler)."""
    rng = np.random.default_rng(settings["seed"])
    streams = {key: shuffled(one.fit, settings["batch"], rng) for key, one in sessions.items()}
    while True:
        for key, stream in streams.items():
            yield key, next(stream)


def shuffled(images: np.ndarray, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        yield from np.array_split(rng.permutation(images), max(1, round(len(images) / batch)))


def as_input(images: Tensor, level: float, sd: float) -> Tensor:
    return (images.float() - level) / sd


def validation_r(model: nn.Module, sessions: dict[str, PeerSession]) -> float:
    """Mean correlation over all units of all sessions; a unit that does not vary counts as 0."""
    r = []
    for key, one in sessions.items():
        predicted = answers(model, one.images[one.validation], key, one.image_mean, one.image_sd)
        target = one.responses[one.validation].numpy()
        for unit in range(target.shape[1]):
            known = np.isfinite(target[:, unit])
            x, y = predicted[known, unit], target[known, unit]
            varies = known.sum() > 2 and x.std() > 1e-9 and y.std() > 1e-9
            r.append(np.corrcoef(x, y)[0, 1] if varies else 0.0)
    return float(np.mean(r))


def answers(model: nn.Module, images: Tensor, key: str, level: float, sd: float) -> np.ndarray:
    """Expected responses (image unit), from the mean of each unit's position."""
    model.eval()
    with torch.inference_mode():
        parts = [model(as_input(part, level, sd), data_key=key) for part in images.split(EVALUATION_BATCH)]
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    main()
