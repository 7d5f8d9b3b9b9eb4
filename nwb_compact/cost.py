"""What a stage of a fit cost, how that is written into the provenance of a run, and what the students cost a neuron."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

STUDENT_STAGES = ("lessons", "students", "pruning", "retraining")
"""Stages of a fit that serve its students alone, whichever of them there are: `students` trains the network that they are cut out of. The
teacher is not among them: it is there in any case."""


@dataclass(frozen=True)
class Cost:
    """Of one stage, over all resumptions. None where it is not known, which is never 0."""

    seconds: float
    flop: int | None = None
    """Floating-point operations that torch did, two for a multiply-add (see `operations`)."""
    peak_bytes: int | None = None
    """Most memory that the process held during the stage, with all that it held before."""
    gpu_peak_bytes: int | None = None
    """The same on a GPU."""
    joules: float | None = None
    """What the energy counters of the machine told, of all that ran on it (see `meter`)."""

    def __add__(self, other: "Cost") -> "Cost":
        """Both after each other: seconds, operations and joules add up, peaks are the higher one.

        Examples
        --------
        >>> Cost(1.0, flop=10, peak_bytes=5) + Cost(2.0, flop=20, peak_bytes=4)
        Cost(seconds=3.0, flop=30, peak_bytes=5, gpu_peak_bytes=None, joules=None)
        """
        joules = None if self.joules is None or other.joules is None else self.joules + other.joules
        return Cost(
            seconds=self.seconds + other.seconds,
            flop=(self.flop or 0) + (other.flop or 0) or None,  # a part without any, as one that reads what is there, adds none
            peak_bytes=max(self.peak_bytes or 0, other.peak_bytes or 0) or None,
            gpu_peak_bytes=max(self.gpu_peak_bytes or 0, other.gpu_peak_bytes or 0) or None,
            joules=joules,
        )


def as_provenance(costs: Mapping[str, Cost]) -> dict[str, str]:
    """Keys `seconds.<stage>`, `flop.<stage>`, `peak_bytes.<stage>`, ...; what is not known has none.

    Examples
    --------
    >>> as_provenance({"teacher": Cost(12.34, flop=10**12)})
    {'seconds.teacher': '12.3', 'flop.teacher': '1000000000000'}
    """
    written: dict[str, str] = {}
    for stage, cost in costs.items():
        held = {name: value for name, value in vars(cost).items() if value is not None}
        written |= {f"{name}.{stage}": f"{value:.1f}" if name in ("seconds", "joules") else str(value) for name, value in held.items()}
    return written


def costs_of(provenance: Mapping[str, str]) -> dict[str, Cost]:
    """What the stages of a run cost, in the order in which they are written; those without seconds are left out.

    Examples
    --------
    >>> costs_of({"preset": "quick", "seconds.teacher": "12.3", "flop.teacher": "1000", "seconds.lessons": "1.0"})
    {'teacher': Cost(seconds=12.3, flop=1000, ...), 'lessons': Cost(seconds=1.0, flop=None, ...)}
    """
    costs = {}
    for stage in (key.removeprefix("seconds.") for key in provenance if key.startswith("seconds.")):
        seconds = _number(provenance, "seconds", stage)
        if seconds is not None:
            flop, peak, gpu_peak = (_whole(provenance, name, stage) for name in ("flop", "peak_bytes", "gpu_peak_bytes"))
            costs[stage] = Cost(seconds, flop, peak, gpu_peak, _number(provenance, "joules", stage))
    return costs


def cost_per_neuron(provenance: Mapping[str, str], n_units: int) -> Cost | None:
    """What its student cost a neuron: teacher's answers, training, pruning and retraining, but not the teacher.

    All students are trained at once, so each has the same share.

    Parameters
    ----------
    provenance
        Of the run.
    n_units
        Units of the run, for runs of earlier versions, which did not write down how many the fit had in all its files.

    Returns
    -------
    Seconds, operations and joules of one unit; None where that is not known.

    Examples
    --------
    >>> cost_per_neuron({"seconds.teacher": "90", "seconds.lessons": "4", "seconds.students": "8", "units_fitted": "6"}, n_units=2).seconds
    2.0
    >>> cost_per_neuron({"seconds.teacher": "90"}, n_units=2) is None
    True
    """
    spent = [cost for stage, cost in costs_of(provenance).items() if stage in STUDENT_STAGES]
    fitted = _units_fitted(provenance, n_units)
    if not spent or not fitted:
        return None
    total = sum(spent[1:], start=spent[0])
    flop = None if total.flop is None else round(total.flop / fitted)
    return Cost(total.seconds / fitted, flop, joules=None if total.joules is None else total.joules / fitted)


def _units_fitted(provenance: Mapping[str, str], n_units: int) -> int | None:
    """Units of all files that were fitted together; None where only those of one of several are known."""
    if (written := provenance.get("units_fitted", "")).isdecimal():
        return int(written)
    return None if any(key.startswith("fitted.") and key != "fitted.0" for key in provenance) else n_units


def _number(provenance: Mapping[str, str], name: str, stage: str) -> float | None:
    try:
        value = float(provenance.get(f"{name}.{stage}", "nan"))
    except ValueError:
        return None  # another program may write what it likes there
    return value if math.isfinite(value) and value >= 0 else None


def _whole(provenance: Mapping[str, str], name: str, stage: str) -> int | None:
    value = _number(provenance, name, stage)
    return None if value is None else round(value)
