"""A teacher from a file is the networks of the units that are fitted, in their order, and of no others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact.file_teacher import ANSWERED_AT_ONCE, teacher_of, teaching_run
from nwb_compact.nwb_results import write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import StudentWeights, example_results
from nwb_compact.session import Session, example_session
from nwb_compact.student import example_student, predict

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)


def session_of(names: Sequence[str], session_id: str | None = "190923") -> Session:
    session = example_session(n_units=len(names))
    return replace(session, units=replace(session.units, name=tuple(names)), about=replace(session.about, session_id=session_id))


def written(folder: Path, session: Session, students: Sequence[StudentWeights], run_id: str = "a") -> Path:
    """A file with a run; a further call adds another."""
    path = folder / "teacher.nwb"
    if not path.exists():
        write_session(session, path)
    write_results(replace(example_results(session), run_id=run_id, students=tuple(students)), path)
    return path


def sharing(n_units: int) -> list[StudentWeights]:
    """Readouts of one network."""
    core = {name: array for name, array in example_student().arrays.items() if not name.startswith("readout")}
    readouts = [example_student(seed=unit).arrays for unit in range(n_units)]
    return [StudentWeights(core | {name: one[name] for name in ("readout.weight", "readout.bias")}) for one in readouts]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return written(tmp_path, session_of(["neuron0", "neuron1", "neuron2"]), [example_student(seed=seed) for seed in range(3)])


def test_it_answers_for_the_units_asked_for_in_their_order(three: Path) -> None:
    teacher = teacher_of(teaching_run(three), ["neuron2", "neuron0"], session_id="190923")
    expected = np.stack([predict(example_student(seed=seed), IMAGES) for seed in (2, 0)], axis=1)
    np.testing.assert_allclose(teacher.predict(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_the_last_run_teaches_unless_one_is_named(tmp_path: Path) -> None:
    session = session_of(["neuron0"])
    for run_id, seed in (("b", 1), ("a", 2)):
        path = written(tmp_path, session, [example_student(seed=seed)], run_id)
    for asked, run_id, seed in ((None, "a", 2), ("b", "b", 1)):
        teacher = teacher_of(teaching_run(path, asked), ["neuron0"], session_id="190923")
        assert teacher.run_id == run_id
        np.testing.assert_array_equal(teacher.networks[0].arrays["readout.bias"], example_student(seed=seed).arrays["readout.bias"])


def test_shared_layers_are_one(tmp_path: Path) -> None:
    students = sharing(3)
    path = written(tmp_path, session_of(["neuron0", "neuron1", "neuron2"]), students)
    teacher = teacher_of(teaching_run(path), ["neuron0", "neuron2"], session_id="190923")
    assert teacher.networks[0].arrays["layer1.kernel"] is teacher.networks[1].arrays["layer1.kernel"]
    expected = np.stack([predict(students[unit], IMAGES) for unit in (0, 2)], axis=1)
    np.testing.assert_allclose(teacher.predict(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_units_of_a_file_of_several_sessions_are_known_by_session_and_name(tmp_path: Path) -> None:
    names = ["190923-neuron0", "201025-neuron0", "201025-neuron1"]
    path = written(tmp_path, session_of(names, "several"), [example_student(seed=seed) for seed in range(3)])
    teacher = teacher_of(teaching_run(path), ["neuron1", "neuron0"], session_id="201025")
    for network, seed in zip(teacher.networks, (2, 1), strict=True):
        np.testing.assert_array_equal(network.arrays["readout.bias"], example_student(seed=seed).arrays["readout.bias"])
    assert len(teacher_of(teaching_run(path), names, session_id="several").networks) == 3, "a fit of that file itself"


def test_the_same_name_in_another_session_is_another_unit(three: Path) -> None:
    with pytest.raises(NwbCompactError) as caught:
        teacher_of(teaching_run(three, "a"), ["neuron0", "neuron1"], session_id="210325")
    assert str(caught.value) == (
        f"{three}: run a: found networks of 0 of the 2 units of session 210325 (none of neuron0, neuron1), expected one of each: a teacher "
        "of other units cannot teach these. Next: take a teacher of this session, or one whose units are named SESSION-UNIT"
    )


@pytest.mark.parametrize(("of_file", "of_fit"), [(None, "190923"), ("190923", None), (None, None)])
def test_where_a_session_has_no_id_the_name_tells(tmp_path: Path, of_file: str | None, of_fit: str | None) -> None:
    path = written(tmp_path, session_of(["neuron0"], of_file), [example_student()])
    assert len(teacher_of(teaching_run(path), ["neuron0"], session_id=of_fit).networks) == 1


def test_a_teacher_that_lacks_some_units_is_told_how_many_and_which(tmp_path: Path) -> None:
    """A unit without a network is lacking too."""
    path = written(tmp_path, session_of(["u1", "u2"]), [example_student(), StudentWeights({})])
    with pytest.raises(NwbCompactError) as caught:
        teacher_of(teaching_run(path), ["u1", "u2", "u3", "u4", "u5"])
    assert "found networks of 1 of the 5 units (none of u2, u3, u4 and 1 more), expected one of each" in str(caught.value)


def test_a_file_without_a_run_or_without_that_run_is_told(tmp_path: Path, three: Path) -> None:
    write_session(session_of(["neuron0"]), tmp_path / "bare.nwb")
    with pytest.raises(NwbCompactError, match=r"bare\.nwb: found no run, expected one whose networks can teach\. Next: fit that"):
        teacher_of(teaching_run(tmp_path / "bare.nwb"), ["neuron0"])
    with pytest.raises(NwbCompactError, match=r"teacher\.nwb: found no run 'b', expected a run of this file"):
        teacher_of(teaching_run(three, "b"), ["neuron0"])
    with pytest.raises(NwbCompactError, match=r"none\.nwb: found no file, expected an NWB file\. Next: correct the path"):
        teacher_of(teaching_run(tmp_path / "none.nwb"), ["neuron0"])


def test_images_that_it_learned_from_cannot_be_scored(three: Path) -> None:
    results = example_results(session_of(["neuron0", "neuron1", "neuron2"]))
    of_side = {side: [results.image_sha256[image] for image, one in enumerate(results.side) if one == side] for side in set(results.side)}
    assert teacher_of(teaching_run(three), ["neuron0"], scored=of_side["scored"]).run_id == "a"
    with pytest.raises(NwbCompactError) as caught:
        teacher_of(teaching_run(three), ["neuron0"], scored=[*of_side["scored"], of_side["fit"][0], of_side["validation"][0]])
    assert str(caught.value) == (
        f"{three}: run a: found 2 images to be scored among those that it was fitted on, expected none: what was learned cannot be tested. "
        "Next: split the images as that run did (--split), or take another teacher"
    )


def test_images_of_another_size_are_refused(three: Path) -> None:
    teacher = teacher_of(teaching_run(three), ["neuron0"])
    with pytest.raises(NwbCompactError, match=r"images for the teacher: found 64 x 64 px, expected 112 x 112 px, which its networks take"):
        teacher.predict(np.zeros((2, 64, 64, 3), np.uint8))


def test_many_images_are_answered_part_by_part_and_told(three: Path) -> None:
    teacher = teacher_of(teaching_run(three), ["neuron0"])
    images = np.resize(IMAGES, (ANSWERED_AT_ONCE + 3, 112, 112, 3))
    told: list[int] = []

    def advance(n: int = 1, note: str = "") -> None:
        told.append(n)

    answers = teacher.predict(images, advance)
    assert told == [ANSWERED_AT_ONCE, 3]
    np.testing.assert_allclose(answers[:, 0], np.resize(predict(example_student(), IMAGES), len(images)), rtol=1e-4, atol=1e-4)
    assert teacher.predict(images[:0]).shape == (0, 1)


def test_it_keeps_what_its_run_says_of_the_answers(tmp_path: Path) -> None:
    session = session_of(["neuron0"])
    assert teacher_of(teaching_run(written(tmp_path, session, [example_student()])), ["neuron0"]).meaning is None
    told = replace(example_results(session), run_id="b", students=(example_student(),), provenance={"answers": "counts but for an offset"})
    write_results(told, tmp_path / "teacher.nwb")
    assert teacher_of(teaching_run(tmp_path / "teacher.nwb", "b"), ["neuron0"]).meaning == "counts but for an offset"


def test_its_hash_is_of_its_weights(tmp_path: Path, three: Path) -> None:
    one, again = (teacher_of(teaching_run(three), ["neuron0", "neuron1"]).sha256 for _ in range(2))
    others = {teacher_of(teaching_run(three), names).sha256 for names in (["neuron1", "neuron0"], ["neuron0"], ["neuron0", "neuron2"])}
    assert (one == again, len(others), one in others) == (True, 3, False)
