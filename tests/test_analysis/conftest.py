"""Made-up fits and sessions of any size: plausible numbers, no network trained, no file written."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from nwb_compact.results import SCORE_COLUMNS, Results, StudentWeights, score_columns
from nwb_compact.session import About, Images, MeanResponses, Presentations, ResponseUnits, Session, SpikeCounts, Units

mpl.use("agg")  # no window, on any machine
NOISE_SCORES = [name for name in SCORE_COLUMNS if any(part in name for part in ("_er", "feve", "single_trial", "reliab", "cc_max", "snr"))]


@pytest.fixture(scope="session")
def make_fit() -> Callable[..., tuple[Results, Session]]:
    """`make_fit(n_units, n_images, ...)` gives the results and the session they belong to."""
    return made_up_fit


@pytest.fixture
def close_figures() -> Iterator[None]:
    """For tests that let a function make its own figure."""
    yield
    plt.close("all")


def made_up_fit(
    n_units: int = 4,
    n_images: int = 40,
    *,
    names: tuple[str, ...] | None = None,
    grey: bool = False,
    pixels: bool = True,
    averages_only: bool = False,
    nan_units: tuple[int, ...] = (),
    filters: int = 30,
    baselines: tuple[str, ...] = (),
    seed: int = 0,
) -> tuple[Results, Session]:
    rng = np.random.default_rng(seed)
    unit_name = names or tuple(f"unit-{unit + 1}" for unit in range(n_units))
    sha256 = tuple(f"{image:064x}" for image in range(n_images))
    rate = rng.gamma(1.5, 2.0, (n_images, n_units))
    gain = rng.uniform(0.3, 1.2, n_units)
    teacher = (rate * rng.lognormal(0, 0.4, rate.shape)).astype(np.float32)
    student = (teacher * rng.lognormal(0, 0.2, rate.shape)).astype(np.float32)
    repeats = rng.integers(2, 6, n_images)
    image_index = np.repeat(np.arange(n_images), repeats)
    presentations = Presentations(
        image_index=image_index.astype(np.uint32),
        repeat=np.concatenate([np.arange(n) for n in repeats]).astype(np.uint32),
        is_valid=np.arange(len(image_index)) != 0,
    )
    count = rng.poisson((rate * gain)[image_index]).astype(np.uint16)
    shape = (n_images, 112, 112) if grey else (n_images, 112, 112, 3)
    session = Session(
        about=About("made-up", "a made-up session", datetime(2026, 1, 1, tzinfo=UTC), session_id="made-up"),
        subject=None,
        images=Images(tuple(f"image-{i}" for i in range(n_images)), sha256, pixels=_pictures(rng, shape) if pixels else None),
        presentations=None if averages_only else presentations,
        units=Units(unit_name),
        response_units=ResponseUnits(np.arange(n_units, dtype=np.uint32), np.full(n_units, 0.05), np.full(n_units, 0.15)),
        counts=None if averages_only else SpikeCounts(np.arange(len(image_index), dtype=np.uint32), count),
        mean_responses=MeanResponses(rate * gain) if averages_only else None,
    )
    results = _results(rng, unit_name, sha256, teacher, student, range(n_units) if averages_only else nan_units, filters)
    return _with_baselines(results, baselines), session


def _with_baselines(results: Results, baselines: tuple[str, ...]) -> Results:
    """Each baseline half as good as the one before it, the first half as good as the student."""
    scores = dict(results.scores)
    for name in (name for name in score_columns(baselines) if name not in SCORE_COLUMNS):
        model, _, score = name.partition("_")
        scores[name] = results.scores[f"student_{score}"] / 2 ** (1 + baselines.index(model))
    meanings = {f"baseline.{name}": f"made-up {name}" for name in baselines}
    return replace(results, scores=scores, provenance={**results.provenance, **meanings})


def _results(rng, unit_name, sha256, teacher, student, nan_units, filters) -> Results:
    n = len(unit_name)
    teacher_r2 = np.clip(rng.normal(0.45, 0.15, n), 0.02, 0.95)
    student_r2 = np.clip(teacher_r2 - rng.uniform(-0.02, 0.12, n), 0.01, 0.95)
    scores = {name: rng.uniform(0.2, 0.9, n) for name in SCORE_COLUMNS}
    scores |= {"teacher_r2": teacher_r2, "student_r2": student_r2, "teacher_r2_er": teacher_r2 * 1.35, "student_r2_er": student_r2 * 1.35}
    for who in ("teacher", "student"):
        spread = rng.uniform(0.03, 0.25, n)
        scores |= {f"{who}_r2_er_low": scores[f"{who}_r2_er"] - spread, f"{who}_r2_er_high": scores[f"{who}_r2_er"] + spread}
    scores["student_parameters"] = np.round(rng.normal(9000, 1500, n))
    scores["compression"] = 1_200_000 / scores["student_parameters"]
    late = (rng.integers(3, 9, n) for _ in range(3))
    kept = np.stack([rng.integers(filters // 2, filters + 1, n), rng.integers(20, 48, n), *late], axis=1)
    scores["student_filters"] = kept.sum(axis=1).astype(float)
    scores["student_bytes"] = 4 * scores["student_parameters"]
    for name in NOISE_SCORES:
        scores[name][list(nan_units)] = np.nan
    reason = tuple("repeat averages only: noise cannot be told from signal" if unit in nan_units else "" for unit in range(n))
    side = ["fit" if i < len(sha256) * 0.4 else "validation" if i < len(sha256) * 0.5 else "scored" for i in range(len(sha256))]
    return Results(
        run_id="made-up-1",
        unit_name=unit_name,
        scores=scores,
        reason=reason,
        image_sha256=sha256,
        side=tuple(side),
        teacher_prediction=teacher,
        student_prediction=student,
        teacher_member_prediction=teacher[:, :, None] + rng.normal(0, 0.2, (*teacher.shape, 3)).astype(np.float32),
        filters_per_layer=kept,
        students=tuple(StudentWeights({"layer1.kernel": _gabors(rng, int(row[0]))}) for row in kept),
        provenance={"preset": "quick", "seed": "0", "teacher_parameters": "1200000"},
    )


def _gabors(rng, n: int) -> np.ndarray:
    y, x = np.mgrid[-2:3, -2:3]
    angle, phase = rng.uniform(0, np.pi, (2, n, 1, 1))
    wave = np.cos(1.6 * (x * np.cos(angle) + y * np.sin(angle)) + phase) * np.exp(-(x**2 + y**2) / 4)
    colour = rng.normal(1.0, 0.6, (n, 3, 1, 1)) * rng.uniform(0.01, 1, (n, 1, 1, 1))
    return (colour * wave[:, None]).astype(np.float32)


def _pictures(rng, shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[0:112, 0:112] / 112
    pictures = np.empty(shape, np.uint8)
    for i in range(shape[0]):
        waves = rng.normal(size=(5, 2)) * 12
        grating = sum(np.sin(a * x + b * y + rng.uniform(0, 6)) for a, b in waves)
        tint = rng.uniform(0.3, 1, 3) if len(shape) == 4 else 1.0
        field = 127 + 25 * (grating[..., None] * tint if len(shape) == 4 else grating)
        pictures[i] = np.clip(field, 0, 255).astype(np.uint8)
    return pictures
