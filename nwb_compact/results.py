"""The results of one fit, as frozen values that need neither a file nor torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer

from nwb_compact.errors import counted
from nwb_compact.session import Session

SIDES = ("fit", "validation", "scored", "unused")
"""What an image was used for: fitting, early stopping, scoring only, or nothing (it has no usable response, or looks like a scored one)."""

IMAGE_PX = 112
"""Side of the images that students see, pixels."""
N_LAYERS = 5
"""Of a student."""

MODELS = ("teacher", "student")
"""The models that every run has; a run may have baselines beside them, under names of one word."""

MODEL_SCORES: Mapping[str, str] = {
    "r2": "squared Pearson correlation of the prediction with the repeat average on scored images",
    "r": "signed Pearson correlation of the prediction with the repeat average on scored images",
    "r2_er": "noise-corrected r2 (Pospisil & Bair 2021, unequal repeats)",
    "r2_er_low": "lower end of the 90 % bootstrap interval of r2_er over images",
    "r2_er_high": "upper end of the 90 % bootstrap interval of r2_er over images",
    "r2_er_ecci_low": "lower end of the 90 % estimate-centred credible interval of r2_er on these images (Pospisil & Bair 2021)",
    "r2_er_ecci_high": "upper end of the 90 % estimate-centred credible interval of r2_er on these images (Pospisil & Bair 2021)",
    "feve": "fraction of explainable variance explained (Cadena et al. 2019)",
    "single_trial_r": "Pearson correlation of the prediction with single presentations",
}
"""What is told of every model; the column is `<model>_<score>`."""

_UNIT_SCORES: Mapping[str, str] = {
    "reliability": "split-half correlation of repeat averages, Spearman-Brown corrected, scored images",
    "cc_max": "highest correlation of any model with the repeat average: root of the reliability (CC_max of Hsu et al. 2004)",
    "snr": "variance of the signal over images / variance of the noise of one presentation (Pospisil & Bair 2021)",
    "below_snr_floor": "1 where snr is below the floor that the run's settings set for all units before any prediction was seen, else 0",
    "mean_count": "mean response over scored images, spikes in the counting window",
    "teacher_student_r2": "squared correlation of student and teacher predictions on scored images",
    "student_parameters": "numbers the student holds: kernels, weights, biases, readout (of published models with BatchNorm folded in)",
    "student_filters": "spatial (kernel) filters of the student summed over its layers",
    "student_bytes": "size of the student's parameters as float32, bytes",
    "compression": "teacher parameters that make the unit's answer (a frozen backbone is not counted) / student parameters",
}


def score_columns(baselines: Iterable[str] = ()) -> Mapping[str, str]:
    """Every score of a unit and what it means, in the order in which it is stored.

    Parameters
    ----------
    baselines
        Names of the models beside teacher and student.

    Examples
    --------
    >>> [name for name in score_columns(["ridge"]) if name.startswith("ridge")][:4]
    ['ridge_r2', 'ridge_r', 'ridge_r2_er', 'ridge_r2_er_low']
    """
    always = {f"{model}_{name}": f"{text}, {model}" for name, text in MODEL_SCORES.items() for model in MODELS}
    beside = {f"{model}_{name}": f"{text}, baseline {model}" for model in baselines for name, text in MODEL_SCORES.items()}
    return {**always, **_UNIT_SCORES, **beside}


_COMPARED = ("r2", "r2_er", "r2_er_low", "r2_er_high", "feve", "single_trial_r")
"""What is shown of baselines; runs of earlier versions have no more."""


def baselines_of(scores: Iterable[str]) -> tuple[str, ...]:
    """Names of the baselines among the columns of a run's scores, in their order.

    Examples
    --------
    >>> baselines_of(score_columns(["ridge", "ln"]))
    ('ridge', 'ln')
    """
    named = dict.fromkeys(scores)
    models = [name.removesuffix("_r2") for name in named if name.endswith("_r2")]
    return tuple(model for model in models if model not in MODELS and all(f"{model}_{score}" in named for score in _COMPARED))


SCORE_COLUMNS = score_columns()
"""The scores that every run has. NaN where one cannot be computed; `Results.reason` then says why."""


@dataclass(frozen=True, eq=False)
class StudentWeights:
    """One compact network as named arrays: enough to rebuild and run it anywhere (see `student`).

    `input.mean` (3,); `layer1.kernel` (filter 3 5 5); for layers 2 to 5 `layerN.depthwise` (input 5 5) and
    `layerN.pointwise` (filter input); `layerN.bias` (filter,) for all five; `readout.weight` (filter 28 28), or `readout.filter`
    (filter,) and `readout.space` (28 28), whose product it is, or (filter product) and (product 28 28), of whose products it is the sum;
    `readout.bias` (1,). Each layer is relu(convolution + bias);
    layers 2 and 3 have stride 2; images are RGB, 0..255, 112 px. Students cut out of one shared network hold its layers as the very
    same objects (`shared_arrays`), which a file keeps once.
    """

    arrays: Mapping[str, Float32[np.ndarray, "*any"]]


def readout_weight(student: StudentWeights) -> Float32[np.ndarray, "filter 28 28"]:
    """Weight of every place of the last map, also where the student holds products of a weight a filter and a weight a place."""
    arrays = student.arrays
    if "readout.weight" in arrays:
        return arrays["readout.weight"]
    filters, space = arrays["readout.filter"], arrays["readout.space"]
    return np.tensordot(filters.reshape(len(filters), -1), space.reshape(-1, *space.shape[-2:]), axes=1)


def are_same_students(some: Sequence[StudentWeights], others: Sequence[StudentWeights]) -> bool:
    """Whether two runs hold the same networks, number by number.

    Examples
    --------
    >>> one, other = example_results().students
    >>> are_same_students([one, other], [one, other]), are_same_students([one, other], [other, one])
    (True, False)
    """
    def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
        return one.keys() == other.keys() and all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)

    return len(some) == len(others) and all(same(one.arrays, other.arrays) for one, other in zip(some, others, strict=True))


@dataclass(frozen=True, eq=False)
class TeacherWeights:
    """The teacher's own network as named arrays: the part of `ensemble.Ensemble` that answers for one session (see `kept_teacher`).

    A frozen backbone below it is not among them; the provenance names it.
    """

    arrays: Mapping[str, Float32[np.ndarray, "*any"]]

    @property
    def n_bytes(self) -> int:
        """Size of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True, eq=False)
class Results:
    """What one fit found out about the units of one session."""

    run_id: str
    """Letters, digits and dashes; the module in the file is `nwb_compact_<run_id>`."""
    unit_name: tuple[str, ...]
    scores: Mapping[str, Float[np.ndarray, "unit"]]
    """The columns of `score_columns`, those of the baselines only where some were fitted."""
    reason: tuple[str, ...]
    """Why a score of this unit is NaN, empty when none is."""
    image_sha256: tuple[str, ...]
    side: tuple[str, ...]
    """One of `SIDES` for each image."""
    teacher_prediction: Float32[np.ndarray, "image unit"]
    student_prediction: Float32[np.ndarray, "image unit"]
    """Expected response (spikes in the counting window) to every image of the session."""
    teacher_member_prediction: Float32[np.ndarray, "image unit member"] | None
    """The same of each member of the teacher's ensemble, whose average is `teacher_prediction`; None in files of older versions."""
    filters_per_layer: Integer[np.ndarray, "unit layer"]
    """Spatial filters that each layer of each student keeps."""
    students: tuple[StudentWeights, ...]
    provenance: Mapping[str, str]
    """Everything that made the numbers: versions, commit, device, seed, every setting, input hashes."""
    teacher: TeacherWeights | None = None
    """None where the teacher is models of another file, was too large to be kept, or was not read with the rest."""

    def preferred_images(self, n: int) -> Integer[np.ndarray, "unit rank"]:
        """Index of the `n` images each student answers most, strongest first, among those that the fit used; (unit rank).

        Examples
        --------
        >>> from nwb_compact.results import example_results
        >>> example_results().preferred_images(2).shape
        (2, 2)
        """
        return self._extreme_images(-1, n)

    def spurned_images(self, n: int) -> Integer[np.ndarray, "unit rank"]:
        """The same of those it answers least, weakest first; (unit rank)."""
        return self._extreme_images(1, n)

    def _extreme_images(self, sign: int, n: int) -> Integer[np.ndarray, "unit rank"]:
        rows = np.flatnonzero(self.is_used)
        return rows[np.argsort(sign * self.student_prediction[rows], axis=0, kind="stable")[:n].T]

    @property
    def is_used(self) -> Bool[np.ndarray, "image"]:
        """Whether the fit used an image. Others look like a scored one, or have no response: they may not even be images, but
        placeholders of a converter. All, where none was used.
        """
        used = np.array(self.side) != "unused"
        return used if used.any() else ~used


def shared_arrays(students: Sequence[StudentWeights]) -> Mapping[str, Float32[np.ndarray, "*any"]]:
    """Arrays that all students hold as the very same object, by name; none where there are fewer than two students.

    Examples
    --------
    >>> layer = np.ones((3, 3, 5, 5), np.float32)
    >>> students = [StudentWeights({"layer1.kernel": layer, "readout.bias": np.zeros(1, np.float32)}) for _ in range(2)]
    >>> list(shared_arrays(students))
    ['layer1.kernel']
    """
    if len(students) < 2:
        return {}
    first, *others = students
    return {name: array for name, array in first.arrays.items() if all(other.arrays.get(name) is array for other in others)}


def below_snr_floor(results: Results) -> Bool[np.ndarray, "unit"]:
    """Units whose SNR is below the floor of their run; none in runs of earlier versions, which had no floor.

    Examples
    --------
    >>> below_snr_floor(example_results())
    array([False, False])
    """
    return results.scores.get("below_snr_floor", np.full(len(results.unit_name), np.nan)) == 1


def disagreement(results: Results, units: Sequence[int] | None = None) -> Float32[np.ndarray, "image chosen"] | None:
    """Standard deviation over the members of the teacher's ensemble of what they expect, in spikes in the counting window.

    It bounds the model's uncertainty from below: members share backbone, architecture, data and split, so they can be wrong alike. Of the
    noise of the responses it says nothing.

    Parameters
    ----------
    results
        One fit.
    units
        Rows of `results`; all when not given.

    Returns
    -------
    (image chosen), never NaN: infinite where a member's prediction is not a number. None where fewer than two members are stored.

    Examples
    --------
    >>> results = example_results()
    >>> bool(np.allclose(disagreement(results), 0.1 * results.teacher_prediction))  # its members expect 0.9, 1 and 1.1 times the average
    True
    """
    members = results.teacher_member_prediction
    if members is None or members.shape[2] < 2:
        return None
    with np.errstate(invalid="ignore"):  # infinite - infinite
        spread = (members if units is None else members[:, list(units)]).std(axis=2, ddof=1)
    return np.where(np.isfinite(spread), spread, np.float32(np.inf))


def teacher_validation_r2(results: Results, of: Literal["teacher", "teacher_member"] = "teacher") -> tuple[float, ...]:
    """Score on validation images as the fit wrote it down, a mean over the sessions it trained on; empty where it did not.

    Parameters
    ----------
    results
        One fit.
    of
        `teacher`: the average of the first 1, 2, ... members of the ensemble; `teacher_member`: each member by itself.

    Examples
    --------
    >>> teacher_validation_r2(example_results())
    (0.41, 0.43, 0.44)
    """
    try:
        written = tuple(float(word) for word in results.provenance.get(f"{of}_validation_r2", "").split())
    except ValueError:
        return ()  # another program may write what it likes there
    return written if np.isfinite(written).all() else ()


def median(values: Float[np.ndarray, "unit"]) -> float:
    """Median over the units that have the score, those without (NaN) left out; NaN where none has.

    Examples
    --------
    >>> median(np.array([1.0, np.nan, 2.0])), median(np.array([np.nan]))
    (1.5, nan)
    """
    held = values[~np.isnan(values)]
    return float(np.median(held)) if held.size else float("nan")


def headline(run_id: str, scores: Mapping[str, np.ndarray]) -> str:
    """One line on a run.

    Examples
    --------
    >>> headline("example", example_results().scores)
    'run example, 2 units, median r2 of the teacher 0.625, of the students 0.478 with 1 parameters'
    """
    teacher, student, parameters = (median(scores[name]) for name in ("teacher_r2", "student_r2", "student_parameters"))
    return (
        f"run {run_id}, {counted(len(scores['teacher_r2']), 'unit')}, median r2 of the teacher {teacher:.3f}, "
        f"of the students {student:.3f} with {parameters:.0f} parameters"
    )


def example_results(session: Session | None = None) -> Results:
    """A small, made-up `Results` for documentation and tests; its numbers mean nothing.

    With a session, it is about that session's units and images.
    """
    unit_name = ("unit-1", "unit-2") if session is None else session.units.name
    image_sha256 = tuple(f"{index:064x}" for index in range(6)) if session is None else session.images.sha256
    rng = np.random.default_rng(0)
    n_units, n_images = len(unit_name), len(image_sha256)
    members = rng.gamma(2.0, 1.0, (n_images, n_units, 1)).astype(np.float32) * np.array([0.9, 1.0, 1.1], np.float32)
    prediction = members.mean(axis=2)
    students = tuple(StudentWeights({"layer1.kernel": rng.normal(size=(3, 3, 5, 5)).astype(np.float32)}) for _ in unit_name)
    return Results(
        run_id="example",
        unit_name=unit_name,
        scores={name: rng.uniform(0.1, 0.9, n_units) for name in SCORE_COLUMNS},
        reason=("",) * n_units,
        image_sha256=image_sha256,
        side=tuple(("fit", "fit", "validation", "scored", "scored", "scored")[index % 6] for index in range(n_images)),
        teacher_prediction=prediction,
        student_prediction=prediction * np.float32(0.9),
        teacher_member_prediction=members,
        filters_per_layer=np.resize([[9, 9, 8, 3, 3], [7, 7, 6, 3, 3]], (n_units, 5)),
        students=students,
        provenance={
            "preset": "quick", "seed": "0", "teacher_parameters": "1000",
            "teacher_validation_r2": "0.4100 0.4300 0.4400", "teacher_member_validation_r2": "0.4100 0.4000 0.4200",
            "units_fitted": str(n_units), "seconds.teacher": "90.0", "flop.teacher": "9000000000000", "peak_bytes.teacher": "2000000000",
            "seconds.lessons": f"{2.0 * n_units}", "seconds.students": f"{4.0 * n_units}", "flop.students": str(500_000_000_000 * n_units),
        },
    )
