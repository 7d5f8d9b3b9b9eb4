"""Shared models of several sizes: their settings, and a sweep through the command as a user walks it."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact import fit, students
from nwb_compact.config import configure
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import read_results, run_ids, write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import shared_arrays
from nwb_compact.simulate import simulate_session
from nwb_compact.sweep import run_names, sweep, tolerance_name
from tests.shortest_fit import short_fit

TINY = short_fit({"teacher.core_blocks": 0, "student.sweep_last_filters": [4, 5]})
SMALL = short_fit({
    "teacher.core_blocks": 0, "student.early_filters": [4, 4], "student.shared_filters": [4, 4, 4], "prune.ladder": [0.9, 0.3],
    "prune.min_filters": 1, "baselines.epochs": 1, "baselines.least_steps": 1,
})


SWEEP = ("--students", "shared", "--filters", "3", "2")


class Killed(Exception):
    """What a kill looks like from within."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which nobody has fitted, what a sweep that nobody killed found there, and how often it asked the teacher."""
    folder, calls = tmp_path_factory.mktemp("lab"), []
    write_session(simulate_session(n_units=2, n_images=30, n_repeats=2, seed=0), folder / "session.nwb")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        counted(patch, fit, "fit_teacher", calls)
        counted(patch, fit, "asked", calls)
        done = run(*SWEEP, "--output", "swept.nwb")
    assert done.exit_code == 0, done.output
    assert re.findall(r"run (\S+), 2 units", done.output) == ["day-K3", "day-K2"]
    return folder, read_results(folder / "swept.nwb"), calls


@pytest.fixture
def lab(whole, tmp_path, monkeypatch):
    """A copy of that folder, to work in."""
    for name in ("session.nwb", "tiny.toml"):
        shutil.copy(whole[0] / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    words = ("session.nwb", "--config", "tiny.toml", "--device", "cpu", "--run-id", "day", "--quiet", *words)
    return CliRunner().invoke(fit.command, words, catch_exceptions=False)


def counted(monkeypatch, module, name, calls, *, die_at=None):
    """Note each call of a function; die at one of them."""
    real = getattr(module, name)

    def noting(*given, **named):
        calls.append(name)
        if calls.count(name) == die_at:
            raise Killed
        return real(*given, **named)

    monkeypatch.setattr(module, name, noting)


def test_fits_of_a_sweep_differ_in_the_filters_of_the_student_alone():
    settings = configure(changes={"seed": 3, "student": {"kind": "shared", "sweep_filters": (10, 5, 10), "sweep_last_filters": (7, 9)}})
    fits = sweep(settings)
    assert list(fits) == ["K10", "K5"]
    for k, one in zip((10, 5), fits.values(), strict=True):
        assert students.shared_shape(2, one.student).widths == (k, k, k, 7, 9)
        widths = {"sweep_filters": settings.student.sweep_filters, "early_filters": settings.student.early_filters,
                  "shared_filters": settings.student.shared_filters}
        assert one.model_copy(update={"student": one.student.model_copy(update=widths)}) == settings
        assert one.student.sweep_filters == (k,)


def test_without_filters_there_is_one_fit_of_the_settings_themselves():
    settings = configure("quick", changes={"student": {"kind": "shared"}})
    assert sweep(settings) == {"": settings}


def test_runs_are_named_by_their_tolerance_each_once():
    settings = configure(changes={"prune": {"tolerance": (0.05, 0.01, 0.025, 0.05, 0.07)}})
    assert list(sweep(settings)) == [""]
    assert run_names("day", settings) == ["day-T5", "day-T1", "day-T2-5", "day-T7"]
    assert [tolerance_name(share) for share in (0.1, 0.29, 0.000001)] == ["T10", "T29", "T0-0001"]


@pytest.mark.parametrize(("words", "told"), [
    (("--students", "shared", "--tolerance", "0.1"), "--tolerance: found a network shared by all units, expected a network a unit. Next: "
     "leave one of --tolerance and --students shared out"),
    (("--tolerance", "0.1", "--filters", "5"),
     "--filters: found students of their own for all units, expected a shared one. Next: add --students shared"),
    (("--tolerance", "5"), r"prune.tolerance.0: found 5.0, expected Input should be less than 1."),
])
def test_a_tolerance_without_meaning_is_told_before_anything_is_trained(lab, monkeypatch, words, told):
    monkeypatch.setattr(fit, "fit_teacher", None)
    with pytest.raises(NwbCompactError) as caught:
        run(*words)
    assert str(caught.value).startswith(told)


def test_all_tolerances_come_from_the_same_trainings(lab, monkeypatch):
    calls = []
    for name in ("fit_teacher", "asked"):
        counted(monkeypatch, fit, name, calls)
    counted(monkeypatch, students, "train_bank", calls)
    counted(monkeypatch, students, "narrow", calls)
    Path("tiny.toml").write_text(SMALL, encoding="utf-8")
    done = run("--tolerance", "0.9", "0.000001", "--baselines")
    assert re.findall(r"run (\S+), 2 units", done.output) == ["day-T90", "day-T0-0001"]
    assert Counter(calls) == {"fit_teacher": 1, "asked": 1, "train_bank": 1 + 2 * 2, "narrow": 2}
    loose, strict = read_results("session.nwb")
    assert (loose.provenance["tolerance"], strict.provenance["tolerance"]) == ("0.9", "1e-06")
    assert (loose.scores["student_parameters"] <= strict.scores["student_parameters"]).all()
    np.testing.assert_array_equal(loose.scores["ridge_r2"], strict.scores["ridge_r2"])
    spent = [name for name in strict.provenance if name.startswith(("seconds.", "flop."))]
    assert {"seconds.teacher", "seconds.students", "seconds.pruning", "seconds.retraining"} <= set(spent)
    assert [loose.provenance[name] for name in spent] == [strict.provenance[name] for name in spent], "both need the whole ladder"


def test_students_of_their_own_cannot_be_swept(lab):
    with pytest.raises(NwbCompactError) as caught:
        run("--filters", "5")
    assert str(caught.value) == (
        "--filters: found students of their own for all units, expected a shared one. Next: add --students shared"
    )
    with pytest.raises(NwbCompactError, match=r"^student\.sweep_filters\.1: found 0, expected Input should be greater than or equal to 1"):
        run("--students", "shared", "--filters", "5", "0")


def test_each_size_is_a_run_that_learns_from_the_one_teacher(whole):
    folder, (large, small), calls = whole
    assert calls == ["fit_teacher", "asked"]
    for k, results in ((3, large), (2, small)):
        assert results.run_id == f"day-K{k}"
        assert results.filters_per_layer.tolist() == [[k, k, k, k, 4]] * 2  # a spatial filter for each channel that comes in
        assert results.students[0].arrays["readout.filter"].shape == (5,)
        assert len(shared_arrays(results.students)) == 15
        said = results.provenance
        assert (said["setting.student.sweep_filters"], said["setting.student.shared_filters"]) == (f"({k},)", f"({k}, 4, 5)")
        assert {"seconds.teacher", "seconds.lessons", "seconds.students"} <= said.keys()
    np.testing.assert_array_equal(large.teacher_prediction, small.teacher_prediction)
    assert int(small.provenance["flop.students"]) < int(large.provenance["flop.students"]), "of this size alone"
    assert small.provenance["flop.teacher"] == large.provenance["flop.teacher"]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("output", [None, "out.nwb"])
def test_a_sweep_that_was_killed_goes_on(lab, whole, monkeypatch, output):
    words = (*SWEEP, *(["--output", output] if output else []))
    with monkeypatch.context() as dying:
        counted(dying, students, "train_bank", [], die_at=2)
        with pytest.raises(Killed):
            run(*words)
    place = output or "session.nwb"
    assert run_ids(place) == ("day-K3",)
    calls = []
    counted(monkeypatch, fit, "asked", calls)
    done = run(*words, "--resume")
    assert re.findall(r"(\S+): run (\S+),", done.output) == [(place, "day-K2")]
    assert calls == []
    resumed = read_results(place)
    assert [results.run_id for results in resumed] == ["day-K3", "day-K2"]
    for one, other in zip(resumed, whole[1], strict=True):
        for name, values in one.scores.items():
            assert values.tobytes() == other.scores[name].tobytes(), name
    assert (len(run_ids("session.nwb")) == 0) == (output is not None)


def test_a_run_that_another_fit_wrote_meanwhile_is_not_taken_for_this_one(lab, whole, monkeypatch):
    """What was computed is kept, and written under another name."""
    with monkeypatch.context() as dying:
        counted(dying, students, "train_bank", [], die_at=2)
        with pytest.raises(Killed):
            run(*SWEEP)
    write_results(replace(whole[1][0], run_id="day-K2"), "session.nwb")
    with pytest.raises(NwbCompactError, match="found a run 'day-K2', expected none of this id yet"):
        run(*SWEEP, "--resume")
    assert set(run_ids("session.nwb")) == {"day-K3", "day-K2"}
    assert run(*SWEEP, "--resume", "--run-id", "night").exit_code == 0
    assert set(run_ids("session.nwb")) == {"day-K3", "day-K2", "night-K3", "night-K2"}
    found = read_results("session.nwb", "night-K2")[0]
    assert found.scores["student_r2"].tobytes() == whole[1][1].scores["student_r2"].tobytes()


def test_a_run_of_a_sweep_that_is_there_is_told_before_the_long_work_and_can_be_replaced(lab, whole, monkeypatch):
    folder, (large, small), _ = whole
    shutil.copy(folder / "swept.nwb", "session.nwb")
    with monkeypatch.context() as idle:
        idle.setattr(fit, "read_sessions", lambda *_: 1 / 0)
        with pytest.raises(NwbCompactError, match=r"session\.nwb: found a run 'day-K2', expected none of this id yet"):
            run("--students", "shared", "--filters", "4", "2")
    assert run("--students", "shared", "--filters", "2", "--replace", "--seed", "1").exit_code == 0
    kept, replaced = read_results("session.nwb")
    assert (kept.run_id, replaced.run_id) == ("day-K3", "day-K2")
    assert kept.scores["student_r2"].tobytes() == large.scores["student_r2"].tobytes()
    assert replaced.scores["student_r2"].tobytes() != small.scores["student_r2"].tobytes()
