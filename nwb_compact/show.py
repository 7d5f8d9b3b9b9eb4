"""What was fitted and how well: a table to read, or JSON to work with."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import read_results
from nwb_compact.results import MODELS, Results, baselines_of, below_snr_floor, median, teacher_validation_r2

JSON_VERSION = 1
"""Of the layout of `--json`; a name is never given another meaning under the same version."""
WIDTH = 100
"""Columns of the table where the output is not a terminal."""
SCORES = ("teacher_r2", "student_r2", "teacher_r2_er", "student_r2_er")
INTERVAL = ("student_r2_er_low", "student_r2_er_high")
COUNTS = ("student_parameters", "student_filters", "student_bytes")


@click.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--run", "run_id", metavar="RUN_ID", help="Only this run.")
def command(file: Path, as_json: bool, run_id: str | None) -> None:
    """Print the runs in FILE and how well each unit is predicted."""
    runs = read_results(file, run_id)
    if not runs:
        raise NwbCompactError(file, found="no run", expected="at least one", next_step=f"nwb-compact fit {file}")
    if as_json:
        click.echo(json.dumps(as_object(runs), indent=2, allow_nan=False, ensure_ascii=False))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)  # else rich folds at 80
    for results in runs:
        print_run(results, console)


def as_object(runs: Sequence[Results]) -> dict[str, Any]:
    """The runs as JSON holds them; NaN becomes None.

    Names are those of `results.score_columns`; an interval is one list, `<model>_r2_er_ci`. A run with baselines has, for each of them,
    `<baseline>_r2`, `<baseline>_r2_er` and `<baseline>_r2_er_ci` in every unit and among the medians, and `baselines`, what each is.
    `below_snr_floor` of a unit is true or false, None where that is not known. `ensemble_members` is the number of networks in the
    teacher, None where it is not known; `teacher_validation_r2` lists the score on validation images, a mean over sessions, of the
    average of the first 1, 2, ... of them, and is empty in runs of earlier versions.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> shown = as_object([example_results()])["runs"][0]
    >>> shown["run_id"], shown["seed"], [unit["unit"] for unit in shown["units"]]
    ('example', 0, ['unit-1', 'unit-2'])
    >>> shown["ensemble_members"], shown["teacher_validation_r2"]
    (3, [0.41, 0.43, 0.44])
    """
    return {"version": JSON_VERSION, "runs": [_run_object(results) for results in runs]}


def print_run(results: Results, console: Console) -> None:
    """One run as a table with a row a unit and the medians at the foot.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> print_run(example_results(), Console(width=100))
    Run example: preset quick, seed 0...
    """
    _say(console, _title(results))
    if ensemble := _ensemble(results):
        _say(console, ensemble)
    console.print(_table(results))
    _say(console, _compared(results))
    if baselines_of(results.scores):
        _say(console, f"\nBeside baselines: {_meanings(results)}.")
        console.print(_models_table(results))
    marked = [name for name, below in zip(results.unit_name, below_snr_floor(results), strict=True) if below]
    if marked:
        _say(console, f"SNR below the floor, r2_ER says little: {_named(marked)}, which the medians include.")
    for reason in dict.fromkeys(filter(None, results.reason)):
        units = [name for name, why in zip(results.unit_name, results.reason, strict=True) if why == reason]
        _say(console, f"{_named(units)}: {reason}")
    _say(console, "")


# JSON -----------------------------------------------------------------------------------------------------------------


def _run_object(results: Results) -> dict[str, Any]:
    below = results.scores.get("below_snr_floor", np.full(len(results.unit_name), np.nan))
    units = [
        {
            "unit": name,
            **_unit_object({score: values[row] for score, values in results.scores.items()}),
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
        **({"baselines": {name: results.provenance.get(f"baseline.{name}") for name in baselines}} if baselines else {}),
    }


def _unit_object(scores: Mapping[str, float], of_counts: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """The scores of one unit, or medians, whose counts need not be whole."""
    counted = of_counts or _whole
    shown: dict[str, Any] = {name: _or_none(scores[name]) for name in SCORES[:4]}
    shown["student_r2_er_ci"] = [_or_none(scores[name]) for name in INTERVAL]
    shown["reliability"] = _or_none(scores["reliability"])
    shown |= {name: counted(scores[name]) for name in COUNTS}
    shown["teacher_student_r2"] = _or_none(scores["teacher_student_r2"])
    for model in baselines_of(scores):
        shown |= {name: _or_none(scores[name]) for name in (f"{model}_r2", f"{model}_r2_er")}
        shown[f"{model}_r2_er_ci"] = [_or_none(scores[f"{model}_r2_er_{end}"]) for end in ("low", "high")]
    return shown


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


# Text -----------------------------------------------------------------------------------------------------------------


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)


def _named(units: Sequence[str]) -> str:
    return ", ".join(units) if len(units) <= 5 else f"{len(units)} units"


def _title(results: Results) -> str:
    said = results.provenance
    return (
        f"Run {results.run_id}: preset {said.get('preset', 'unknown')}, seed {said.get('seed', 'unknown')}; "
        f"{len(results.unit_name)} units, {len(results.image_sha256)} images; teacher of {said.get('teacher_parameters', 'unknown')} "
        f"parameters, students {_text(median(results.scores['compression']), 0)} times smaller (median)."
    )


def _ensemble(results: Results) -> str:
    """Nothing where the fit did not write it down."""
    r2 = teacher_validation_r2(results)
    if not r2:
        return ""
    if len(r2) == 1:
        return f"Its one member: r2 {_text(r2[0], 3)} on validation images (mean over sessions)."
    return f"Its {len(r2)} members: r2 {_text(r2[0], 3)} of one, {_text(r2[-1], 3)} of all on validation images (mean over sessions)."


def _table(results: Results, columns: Mapping[str, Callable[[Mapping[str, float]], str]] | None = None) -> Table:
    shown = COLUMNS if columns is None else columns
    table = Table(box=SIMPLE, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("unit", footer="median", overflow="fold", max_width=16)
    medians = {name: median(values) for name, values in results.scores.items()}
    for head, show in shown.items():
        table.add_column(head, footer=show(medians), justify="right", no_wrap=True)
    for row, name in enumerate(results.unit_name):
        scores = {score: float(values[row]) for score, values in results.scores.items()}
        table.add_row(Text(name), *(show(scores) for show in shown.values()))
    return table


def _models_table(results: Results) -> Table:
    """All models of the run side by side: r2, and r2_ER where any unit has it; each definition in its own columns."""
    models = (*MODELS, *baselines_of(results.scores))
    columns = {f"{model}\nr2": _score(f"{model}_r2") for model in models}
    if any(np.isfinite(results.scores[f"{model}_r2_er"]).any() for model in models):
        columns |= {f"{model}\nr2_ER": _score(f"{model}_r2_er") for model in models}
    return _table(results, columns)


def _meanings(results: Results) -> str:
    names = baselines_of(results.scores)
    return "; ".join(f"{name}: {results.provenance.get(f'baseline.{name}', 'not recorded what it is')}" for name in names)


def _compared(results: Results) -> str:
    n_of = {side: results.side.count(side) for side in ("fit", "validation", "scored")}
    return (
        f"r2 is the squared correlation of the predicted with the measured repeat average over the {n_of['scored']} scored images, none of "
        f"which is among the {n_of['fit']} that fitted or the {n_of['validation']} that decided when to stop; r2_ER is corrected for the "
        "noise of that average, with teacher is r2 of the student with the teacher; a dash is a score that cannot be computed."
    )


def _text(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if np.isfinite(value) else "-"


def _score(name: str, decimals: int = 2) -> Callable[[Mapping[str, float]], str]:
    return lambda scores: _text(scores[name], decimals)


def _interval(scores: Mapping[str, float]) -> str:
    low, high = (_text(scores[name], 2) for name in INTERVAL)
    return "-" if low == high == "-" else f"{low}..{high}"


COLUMNS: Mapping[str, Callable[[Mapping[str, float]], str]] = {
    "teacher\nr2": _score("teacher_r2"),
    "student\nr2": _score("student_r2"),
    "teacher\nr2_ER": _score("teacher_r2_er"),
    "student\nr2_ER": _score("student_r2_er"),
    "its 90 %\ninterval": _interval,
    "reli-\nability": _score("reliability"),
    "param-\neters": _score("student_parameters", 0),
    "filters": _score("student_filters", 0),
    "bytes": _score("student_bytes", 0),
    "with\nteacher": _score("teacher_student_r2"),
}
"""Heads of the table and what stands below them."""
