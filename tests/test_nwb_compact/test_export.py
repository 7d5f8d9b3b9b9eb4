"""The command, from a session file with runs to files of single neurons."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact import __version__, load
from nwb_compact.cli import main
from nwb_compact.nwb_results import write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import Results, StudentWeights, example_results
from nwb_compact.session import example_session
from nwb_compact.student import ARCHITECTURE, example_student, n_parameters, predict

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), np.uint8)
SESSION = example_session(n_units=3)
PUBLISHED = (47, 57, 3, 7, 4)
"""About the widths of a published student, and its number of parameters."""
STUDENTS = (example_student(PUBLISHED), example_student(2, seed=1), example_student((2, 4, 3, 3, 2), seed=2))


def run(run_id: str, students: tuple[StudentWeights, ...] = STUDENTS) -> Results:
    results = example_results(SESSION)
    scores = dict(results.scores) | {"student_r2": np.array([0.404, 0.2, np.nan]), "student_r2_er": np.array([0.55, np.nan, np.nan])}
    return replace(results, run_id=run_id, students=students, scores=scores, reason=("", "no repeats", "silent on the scored side"))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "a.nwb"
    write_session(SESSION, path)
    write_results(run("first", STUDENTS[::-1]), path)
    write_results(run("second"), path)
    return path


@pytest.fixture
def folder(original, tmp_path, monkeypatch) -> Path:
    """A folder that holds nothing but the session file and is where the commands are run."""
    (tmp_path / "a.nwb").symlink_to(original)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*arguments: str):
    return CliRunner().invoke(main, ["export", "a.nwb", *arguments])


def others(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "a.nwb")


@pytest.mark.parametrize("ending", ["onnx", "safetensors", "npz"])
def test_a_published_size_stays_below_60_kb_and_answers_as_the_student(folder, ending):
    done = export("--unit", SESSION.units.name[0], "-o", f"u.{ending}")
    assert (done.exit_code, done.stderr) == (0, "")
    size = (folder / f"u.{ending}").stat().st_size
    assert done.stdout == f"u.{ending}: unit {SESSION.units.name[0]} of run second, {size:,} bytes\n"
    assert 12_400 < n_parameters(STUDENTS[0]) < 13_000
    assert size < 60_000
    expected = predict(STUDENTS[0], IMAGES)
    np.testing.assert_allclose(load(f"u.{ending}")(IMAGES), expected, rtol=0, atol=1e-4 * expected.std())
    assert others(folder) == [f"u.{ending}"]


def test_the_file_says_what_it_is(folder):
    export("--unit", SESSION.units.name[0], "-o", "u.onnx")
    assert load("u.onnx").metadata == {
        "unit": SESSION.units.name[0], "run": "second", "session": SESSION.about.identifier, "r2": "0.4040", "r2_er": "0.5500",
        "input": "uint8 RGB, image x 112 x 112 x 3, 0 black and 255 white",
        "answer": "expected spikes in the counting window, one number an image", "architecture": ARCHITECTURE,
        "parameters": str(n_parameters(STUDENTS[0])), "weights": "float32", "nwb_compact_version": __version__,
    }  # fmt: skip


def test_what_the_run_says_of_its_answers_goes_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_session(SESSION, "a.nwb")
    results = run("first")
    write_results(replace(results, provenance={**results.provenance, "answers": "as published", "architecture": "five layers"}), "a.nwb")
    export("--unit", SESSION.units.name[0], "-o", "u.npz")
    assert [load("u.npz").metadata[key] for key in ("answer", "architecture")] == ["as published", "five layers"]


def test_a_score_that_is_missing_has_its_reason(folder):
    export("--unit", SESSION.units.name[1], "-o", "u.npz")
    said = load("u.npz").metadata
    assert (said["r2"], said["r2_er"], said["reason"]) == ("0.2000", "nan", "no repeats")


def test_an_earlier_run_is_asked_for_by_name(folder):
    assert export("--unit", SESSION.units.name[0], "--run", "first", "-o", "u.npz").exit_code == 0
    np.testing.assert_array_equal(load("u.npz")(IMAGES), predict(STUDENTS[2], IMAGES))


@pytest.mark.parametrize("ending", ["onnx", "safetensors", "npz"])
def test_half_precision_halves_the_file_and_hardly_moves_the_answers(folder, ending):
    assert export("--unit", SESSION.units.name[0], "--float16", "-o", f"u.{ending}").exit_code == 0
    model, expected = load(f"u.{ending}"), predict(STUDENTS[0], IMAGES)
    assert (folder / f"u.{ending}").stat().st_size < 32_000
    assert model.metadata["weights"] == "float16"
    difference = np.abs(model(IMAGES) - expected).max() / expected.std()
    assert 0 < difference < 0.02


def test_onnxruntime_alone_reads_it(folder):
    export("--unit", SESSION.units.name[0], "-o", "u.onnx")
    np.save("images.npy", IMAGES)
    code = (
        "import sys, numpy as np, onnxruntime\n"
        "model = onnxruntime.InferenceSession('u.onnx')\n"
        "np.save('answers.npy', model.run(None, {'images': np.load('images.npy')})[0])\n"
        "assert not {'torch', 'nwb_compact', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    expected = predict(STUDENTS[0], IMAGES)
    np.testing.assert_allclose(np.load("answers.npy"), expected, rtol=0, atol=1e-4 * expected.std())


def test_several_units_fill_a_new_folder(folder):
    names = SESSION.units.name
    done = export("--unit", "all", "--format", "npz", "-o", "all")
    largest = max(path.stat().st_size for path in (folder / "all").iterdir())
    assert done.stdout == f"all: 3 units of run second, {largest:,} bytes at most each\n"
    assert sorted(path.name for path in (folder / "all").iterdir()) == sorted(f"{name}.npz" for name in names)
    export("--unit", names[2], "--unit", names[1], "--format", "safetensors", "-o", "two")
    for name, student in ((names[2], STUDENTS[2]), (names[1], STUDENTS[1])):
        np.testing.assert_array_equal(load(f"two/{name}.safetensors")(IMAGES), predict(student, IMAGES))
    assert others(folder) == ["all", "two"]


def test_names_that_no_file_may_have_are_changed_and_kept_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("a/1", "a:1", "b")
    session = replace(SESSION, units=replace(SESSION.units, name=names))
    write_session(session, "a.nwb")
    write_results(replace(run("first"), unit_name=names), "a.nwb")
    assert export("--unit", "all", "--format", "npz", "-o", "all").exit_code == 0
    assert others(tmp_path / "all") == ["1_a-1.npz", "2_a-1.npz", "3_b.npz"]
    assert load("all/2_a-1.npz").metadata["unit"] == "a:1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--unit", "unti-1", "-o", "u.npz"), "run second: found no unit 'unti-1', expected a unit of this run. Next: did you mean '{0}'?"),
        (("--unit", "{0}", "--run", "second2", "-o", "u.npz"),
         "a.nwb: found no run 'second2', expected a run of this file. Next: did you mean 'second'?"),
        (("--unit", "{0}", "-o", "a.nwb"), "a.nwb: found a name that ends in '.nwb', expected .onnx or .safetensors or .npz. "
                                           "Next: did you mean '.npz'?"),
        (("--unit", "{0}", "-o", "u"), "u: found a name without an ending, expected .onnx or .safetensors or .npz. "
                                       "Next: use one of: .npz, .onnx, .safetensors"),
        (("--unit", "{0}", "--format", "onnx", "-o", "u.npz"),
         "u.npz: found a name that ends in '.npz', expected .onnx. Next: use one of: .onnx"),
        (("--unit", "all", "-o", "u"),
         "--format: found none, expected one of onnx, safetensors, npz. Next: name it: of several units OUT is a folder"),
        (("--unit", "{0}", "-o", "no/u.npz"), "no: found no folder, expected one to write u.npz in. Next: create it"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(folder, arguments, message):
    done = export(*(argument.format(*SESSION.units.name) for argument in arguments))
    assert (done.exit_code, done.stderr) == (1, message.format(*SESSION.units.name) + "\n")
    assert others(folder) == []


def test_what_is_there_is_left_alone(folder):
    (folder / "u.npz").write_text("mine")
    (folder / "mine").mkdir()
    done = export("--unit", SESSION.units.name[0], "-o", "u.npz")
    assert (done.exit_code, done.stderr) == (1, "u.npz: found a file, expected none yet. Next: choose another name or remove it\n")
    assert (folder / "u.npz").read_text() == "mine"
    done = export("--unit", "all", "--format", "npz", "-o", "mine")
    assert (done.exit_code, done.stderr) == (1, "mine: found a folder, expected none yet. Next: choose another name or remove it\n")


def test_a_file_without_a_run_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_session(SESSION, "a.nwb")
    assert export("--unit", "unit-1", "-o", "u.npz").stderr == "a.nwb: found no run, expected at least one. Next: nwb-compact fit a.nwb\n"


def test_wrong_usage_exits_with_2(folder):
    done = export("--unit", "unit-1", "--format", "pickle", "-o", "u.pickle")
    assert done.exit_code == 2
    assert "'pickle' is not one of 'onnx', 'safetensors', 'npz'" in done.stderr


def test_without_onnx_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "nwb_compact.onnx_model", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = export("--unit", SESSION.units.name[0], "-o", "u.onnx")
    message = 'ONNX: found no package onnx, expected it installed. Next: pip install "nwb-compact[onnx]"\n'
    assert (done.exit_code, done.stderr, others(folder)) == (1, message, [])


def test_weights_beyond_half_precision_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_session(SESSION, "a.nwb")
    loud = StudentWeights(STUDENTS[1].arrays | {"readout.bias": np.array([7e4], np.float32)})
    write_results(run("first", (loud, *STUDENTS[1:])), "a.nwb")
    done = export("--unit", SESSION.units.name[0], "--float16", "-o", "u.npz")
    message = "found weights that float16 cannot hold, expected numbers up to 65,504. Next: leave out --float16\n"
    assert (done.exit_code, done.stderr, others(tmp_path)) == (1, f"unit {SESSION.units.name[0]}: {message}", [])


def test_a_unit_without_a_student_is_told_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_session(SESSION, "a.nwb")
    write_results(run("first", (*STUDENTS[:2], StudentWeights({"layer1.kernel": STUDENTS[1].arrays["layer1.kernel"]}))), "a.nwb")
    done = export("--unit", SESSION.units.name[2], "-o", "u.npz")
    assert done.stderr == f"unit {SESSION.units.name[2]}: found no student, expected one. Next: silent on the scored side\n"


def test_the_page_runs_as_it_stands(original, tmp_path, monkeypatch, capsys):
    (tmp_path / "session.nwb").symlink_to(original)
    monkeypatch.chdir(tmp_path)
    for language, block in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        if language == "python":
            exec(compile(block, PAGE.name, "exec"), {})
        for line in block.splitlines() if language == "console" else ():
            done = CliRunner().invoke(main, shlex.split(line)[2:])
            assert (done.exit_code, done.stderr) == (0, ""), line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "session.nwb", "unit-1.onnx", "unit-1.safetensors"]
    assert capsys.readouterr().out.count("[") == 3


def test_the_page_names_every_entry_of_the_metadata(folder):
    export("--unit", SESSION.units.name[1], "-o", "u.npz")
    text = PAGE.read_text(encoding="utf-8")
    assert [key for key in load("u.npz").metadata if f"`{key}`" not in text] == []
