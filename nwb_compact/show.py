"""What was fitted and how well: a table to read, or JSON to work with."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nwb_compact.address import FILE_OR_ADDRESS, Address
from nwb_compact.cost import Cost, cost_per_neuron
from nwb_compact.errors import NwbCompactError, counted
from nwb_compact.nwb_results import read_results
from nwb_compact.results import MODELS, Results, baselines_of, below_snr_floor, median, teacher_validation_r2
from nwb_compact.results_json import INTERVAL, as_object

WIDTH = 100
"""Columns of the table where the output is not a terminal."""
INTERVAL_HEAD = "its 90 %\ninterval"


@click.command("show")
@click.argument("file", type=FILE_OR_ADDRESS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--run", "run_id", metavar="RUN_ID", help="Only this run.")
def command(file: Path | Address, as_json: bool, run_id: str | None) -> None:
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
    if len(runs) > 1:
        _say(console, "Medians of the runs side by side:")
        console.print(_runs_table(runs))


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
    if cost := _cost_of_one(results):
        _say(console, _spent(cost))
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


# Text -----------------------------------------------------------------------------------------------------------------


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)


def _named(units: Sequence[str]) -> str:
    return ", ".join(units) if len(units) <= 5 else f"{len(units)} units"


def _title(results: Results) -> str:
    said = results.provenance
    made = f"preset {said['preset']}, seed {said.get('seed', 'unknown')}; " if "preset" in said else ""  # not where models were imported
    smaller = _text(median(results.scores["compression"]), 0)
    return (
        f"Run {results.run_id}: {made}{counted(len(results.unit_name), 'unit')}, {counted(len(results.image_sha256), 'image')}; "
        f"teacher of {said.get('teacher_parameters', 'unknown')} parameters, students {smaller} times smaller (median)."
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
    """A row a unit; a column in which no unit has a number is left out."""
    medians = _medians(results)
    same = {"training_s": medians["training_s"]}
    units = [same | {score: float(values[row]) for score, values in results.scores.items()} for row in range(len(results.unit_name))]
    return _rows("unit", results.unit_name, units, COLUMNS if columns is None else columns, medians)


def _runs_table(runs: Sequence[Results]) -> Table:
    """A row a run."""
    columns = {head: show for head, show in COLUMNS.items() if head != INTERVAL_HEAD}
    return _rows("run", [results.run_id for results in runs], [_medians(results) for results in runs], columns)


def _medians(results: Results) -> dict[str, float]:
    cost = _cost_of_one(results)
    return {"training_s": cost.seconds if cost else float("nan")} | {name: median(values) for name, values in results.scores.items()}


def _rows(
    what: str, names: Sequence[str], rows: Sequence[Mapping[str, float]], columns: Mapping[str, Callable[[Mapping[str, float]], str]],
    medians: Mapping[str, float] | None = None,
) -> Table:
    table = Table(box=SIMPLE, show_footer=medians is not None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(what, footer="median", overflow="fold", max_width=16)
    shown = {head: show for head, show in columns.items() if any(show(scores) != "-" for scores in rows)}
    for head, show in shown.items():
        median_of = None if head == INTERVAL_HEAD else medians  # the median of intervals is no interval
        table.add_column(head, footer="" if median_of is None else show(median_of), justify="right", no_wrap=True)
    for name, scores in zip(names, rows, strict=True):
        table.add_row(Text(name), *(show(scores) for show in shown.values()))
    return table


def _cost_of_one(results: Results) -> Cost | None:
    return cost_per_neuron(results.provenance, len(results.unit_name))


def _spent(cost: Cost) -> str:
    """What the column of seconds means, and what else is known."""
    known = [f"{_seconds(cost.seconds)} s"]
    known += [] if cost.flop is None else [f"{cost.flop / 1e12:.3g} TFLOP"]
    known += [] if cost.joules is None else [f"{cost.joules:.3g} J"]
    return f"To train a student cost {', '.join(known)}: its share of the teacher's answers, training and pruning, without the teacher."


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


def _seconds(value: float) -> str:
    return _text(value, 1 if value < 100 else 0)


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
    INTERVAL_HEAD: _interval,
    "reli-\nability": _score("reliability"),
    "param-\neters": _score("student_parameters", 0),
    "filters": _score("student_filters", 0),
    "s to\ntrain": lambda scores: _seconds(scores["training_s"]),
    "with\nteacher": _score("teacher_student_r2"),
}
"""Heads of the table and what stands below them."""
