"""The fits that one command asks for: one, shared models of several sizes, or students pruned to several tolerances.

All learn from the same teacher and lessons; students of several tolerances also come from the same trainings.
"""

from collections.abc import Mapping

from nwb_compact.config import Fit
from nwb_compact.errors import NwbCompactError


def sweep(settings: Fit) -> Mapping[str, Fit]:
    """The settings of each fit, by what is added to the name of its run; they differ in nothing but the student's filters
    or the tolerance.

    As in the study (Cowley et al. 2026, Fig. 3): K filters in layers 1 to 3, in layers 4 and 5 always the same number.

    Parameters
    ----------
    settings
        Where neither `student.filters` nor `prune.tolerance` names any there is one fit, of these settings, and nothing is added to its
        name.

    Raises
    ------
    NwbCompactError
        If filters are swept but students are not to share their layers, or tolerances but they are.

    Examples
    --------
    >>> from nwb_compact.config import configure
    >>> fits = sweep(configure(changes={"student": {"kind": "shared", "filters": (5, 25)}}))
    >>> [(name, fit.student.early_filters, fit.student.shared_filters) for name, fit in fits.items()]
    [('K5', (5, 5), (5, 100, 100)), ('K25', (25, 25), (25, 100, 100))]
    >>> list(sweep(configure(changes={"prune": {"tolerance": (0.01, 0.05)}})))
    ['T1', 'T5']
    >>> list(sweep(configure()))
    ['']
    """
    student, tolerance = settings.student, settings.prune.tolerance
    if tolerance and student.kind == "shared":
        next_step = "leave one of --tolerance and --students shared out"
        raise NwbCompactError("--tolerance", found="a network shared by all units", expected="a network a unit", next_step=next_step)
    if tolerance:
        pruned = {_percent(share): settings.prune.model_copy(update={"tolerance": (share,)}) for share in tolerance}
        return {name: settings.model_copy(update={"prune": prune}) for name, prune in pruned.items()}
    if not student.filters:
        return {"": settings}
    if student.kind != "shared":
        next_step = "add --students shared"
        raise NwbCompactError("--filters", found="students of their own for all units", expected="a shared one", next_step=next_step)

    def of(k: int) -> Fit:
        widths = {"filters": (k,), "early_filters": (k, k), "shared_filters": (k, *student.last_filters)}
        return settings.model_copy(update={"student": student.model_copy(update=widths)})

    return {f"K{k}": of(k) for k in student.filters}


def _percent(share: float) -> str:
    """0.05 is T5, 0.025 is T2-5: run ids hold no point."""
    return "T" + f"{100 * share:.6g}".replace(".", "-")
