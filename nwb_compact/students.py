"""From lessons to students: one network learns for all units, each unit's student is cut out of it, pruned its own way and trained on.

Training together first is what makes a student cheap: early filters are common to neurons, and what one unit needs of later layers is
found among what all of them need (docs/measured.md compares it with training each student alone).
"""

import numpy as np

from nwb_compact import config
from nwb_compact.bank import Bank, BankShape
from nwb_compact.distill import EPOCHS, Lessons, bank_for, train_bank
from nwb_compact.progress import stage
from nwb_compact.prune import SHARED, narrow, specialise
from nwb_compact.results import StudentWeights
from nwb_compact.student import N_LAYERS
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
        Every number.
    work
        Device and work folder.
    seed
        Source of all randomness.

    Returns
    -------
    One network a unit, in the order of the lessons: of its own, or (`student.kind` shared) all layers in common with the others.
    """
    distill, pruning = settings.distill, settings.prune

    def trained(bank: Bank, what: str, images_seen: int, learning_rate: float, *, smooth: bool) -> Bank:
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
    some = taught.images(np.random.default_rng(derived_seed(seed, "measured")).permutation(len(taught))[: pruning.images])
    with work.timed("pruning"):
        own = specialise(together, some, settings.student.late_filters, pruning, readout=settings.student.readout, device=work.device)
    with work.timed("retraining"):
        own = trained(own.fix(SHARED), "retraining", pruning.images_seen, pruning.learning_rate, smooth=False)
    with work.timed("pruning"):
        narrowed = narrow(own, some, pruning, device=work.device)
    with work.timed("retraining"):
        last = trained(narrowed.fix(SHARED), "last retraining", pruning.last_images_seen, pruning.last_learning_rate, smooth=False)
    return last.cut(taught.scale, taught.offset)
