"""From lessons to students: one network learns for all units, each unit's student is cut out of it, pruned its own way and trained on.

Training together first is what makes a student cheap: early filters are common to neurons, and what one unit needs of later layers is
found among what all of them need (docs/measured.md compares it with training each student alone).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Integer, UInt8

from nwb_compact import config
from nwb_compact.bank import Bank, BankShape
from nwb_compact.bank_training import standardised_answers
from nwb_compact.distill import EPOCHS, Lessons, bank_for, train_bank
from nwb_compact.progress import stage
from nwb_compact.prune import narrow, specialise
from nwb_compact.reliability import correlation
from nwb_compact.results import StudentWeights
from nwb_compact.student import N_LAYERS, n_parameters, predict_all
from nwb_compact.training import derived_seed
from nwb_compact.work import Work

Students = tuple[StudentWeights, ...]
FIXED_SHARED = 1
"""Layers that learn no more once units part: nothing need flow back through the maps of layer 1, the largest, which cost most. Layer 2,
common to all until layer 1 is pruned, learns on."""
FIXED_OWN = 2
"""Layers that learn no more once layer 1 is pruned: layer 2, then each unit's own, stays as it was refitted."""


def fit_students(taught: Lessons, name: str, settings: config.Fit, work: Work, *, seed: int) -> Mapping[float | None, Students]:
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
    For each of `prune.tolerance`, or under None where there is none: one network a unit, in the order of the lessons. It is of the unit's
    own or (`student.kind` shared) has all layers in common with the others.
    """
    training = _Training(taught, name, settings, work, seed)
    with work.timed("students"):
        together = training.together()
    if settings.student.kind == "shared":
        return {None: together.cut(taught.scale, taught.offset)}
    pruning = settings.prune
    if not pruning.tolerance:
        return {None: next(training.ladder(together, (pruning.kept_variance,)))}
    with work.timed("pruning"):
        whole = training.judged(partial(standardised_answers, together, device=work.device))
    ladder: list[Students] = []
    r2: list[np.ndarray] = []
    for students in training.ladder(together, pruning.ladder):
        with work.timed("pruning"):
            r2.append(training.judged(partial(predict_all, students)))
        ladder.append(students)
        if not (r2[-1] >= (1 - max(pruning.tolerance)) * whole).any():  # of smaller ones few come back, and by little
            break
    r2_of_rung, size = np.stack(r2), np.array([[n_parameters(student) for student in students] for students in ladder])
    rungs = {tolerance: smallest_sufficient_rung(r2_of_rung, size, (1 - tolerance) * whole) for tolerance in pruning.tolerance}
    return {tolerance: tuple(ladder[rung][unit] for unit, rung in enumerate(chosen)) for tolerance, chosen in rungs.items()}


def shared_shape(n_units: int, settings: config.Student) -> BankShape:
    """The network that learns for all units."""
    products = settings.readout_products if settings.kind == "own" else 1
    return BankShape(n_units, (*settings.early_filters, *settings.shared_filters), N_LAYERS, products=products)


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


def rung_settings(pruning: config.Prune, kept_variances: Sequence[float]) -> list[config.Prune]:
    """How each rung of a ladder is pruned: `kept_first` and `last_layer_r2` fall by the same power as `kept_variance`.

    So layer 1 still grows smaller where all others have the fewest filters they may. Where the first rung gives up nothing there is no
    power to tell, and they stay as they are.

    Examples
    --------
    >>> usual = config.Prune()
    >>> [(round(rung.kept_first, 3), round(rung.last_layer_r2, 3)) for rung in rung_settings(usual, usual.ladder)]
    [(0.998, 0.98), (0.995, 0.95), (0.99, 0.9), (0.978, 0.8), (0.951, 0.6), (0.888, 0.3), (0.796, 0.1)]
    """
    step = np.log(kept_variances[0])
    powers = np.log(kept_variances) / step if step else np.ones(len(kept_variances))
    return [pruning.model_copy(update={
                "kept_variance": kept, "kept_first": pruning.kept_first**power, "last_layer_r2": pruning.last_layer_r2**power})
            for kept, power in zip(kept_variances, powers.tolist(), strict=True)]


class _Training:
    """The trainings of one session, each kept in the work folder under its name."""

    def __init__(self, taught: Lessons, name: str, settings: config.Fit, work: Work, seed: int):
        self._taught, self._name, self._settings, self._work, self._seed = taught, name, settings, work, seed
        self._order = np.random.default_rng(derived_seed(seed, "measured")).permutation(len(taught))

    def together(self) -> Bank:
        """One network for all units."""
        distill = self._settings.distill
        bank = bank_for(self._taught, shared_shape(self._taught.n_units, self._settings.student), seed=self._seed)
        return self._trained(bank, "students", distill.images_seen, distill.learning_rate, first=True)

    def ladder(self, bank: Bank, kept_variances: Sequence[float]) -> Iterator[Students]:
        """Students that keep less and less variance, each bank pruned from the one before and retrained when it is asked for."""
        pruning, work = self._settings.prune, self._work
        with work.timed("pruning"):
            some = self._taught.images(self._order[: pruning.images])
        for rung, how in enumerate(rung_settings(pruning, kept_variances)):
            numbered = f" {rung}" if rung else ""
            with work.timed("pruning"):
                student = self._settings.student
                bank = specialise(bank, some, student.most_late_filters, how, readout=student.readout, device=work.device)
            with work.timed("retraining"):
                bank = self._trained(bank.fix(FIXED_SHARED), f"retraining{numbered}", pruning.images_seen, pruning.learning_rate)
            with work.timed("pruning"):
                last = narrow(bank, some, how, device=work.device).fix(FIXED_OWN)
            with work.timed("retraining"):
                last = self._trained(last, f"last retraining{numbered}", pruning.last_images_seen, pruning.last_learning_rate)
            yield last.cut(self._taught.scale, self._taught.offset)

    def judged(
        self, answers: Callable[[UInt8[np.ndarray, "image 112 112 3"]], Float[np.ndarray, "image unit"]]
    ) -> Float[np.ndarray, "unit"]:
        """r2 of answers with the teacher's, on the same lessons for all who are asked."""
        some = self._order[-self._settings.prune.images :]
        return correlation(answers(self._taught.images(some)), self._taught.z(some)) ** 2

    def _trained(self, bank: Bank, what: str, images_seen: int, learning_rate: float, *, first: bool = False) -> Bank:
        work, distill = self._work, self._settings.distill
        how = distill if first else distill.model_copy(update={"blur_times": 0, "sparsity": 0.0})
        with stage(what, EPOCHS, quiet=work.quiet) as advance:
            return train_bank(
                bank, self._taught, how, images_seen=images_seen, learning_rate=learning_rate, seed=derived_seed(self._seed, what),
                device=work.device, checkpoint=work.path(f"{what}_{self._name}.pt"), advance=advance,
            )
