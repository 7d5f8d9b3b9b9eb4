"""The fits that one command asks for: one, or shared models of several sizes that learn from the same teacher and lessons."""

from collections.abc import Mapping

from nwb_compact.config import Fit
from nwb_compact.errors import NwbCompactError


def sweep(settings: Fit) -> Mapping[str, Fit]:
    """The settings of each fit, by what is added to the name of its run; they differ in nothing but the student's filters.

    As in the study (Cowley et al. 2026, Fig. 3): K filters in layers 1 to 3, in layers 4 and 5 always the same number.

    Parameters
    ----------
    settings
        Where `student.filters` names none there is one fit, of these settings, and nothing is added to its name.

    Raises
    ------
    NwbCompactError
        If students are not to share their layers.

    Examples
    --------
    >>> from nwb_compact.config import configure
    >>> fits = sweep(configure(changes={"student": {"kind": "shared", "filters": (5, 25)}}))
    >>> [(name, fit.student.early_filters, fit.student.shared_filters) for name, fit in fits.items()]
    [('K5', (5, 5), (5, 100, 100)), ('K25', (25, 25), (25, 100, 100))]
    >>> list(sweep(configure()))
    ['']
    """
    student = settings.student
    if not student.filters:
        return {"": settings}
    if student.kind != "shared":
        next_step = "add --students shared"
        raise NwbCompactError("--filters", found="students of their own for all units", expected="a shared one", next_step=next_step)

    def of(k: int) -> Fit:
        widths = {"filters": (k,), "early_filters": (k, k), "shared_filters": (k, *student.last_filters)}
        return settings.model_copy(update={"student": student.model_copy(update=widths)})

    return {f"K{k}": of(k) for k in student.filters}
