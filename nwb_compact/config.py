"""Every number a person may change, one frozen model a stage, each with its unit and its source.

`configure(preset, file, changes)` gives those of a fit: a preset, under a TOML file, under single changes. `interpretation(file)` gives
those of `nwb-compact interpret`.
A setting that a stage does not use is not a field of it, so a wrong name is an error that names the nearest right one.
"""

import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from nwb_compact.errors import NwbCompactError, nearest

Width = Annotated[int, Field(ge=1, le=1024)]
"""Filters of a layer."""
Share = Annotated[float, Field(gt=0, lt=1)]


def _falling(shares: tuple[float, ...]) -> tuple[float, ...]:
    if any(before <= after for before, after in pairwise(shares)):
        raise PydanticCustomError("ladder", "shares that fall, such as [0.98, 0.9]")
    return shares


Ladder = Annotated[tuple[Share, ...], Field(min_length=1), AfterValidator(_falling)]
"""Each less than the one before."""


class Stage(BaseModel):
    """Base of all stages: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True)


_Settings = TypeVar("_Settings", bound=Stage)


class Split(Stage):
    """Which images fit and which score. Always by image identity, never by presentation."""

    method: Literal["first-half", "column", "random"] = "first-half"
    """first-half: the study's test sessions (see docs/methods.md). column: the file's own `split`, where 'test'
    is scored. random: by hash and seed."""
    scored_fraction: float = Field(0.5, gt=0, lt=1)
    """Share of the images that is scored, for `random`; the study used 0.5."""
    validation_fraction: float = Field(0.15, gt=0, lt=1)
    """Share of the fitting side that decides when to stop; never scored. A usual share, not tuned."""


class Teacher(Stage):
    """The accurate model: an ensemble over a backbone, one shared core, one readout a unit (see docs/methods.md)."""

    backbone: str = "conv"
    """`conv`: trained from scratch on the session. Frozen: `vone` (Gabor filters), `hf:FOLDER` or `hf:OWNER/MODEL` (a network of
    transformers), `torch:MODULE:FACTORY` (any torch network; see examples/)."""
    layer: str = "auto"
    """Layer of a frozen backbone of several; `auto`: the one from which ridge predicts validation images best. Nearest to
    the study's: `stage3` of ResNet-50."""
    vone_visual_degrees: float = Field(8.0, gt=0)
    """Width of the images in degrees of visual angle, which the `vone` backbone must know; 8 in the published block."""
    members: int = Field(5, ge=1)
    """Networks that differ by seed and by the weight they give to each lent session, and are averaged; the study used 25."""
    channels: int = Field(128, ge=4)
    """Width of the shared core, channels. The study: 512. On 190923 (validation images) 128 was better than 64."""
    core_blocks: int = Field(2, ge=0)
    """Residual blocks of the core; the study used 4."""
    trunk_channels: int = Field(32, ge=4)
    """Filters of each of the two convolutions of the `conv` backbone."""
    readout: Literal["factorised", "gaussian"] = "factorised"
    """factorised: a weight a channel times a weight a place (Klindt et al. 2017). gaussian: one place, learned (Lurz et al. 2021)."""
    loss: Literal["mse", "poisson"] = "mse"
    """mse: mean squared error of z-scored repeat averages, as the study. poisson: negative log-likelihood of counts."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of backbone channels left out at random, for each image, in a training step."""
    epochs: int = Field(30, ge=1)
    """Passes over the images; the epoch with the best validation score is kept."""
    least_steps: int = Field(1000, ge=1)
    """Steps of a training at least: few images are passed over more often than `epochs` says."""
    learning_rate: float = Field(1e-2, gt=0)
    """AdamW step size at the start, decayed along a cosine; `conv` learns at 0.3 of it (docs/measured.md)."""
    weight_decay: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.1,), min_length=1)
    """AdamW weight decay of all but the spatial readout, which has its own (see docs/methods.md). Of several, the one is taken with
    which a single member predicts validation images best in a shorter training."""
    pilot_share: float = Field(0.3, gt=0, le=1)
    """Length of that shorter training over that of the ensemble."""
    batch_images: int = Field(64, ge=2)
    """Images a step; 64 as the study."""
    most_kept_mb: float = Field(64.0, ge=0)
    """Largest size of the trained ensemble that each run keeps in the file, MB, so that `interpret` can ask it; five members take 2 MB."""
    resample_sessions: bool = True
    """Give each member its own random weights for the lent sessions (Bayesian bootstrap, Rubin 1981), so that members differ more."""


class Student(Stage):
    """The compact network (see docs/methods.md): five layers of 5 x 5 filters, separable after the first, a readout of 28 x 28 places.

    Filters of a layer are here the maps that it gives. What a run stores as filters of a layer are 5 x 5 kernels, as the study counts
    them, of which layers 2 to 5 have one for each map below: what is set for layers 3 and 4 is found there under 4 and 5.
    """

    kind: Literal["own", "shared"] = "own"
    """own: a network for each unit. shared: one network with a readout for each unit (the study's shared compact models); `--students`."""
    early_filters: tuple[Width, Width] = (40, 56)
    """Filters of layers 1 and 2, which all units share until the last pruning (the study found early filters shared)."""
    shared_filters: tuple[Width, Width, Width] = (64, 96, 96)
    """Filters of layers 3, 4 and 5 while all units share them; the study's shared models: as many as in layer 2, then 100 and 100."""
    sweep_filters: tuple[Width, ...] = ()
    """Shared networks of several sizes in place of one, a run each: filters K of layers 1 to 3, in place of the above; `--filters`. The
    study: 5, 10, 25, 35, 50, 75, 100 and 200."""
    sweep_last_filters: tuple[Width, Width] = (100, 100)
    """Filters of layers 4 and 5 of those networks, as in the study."""
    most_late_filters: tuple[Width, Width, Width] = (32, 24, 12)
    """Filters of layers 3, 4 and 5 that a unit's own student may keep at most; the published models kept 3, 7 and 3. More are more accurate
    (docs/measured.md), fewer are easier to read, and `--tolerance` finds the fewest that do."""
    readout: Literal["separable", "dense"] = "separable"
    """Of a unit's own student. separable: a weight a filter times a weight a place, as in the study's shared models. dense: a weight for
    each filter and place, as in its single models, where it holds a fifth of the parameters."""
    readout_products: int = Field(3, ge=1, le=8)
    """Of a unit's own student, and of the network that it is cut out of: how many products of a weight a filter and a weight a place a
    separable readout adds up, each 784 parameters and one a filter. More let a unit weigh filters differently at different places, as the
    study's single models do (docs/measured.md). The study's shared models have 1, as `kind = "shared"` has here whatever this says."""


class Distill(Stage):
    """Students learn the teacher's answers, not the recordings."""

    images_seen: int = Field(120_000, ge=100)
    """Images in the first training, views counted each; the study: 12 million. In simulation it made no difference whether a third or a
    half of all images came before pruning; a fifth was worse (docs/measured.md)."""
    learning_rate: float = Field(3e-3, gt=0)
    """Adam step size of biases and readouts, decayed along a cosine; filters change by twice this share of their norm a step
    (docs/methods.md). The study: 1e-4 over 190,000 steps, Adam for all."""
    batch_images: int = Field(8, ge=2)
    """Images a step; the study used 64. At equal images 8 learned more than 16 and took about as long on a CPU (docs/measured.md)."""
    kernel_blur_px: float = Field(0.5, ge=0)
    """SD of the Gaussian that smooths spatial kernels of layers 2 to 5 (see docs/methods.md)."""
    blur_times: int = Field(4, ge=0, le=16)
    """How often the kernels are smoothed during the first 80 % of the first training; the study: 24 times in 12 million images."""
    sparsity: float = Field(0.15, ge=0, lt=1)
    """By how much each step of the first training brings weights between layers nearer to 0, over the RMS of what it adds to them. 0 is
    off; ours. In simulation 83 % of the planted filters that units share are found with it, 71 % without, and on V4 the teacher's answers
    to other images are predicted better; 0.3 finds more and costs accuracy on V4 (docs/measured.md)."""
    shift_px: int = Field(12, ge=0, le=56)
    """Largest shift of a view, pixels: the teacher answers the view itself, so any natural view is a valid question. Here and below 0 is
    off, and the range is ours."""
    zoom: float = Field(1.25, ge=1, le=4)
    """Most a view is enlarged; 1 is off."""
    mirror: float = Field(0.5, ge=0, le=1)
    """Share of the views that are mirrored, left for right."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Largest change of contrast: it is multiplied by up to 1 + this, or divided. 0.25 is mild."""
    brightness: float = Field(0.0, ge=0, le=128)
    """Largest change of brightness, grey levels of 255. 20 is mild."""
    blend: float = Field(0.0, ge=0, le=1)
    """Share of the views that are blended with another image, which has up to half of the weight."""
    paste: float = Field(0.0, ge=0, le=1)
    """Share of the views in which a rectangle is another image's."""
    views: int = Field(8, ge=1)
    """Views of each image that the teacher answers, once, before training; the first is the image itself. Of so many images that
    trainings would not see them all they are fewer. In simulation students are more accurate with 8 than with 4, and alike with 16
    (docs/measured.md)."""


class Prune(Stage):
    """Filters go while what the next layer receives keeps its variance, each of its filters counted by what it gives to the answer (the
    study's code: by its own variance).
    """

    kept_variance: float = Field(0.98, gt=0, le=1)
    """Variance of the next layer that the kept filters of layers 2 to 4 must rebuild; 0.90 in the study's code, which does
    not refit weights."""
    tolerance: tuple[Share, ...] = ()
    """Shares of r2 with the teacher that a student may fall below the unpruned network, a run each: `--tolerance`. Of each unit the
    smallest student of `ladder` is taken that falls no further, or the first where all do. Without any, it is the student of
    `kept_variance`."""
    ladder: Ladder = (0.98, 0.95, 0.9, 0.8, 0.6, 0.3, 0.1)
    """`kept_variance` of the students among which `tolerance` chooses, each pruned from the one before and retrained, until no unit is
    within the largest tolerance. Where it ended with 0.6, most simulated edge, colour and texture neurons still were, and with 0.2 edge
    neurons (docs/measured_earlier.md)."""
    min_filters: int = Field(3, ge=1)
    """Fewest filters a layer keeps."""
    last_layer_r2: float = Field(0.98, gt=0, le=1)
    """Last layer: filters go while r2 with the student before pruning stays above this. The study: with the teacher, above 0.9 of that
    student's. With a separable readout a filter costs few parameters, and simulated students err a tenth less with 0.98 than with 0.9
    (docs/measured.md); with a dense one it costs 784. Further down the `ladder` it falls by the same power as `kept_variance`."""
    max_parameters: int = Field(12_500, ge=1000)
    """A student above this is pruned on, counted with all filters of layer 1, which are pruned last, until it has the fewest
    filters (`min_filters`). The published median is 12,469 after that, with BatchNorm."""
    kept_first: float = Field(0.998, gt=0, le=1)
    """`kept_variance` for the filters of layer 1, which go last and after which little is trained: before weights were sparse, simulated
    students lost 0.0006 of r2 with 0.995 and 0.0022 with 0.98, which leaves out 6 filters more; sparse weights need more
    (docs/measured_earlier.md). Further down the `ladder` it falls by the same power as `kept_variance`: 0.796 beside 0.1."""
    images: int = Field(1000, ge=50)
    """Lessons on which variances are measured, and as many others (where there are so many) on which `tolerance` judges; the study
    measured 5,000."""
    images_seen: int = Field(170_000, ge=100)
    """Images in the retraining after layers 2 to 5 are pruned; the study repeated the whole training."""
    learning_rate: float = Field(3e-3, gt=0)
    """As that of the first training, at the start of the retraining."""
    last_images_seen: int = Field(2_000, ge=100)
    """Images in the retraining after layer 1 is pruned."""
    last_learning_rate: float = Field(3e-4, gt=0)
    """The same for that; where it has few steps it is not reached, as the rate rises over the first 100."""


class Baselines(Stage):
    """Plain models beside teacher and students: ridge, direct fit, linear-nonlinear (see docs/methods.md)."""

    enabled: bool = False
    """Whether they are fitted; `--baselines` is the same. They take about 2 minutes for 33 units and 600 images on two cores."""
    pixels_px: Literal[7, 14, 28, 56] = 28
    """Side of the images as `ln` sees them, pixels. On validation images of 190923, 14, 28 and 56 did the same."""
    epochs: int = Field(12, ge=1)
    """Direct fit: passes over the fitting images, after which the one that erred least on validation images is kept."""
    least_steps: int = Field(300, ge=1)
    """Direct fit: steps at least, as few images are passed over more often; over the first 100 the learning rate rises."""
    learning_rate: float = Field(1e-3, gt=0)
    """Direct fit: step size, decayed along a cosine. On validation images of 190923 r2 was 0.223; 18 epochs gave 0.222, a step of 3e-3
    and 8 epochs 0.201 (all before filters were moved as matrices)."""
    batch_images: int = Field(16, ge=2)
    """Direct fit: images a step."""
    shift_px: int = Field(4, ge=0, le=50)
    """Direct fit: largest shift of an image when it is learned from, pixels. With a step of 3e-3 r2 was 0.201, without shifts 0.191."""


class Fit(Stage):
    """One whole fit."""

    preset: str = "standard"
    """quick: minutes on two cores, to see that all is well. standard: the default, about an hour for 30 units on two cores. paper: the
    study's widths and lengths, for a GPU, a frozen backbone and many `--images`; students still learn together until they are pruned."""
    seed: int = Field(0, ge=0)
    """Everything random derives from it: same seed, same machine, same bytes of scores (on a GPU to the rounding of its sums)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda. On a CPU the variable OMP_NUM_THREADS tells how many threads compute; without it one a core."""
    split: Split = Split()
    teacher: Teacher = Teacher()
    student: Student = Student()
    distill: Distill = Distill()
    prune: Prune = Prune()
    baselines: Baselines = Baselines()
    bootstraps: int = Field(500, ge=10)
    """Resamplings of the scored images behind each bootstrap interval."""
    snr_floor: float = Field(5.0, ge=0)
    """SNR below which a unit is marked, in standard errors of the SNR that a unit without signal shows by chance. At 5 the credible
    interval of r2_ER is about half of the possible range wide for a true r2 of 0.5 (see docs/methods.md)."""


class Interpret(Stage):
    """What `nwb-compact interpret` shows to the students, and how it makes images."""

    field_images: int = Field(24, ge=1)
    """Natural images that are covered place by place to find receptive fields, and at which gradients are taken."""
    similarity_images: int = Field(200, ge=4)
    """Natural images over which layers of students, and their answers, are compared."""
    ablation_images: int = Field(150, ge=2)
    """Scored images on which the effect of silencing a filter is measured."""
    robustness_images: int = Field(300, ge=2)
    """Scored images that are changed."""
    vone_images: int = Field(100, ge=2)
    """The same for a model behind a fixed V1 (`interpret --vone`), which sees some 30 a second; `robustness_images` at most."""
    vone_channels: int = Field(16, ge=4)
    """Width of that model: with 16 it learns 9,000 numbers and 213 for each unit."""
    scrambled_images: int = Field(60, ge=2)
    """Natural images that are shown in an aperture, and again with random phases."""
    paired_images: int = Field(1000, ge=2)
    """Scored images among which pairs that are nearly the same are sought."""
    extremes: int = Field(20, ge=1)
    """Strongest and weakest natural images that are kept of each unit."""
    start_images: int = Field(60, ge=2)
    """Natural images of which made ones take mean and contrast, and among which adversarial ones start."""
    maximizing: int = Field(2, ge=0)
    """Images in colour that are made to be answered most, each from noise of its own."""
    maximizing_grey: int = Field(2, ge=0)
    """The same without colour."""
    minimizing: int = Field(2, ge=0)
    """Images in colour that are made to be answered least."""
    minimizing_grey: int = Field(1, ge=0)
    """The same without colour."""
    adversarial: int = Field(2, ge=0)
    """Natural images that are changed, once upwards and once downwards."""
    steps: int = Field(100, ge=1)
    """Of images from noise. The study: 1,000."""
    first_step: float = Field(20.0, gt=0)
    """RMS of the first of these steps, grey levels. The study: 10 for all steps, before the blur."""
    last_step: float = Field(1.0, gt=0)
    """RMS of the last step of any image, grey levels."""
    blur_px: float = Field(1.0, gt=0)
    """SD of the Gaussian that blurs gradients and images, as the study."""
    blur_every: int = Field(25, ge=1)
    """Steps from one blur of the image to the next. The study: 50."""
    growing_share: float = Field(0.5, gt=0, le=1)
    """Share of the steps in which contrast grows."""
    shift_px: int = Field(2, ge=0, le=20)
    """Most by which an image is shifted before a gradient is taken, down or up and right or left. The study: 0."""
    chroma: float = Field(0.3, ge=0, le=1)
    """Weight of the part of a gradient that changes colour against the part that changes luminance. The study: 1."""
    adversarial_budget: float = Field(10.0, ge=0)
    """Mean absolute change of an adversarial image, grey levels, as the study."""
    adversarial_steps: int = Field(30, ge=1)
    """Steps of an adversarial image."""
    adversarial_first_step: float = Field(4.0, gt=0)
    """RMS of the first of these steps, grey levels."""


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "teacher": {"members": 2, "epochs": 10, "least_steps": 150, "channels": 64, "core_blocks": 1},
        "distill": {"images_seen": 6_000, "views": 2},
        "prune": {"images_seen": 2_000, "last_images_seen": 200, "images": 300},
        "student": {"early_filters": (24, 32), "shared_filters": (32, 32, 32), "most_late_filters": (8, 8, 4)},
    },
    "standard": {},
    "paper": {
        "teacher": {"members": 25, "channels": 512, "core_blocks": 4, "trunk_channels": 128, "epochs": 100},
        "student": {"early_filters": (100, 100), "shared_filters": (100, 100, 100), "most_late_filters": (100, 100, 100)},
        "distill": {"images_seen": 12_000_000, "learning_rate": 1e-4, "batch_images": 64, "blur_times": 16, "views": 16},
        "prune": {
            "images": 5000, "max_parameters": 25_000, "images_seen": 12_000_000, "learning_rate": 1e-4, "last_images_seen": 1_000_000,
            "last_learning_rate": 1e-5,
        },
    },
}


def configure(preset: str = "standard", file: Path | None = None, changes: Mapping[str, Any] | None = None) -> Fit:
    """The configuration of one fit: a preset, overlaid by a TOML file, overlaid by single changes.

    Parameters
    ----------
    preset
        `quick`, `standard` or `paper`.
    file
        TOML with a table a stage, for example ``[teacher]`` / ``members = 8``.
    changes
        The same nested names, for example ``{"teacher": {"members": 8}}``; they win over the file.

    Raises
    ------
    NwbCompactError
        If a name is unknown (the nearest known one is named), a value is out of range, or the settings name another preset.

    Examples
    --------
    >>> configure("quick", changes={"seed": 3}).teacher.members
    2
    >>> configure(changes={"teacher": {"membres": 8}})
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: teacher.membres: found an unknown setting, expected a known one. Next: did you mean 'members'?
    """
    if preset not in PRESETS:
        raise NwbCompactError("--preset", found=f"'{preset}'", expected="a known preset", next_step=nearest(preset, list(PRESETS)))
    merged: dict[str, Any] = {"preset": preset}
    for layer in (PRESETS[preset], _toml(file), changes or {}):
        merged = _overlay(merged, layer)
    if merged["preset"] != preset:  # it would name the run after a preset whose numbers it does not have
        next_step = f"use --preset {merged['preset']}"
        raise NwbCompactError("preset", found="one among the settings", expected="it on the command line", next_step=next_step)
    return _validated(Fit, merged)


def interpretation(file: Path | None = None) -> Interpret:
    """Settings of one interpretation, overlaid by a TOML file.

    Raises
    ------
    NwbCompactError
        If a name is unknown (the nearest known one is named) or a value is out of range.

    Examples
    --------
    >>> interpretation().steps
    100
    """
    return _validated(Interpret, _toml(file))


def choices(stage: type[Stage], setting: str) -> list[str]:
    """The values that a setting of few values may have, so that the command line need not list them again.

    Examples
    --------
    >>> choices(Split, "method")
    ['first-half', 'column', 'random']
    """
    return list(get_args(stage.model_fields[setting].annotation))


def flat(config: Stage, prefix: str = "") -> dict[str, str]:
    """Every setting as one flat table of dotted names, for provenance.

    Examples
    --------
    >>> flat(configure())["teacher.members"]
    '5'
    """
    table: dict[str, str] = {}
    for name, value in config:
        table |= flat(value, f"{prefix}{name}.") if isinstance(value, Stage) else {f"{prefix}{name}": str(value)}
    return table


def _toml(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NwbCompactError(file, found=str(error), expected="a readable TOML file", next_step="see docs/configuration.md") from error


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        inner = merged.get(name, {})
        if not isinstance(value, Mapping):
            merged[name] = value
        elif isinstance(inner, Mapping):  # else a value stands where a table belongs: it stays, to be named as the fault it is
            merged[name] = _overlay(inner, value)
    return merged


def _validated(kind: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _named_fault(kind, error) from error


def _named_fault(kind: type[Stage], error: ValidationError) -> NwbCompactError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        stage: type[BaseModel] = kind
        for part in path[:-1]:
            inner = stage.model_fields[part].annotation
            assert isinstance(inner, type)
            assert issubclass(inner, BaseModel)
            stage = inner
        known = list(stage.model_fields)
        return NwbCompactError(where, found="an unknown setting", expected="a known one", next_step=nearest(path[-1], known))
    next_step = "correct the value; nwb_compact/config.py gives units and ranges"
    return NwbCompactError(where, found=repr(first["input"]), expected=first["msg"], next_step=next_step)
