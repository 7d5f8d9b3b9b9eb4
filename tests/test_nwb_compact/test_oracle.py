"""Whoever teaches answers for the units of all fitted sessions side by side, as the models themselves do."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from nwb_compact import config
from nwb_compact.backbones import Backbone, features
from nwb_compact.file_teacher import FileTeacher
from nwb_compact.oracle import FileTeachers, OwnTeacher, seen_by
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student, n_parameters, predict, predict_all
from nwb_compact.teacher import Teacher, TeacherSession, fit_teacher
from nwb_compact.work import Work

SETTINGS = config.Teacher(members=2, epochs=1, least_steps=1, channels=4, trunk_channels=4, core_blocks=0)
LESSONS = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), np.uint8)
UNITS = (2, 3, 1)
"""Of each session; the last one only lends, so nobody is asked about its unit."""
POOLED = Backbone("torch:lab:pooled", nn.AvgPool2d(16), sha256="0" * 64)


@pytest.fixture(scope="module")
def shown() -> list[np.ndarray]:
    """Images of three sessions."""
    return [np.random.default_rng(seed).integers(0, 256, (20, 112, 112, 3), np.uint8) for seed in range(3)]


def work_in(folder: Path) -> Work:
    (folder / "cache").mkdir()
    return Work("cpu", folder, quiet=True, cache=folder / "cache")


def taught_on(seen: list[np.ndarray]) -> Teacher:
    rng = np.random.default_rng(0)
    sessions = [
        TeacherSession(one, rng.gamma(2.0, 2.0, (20, n)), np.arange(14), np.arange(14, 20), is_lent=number == 2)
        for number, (one, n) in enumerate(zip(seen, UNITS, strict=True))
    ]
    return fit_teacher(sessions, SETTINGS, seed=0)


@pytest.mark.parametrize("backbone", [POOLED, None], ids=["frozen", "conv"])
def test_an_own_teacher_answers_side_by_side_what_it_predicts_of_each_session(shown, backbone, tmp_path):
    work = work_in(tmp_path)
    seen = [seen_by(backbone, images, "features", work) for images in shown]
    teacher = taught_on(seen)
    oracle = OwnTeacher(teacher, backbone, seen[:2], "cpu")
    looked_at = LESSONS if backbone is None else features(backbone.network, LESSONS)
    answers = oracle.answers(LESSONS)
    assert answers.shape == (5, 2 + 3)
    np.testing.assert_array_equal(answers[:, :2], teacher.predict(looked_at, 0))
    np.testing.assert_array_equal(answers[:, 2:], teacher.predict(looked_at, 1))
    assert (np.ptp(answers, axis=0) > 0).all()
    for session, n in enumerate(UNITS[:2]):
        members = oracle.members(session)
        assert members.shape == (2, 20, n)
        np.testing.assert_array_equal(members, teacher.predict_members(seen[session], session))
    for session, n in enumerate(UNITS[:2]):
        readout = sum(parameter.numel() for parameter in teacher.network.readouts[session].parameters()) // n
        shared = teacher.n_parameters - sum(parameter.numel() for parameter in teacher.network.readouts.parameters())
        assert oracle.n_parameters(session).tolist() == [shared + readout] * n


def test_features_of_sessions_are_kept_for_other_fits_and_those_of_lessons_are_not(shown, tmp_path):
    work = work_in(tmp_path)
    seen = [seen_by(POOLED, images, "features", work) for images in shown]
    kept = sorted(path.name for path in work.cache.iterdir())
    assert len(kept) == 3
    oracle = OwnTeacher(taught_on(seen), POOLED, seen[:2], "cpu")
    oracle.answers(LESSONS)
    oracle.members(1)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == kept
    np.testing.assert_array_equal(seen[1], features(POOLED.network, shown[1]))


def test_a_teacher_without_a_frozen_backbone_looks_at_the_images_and_keeps_nothing(shown, tmp_path):
    work = work_in(tmp_path)
    assert seen_by(None, shown[0], "features", work) is shown[0]
    assert list(work.cache.iterdir()) == []


def test_what_an_own_teacher_tells_the_provenance(shown, tmp_path):
    teacher = taught_on(shown)
    facts = OwnTeacher(teacher, None, shown[:2], "cpu").facts
    assert [float(word) for word in facts["teacher_validation_r2"].split()] == pytest.approx(teacher.validation_r2, abs=1e-4)
    assert [float(word) for word in facts["teacher_member_validation_r2"].split()] == pytest.approx(teacher.member_validation_r2, abs=1e-4)
    assert float(facts["teacher_weight_decay"]) == teacher.weight_decay
    assert set(facts) == {"teacher_validation_r2", "teacher_member_validation_r2", "teacher_weight_decay"}


def test_teachers_from_files_answer_side_by_side_as_they_do_alone_and_are_one_member(shown):
    networks = [example_student(seed=seed) for seed in range(3)]
    teachers = [FileTeacher("a", (networks[0], networks[1])), FileTeacher("b", (networks[2],))]
    oracle = FileTeachers(teachers, shown[:2])
    np.testing.assert_allclose(oracle.answers(LESSONS), np.stack([predict(one, LESSONS) for one in networks], axis=1), rtol=1e-4, atol=1e-4)
    assert oracle.members(0).shape == (1, 20, 2)
    np.testing.assert_array_equal(oracle.members(1), teachers[1].predict(shown[1])[None])
    sizes = [n_parameters(one) for one in networks]
    assert [oracle.n_parameters(session).tolist() for session in (0, 1)] == [sizes[:2], sizes[2:]]
    assert dict(oracle.facts) == {}, "nothing was trained, so there is no validation"


def test_what_models_of_several_sessions_share_is_computed_once_and_counts_for_each_unit(shown, monkeypatch):
    first, computed = example_student(), []
    others = [example_student(seed=seed).arrays for seed in (1, 2)]
    readouts = [{name: array for name, array in other.items() if name.startswith("readout")} for other in others]
    networks = (first, *(StudentWeights(first.arrays | readout) for readout in readouts))

    def noted(networks, images):
        computed.append(len(networks))
        return predict_all(networks, images)

    monkeypatch.setattr("nwb_compact.file_teacher.predict_all", noted)
    oracle = FileTeachers([FileTeacher("a", networks[:2]), FileTeacher("a", networks[2:])], shown[:2])
    expected = np.stack([predict(network, LESSONS) for network in networks], axis=1)
    np.testing.assert_allclose(oracle.answers(LESSONS), expected, rtol=1e-4, atol=1e-4)
    assert computed == [3]
    assert [oracle.n_parameters(session).tolist() for session in (0, 1)] == [[n_parameters(first)] * 2, [n_parameters(first)]]


def test_what_a_run_says_of_its_answers_is_said_of_those_who_learn_them(shown):
    teachers = [FileTeacher("a", (example_student(),), "counts but for an offset"), FileTeacher("a", (example_student(seed=1),))]
    assert dict(FileTeachers(teachers, shown[:2]).facts) == {"answers": "counts but for an offset"}


def test_no_images_are_answered_with_none(shown):
    assert FileTeachers([FileTeacher("a", (example_student(),) * 2)], shown[:1]).answers(LESSONS[:0]).shape == (0, 2)
    assert OwnTeacher(taught_on(shown), None, shown[:2], "cpu").answers(LESSONS[:0]).shape == (0, 5)
