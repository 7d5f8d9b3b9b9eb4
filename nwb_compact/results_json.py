"""Runs as JSON holds them, for programs that read them; `nwb-compact show --json` prints it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nwb_compact.cost import Cost, cost_per_neuron, costs_of
from nwb_compact.results import Results, baselines_of, median, teacher_validation_r2

JSON_VERSION = 1
"""Of the layout of `--json`; a name is never given another meaning under the same version."""
SCORES = ("teacher_r2", "student_r2", "teacher_r2_er", "student_r2_er")
INTERVAL = ("student_r2_er_low", "student_r2_er_high")
COUNTS = ("student_parameters", "student_filters", "student_bytes")
COSTS = ("seconds", "flop", "joules")
STAGE_COSTS = (*COSTS, "peak_bytes", "gpu_peak_bytes")


def as_object(runs: Sequence[Results]) -> dict[str, Any]:
    """The runs as JSON holds them; NaN becomes None.

    Names are those of `results.score_columns`; an interval is one list, `<model>_r2_er_ci`. A run with baselines has, for each of them,
    `<baseline>_r2`, `<baseline>_r2_er` and `<baseline>_r2_er_ci` in every unit and among the medians, and `baselines`, what each is.
    `below_snr_floor` of a unit is true or false, None where that is not known. `ensemble_members` is the number of networks in the
    teacher, None where it is not known; `teacher_validation_r2` lists the score on validation images, a mean over sessions, of the
    average of the first 1, 2, ... of them, and is empty in runs of earlier versions. `training_cost` is what its student cost a unit, the
    same for all units, since all are trained at once (`cost.cost_per_neuron`); `costs` is what each stage of the fit cost in all. Each
    has `seconds`, `flop` (floating-point operations), `joules`, a stage also `peak_bytes` and `gpu_peak_bytes`.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> shown = as_object([example_results()])["runs"][0]
    >>> shown["run_id"], shown["seed"], [unit["unit"] for unit in shown["units"]]
    ('example', 0, ['unit-1', 'unit-2'])
    >>> shown["ensemble_members"], shown["teacher_validation_r2"]
    (3, [0.41, 0.43, 0.44])
    >>> shown["units"][0]["training_cost"], list(shown["costs"])
    ({'seconds': 6.0, 'flop': 500000000000, 'joules': None}, ['teacher', 'lessons', 'students'])
    """
    return {"version": JSON_VERSION, "runs": [_run_object(results) for results in runs]}


def _run_object(results: Results) -> dict[str, Any]:
    cost = _cost_object(cost_per_neuron(results.provenance, len(results.unit_name)), COSTS)
    below = results.scores.get("below_snr_floor", np.full(len(results.unit_name), np.nan))
    units = [
        {
            "unit": name,
            **_unit_object({score: values[row] for score, values in results.scores.items()}),
            "training_cost": cost,
            "below_snr_floor": bool(below[row]) if np.isfinite(below[row]) else None,
            "reason": results.reason[row],
        }
        for row, name in enumerate(results.unit_name)
    ]
    baselines = baselines_of(results.scores)
    return {
        "run_id": results.run_id,
        "preset": results.provenance.get("preset"),
        "seed": _whole(results.provenance.get("seed")),
        "units": units,
        "median": _unit_object({score: median(values) for score, values in results.scores.items()}, of_counts=_or_none),
        "teacher_parameters": _whole(results.provenance.get("teacher_parameters")),
        "compression": _or_none(median(results.scores["compression"])),
        "ensemble_members": _n_members(results),
        "teacher_validation_r2": list(teacher_validation_r2(results)),
        "costs": {stage: _cost_object(cost, STAGE_COSTS) for stage, cost in costs_of(results.provenance).items()},
        **({"baselines": {name: results.provenance.get(f"baseline.{name}") for name in baselines}} if baselines else {}),
    }


def _unit_object(scores: Mapping[str, float], of_counts: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """The scores of one unit, or medians, whose counts need not be whole."""
    counted = of_counts or _whole
    shown: dict[str, Any] = {name: _or_none(scores[name]) for name in SCORES}
    shown["student_r2_er_ci"] = [_or_none(scores[name]) for name in INTERVAL]
    shown["reliability"] = _or_none(scores["reliability"])
    shown |= {name: counted(scores[name]) for name in COUNTS}
    shown["teacher_student_r2"] = _or_none(scores["teacher_student_r2"])
    for model in baselines_of(scores):
        shown |= {name: _or_none(scores[name]) for name in (f"{model}_r2", f"{model}_r2_er")}
        shown[f"{model}_r2_er_ci"] = [_or_none(scores[f"{model}_r2_er_{end}"]) for end in ("low", "high")]
    return shown


def _cost_object(cost: Cost | None, names: Sequence[str]) -> dict[str, float | int | None] | None:
    return None if cost is None else {name: getattr(cost, name) for name in names}


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _whole(value: Any) -> int | None:
    try:
        return round(float(value))
    except (TypeError, ValueError):
        return None


def _n_members(results: Results) -> int | None:
    """As many as are stored; in files of earlier versions, which kept their average only, as many as were asked for."""
    members = results.teacher_member_prediction
    return _whole(results.provenance.get("setting.teacher.members")) if members is None else members.shape[2]
