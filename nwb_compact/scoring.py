"""Scores of one session: every number of `results.score_columns` for every unit, on scored images only, with a reason for each NaN."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt

from nwb_compact import scores
from nwb_compact.credible import r2_er_ecci
from nwb_compact.reliability import (
    RepeatStatistics,
    correlation_where_known,
    mean_of_known,
    noise_variance,
    repeat_statistics,
    signal_to_noise,
    snr_standard_error,
    split_half_reliability,
    varies,
)
from nwb_compact.responses import Responses
from nwb_compact.results import score_columns

AVERAGES_ONLY = "the source keeps repeat averages only, so what needs single trials is not known"
NO_REPEATS = "no scored image was repeated, so what needs repeats is not known"
FLAT_RESPONSE = "the unit never varied over the scored images"
FLAT_MODEL = "a model answers every scored image the same, which explains nothing"
FLAT_FIT = "the unit never varied over the fitting images, so nothing could be fitted"
FEW_REPEATS = "fewer than three scored images were repeated, so what needs repeats is not known well enough"
FEW_IMAGES = "fewer than four images were scored, so credible intervals are not known"
NO_PREDICTION = "a model's prediction is not a number"
NO_NOISE = "repeats agree exactly, so there is no noise to compare the signal with"
SILENT_HALF = "in a random half of its repeats the unit never varied, so halves cannot be compared"
NO_SIGNAL = "noise explains all variance of the averages, so there is no signal to compare with"


MIN_REPEATED, MIN_SCORED = 3, 4
"""Repeated images that split-half reliability needs: two correlate by force. Images that a credible interval needs."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What teacher and students expect for every image of a session, and how large they are."""

    teacher: Float32[np.ndarray, "image unit"]
    student: Float32[np.ndarray, "image unit"]
    teacher_parameters: Integer[np.ndarray, "unit"]
    student_parameters: Integer[np.ndarray, "unit"]
    student_filters: Integer[np.ndarray, "unit"]


def score_units(
    responses: Responses, sides: Sequence[str], predictions: Predictions, *, n_bootstraps: int, seed: int, snr_floor: float,
    baselines: Mapping[str, Float32[np.ndarray, "image unit"]] = {},
) -> tuple[dict[str, Float[np.ndarray, "unit"]], tuple[str, ...]]:
    """Score every unit of a session.

    Parameters
    ----------
    responses
        Of the session.
    sides
        One of `results.SIDES` for each image; only `scored` images are looked at.
    predictions
        Of the models.
    n_bootstraps, seed
        For the intervals.
    snr_floor
        Units whose SNR is below it are marked; in standard errors of the SNR of a unit without signal.
    baselines
        What other models expect, by name; each is scored exactly as teacher and student are.

    Returns
    -------
    scores
        The columns of `score_columns`, each (unit,).
    reason
        For each unit why one of its scores is NaN, or empty.
    """
    side = np.array(sides)
    scored = side == "scored"
    mean = np.where(scored[:, None], responses.mean, np.nan)
    varied = varies(mean)
    fitted = varies(np.where((side == "fit")[:, None], responses.mean, np.nan))  # what varies on validation images alone was not learned
    told = {"teacher": predictions.teacher, "student": predictions.student, **baselines}
    answered = {model: np.isfinite(prediction[scored]).all(axis=0) for model, prediction in told.items()}
    models = {model: np.where(answered[model], prediction, np.float32(0)) for model, prediction in told.items()}
    table = {name: np.full(len(responses.unit_name), np.nan) for name in score_columns(baselines)}
    for model, prediction in models.items():
        r = correlation_where_known(np.where(fitted, prediction, 0.0), mean)
        r = np.where(np.isnan(r) & fitted & varied & answered[model], 0.0, r)  # a model that never varies explains nothing
        table[f"{model}_r"], table[f"{model}_r2"] = r, r**2
    table["mean_count"] = mean_of_known(mean)
    table["teacher_student_r2"] = scores.r2(models["student"][scored].astype(float), models["teacher"][scored].astype(float))
    table |= size_scores(predictions)
    reasons: list[tuple[str, np.ndarray | bool]] = [(FLAT_FIT, ~fitted), (FLAT_RESPONSE, ~varied)]
    if responses.count is None or responses.image_of_count is None:
        reasons.append((AVERAGES_ONLY, True))
    else:
        kept = scored[responses.image_of_count]
        count, image = responses.count[kept], responses.image_of_count[kept]
        trials = _Trials(count, image, repeat_statistics(count, image))
        n_repeated = int((trials.repeats.n_repeats > 1).sum())
        table |= _noise_scores(trials, varied, snr_floor, seed=seed)
        for model, prediction in models.items():
            of_model = _model_scores(np.where(fitted, prediction, 0.0).astype(float), trials, n_bootstraps=n_bootstraps, seed=seed)
            table |= {f"{model}_{name}": np.where(fitted & answered[model], values, np.nan) for name, values in of_model.items()}
        too_few = len(trials.repeats.n_repeats) < MIN_SCORED
        reasons += [(NO_REPEATS, n_repeated == 0), (FEW_REPEATS, n_repeated < MIN_REPEATED), (FEW_IMAGES, too_few)]
    reasons += [
        (NO_PREDICTION, ~np.all(list(answered.values()), axis=0)),
        (FLAT_MODEL, np.any([np.ptp(prediction[scored], axis=0) == 0 for prediction in models.values()], axis=0)),
        (NO_NOISE, np.isnan(table["snr"]) & (table["below_snr_floor"] == 0)),
        (SILENT_HALF, np.isnan(table["reliability"]) & (table["snr"] > 0)),
        (NO_SIGNAL, np.any([np.isnan(column) for column in table.values()], axis=0)),
    ]
    return {name: table[name] for name in score_columns(baselines)}, _first_that_holds(reasons, len(fitted))


def size_scores(predictions: Predictions) -> dict[str, Float[np.ndarray, "unit"]]:
    """The scores that need no response: how large the students are, in numbers, filters and bytes, and beside the teacher."""
    return {
        "student_parameters": predictions.student_parameters.astype(float),
        "student_filters": predictions.student_filters.astype(float),
        "student_bytes": 4.0 * predictions.student_parameters,
        "compression": predictions.teacher_parameters / predictions.student_parameters,
    }


@dataclass(frozen=True, eq=False)
class _Trials:
    """Single presentations of scored images, and their statistics."""

    count: UInt[np.ndarray, "kept unit"]
    image: Integer[np.ndarray, "kept"]
    repeats: RepeatStatistics


def _noise_scores(trials: _Trials, varied: Bool[np.ndarray, "unit"], snr_floor: float, *, seed: int) -> dict[str, np.ndarray]:
    """What the repeats tell whatever the models say."""
    snr, noise = signal_to_noise(trials.repeats), noise_variance(trials.repeats)
    floor = snr_floor * snr_standard_error(trials.repeats.n_repeats)
    without_noise = np.where((noise == 0) & varied, 0.0, np.nan)  # its SNR is infinite
    reliability = split_half_reliability(trials.count, trials.image, seed=seed)
    return {
        "reliability": reliability,
        "cc_max": np.sqrt(np.maximum(reliability, 0)),
        "snr": snr,
        "below_snr_floor": np.where(np.isnan(snr), without_noise, snr < floor),
    }


def _model_scores(expected: Float[np.ndarray, "image unit"], trials: _Trials, *, n_bootstraps: int, seed: int) -> dict[str, np.ndarray]:
    shown = expected[trials.repeats.image]
    low, high = scores.r2_er_interval(shown, trials.repeats, n_bootstraps=n_bootstraps, seed=seed)
    ecci_low, ecci_high = r2_er_ecci(shown, trials.repeats, seed=seed)
    return {
        "r2_er": scores.r2_er(shown, trials.repeats),
        "r2_er_low": low,
        "r2_er_high": high,
        "r2_er_ecci_low": ecci_low,
        "r2_er_ecci_high": ecci_high,
        "feve": scores.feve(expected, trials.count, trials.image, trials.repeats),
        "single_trial_r": scores.single_trial_correlation(expected, trials.count, trials.image),
    }


def _first_that_holds(reasons: Sequence[tuple[str, np.ndarray | bool]], n_units: int) -> tuple[str, ...]:
    """For each unit the first reason that holds: the deepest cause comes first."""
    holds = [(why, np.broadcast_to(held, n_units)) for why, held in reasons]
    return tuple(next((why for why, held in holds if held[unit]), "") for unit in range(n_units))
