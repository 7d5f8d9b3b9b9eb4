"""Scores of one session: every number of `results.score_columns` for every unit, on scored images only, with a reason for each NaN."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer

from nwb_compact import scores
from nwb_compact.reliability import RepeatStatistics, correlation, repeat_statistics, signal_to_noise, split_half_reliability
from nwb_compact.responses import Responses
from nwb_compact.results import score_columns

AVERAGES_ONLY = "the source keeps repeat averages only, so what needs single trials is not known"
NO_REPEATS = "no scored image was repeated, so what needs repeats is not known"
FLAT_RESPONSE = "the unit never varied over the scored images"
FLAT_MODEL = "a model answers every scored image the same, which explains nothing"
FLAT_FIT = "the unit never varied over the fitting images, so nothing could be fitted"
NO_SIGNAL = "noise explains all variance of the averages, so there is no signal to compare with"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What teacher and students expect for every image of a session, and how large they are."""

    teacher: Float32[np.ndarray, "image unit"]
    student: Float32[np.ndarray, "image unit"]
    teacher_parameters: int
    student_parameters: Integer[np.ndarray, "unit"]
    student_filters: Integer[np.ndarray, "unit"]


def score_units(
    responses: Responses, sides: Sequence[str], predictions: Predictions, *, n_bootstraps: int, seed: int,
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
        For the confidence intervals.
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
    varied = _varies(mean)
    fitted = _varies(np.where(np.isin(side, ["fit", "validation"])[:, None], responses.mean, np.nan))
    models = {"teacher": predictions.teacher, "student": predictions.student, **baselines}
    table = {name: np.full(len(responses.unit_name), np.nan) for name in score_columns(baselines)}
    for model, prediction in models.items():
        r = _correlation_of_known(np.where(fitted, prediction, 0.0), mean)
        r = np.where(np.isnan(r) & fitted & varied, 0.0, r)  # a model that never varies explains nothing
        table[f"{model}_r"], table[f"{model}_r2"] = r, r**2
    table["mean_count"] = _mean_of_known(mean)
    table["teacher_student_r2"] = scores.r2(predictions.student[scored].astype(float), predictions.teacher[scored].astype(float))
    table["student_parameters"] = predictions.student_parameters.astype(float)
    table["student_filters"] = predictions.student_filters.astype(float)
    table["student_bytes"] = 4.0 * predictions.student_parameters
    table["compression"] = predictions.teacher_parameters / predictions.student_parameters
    repeated = False
    if responses.count is not None and responses.image_of_count is not None:
        kept = scored[responses.image_of_count]
        count, image = responses.count[kept], responses.image_of_count[kept]
        repeats = repeat_statistics(count, image)
        repeated = bool((repeats.n_repeats > 1).any())
        table |= _single_trial_scores(count, image, repeats, models, fitted, n_bootstraps=n_bootstraps, seed=seed)
    conditions = (  # the first that holds is the reason, so the deepest cause comes first
        (FLAT_FIT, ~fitted),
        (FLAT_RESPONSE, ~varied),
        (AVERAGES_ONLY, np.full(fitted.shape, responses.count is None)),
        (NO_REPEATS, np.full(fitted.shape, not repeated)),
        (FLAT_MODEL, np.any([np.ptp(prediction[scored], axis=0) == 0 for prediction in models.values()], axis=0)),
        (NO_SIGNAL, np.any([np.isnan(column) for column in table.values()], axis=0)),
    )
    reason = tuple(next((why for why, holds in conditions if holds[unit]), "") for unit in range(len(fitted)))
    return {name: table[name] for name in score_columns(baselines)}, reason


def _single_trial_scores(
    count: np.ndarray, image: np.ndarray, repeats: RepeatStatistics, models: Mapping[str, np.ndarray], fitted: Bool[np.ndarray, "unit"],
    *, n_bootstraps: int, seed: int,
) -> dict[str, np.ndarray]:
    table = {"reliability": split_half_reliability(count, image, seed=seed), "snr": signal_to_noise(repeats)}
    for model, prediction in models.items():
        expected = np.where(fitted, prediction, 0.0).astype(float)
        shown = expected[repeats.image]
        low, high = scores.r2_er_interval(shown, repeats, n_bootstraps=n_bootstraps, seed=seed)
        table[f"{model}_r2_er"] = scores.r2_er(shown, repeats)
        table[f"{model}_r2_er_low"], table[f"{model}_r2_er_high"] = low, high
        table[f"{model}_feve"] = np.where(fitted, scores.feve(expected, count, image, repeats), np.nan)
        table[f"{model}_single_trial_r"] = scores.single_trial_correlation(expected, count, image)
    return table


def _varies(mean: Float[np.ndarray, "image unit"]) -> Bool[np.ndarray, "unit"]:
    known = np.isfinite(mean)
    high, low = np.where(known, mean, -np.inf).max(axis=0), np.where(known, mean, np.inf).min(axis=0)
    return known.any(axis=0) & (high - low > 1e-9)


def _mean_of_known(mean: Float[np.ndarray, "image unit"]) -> Float[np.ndarray, "unit"]:
    known = np.isfinite(mean)
    n = known.sum(axis=0)
    return np.divide(np.where(known, mean, 0).sum(axis=0), n, out=np.full(mean.shape[1], np.nan), where=n > 0)


def _correlation_of_known(prediction: np.ndarray, mean: Float[np.ndarray, "image unit"]) -> Float[np.ndarray, "unit"]:
    """Correlation over the images each unit has."""
    r = [correlation(prediction[known, unit : unit + 1].astype(float), mean[known, unit : unit + 1])[0] if known.any() else np.nan
         for unit, known in enumerate(np.isfinite(mean).T)]
    return np.array(r, float)
