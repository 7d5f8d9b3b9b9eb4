"""What the stages of a fit cost, as a table that a person reads."""

from collections.abc import Mapping
from html import escape

import numpy as np

from nwb_compact.cost import Cost, cost_per_neuron, costs_of
from nwb_compact.results import Results
from nwb_compact_analysis.style import number

HEADS = ("stage", "time", "operations", "rate", "peak memory", "energy")
GPU_HEAD = "peak on GPU"
MISSING = "–"


def cost_rows(provenance: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Heads and, below, a row a stage and one of all; nothing where no stage has a cost.

    Memory of a GPU has a column only where there was one.

    Parameters
    ----------
    provenance
        Of a run.

    Examples
    --------
    >>> cost_rows({"seconds.teacher": "90", "flop.teacher": "9e12", "seconds.lessons": "6"})[1:3]
    (('teacher', '1 min 30 s', '9 TFLOP', '100 GFLOP/s', '–', '–'), ('lessons', '6.0 s', '–', '–', '–', '–'))
    """
    costs = costs_of(provenance)
    if not costs:
        return ()
    whole = _sum_of(costs)
    on_gpu = whole.gpu_peak_bytes is not None
    heads = (*HEADS[:5], GPU_HEAD, *HEADS[5:]) if on_gpu else HEADS
    rows = ((stage.replace("_", " "), *_cells(cost, on_gpu)) for stage, cost in costs.items())
    time, flop, _, *others = _cells(whole, on_gpu)
    known = {stage: cost for stage, cost in costs.items() if cost.flop is not None}
    rate = _cells(_sum_of(known), on_gpu)[2] if known else MISSING  # seconds of other stages belong to none of the operations
    return (heads, *rows, ("all", time, flop, rate, *others))


def costs_section(results: Results) -> str:
    """The table with its heading and what it says, as HTML; empty where the run does not tell.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> costs_section(example_results())[:21]
    '<h2>What it cost</h2>'
    """
    rows = cost_rows(results.provenance)
    if not rows:
        return ""
    one = cost_per_neuron(results.provenance, len(results.unit_name))
    share = f" A student took {duration(one.seconds)}, its share of what was done for the students alone." if one else ""
    counters = results.provenance.get("energy_counters")
    energy = f"Energy is what the counters of {counters} told, whatever else ran there." if counters else "No energy counter could be read."
    text = (
        f"What each stage took, over all times the fit was resumed.{share} Operations are those of torch's convolutions and matrix "
        "products, two a multiply-add; a dash stands for none that was counted (what numpy computes is not, nor is what was found in the "
        f"cache), or for what the machine did not tell. Memory is all that the process held at its highest. {energy}"
    )
    heads, *body = rows
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    lines = "\n".join(f"<tr><th>{escape(stage)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for stage, *cells in body)
    table = f'<div class="scroll"><table class="costs"><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table></div>'
    return f'<h2>What it cost</h2>\n<p class="before">{escape(text)}</p>\n{table}'


def _sum_of(costs: Mapping[str, Cost]) -> Cost:
    first, *others = costs.values()
    return sum(others, start=first)


def duration(seconds: float) -> str:
    """Time as a person reads it.

    Examples
    --------
    >>> duration(0.32), duration(59.96), duration(119.9), duration(8000.0)
    ('0.3 s', '1 min 0 s', '2 min 0 s', '2 h 13 min')
    """
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _cells(cost: Cost, on_gpu: bool) -> tuple[str, ...]:
    rate = cost.flop / cost.seconds if cost.flop is not None and cost.seconds > 0 else np.nan
    gpu = (_of(cost.gpu_peak_bytes, "B"),) if on_gpu else ()
    return duration(cost.seconds), _of(cost.flop, "FLOP"), _of(rate, "FLOP/s"), _of(cost.peak_bytes, "B"), *gpu, _of(cost.joules, "J")


def _of(value: float | int | None, unit: str) -> str:
    if value is None or not np.isfinite(value):
        return MISSING
    shown = number(float(value))
    return f"{shown}{unit}" if " " in shown else f"{shown} {unit}"
