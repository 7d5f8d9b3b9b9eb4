"""The command on a small scale; the whole fit is walked in test_end_to_end.py."""

import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nwb_compact.config import configure
from nwb_compact.errors import NwbCompactError
from nwb_compact.file_teacher import teacher_of, teaching_run
from nwb_compact.fit import command
from nwb_compact.fit_data import read_sessions
from nwb_compact.kept_teacher import kept_teacher
from nwb_compact.natural_images import natural_images
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import StudentWeights, example_results, shared_arrays
from nwb_compact.scoring import FLAT_MODEL
from nwb_compact.session import image_sha256
from nwb_compact.show import command as show
from nwb_compact.simulate import simulate_session
from nwb_compact.student import example_student, n_parameters, predict, predict_all
from nwb_compact_analysis.cli import report

SETTINGS = configure("quick")
LAYERS = '''
from torch import nn
class Layers(nn.Module):
    asked = []
    def forward(self, images):
        Layers.asked.append(images.clone())
        assert images.shape[1] == 3
        return {"colour": nn.functional.avg_pool2d(images, 8), "flat": images.mean((1, 2, 3), keepdim=True)}
def layers(): return Layers()
'''
TINY = {
    "teacher": {"members": 1, "epochs": 1, "least_steps": 1, "channels": 4}, "distill": {"images_seen": 100, "views": 2},
    "prune": {"images_seen": 100, "last_images_seen": 100, "images": 50},
    "student": {"early_filters": (4, 4), "shared_filters": (4, 4, 4), "most_late_filters": (3, 3, 3)}, "bootstraps": 10,
}


@pytest.fixture(scope="module")
def session():
    return simulate_session(n_units=3, n_images=40, n_repeats=2, seed=0)


def with_pixels(session, pixels):
    return replace(session, images=replace(session.images, pixels=pixels, sha256=tuple(image_sha256(image) for image in pixels)))


def toml(settings) -> str:
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    lines = [f"{name} = {value}" for name, value in settings.items() if name not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {list(value) if isinstance(value, tuple) else value}" for key, value in table.items())]
    return "\n".join(lines)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with a network of two layers, a tiny configuration and nothing else."""
    (tmp_path / "lab_layers.py").write_text(LAYERS)
    (tmp_path / "tiny.toml").write_text(toml(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("lab_layers", None)


def run(lab, *words):
    arguments = ["session.nwb", "--preset", "quick", "--config", "tiny.toml", "--device", "cpu", "--cache-dir", "cache"]
    return CliRunner().invoke(command, [*arguments, "--backbone", "torch:lab_layers:layers", *words], catch_exceptions=False)


def test_a_grey_session_is_fitted_in_the_layer_chosen_without_its_scored_images(session, lab, monkeypatch):
    """The whole path: grey images become colour, the layer is chosen on the fitting side, features are made once for two fits."""
    grey = session.images.pixels[..., 1] if session.images.pixels.ndim == 4 else session.images.pixels
    write_session(with_pixels(session, np.ascontiguousarray(grey)), lab / "session.nwb")
    first = run(lab, "--run-id", "first")
    assert first.exit_code == 0, first.output
    assert "layer " in first.stderr
    asked = sys.modules["lab_layers"].Layers.asked
    images = np.concatenate([batch.permute(0, 2, 3, 1).numpy() for batch in asked])
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    (fitted,) = read_sessions([lab / "session.nwb"], [], SETTINGS)
    chosen_on = images[1:21].astype(np.uint8)  # after the blank image; 20 images are the fitting side
    fitting_side = fitted.images[fitted.rows("fit", "validation")]
    assert {image_sha256(image) for image in chosen_on} == {image_sha256(image) for image in fitting_side}
    facts = read_results(lab / "session.nwb", "first")[0].provenance
    scores = {name: float(facts[f"layer_validation_r2.{name}"]) for name in ("colour", "flat")}
    assert facts["layer"] == max(scores, key=scores.get)
    n_files, n_asked = len(list((lab / "cache").iterdir())), len(asked)
    monkeypatch.setattr("nwb_compact.fit.fit_students", lambda *_, **__: 1 / 0)  # all features have been asked for by then
    with pytest.raises(ZeroDivisionError):
        run(lab, "--run-id", "second")
    assert len(list((lab / "cache").iterdir())) == n_files == 2  # the session, and the layers' scores
    again = np.concatenate([batch.permute(0, 2, 3, 1).numpy() for batch in asked[n_asked:]])
    n_lessons = TINY["distill"]["views"] * len(fitting_side)  # asked about anew, as they are kept for no other fit
    assert len(again) == 1 + 1 + n_lessons  # the blank image, and one image a file
    np.testing.assert_array_equal(again[2 : 2 + len(fitting_side)].astype(np.uint8), fitting_side)


def test_a_named_layer_is_taken_and_another_layer_is_another_fit(session, lab, monkeypatch):
    write_session(session, lab / "session.nwb")
    named = []
    monkeypatch.setattr("nwb_compact.fit.work_folder", lambda beside, decisive, resume: named.append(decisive) or 1 / 0)
    for layer in ("flat", "colour"):
        with pytest.raises(ZeroDivisionError):
            run(lab, "--layer", layer, "--quiet")
    assert [decisive[0]["layer"] for decisive in named] == ["flat", "colour"]
    with pytest.raises(NwbCompactError, match=r"^--layer flatt: found no such layer, .* Next: did you mean 'flat'\?$"):
        run(lab, "--layer", "flatt")


@pytest.mark.parametrize("most_mb", [1, 0])
def test_the_file_keeps_a_teacher_that_answers_as_it_did_unless_it_is_larger_than_the_settings_say(most_mb, session, lab):
    write_session(session, lab / "session.nwb")
    (lab / "tiny.toml").write_text(toml({**TINY, "teacher": {**TINY["teacher"], "most_kept_mb": most_mb}}))
    assert run(lab, "--layer", "colour", "--quiet").exit_code == 0
    (results,) = read_results(lab / "session.nwb", with_teacher=True)
    if most_mb == 0:
        assert results.teacher is None
        assert results.provenance["teacher_not_kept_mb"] == "1"
        return
    assert "teacher_not_kept_mb" not in results.provenance
    assert results.provenance["lesson_views"] == str(TINY["distill"]["views"])
    with pytest.raises(NwbCompactError, match="Next: give --backbone torch:lab_layers:layers, if you trust it"):
        kept_teacher(results)
    members = kept_teacher(results, "torch:lab_layers:layers").members(session.images.pixels)
    np.testing.assert_allclose(np.moveaxis(members, 0, 2), results.teacher_member_prediction, rtol=1e-5, atol=1e-5)


def test_further_images_are_learned_from_counted_and_their_listing_is_gone_at_the_end(session, lab):
    write_session(session, lab / "session.nwb")
    (lab / "more").mkdir()
    for number, image in enumerate((*session.images.pixels, *natural_images(12, seed=9))):  # half of the session is scored, half is there
        Image.fromarray(image).save(lab / "more" / f"{number}.png")
    (lab / "more" / "cut.png").write_bytes(b"no image")
    assert run(lab, "--images", "more", "--run-id", "first", "--layer", "flat", "--quiet").exit_code == 0
    facts = read_results(lab / "session.nwb", "first")[0].provenance
    assert facts["lesson_images"].startswith("32 sha256:")
    assert {name: facts[name] for name in facts if name.startswith("lesson_images_left_out")} == {
        "lesson_images_left_out.broken": "1", "lesson_images_left_out.duplicate": "20", "lesson_images_left_out.scored": "20",
    }
    assert not (lab / ".session.nwb-compact").exists()


# Kinds of students ----------------------------------------------------------------------------------------------------
def test_students_that_share_all_layers_are_stored_once_shown_and_drawn(session, lab):
    write_session(session, lab / "session.nwb")
    assert run(lab, "--students", "shared", "--run-id", "one", "--layer", "flat", "--quiet").exit_code == 0
    (results,) = read_results(lab / "session.nwb")
    assert results.provenance["setting.student.kind"] == "shared"
    shared = shared_arrays(results.students)
    assert set(shared) == {"input.mean", "layer1.kernel", *(f"layer{n}.bias" for n in range(1, 6)),
                           *(f"layer{n}.{half}" for n in range(2, 6) for half in ("depthwise", "pointwise"))}
    for student in results.students:
        assert {name: array.shape for name, array in student.arrays.items() if name not in shared} == {
            "readout.filter": (4,), "readout.space": (28, 28), "readout.bias": (1,),
        }
    with h5py.File(lab / "session.nwb") as file:
        of_run = file["processing/nwb_compact_one"]
        assert len(of_run["shared_parameters/id"]) == len(shared) == 15
        assert len(of_run["student_parameters/id"]) == 3 * 3
    (fitted,) = read_sessions([lab / "session.nwb"], [], SETTINGS)
    np.testing.assert_allclose(predict_all(results.students, fitted.images), results.student_prediction, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(results.filters_per_layer, np.full((3, 5), 4))
    np.testing.assert_array_equal(results.scores["student_parameters"], [n_parameters(one) for one in results.students])
    shown = CliRunner().invoke(show, ["session.nwb"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "Run one: preset quick" in shown.output
    drawn = CliRunner().invoke(report, ["session.nwb", "-o", "report"], catch_exceptions=False)
    assert drawn.exit_code == 0, drawn.output
    assert (lab / "report" / "index.html").is_file()


# A teacher from a file ------------------------------------------------------------------------------------------------
@pytest.fixture
def taught_session(session, lab):
    """The session that is fitted, in a file of its own."""
    write_session(session, lab / "session.nwb")
    return session


def add_run(lab, session, run_id, *, seed=0, side=None, name="teacher.nwb"):
    """A run of compact networks in another file of the same session; its images were used for nothing, or as `side` says."""
    path = lab / name
    if not path.exists():
        write_session(session, path)
    networks = tuple(example_student(seed=10 * seed + unit) for unit in range(len(session.units.name)))
    side = side or ("unused",) * len(session.images.sha256)
    write_results(replace(example_results(session), run_id=run_id, students=networks, side=side), path)
    return networks


def taught(lab, teacher, *words):
    arguments = ["session.nwb", "--preset", "quick", "--config", "tiny.toml", "--device", "cpu", "--cache-dir", "cache"]
    return CliRunner().invoke(command, [*arguments, "--teacher", teacher, *words], catch_exceptions=False)


def test_a_session_is_taught_by_a_run_of_another_file_and_no_teacher_is_fitted(taught_session, lab, monkeypatch):
    networks = add_run(lab, taught_session, "first", seed=1)
    monkeypatch.setattr("nwb_compact.fit.fit_teacher", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("nwb_compact.fit.frozen_backbone", lambda *_, **__: 1 / 0)
    assert taught(lab, "teacher.nwb", "--run-id", "taught", "--quiet").exit_code == 0
    (results,) = read_results(lab / "session.nwb", with_teacher=True)
    (fitted,) = read_sessions([lab / "session.nwb"], [], SETTINGS)
    np.testing.assert_allclose(results.teacher_prediction, predict_all(networks, fitted.images), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(results.teacher_member_prediction[:, :, 0], results.teacher_prediction)
    assert results.teacher_member_prediction.shape == (40, 3, 1)
    assert results.teacher is None
    teacher = teacher_of(teaching_run(lab / "teacher.nwb", "first"), results.unit_name, session_id=taught_session.about.session_id)
    facts = results.provenance
    assert facts["teacher_from_file.0"] == f"run first sha256:{teacher.sha256}"
    sizes = np.array([n_parameters(network) for network in networks])
    assert facts["teacher_parameters"] == str(round(np.median(sizes)))
    np.testing.assert_allclose(results.scores["compression"], sizes / results.scores["student_parameters"])
    assert not {"backbone_sha256", "layer", "teacher_validation_r2", "seconds.teacher", "seconds.features"} & set(facts)
    assert {"seconds.lessons", "seconds.students", "flop.lessons"} <= set(facts)
    assert not [name for name in facts if name.startswith("setting.teacher.")], "settings of a teacher that was not fitted"
    scored = fitted.rows("scored")
    expected = [np.corrcoef(results.teacher_prediction[scored, unit], fitted.responses.mean[scored, unit])[0, 1] ** 2 for unit in range(3)]
    np.testing.assert_allclose(results.scores["teacher_r2"], expected, rtol=1e-4)
    shown = CliRunner().invoke(show, ["session.nwb"], catch_exceptions=False)
    assert f"teacher of {facts['teacher_parameters']} parameters" in " ".join(shown.output.split())
    assert not (lab / "cache").exists(), "the teacher has no features"


def test_the_run_is_the_last_or_the_one_after_the_colon_and_a_colon_in_the_name_of_a_file_is_none(taught_session, lab, monkeypatch):
    for name in ("teacher.nwb", "day:b.nwb"):
        for seed, run_id in enumerate(("b", "a")):
            add_run(lab, taught_session, run_id, seed=seed, name=name)
    named = []
    monkeypatch.setattr("nwb_compact.fit.work_folder", lambda beside, decisive, resume: named.append(decisive) or 1 / 0)
    for word, name, expected in (
        ("teacher.nwb", "teacher.nwb", "a"), ("teacher.nwb:b", "teacher.nwb", "b"), (str(lab / "teacher.nwb:a"), "teacher.nwb", "a"),
        ("day:b.nwb", "day:b.nwb", "a"), ("day:b.nwb:b", "day:b.nwb", "b"),
    ):
        with pytest.raises(ZeroDivisionError):
            taught(lab, word, "--quiet")
        teacher = teacher_of(teaching_run(name, expected), taught_session.units.name)
        assert named.pop()[0]["teacher_from_file.0"] == f"run {expected} sha256:{teacher.sha256}"


def test_the_teacher_decides_on_the_fit_that_is_resumed(taught_session, lab, monkeypatch):
    for seed, run_id in enumerate(("a", "b")):
        add_run(lab, taught_session, run_id, seed=seed)
    monkeypatch.setattr("nwb_compact.fit.fit_students", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        taught(lab, "teacher.nwb:a", "--quiet")
    with pytest.raises(NwbCompactError, match=r"^--resume: found no stopped fit"):
        taught(lab, "teacher.nwb:b", "--resume", "--quiet")
    with pytest.raises(ZeroDivisionError):
        taught(lab, "teacher.nwb:a", "--resume", "--quiet")


def test_a_run_of_students_that_was_fitted_here_teaches_again(taught_session, lab):
    """Students of students: the file itself, of the same split."""
    assert run(lab, "--layer", "flat", "--run-id", "first", "--students", "shared", "--quiet").exit_code == 0
    assert taught(lab, "session.nwb:first", "--run-id", "second", "--students", "shared", "--quiet").exit_code == 0
    (first,), (second,) = (read_results(lab / "session.nwb", run_id) for run_id in ("first", "second"))
    np.testing.assert_allclose(second.teacher_prediction, first.student_prediction, rtol=1e-4, atol=1e-4)
    assert second.side == first.side
    np.testing.assert_allclose(second.scores["teacher_r2"], first.scores["student_r2"], rtol=1e-3)


@pytest.mark.parametrize(("word", "found"), [
    ("teacher.nwb:none", "teacher.nwb: found no run 'none', expected a run of this file"),
    ("none.nwb", "none.nwb: found no file, expected an NWB file"),
    ("none.nwb:a", "none.nwb: found no file, expected an NWB file"),
    ("session.nwb", "session.nwb: found no run, expected one whose networks can teach"),
])
def test_a_teacher_that_is_not_there_is_one_line(taught_session, lab, word, found):
    add_run(lab, taught_session, "a")
    before = (lab / "session.nwb").read_bytes()
    with pytest.raises(NwbCompactError) as caught:
        taught(lab, word, "--quiet")
    assert str(caught.value).startswith(found)
    assert "\n" not in str(caught.value)
    assert (lab / "session.nwb").read_bytes() == before
    assert not (lab / ".session.nwb-compact").exists()


@pytest.mark.parametrize("words", [("--backbone", "vone"), ("--layer", "flat"), ("--members", "3")])
def test_what_only_a_fitted_teacher_heeds_is_wrong_usage_beside_a_teacher_from_a_file(taught_session, lab, words):
    add_run(lab, taught_session, "a")
    result = taught(lab, "teacher.nwb", *words, "--quiet")
    assert result.exit_code == 2
    assert f"--teacher takes a teacher as it is, so {words[0]} has no meaning" in result.stderr


def test_a_teacher_of_other_units_is_refused_before_anything_is_made(taught_session, lab):
    other = replace(taught_session, about=replace(taught_session.about, session_id="another day"))
    add_run(lab, other, "a")
    with pytest.raises(NwbCompactError) as caught:
        taught(lab, "teacher.nwb", "--quiet")
    names = ", ".join(taught_session.units.name)
    assert str(caught.value) == (
        f"teacher.nwb: run a: found networks of 0 of the 3 units of session {taught_session.about.session_id} (none of {names}), expected "
        "one of each: a teacher of other units cannot teach these. Next: take a teacher of this session, or one whose units are named "
        "SESSION-UNIT"
    )
    assert not (lab / ".session.nwb-compact").exists()


def test_a_teacher_that_learned_from_images_that_will_be_scored_is_refused(taught_session, lab, monkeypatch):
    (fitted,) = read_sessions([lab / "session.nwb"], [], SETTINGS)
    learned = list(fitted.sides)
    for row, side in zip(fitted.rows("scored")[:3], ("fit", "validation", "fit"), strict=True):
        learned[row] = side
    add_run(lab, taught_session, "a", side=tuple(learned))
    with pytest.raises(NwbCompactError) as caught:
        taught(lab, "teacher.nwb", "--quiet")
    assert str(caught.value) == (
        "teacher.nwb: run a: found 3 images to be scored among those that it was fitted on, expected none: what was learned cannot be "
        "tested. Next: split the images as that run did (--split), or take another teacher"
    )
    add_run(lab, taught_session, "same-split", side=fitted.sides)
    monkeypatch.setattr("nwb_compact.fit.work_folder", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        taught(lab, "teacher.nwb:same-split", "--quiet")


def test_a_unit_whose_teacher_is_flat_gets_a_student_and_a_reason_and_the_others_are_unaffected(taught_session, lab):
    """A network that always answers alike cannot be z-scored; nobody else may feel it."""
    networks = [example_student(seed=unit) for unit in range(3)]
    silent = {"readout.weight": np.zeros((3, 28, 28), np.float32), "readout.bias": np.full(1, 2.5, np.float32)}
    networks[1] = StudentWeights(networks[1].arrays | silent)
    write_session(taught_session, lab / "teacher.nwb")
    flat = replace(example_results(taught_session), run_id="flat", students=tuple(networks), side=("unused",) * 40)
    write_results(flat, lab / "teacher.nwb")
    assert taught(lab, "teacher.nwb", "--quiet").exit_code == 0
    (results,) = read_results(lab / "session.nwb")
    (fitted,) = read_sessions([lab / "session.nwb"], [], SETTINGS)
    alone = np.stack([predict(network, fitted.images) for network in networks], axis=1)
    np.testing.assert_allclose(results.teacher_prediction, alone, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(results.teacher_prediction[:, 1], 2.5, rtol=1e-6)
    assert np.isfinite(results.student_prediction).all()
    assert results.scores["teacher_r2"][1] == 0
    assert np.isnan(results.scores["teacher_student_r2"][1])
    assert results.reason[1] == FLAT_MODEL
    for name in ("teacher_r2", "student_r2", "teacher_student_r2", "student_parameters"):
        assert (results.scores[name][[0, 2]] > 0).all(), name


def test_two_sessions_are_taught_by_models_of_one_file(taught_session, lab):
    """As published models are: units of several sessions in one file, named SESSION-UNIT."""
    other = with_pixels(simulate_session(n_units=2, n_images=40, n_repeats=2, seed=1), natural_images(40, seed=8))
    sessions = [replace(one, about=replace(one.about, session_id=f"day{number}")) for number, one in enumerate((taught_session, other))]
    (lab / "session.nwb").unlink()
    for one, name in zip(sessions, ("session.nwb", "other.nwb"), strict=True):
        write_session(one, lab / name)
    names = [f"{one.about.session_id}-{unit}" for one in sessions for unit in one.units.name]
    all_units = simulate_session(n_units=5, n_images=40, n_repeats=2, seed=2)
    all_units = replace(all_units, units=replace(all_units.units, name=tuple(names)), about=replace(all_units.about, session_id="models"))
    networks = add_run(lab, all_units, "published")
    assert taught(lab, "teacher.nwb", "other.nwb", "--run-id", "both", "--students", "shared", "--quiet").exit_code == 0
    for name, rows in (("session.nwb", slice(0, 3)), ("other.nwb", slice(3, 5))):
        (results,) = read_results(lab / name)
        (fitted,) = read_sessions([lab / name], [], SETTINGS)
        np.testing.assert_allclose(results.teacher_prediction, predict_all(networks[rows], fitted.images), rtol=1e-5, atol=1e-5)
        assert results.provenance["teacher_parameters"] == str(round(np.median([n_parameters(one) for one in networks[rows]])))
