"""The published compact models of Cowley, Stan, Pillow & Smith (Nature 2026) as one session and the results of runs on it.

The files are those of github.com/cowleygroup/V4_compact_models: one network for each of 219 neurons, and networks of 5 to 200 filters in
the first three layers that all 219 share. They come with images and responses of one of the four sessions in which these neurons were
recorded, so that they can be shown, scored and compared like models that were fitted here, and be the teacher of a fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from nwb_compact.config import configure
from nwb_compact.errors import NwbCompactError
from nwb_compact.file_teacher import FileTeacher
from nwb_compact.images import as_rgb
from nwb_compact.progress import stage
from nwb_compact.provenance import input_hash, world
from nwb_compact.responses import Responses, responses_of
from nwb_compact.results import Results, StudentWeights
from nwb_compact.scoring import Predictions, score_units, size_scores
from nwb_compact.session import Session, Units
from nwb_compact.student import ARCHITECTURE, filters_per_layer, n_parameters
from nwb_compact_conversion.metadata import TIME_NOT_GIVEN
from nwb_compact_conversion.sources.cowley_v4 import DOI, LICENCE, read_cowley_v4
from nwb_compact_conversion.sources.cowley_v4_files import REPOSITORY
from nwb_compact_conversion.sources.cowley_v4_model_files import TEST_SESSIONS, UNITS, ModelFiles, find_models, unit_name
from nwb_compact_conversion.sources.cowley_v4_networks import EPSILON, Network, compact_network, shared_network
from nwb_compact_conversion.sources.cowley_v4_sessions import SESSIONS
from nwb_compact_conversion.sources.source_files import file_sha256

COMPACT_RUN, SHARED_RUN = "published-compact", "published-shared"
TEACHER_PARAMETERS = 25 * 2_257_368
"""Of the study's ensemble: its members, without the frozen backbone (class_ensemble_model.py and its summary)."""
NO_TEACHER = "the answers of the study's teacher are not published"
NOT_HERE = "this file holds no responses of the unit, so its model is not scored"
ANSWERS = (
    "as published: spikes in 100 ms, but for an offset that the study ignores (data_compact_models/readme.txt), so that answers may be "
    "negative; correlations do not depend on it"
)


def read_cowley_v4_models(
    data: Path, session: str = TEST_SESSIONS[0], *, command: str = "", quiet: bool = True
) -> tuple[Session, tuple[Results, ...]]:
    """The published models, with the images of one of their sessions and its neurons' responses.

    Parameters
    ----------
    data
        A clone of the public repository, or a folder that holds `compact_models`, `shared_models`, `images` and
        `responses_repeat_averaged`.
    session
        One of `TEST_SESSIONS`.
    command
        What was typed, for the provenance.
    quiet
        Show no progress.

    Returns
    -------
    session
        219 units named SESSION-neuronN, as `read_cowley_v4` numbers them; only those of `session` have responses.
    results
        `published-compact`, then `published-shared-5` and so on: every network as a student, its predictions of all images, and scores
        of the second half, as in the study. There is no teacher: what needs one is NaN.

    Raises
    ------
    NwbCompactError
        If there is no model, one is damaged or of another architecture, or images and responses cannot be read.

    Examples
    --------
    >>> read_cowley_v4_models(Path("no-such-folder"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-folder: found no such folder, expected the published V4 models and data.
    Next: give a clone of github.com/cowleygroup/V4_compact_models
    """
    files = find_models(data)
    if session not in TEST_SESSIONS:
        next_step = "choose one of them, or convert the session with cowley-v4"
        raise NwbCompactError("--session", found=f"'{session}'", expected=f"one of {', '.join(TEST_SESSIONS)}", next_step=next_step)
    compact = {name: compact_network(path) for name, path in files.compact.items()}
    shared = {filters: shared_network(path, len(UNITS)) for filters, path in files.shared.items()}
    read = _with_all_units(read_cowley_v4(data, session), data, session, files, compact)
    assert read.images.pixels is not None
    images, answered = as_rgb(read.images.pixels), responses_of(read)
    runs = {COMPACT_RUN: _joined(compact)} if compact else {}
    runs |= {f"{SHARED_RUN}-{filters}": _Run(read.units.name, network.students, _about(files.shared[filters], network))
             for filters, network in shared.items()}
    results = []
    for run_id, run in runs.items():
        about = world(command) | {"input_sha256": input_hash(answered)} | ABOUT | dict(run.about)
        with stage(run_id, len(images), quiet=quiet) as advance:
            predicted = FileTeacher(run_id, tuple(run.students)).predict(images, advance)
        results.append(_results(run_id, run, answered, predicted, about))
    return read, tuple(results)


# The session ------------------------------------------------------------------------------------------------------------


def _with_all_units(read: Session, data: Path, session: str, files: ModelFiles, compact: Mapping[str, Network]) -> Session:
    """The session with the neurons of the others beside its own, which are the only ones that answered."""
    names = tuple(unit_name(*unit) for unit in UNITS)
    properties = {"session": np.array([one for one, _ in UNITS]), "animal": np.array([SESSIONS[one].animal for one, _ in UNITS])}
    if compact:
        properties["published_parameters"] = np.array([compact[name].n_parameters if name in compact else np.nan for name in names])
    own = np.array([names.index(f"{session}-{name}") for name in read.units.name], np.uint32)
    paths = (*files.compact.values(), *files.shared.values())
    hashes = [f"file: {path.relative_to(data).as_posix()} sha256:{file_sha256(path)}" for path in paths]
    record = (read.about.source_script or "").replace("command: convert cowley-v4\n", "command: convert cowley-v4-models\n")
    about = replace(
        read.about,
        identifier=f"cowley-v4-models-{session}",
        session_id="cowley-v4-models",
        session_description=(
            f"Published compact models of {len(UNITS)} neurons in macaque V4 (sessions {', '.join(TEST_SESSIONS)}), with the images of "
            f"session {session} and what its {len(own)} neurons answered. {TIME_NOT_GIVEN}"
        ),
        notes=(
            f"Units are named by their session and their number in it. Only those of {session} have responses here. The models are in the "
            f"processing modules nwb_compact_published-...; their licence is {LICENCE}."
        ),
        source_script="\n".join([record, *hashes]),
    )
    subject = read.subject
    if subject is not None:
        told = f"The animal of session {session}, whose responses are here; the column animal of the units tells whose each unit is."
        subject = replace(subject, description=told)
    return replace(
        read, about=about, subject=subject, units=Units(names, properties=properties),
        response_units=replace(read.response_units, unit_index=own[read.response_units.unit_index]),
    )


# The runs ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """The students of one run."""

    unit_name: tuple[str, ...]
    students: tuple[StudentWeights, ...]
    about: Mapping[str, str]
    """Further provenance."""


ABOUT = {
    "source": REPOSITORY,
    "licence": LICENCE,
    "publication": DOI,
    "architecture": ARCHITECTURE,
    "answers": ANSWERS,
    "split": "the study's: the first half of the images fitted the teacher's readout, the second half is scored",
    "teacher": f"the study's ensemble of 25 networks; {NO_TEACHER}",
    "teacher_parameters": str(TEACHER_PARAMETERS),
    "batch_normalisation": f"folded into weights and biases, epsilon {EPSILON}",
}


def _joined(compact: Mapping[str, Network]) -> _Run:
    counts = [network.n_parameters for network in compact.values()]
    about = {
        "model_files": f"{len(compact)} lists of weights, with their SHA-256 in the file's source_script",
        "published_parameters": f"{np.median(counts):g}",
        "published_parameters_are": "median over the models, BatchNorm not folded: four numbers a filter beside its bias",
    }
    return _Run(tuple(compact), tuple(network.students[0] for network in compact.values()), about)


def _about(file_path: Path, network: Network) -> dict[str, str]:
    return {
        "model_files": f"{file_path.name} sha256:{file_sha256(file_path)}",
        "published_parameters": str(network.n_parameters),
        "published_parameters_are": f"of one network that answers for {len(network.students)} neurons, BatchNorm not folded",
    }


def _results(
    run_id: str, run: _Run, answered: Responses, predicted: Float32[np.ndarray, "image unit"], about: Mapping[str, str]
) -> Results:
    n_images = len(answered.image_sha256)
    side = tuple("fit" if image < -(-n_images // 2) else "scored" for image in range(n_images))
    filters = np.stack([filters_per_layer(student) for student in run.students])
    predictions = Predictions(
        teacher=np.full_like(predicted, np.nan),
        student=predicted,
        teacher_parameters=np.full(len(run.students), TEACHER_PARAMETERS),
        student_parameters=np.array([n_parameters(student) for student in run.students]),
        student_filters=filters.sum(axis=1),
    )
    here = np.flatnonzero(np.isin(run.unit_name, answered.unit_name))
    scores, told = _scored(answered, [answered.unit_name.index(run.unit_name[row]) for row in here], side, predictions, here)
    reason = np.full(len(run.unit_name), NOT_HERE, object)
    reason[here] = [f"{NO_TEACHER}; {why}" if why else NO_TEACHER for why in told]
    return Results(
        run_id=run_id, unit_name=run.unit_name, scores=scores, reason=tuple(reason), image_sha256=answered.image_sha256, side=side,
        teacher_prediction=predictions.teacher, student_prediction=predicted, teacher_member_prediction=None, filters_per_layer=filters,
        students=run.students, provenance=dict(about),
    )


def _scored(
    answered: Responses, columns: Sequence[int], side: Sequence[str], predictions: Predictions, rows: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Scores of all units, NaN but for sizes where there are no responses, and for each unit that has some why one of its scores is NaN."""
    settings, n_units = configure(), len(predictions.student_parameters)
    count = None if answered.count is None else answered.count[:, columns]
    of_these = replace(answered, unit_name=tuple(answered.unit_name[one] for one in columns), mean=answered.mean[:, columns], count=count)
    theirs = replace(
        predictions, teacher=predictions.teacher[:, rows], student=predictions.student[:, rows],
        teacher_parameters=predictions.teacher_parameters[rows], student_parameters=predictions.student_parameters[rows],
        student_filters=predictions.student_filters[rows],
    )
    found, reason = score_units(
        of_these, side, theirs, n_bootstraps=settings.bootstraps, seed=settings.seed, snr_floor=settings.snr_floor
    )
    scores = {name: np.full(n_units, np.nan) for name in found}
    for name, values in found.items():
        scores[name][rows] = values
    return scores | size_scores(predictions), reason
