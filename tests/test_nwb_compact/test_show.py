"""What is shown are the numbers of the file, in text a person can read and JSON a program can."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from nwb_compact.cli import main
from nwb_compact.nwb_results import write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import SCORE_COLUMNS, Results, example_results, score_columns
from nwb_compact.results_json import as_object
from nwb_compact.session import example_session
from nwb_compact.show import print_run

UNIT_KEYS = [
    "unit", "teacher_r2", "student_r2", "teacher_r2_er", "student_r2_er", "student_r2_er_ci", "reliability",
    "student_parameters", "student_filters", "student_bytes", "teacher_student_r2", "training_cost", "below_snr_floor", "reason",
]  # fmt: skip


@pytest.fixture
def results() -> Results:
    """Three units; the first has averages only, so some of its scores are NaN."""
    session = example_session(n_units=3)
    scores = {name: np.array([0.5, 0.25, 1.0]) for name in SCORE_COLUMNS}
    scores |= {name: np.array([np.nan, 0.5, 0.7]) for name in ("teacher_r2_er", "student_r2_er", "reliability")}
    scores |= {"below_snr_floor": np.array([np.nan, 0.0, 0.0])}
    scores |= {"student_r2_er_low": np.array([np.nan, -0.1, 0.3]), "student_r2_er_high": np.array([np.nan, 0.6, 0.9])}
    scores |= {"student_parameters": np.array([9000.0, 12469.0, np.nan]), "compression": np.array([10.0, 20.0, np.nan])}
    scores |= {"student_filters": np.array([100.0, 101.0, np.nan]), "student_bytes": np.array([36000.0, 49876.0, np.nan])}
    reason = ("averages only: [no] noise ceiling", "", "no student")
    return replace(example_results(session), scores=scores, reason=reason)


@pytest.fixture
def file_path(tmp_path: Path, results: Results) -> Path:
    write_session(example_session(n_units=3), tmp_path / "a.nwb")
    write_results(results, tmp_path / "a.nwb")
    write_results(replace(results, run_id="second", provenance={"seed": "7"}), tmp_path / "a.nwb")
    return tmp_path / "a.nwb"


def test_json_holds_every_run_and_unit(file_path: Path, results: Results) -> None:
    done = CliRunner().invoke(main, ["show", str(file_path), "--json"])
    assert done.exit_code == 0
    shown = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(shown) == ["version", "runs"]
    assert shown["version"] == 1
    first, second = shown["runs"]
    names = ["run_id", "preset", "seed", "units", "median", "teacher_parameters", "compression"]
    names += ["ensemble_members", "teacher_validation_r2", "costs"]
    assert list(first) == names
    assert (first["ensemble_members"], first["teacher_validation_r2"]) == (3, [0.41, 0.43, 0.44])
    assert (first["run_id"], first["preset"], first["seed"], first["teacher_parameters"]) == ("example", "quick", 0, 1000)
    assert first["compression"] == 15.0
    assert [list(unit) for unit in first["units"]] == [UNIT_KEYS] * 3
    assert first["units"][0] == {
        "unit": "unit-1",
        "teacher_r2": 0.5,
        "student_r2": 0.5,
        "teacher_r2_er": None,
        "student_r2_er": None,
        "student_r2_er_ci": [None, None],
        "reliability": None,
        "student_parameters": 9000,
        "student_filters": 100,
        "student_bytes": 36000,
        "teacher_student_r2": 0.5,
        "training_cost": {"seconds": 6.0, "flop": 5 * 10**11, "joules": None},
        "below_snr_floor": None,
        "reason": "averages only: [no] noise ceiling",
    }
    assert first["median"] == {
        "teacher_r2": 0.5,
        "student_r2": 0.5,
        "teacher_r2_er": 0.6,
        "student_r2_er": 0.6,
        "student_r2_er_ci": pytest.approx([0.1, 0.75]),
        "reliability": 0.6,
        "student_parameters": 10734.5,
        "student_filters": 100.5,
        "student_bytes": 42938.0,
        "teacher_student_r2": 0.5,
    }
    assert (second["run_id"], second["preset"], second["seed"], second["teacher_parameters"]) == ("second", None, 7, None)
    assert first["costs"] == {
        "teacher": {"seconds": 90.0, "flop": 9 * 10**12, "joules": None, "peak_bytes": 2 * 10**9, "gpu_peak_bytes": None},
        "lessons": {"seconds": 6.0, "flop": None, "joules": None, "peak_bytes": None, "gpu_peak_bytes": None},
        "students": {"seconds": 12.0, "flop": 15 * 10**11, "joules": None, "peak_bytes": None, "gpu_peak_bytes": None},
    }
    assert (second["costs"], {unit["training_cost"] for unit in second["units"]}) == ({}, {None}), "as in a run of an earlier version"
    assert as_object([results])["runs"] == [first]


def test_json_of_a_run_without_any_score_is_null(results: Results) -> None:
    nothing = replace(results, scores={name: np.full(3, np.nan) for name in SCORE_COLUMNS})
    (run,) = as_object([nothing])["runs"]
    assert run["compression"] is None
    assert {key: value for key, value in run["median"].items() if value not in (None, [None, None])} == {}


def test_text_is_readable_at_100_columns_when_piped(file_path: Path) -> None:
    done = CliRunner().invoke(main, ["show", str(file_path), "--run", "example"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()[:1] and line.split()[0] in ("unit-1", "unit-2", "median")}
    assert rows["unit-1"] == ["0.50", "0.50", "-", "-", "-", "-", "9000", "100", "6.0", "0.50"]
    assert rows["unit-2"] == ["0.25", "0.25", "0.50", "0.50", "-0.10..0.60", "0.50", "12469", "101", "6.0", "0.25"]
    assert rows["median"] == ["0.50", "0.50", "0.60", "0.60", "0.60", "10734", "100", "6.0", "0.50"]
    said = " ".join(done.stdout.split())
    assert "Run example: preset quick, seed 0; 3 units, 24 images; teacher of 1000 parameters, students 15 times smaller" in said
    assert "over the 12 scored images, none of which is among the 8 that fitted or the 4 that decided when to stop" in said
    assert "To train a student cost 6.0 s, 0.5 TFLOP: its share of the teacher's answers, training and pruning, without" in said
    assert "unit-1: averages only: [no] noise ceiling unit-3: no student" in said
    assert "Run second" not in said


# The ensemble ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0.4644 0.4801 0.4871", "Its 3 members: r2 0.464 of one, 0.487 of all on validation images (mean over sessions)."),
        ("0.4644", "Its one member: r2 0.464 on validation images (mean over sessions)."),
    ],
)
def test_one_line_says_what_the_members_are_worth_together(written: str, said: str, results: Results) -> None:
    output = io.StringIO()
    run = replace(results, provenance={"seed": "7", "teacher_validation_r2": written})
    print_run(run, Console(width=100, file=output))
    assert said in output.getvalue().splitlines()


def test_a_run_of_an_earlier_version_says_of_its_members_what_it_knows(results: Results) -> None:
    earlier = replace(results, teacher_member_prediction=None, provenance={"setting.teacher.members": "4"})
    unknown = replace(earlier, provenance={})
    shown = [(run["ensemble_members"], run["teacher_validation_r2"]) for run in as_object([earlier, unknown])["runs"]]
    assert shown == [(4, []), (None, [])]
    output = io.StringIO()
    print_run(earlier, Console(width=100, file=output))
    assert "member" not in output.getvalue()


# Costs ----------------------------------------------------------------------------------------------------------------
def test_what_a_student_cost_is_told_as_far_as_it_is_known(results: Results) -> None:
    known = {"seconds.lessons": "30", "seconds.students": "420.0", "joules.lessons": "600", "joules.students": "1500"}
    output = io.StringIO()
    print_run(replace(results, provenance=known), Console(width=100, file=output))
    rows = {line.split()[0]: line.split()[1:] for line in output.getvalue().splitlines() if line.split()[:1]}
    assert (rows["unit-3"][-2], rows["median"][-2]) == ("150", "150")
    assert "To train a student cost 150 s, 700 J: its share" in output.getvalue()
    assert as_object([replace(results, provenance=known)])["runs"][0]["units"][2]["training_cost"] == {
        "seconds": 150.0, "flop": None, "joules": 700.0,
    }


def test_a_run_of_an_earlier_version_has_no_column_for_its_cost(results: Results) -> None:
    output = io.StringIO()
    print_run(replace(results, provenance={"seed": "7"}), Console(width=100, file=output))
    assert "teacher" in output.getvalue()
    assert "train" not in output.getvalue()


def test_imported_students_are_shown_without_a_teacher_and_without_what_nobody_chose(results: Results) -> None:
    scores = {name: values * (np.nan if name.startswith("teacher") or "_er" in name else 1) for name, values in results.scores.items()}
    imported = replace(results, scores=scores, provenance={"teacher_parameters": "56434200"})
    output = io.StringIO()
    print_run(imported, Console(width=100, file=output))
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("Run example: 3 units, 24 images; teacher of 56434200 parameters, students 15 times smaller")
    heads = [line.split() for line in lines if line.strip()][1:3]
    assert [word for line in heads for word in line if word in ("student", "teacher", "r2", "r2_ER", "interval")] == ["student", "r2"]


# Baselines ------------------------------------------------------------------------------------------------------------
def with_baselines(results: Results) -> Results:
    """Ridge better than the direct fit; r2_ER where the models have it."""
    values = {name: np.array([0.4, 0.2, 0.6]) for name in score_columns(["ridge", "direct"]) if name.startswith(("ridge", "direct"))}
    values |= {"direct_r2": np.array([0.1, 0.3, 0.2])}
    values |= {f"ridge_r2_er{end}": np.array([np.nan, value, value]) for end, value in (("", 0.55), ("_low", -0.05), ("_high", 0.7))}
    meaning = {"baseline.ridge": "ridge regression on the features of the backbone"}
    return replace(results, scores={**results.scores, **values}, provenance={**results.provenance, **meaning})


def test_baselines_stand_beside_teacher_and_student_in_one_table(results: Results) -> None:
    output = io.StringIO()
    print_run(with_baselines(results), Console(width=100, file=output))
    before, after = output.getvalue().split("Beside baselines: ")
    assert max(map(len, output.getvalue().splitlines())) <= 100
    assert "ridge: ridge regression on the features of the backbone; direct: not recorded what it is." in " ".join(after.split())
    heads, kinds = [line.split() for line in after.splitlines() if line.split()[:1] in (["teacher"], ["unit"])]
    assert heads == ["teacher", "student", "ridge", "direct"] * 2
    assert kinds == ["unit", *["r2"] * 4, *["r2_ER"] * 4]
    rows = {line.split()[0]: line.split()[1:] for line in after.splitlines() if line.split()[:1]}
    assert rows["unit-1"] == ["0.50", "0.50", "0.40", "0.10", "-", "-", "-", "0.40"]
    assert rows["median"] == ["0.50", "0.50", "0.40", "0.20", "0.60", "0.60", "0.55", "0.40"]
    without = io.StringIO()
    print_run(results, Console(width=100, file=without))
    assert without.getvalue().startswith(before.rstrip()), "what a run without baselines prints stays as it is"
    assert "baselines" not in without.getvalue()


def test_without_noise_correction_the_models_are_compared_by_r2_alone(results: Results) -> None:
    beside = with_baselines(results)
    averages = {name: np.full(3, np.nan) for name in beside.scores if name.endswith("r2_er")}
    output = io.StringIO()
    print_run(replace(beside, scores={**beside.scores, **averages}), Console(width=100, file=output))
    (kinds,) = [line.split() for line in output.getvalue().split("Beside baselines")[1].splitlines() if line.split()[:1] == ["unit"]]
    assert kinds == ["unit", *["r2"] * 4]


def test_json_has_the_baselines_of_the_runs_that_have_them(results: Results) -> None:
    without, run = as_object([results, with_baselines(results)])["runs"]
    assert "baselines" not in without
    assert [list(unit) for unit in without["units"]] == [UNIT_KEYS] * 3
    assert run["baselines"] == {"ridge": "ridge regression on the features of the backbone", "direct": None}
    added = ["ridge_r2", "ridge_r2_er", "ridge_r2_er_ci", "direct_r2", "direct_r2_er", "direct_r2_er_ci"]
    assert [list(unit) for unit in run["units"]] == [[*UNIT_KEYS[:-3], *added, *UNIT_KEYS[-3:]]] * 3
    assert {name: run["units"][0][name] for name in added[:4]} == {
        "ridge_r2": 0.4, "ridge_r2_er": None, "ridge_r2_er_ci": [None, None], "direct_r2": 0.1,
    }
    assert run["units"][1]["ridge_r2_er_ci"] == [-0.05, 0.7]
    assert (run["median"]["ridge_r2"], run["median"]["ridge_r2_er"], run["median"]["direct_r2"]) == (0.4, 0.55, 0.2)


def test_units_below_the_snr_floor_are_named_and_marked(results: Results) -> None:
    marked = replace(results, scores={**results.scores, "below_snr_floor": np.array([np.nan, 1.0, 0.0])})
    assert [unit["below_snr_floor"] for unit in as_object([marked])["runs"][0]["units"]] == [None, True, False]
    output = io.StringIO()
    print_run(marked, Console(width=100, file=output))
    assert "SNR below the floor, r2_ER says little: unit-2, which the medians include." in " ".join(output.getvalue().split())


def test_a_run_of_an_earlier_version_has_no_floor(results: Results) -> None:
    earlier = replace(results, scores={name: values for name, values in results.scores.items() if name != "below_snr_floor"})
    assert [unit["below_snr_floor"] for unit in as_object([earlier])["runs"][0]["units"]] == [None] * 3
    output = io.StringIO()
    print_run(earlier, Console(width=100, file=output))
    assert "floor" not in output.getvalue()


def test_long_unit_names_are_folded_and_not_cut(results: Results) -> None:
    name = "array-1-electrode-57-unit-3-[red]"
    output = io.StringIO()
    print_run(replace(results, unit_name=(name, "b", "c")), Console(width=100, file=output))
    cells = "".join(line.split()[0] for line in output.getvalue().splitlines() if line.strip())
    assert name in cells


def test_a_file_without_runs_says_how_to_make_one(tmp_path: Path) -> None:
    write_session(example_session(), tmp_path / "a.nwb")
    for options in ([], ["--json"]):
        done = CliRunner().invoke(main, ["show", str(tmp_path / "a.nwb"), *options])
        said = f"{tmp_path}/a.nwb: found no run, expected at least one. Next: nwb-compact fit {tmp_path}/a.nwb\n"
        assert (done.exit_code, done.stdout, done.stderr) == (1, "", said)


def test_an_unknown_run_names_the_nearest(file_path: Path) -> None:
    done = CliRunner().invoke(main, ["show", str(file_path), "--run", "second-1"])
    assert done.exit_code == 1
    assert "found no run 'second-1', expected a run of this file. Next: did you mean 'second'?" in done.stderr


def test_several_runs_end_with_their_medians_side_by_side(file_path: Path) -> None:
    told = CliRunner().invoke(main, ["show", str(file_path)]).stdout
    table = told.split("Medians of the runs side by side:")[1]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.split()[:1] in (["example"], ["second"])}
    assert rows["example"][:5] == ["0.50", "0.50", "0.60", "0.60", "0.60"]  # r2 of both, r2_ER of both, reliability
    assert rows["second"][:5] == rows["example"][:5]
    assert rows["example"][5:7] == ["10734", "100"]
    assert "side by side" not in CliRunner().invoke(main, ["show", str(file_path), "--run", "second"]).stdout
