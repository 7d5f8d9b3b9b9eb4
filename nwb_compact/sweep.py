"""The runs that one command asks for: one, shared models of several sizes, or students pruned to several tolerances."""

from collections.abc import Mapping

from nwb_compact.config import Fit
from nwb_compact.errors import NwbCompactError


def sweep(settings: Fit) -> Mapping[str, Fit]:
    """The settings of each fit, by what is added to the name of its run; they differ in nothing but the student's filters.

    As in the study (Cowley et al. 2026, Fig. 3): K filters in layers 1 to 3, in layers 4 and 5 always the same number. All learn from the
    same teacher and lessons.

    Parameters
    ----------
    settings
        Where `student.sweep_filters` names none there is one fit, of these settings, and nothing is added to its name.

    Raises
    ------
    NwbCompactError
        If filters are swept but students are not to share their layers, or tolerances but they are.

    Examples
    --------
    >>> from nwb_compact.config import configure
    >>> fits = sweep(configure(changes={"student": {"kind": "shared", "sweep_filters": (5, 25)}}))
    >>> [(name, fit.student.early_filters, fit.student.shared_filters) for name, fit in fits.items()]
    [('K5', (5, 5), (5, 100, 100)), ('K25', (25, 25), (25, 100, 100))]
    >>> list(sweep(configure()))
    ['']
    """
    student = settings.student
    if student.sweep_filters and student.kind != "shared":
        next_step = "add --students shared"
        raise NwbCompactError("--filters", found="students of their own for all units", expected="a shared one", next_step=next_step)
    if settings.prune.tolerance and student.kind == "shared":
        next_step = "leave one of --tolerance and --students shared out"
        raise NwbCompactError("--tolerance", found="a network shared by all units", expected="a network a unit", next_step=next_step)
    if not student.sweep_filters:
        return {"": settings}

    def of(k: int) -> Fit:
        widths = {"sweep_filters": (k,), "early_filters": (k, k), "shared_filters": (k, *student.sweep_last_filters)}
        return settings.model_copy(update={"student": student.model_copy(update=widths)})

    return {f"K{k}": of(k) for k in student.sweep_filters}


def tolerance_name(tolerance: float | None) -> str:
    """What is added to the name of a run whose students may have lost that share of r2 with the teacher; run ids hold no point.

    Examples
    --------
    >>> tolerance_name(0.05), tolerance_name(0.025), tolerance_name(None)
    ('T5', 'T2-5', '')
    """
    return "" if tolerance is None else "T" + f"{100 * tolerance:.6f}".rstrip("0").rstrip(".").replace(".", "-")


def run_names(run_id: str, settings: Fit) -> list[str]:
    """The runs to come.

    Raises
    ------
    NwbCompactError
        As `sweep`.

    Examples
    --------
    >>> from nwb_compact.config import configure
    >>> run_names("day", configure(changes={"prune": {"tolerance": (0.01, 0.05)}})), run_names("day", configure())
    (['day-T1', 'day-T5'], ['day'])
    """
    fits = list(sweep(settings))  # also where there are tolerances: what has no meaning is told before anything is trained
    added = [tolerance_name(tolerance) for tolerance in settings.prune.tolerance] or fits
    return [joined(run_id, name) for name in dict.fromkeys(added)]


def joined(run_id: str, name: str) -> str:
    """The name of one run."""
    return f"{run_id}-{name}" if name else run_id
