"""The whole path as a user walks it: simulate, check, fit, kill, resume, show, report; and the study's data where they are at hand."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nwb_compact.kept_teacher import kept_teacher
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import read_session
from nwb_compact.results import SCORE_COLUMNS, score_columns
from nwb_compact.student import predict
from tests.shortest_fit import short_fit

TINY = short_fit({
    "bootstraps": 20, "teacher.members": 2, "teacher.epochs": 3, "teacher.channels": 8, "teacher.trunk_channels": 8,
    "student.early_filters": [6, 6], "student.shared_filters": [6, 6, 6], "distill.images_seen": 400, "distill.views": 2,
    "prune.images": 60, "prune.images_seen": 200, "baselines.epochs": 2, "baselines.least_steps": 1,
})


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nwb_compact.cli", *words], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a small session and the settings of a fit of seconds."""
    place = tmp_path_factory.mktemp("path with späces")
    assert run("simulate", "session.nwb", "--units", "4", "--images", "60", "--repeats", "3", "--seed", "0", cwd=place).returncode == 0
    (place / "tiny.toml").write_text(TINY, encoding="utf-8")
    return place


def fitted(place: Path, name: str, *words: str, module: str = "nwb_compact.cli") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *(["fit"] if module == "nwb_compact.cli" else [])]
    return subprocess.run([*command, name, "--config", "tiny.toml", *words], cwd=place, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def done(folder) -> Path:
    """The session after one fit."""
    path = folder / "done.nwb"
    shutil.copy(folder / "session.nwb", path)
    result = fitted(folder, path.name, "--run-id", "first")
    assert result.returncode == 0, result.stderr
    return path


def test_a_fit_leaves_complete_results_and_nothing_else(done):
    (results,) = read_results(done)
    session = read_session(done)
    assert results.run_id == "first"
    assert tuple(results.scores) == tuple(SCORE_COLUMNS)
    assert results.teacher_prediction.shape == (60, 4)
    assert results.side.count("scored") == 30
    assert [path.name for path in done.parent.iterdir() if path.name.startswith(".")] == []
    assert results.provenance["setting.teacher.members"] == "2"
    # The stored student alone, from its arrays, gives the stored predictions.
    alone = np.stack([predict(student, session.images.pixels) for student in results.students], axis=1)
    np.testing.assert_allclose(alone, results.student_prediction, rtol=1e-3, atol=1e-3)
    # And the stored score is what three lines of numpy make of stored predictions and counts.
    scored = np.flatnonzero(np.array(results.side) == "scored")
    valid = session.presentations.is_valid[session.counts.presentation_index]
    shown = session.presentations.image_index[session.counts.presentation_index]
    mean = np.array([session.counts.count[valid & (shown == image)].mean(axis=0) for image in scored])
    r = [np.corrcoef(mean[:, unit], results.student_prediction[scored, unit])[0, 1] for unit in range(4)]
    np.testing.assert_allclose(results.scores["student_r2"], np.square(r), rtol=1e-5)


def test_the_teacher_in_the_file_gives_the_predictions_in_the_file(done):
    (results,) = read_results(done, "first", with_teacher=True)
    session = read_session(done)
    members = kept_teacher(results).members(session.images.pixels)
    np.testing.assert_allclose(np.moveaxis(members, 0, 2), results.teacher_member_prediction, rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_of_scores_and_the_module_is_the_command(done, folder):
    result = fitted(folder, done.name, "--run-id", "second", module="nwb_compact.fit")
    assert result.returncode == 0, result.stderr
    first, second = read_results(done, "first")[0], read_results(done, "second")[0]
    for name in SCORE_COLUMNS:
        assert first.scores[name].tobytes() == second.scores[name].tobytes(), name
    other = fitted(folder, done.name, "--run-id", "other", "--seed", "7")
    assert other.returncode == 0, other.stderr
    assert read_results(done, "other")[0].scores["teacher_r2"].tobytes() != first.scores["teacher_r2"].tobytes()


def test_a_fit_killed_at_several_stages_and_resumed_ends_with_the_same_scores(done, folder):
    path = folder / "killed.nwb"
    shutil.copy(folder / "session.nwb", path)
    before = path.read_bytes()
    stages = ("teacher.pt", "students_0.pt", "retraining_0.pt", "last retraining_0.pt")
    for number, awaited in enumerate(stages):
        words = [sys.executable, "-m", "nwb_compact.fit", path.name, "--config", "tiny.toml", *(["--resume"] if number else [])]
        process = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not list((folder / ".killed.nwb-compact").glob(f"*/{awaited}")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the fit ended before it could be killed: no resuming was tested"
        assert path.read_bytes() == before
    result = fitted(folder, path.name, "--resume")
    assert result.returncode == 0, result.stderr
    resumed, whole = read_results(path)[0], read_results(done, "first")[0]
    for name in SCORE_COLUMNS:
        assert resumed.scores[name].tobytes() == whole.scores[name].tobytes(), name
    for stage in ("teacher", "lessons", "students"):
        assert int(resumed.provenance[f"flop.{stage}"]) > 0  # of what was killed a second may be lost
        assert int(resumed.provenance[f"peak_bytes.{stage}"]) > 2**27


def test_of_fits_of_one_file_at_once_the_equal_one_is_refused_and_the_others_all_end_in_it(folder):
    path = folder / "busy.nwb"
    shutil.copy(folder / "session.nwb", path)

    def begun(seed: str) -> "subprocess.Popen[str]":
        words = [sys.executable, "-m", "nwb_compact.fit", path.name, "--config", "tiny.toml", "--run-id", f"of-{seed}", "--seed", seed]
        return subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True)

    fits = [begun("1"), begun("2")]
    deadline = time.monotonic() + 120
    while len(list((folder / ".busy.nwb-compact").glob("*/lock"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    for fit in fits:  # they wait, so that the third meets both however fast they are
        fit.send_signal(signal.SIGSTOP)
    equal = begun("1")
    said = equal.communicate(timeout=300)[1]
    for fit in fits:
        fit.send_signal(signal.SIGCONT)
    told = [fit.communicate(timeout=300)[1] for fit in fits]
    assert equal.returncode == 1, said
    assert "found the same work under way in another process" in said
    assert [fit.returncode for fit in fits] == [0, 0], told
    assert sorted(results.run_id for results in read_results(path)) == ["of-1", "of-2"]
    assert not list(folder.glob(".busy*"))


def test_a_session_that_is_another_one_when_the_fit_ends_gets_no_results_and_the_fit_is_kept(folder):
    path, other = folder / "exchanged.nwb", folder / "other.nwb"
    shutil.copy(folder / "session.nwb", path)
    assert run("simulate", other.name, "--units", "4", "--images", "60", "--repeats", "3", "--seed", "9", cwd=folder).returncode == 0
    words = [sys.executable, "-m", "nwb_compact.fit", path.name, "--config", "tiny.toml"]
    process = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((folder / ".exchanged.nwb-compact").glob("*/teacher.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.replace(other, path)
    before, said = path.read_bytes(), process.communicate(timeout=300)[1]
    assert process.returncode == 1, said
    assert "exchanged.nwb: found other images or responses than when the fit began, expected the session that was fitted." in said
    assert path.read_bytes() == before
    shutil.copy(folder / "session.nwb", path)
    result = fitted(folder, path.name, "--resume")
    assert result.returncode == 0, result.stderr
    assert len(read_results(path)) == 1


def test_baselines_stand_in_the_same_table_and_change_no_other_score(done, folder):
    path = folder / "beside.nwb"
    shutil.copy(folder / "session.nwb", path)
    result = fitted(folder, path.name, "--baselines")
    assert result.returncode == 0, result.stderr
    (beside,), (alone,) = read_results(path), read_results(done, "first")
    assert list(beside.scores) == list(score_columns(["ridge", "direct", "ln"]))
    for name in SCORE_COLUMNS:
        assert beside.scores[name].tobytes() == alone.scores[name].tobytes(), name
    for name in ("ridge", "direct", "ln"):
        assert np.isfinite(beside.scores[f"{name}_r2"]).all()
        assert float(beside.provenance[f"seconds.baseline_{name}"]) >= 0
        assert beside.provenance[f"baseline.{name}"]
    assert (beside.provenance["setting.baselines.enabled"], alone.provenance["setting.baselines.enabled"]) == ("True", "False")
    unit = json.loads(run("show", path.name, "--json", cwd=folder).stdout)["runs"][0]["units"][0]
    assert unit["ridge_r2"] == beside.scores["ridge_r2"][0]
    assert run("report", path.name, "-o", "report beside", cwd=folder).returncode == 0
    assert (folder / "report beside" / "figure_2b_beside_baselines.png").is_file()


def test_show_prints_json_with_the_promised_names(done, folder):
    result = run("show", done.name, "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)["runs"][0]
    assert {"run_id", "preset", "seed", "units", "median", "teacher_parameters", "compression"} <= set(shown)
    assert shown["ensemble_members"] == len(shown["teacher_validation_r2"])
    names = {"unit", "teacher_r2", "student_r2", "teacher_r2_er", "student_r2_er", "student_r2_er_ci", "reliability",
             "student_parameters", "student_filters", "student_bytes", "teacher_student_r2"}
    assert names <= set(shown["units"][0])


def test_report_writes_one_page(done, folder):
    result = run("report", done.name, "-o", "report", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "<img" in (folder / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missing.nwb",), "missing.nwb: found no file"),
        (("session.nwb", "--backbone", "torch:no_such_module:f"), "--backbone torch:no_such_module:f: found ModuleNotFoundError"),
        (("session.nwb", "--train", "session.nwb"), "session.nwb: found a file named twice"),
        (("session.nwb", "--resume", "--seed", "99"), "--resume: found no stopped fit"),
        (("session.nwb", "--split", "column"), "--split column: found no 'split' column"),
        (("done.nwb", "--run-id", "first"), "done.nwb: found a run 'first'"),
        (("session.nwb", "--images", "tiny.toml"), "tiny.toml: found no zip or tar ("),
    ],
)
def test_bad_input_is_one_line_exit_1_and_nothing_lost(words, said, folder, done):
    before = {path.name: path.read_bytes() for path in folder.glob("*.nwb")}
    result = fitted(folder, *words, "--quiet")
    assert result.returncode == 1, result.stdout + result.stderr
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert {path.name: path.read_bytes() for path in folder.glob("*.nwb")} == before


def test_wrong_usage_exits_2(folder):
    assert run("fit", cwd=folder).returncode == 2
    assert run("fit", "a.nwb", "b.nwb", "--output", "c.nwb", cwd=folder).returncode == 2
    assert run("fit", "a.nwb", "--preset", "huge", cwd=folder).returncode == 2


def test_output_leaves_the_original_alone(folder):
    before = (folder / "session.nwb").read_bytes()
    result = fitted(folder, "session.nwb", "--output", "results.nwb")
    assert result.returncode == 0, result.stderr
    assert (folder / "session.nwb").read_bytes() == before
    assert len(read_results(folder / "results.nwb")) == 1


def test_two_files_share_a_teacher_and_each_gets_its_own_units(folder):
    for seed in ("3", "4", "5"):
        words = ("simulate", f"s{seed}.nwb", "--units", "3", "--images", "40", "--repeats", "2", "--seed", seed)
        assert run(*words, cwd=folder).returncode == 0
    result = fitted(folder, "s3.nwb", "s4.nwb", "--train", "s5.nwb", "--run-id", "both")
    assert result.returncode == 0, result.stderr
    third, fourth = read_results(folder / "s3.nwb")[0], read_results(folder / "s4.nwb")[0]
    assert third.run_id == fourth.run_id == "both"
    assert third.image_sha256 != fourth.image_sha256
    assert third.provenance["lent.2"].startswith("s5.nwb sha256:")
    assert read_results(folder / "s5.nwb") == ()


def test_the_example_compares_students_with_the_truth(capfd):
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "02_fit_simulated_neurons.py"))
    lines = [line for line in capfd.readouterr().out.splitlines() if "with the true rate" in line]
    assert len(lines) == 4
