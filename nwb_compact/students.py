"""From lessons to students: one network learns for all units, each unit's student is cut out of it, pruned its own way and trained on.

Training together first is what makes a student cheap: early filters are common to neurons, and what one unit needs of later layers is
found among what all of them need (docs/measured.md compares it with training each student alone).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from nwb_compact import config
from nwb_compact.bank import Bank, BankShape
from nwb_compact.distill import EPOCHS, Lessons, bank_for, standardised_answers, train_bank
from nwb_compact.progress import stage
from nwb_compact.prune import SHARED, narrow, specialise
from nwb_compact.reliability import correlation
from nwb_compact.results import StudentWeights
from nwb_compact.student import N_LAYERS, n_parameters, predict_all
from nwb_compact.training import derived_seed
from nwb_compact.work import Work


def shared_shape(n_units: int, settings: config.Student) -> BankShape:
    """The network that learns for all units."""
    return BankShape(n_units, (*settings.early_filters, *settings.shared_filters), N_LAYERS)


def fit_students(taught: Lessons, name: str, settings: config.Fit, work: Work, *, seed: int) -> tuple[StudentWeights, ...]:
    """Train all students of a session.

    Parameters
    ----------
    taught
        What the teacher says.
    name
        Of the session in the work folder.
    settings
        Every number; of `prune.tolerance` the first.
    work
        Device and work folder.
    seed
        Source of all randomness.

    Returns
    -------
    One network a unit, in the order of the lessons: of its own, or (`student.kind` shared) all layers in common with the others.
    """
    distill, pruning = settings.distill, settings.prune

    def trained(bank: Bank, what: str, images_seen: int, learning_rate: float, *, smooth: bool = False) -> Bank:
        how = distill if smooth else distill.model_copy(update={"blur_times": 0})
        with stage(what, EPOCHS, quiet=work.quiet) as advance:
            return train_bank(
                bank, taught, how, images_seen=images_seen, learning_rate=learning_rate, seed=derived_seed(seed, what),
                device=work.device, checkpoint=work.path(f"{what}_{name}.pt"), advance=advance,
            )

    with work.timed("students"):
        together = bank_for(taught, shared_shape(taught.n_units, settings.student), seed=seed)
        together = trained(together, "students", distill.images_seen, distill.learning_rate, smooth=True)
    if settings.student.kind == "shared":
        return together.cut(taught.scale, taught.offset)
    order = np.random.default_rng(derived_seed(seed, "measured")).permutation(len(taught))
    some, ladder, own = taught.images(order[: pruning.images]), [], together
    for rung, kept_variance in enumerate(pruning.ladder if pruning.tolerance else (pruning.kept_variance,)):
        how, numbered = pruning.model_copy(update={"kept_variance": kept_variance}), f" {rung}" if rung else ""
        with work.timed("pruning"):
            own = specialise(own, some, settings.student.late_filters, how, readout=settings.student.readout, device=work.device)
        with work.timed("retraining"):
            own = trained(own.fix(SHARED), f"retraining{numbered}", pruning.images_seen, pruning.learning_rate)
        with work.timed("pruning"):
            narrowed = narrow(own, some, how, device=work.device)
        with work.timed("retraining"):
            narrowed = trained(narrowed.fix(SHARED), f"last retraining{numbered}", pruning.last_images_seen, pruning.last_learning_rate)
        ladder.append(narrowed.cut(taught.scale, taught.offset))
    if not pruning.tolerance:
        return ladder[0]
    return _within(pruning.tolerance[0], ladder, together, taught, order[-pruning.images :], work.device)


def smallest_sufficient_rung(
    r2: Float[np.ndarray, "rung unit"], size: Integer[np.ndarray, "rung unit"], least: Float[np.ndarray, "unit"]
) -> Integer[np.ndarray, "unit"]:
    """Of each unit the rung of its smallest student whose r2 is at least that; the first rung where none is.

    Examples
    --------
    >>> r2 = np.array([[0.9, 0.9, np.nan], [0.8, 0.5, np.nan]])
    >>> smallest_sufficient_rung(r2, np.array([[12, 9, 9], [7, 5, 5]]), np.array([0.75, 0.95, np.nan]))
    array([1, 0, 0])
    """
    enough = r2 >= least
    return np.where(enough.any(axis=0), np.where(enough, size, np.inf).argmin(axis=0), 0)


def _within(
    tolerance: float, ladder: Sequence[tuple[StudentWeights, ...]], together: Bank, taught: Lessons, judged: np.ndarray, device: str
) -> tuple[StudentWeights, ...]:
    """The smallest students whose r2 with the teacher, on the same lessons, is at most a share below that of the unpruned network."""
    images, wanted = taught.images(judged), taught.z(judged)
    whole = correlation(standardised_answers(together, images, device), wanted) ** 2
    r2 = np.stack([correlation(predict_all(students, images), wanted) ** 2 for students in ladder])
    size = np.array([[n_parameters(student) for student in students] for students in ladder])
    rungs = smallest_sufficient_rung(r2, size, (1 - tolerance) * whole)
    return tuple(ladder[rung][unit] for unit, rung in enumerate(rungs))
