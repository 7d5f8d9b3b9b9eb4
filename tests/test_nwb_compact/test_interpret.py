"""The whole interpretation of two small students with few steps: what is in the file, for which units, and what bad input says."""

import csv
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact import config, findings
from nwb_compact.cli import main
from nwb_compact.kept_teacher import weights_of
from nwb_compact.nwb_interpretation import read_interpretation
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import StudentWeights, example_results
from nwb_compact.session import BLANK, Images, image_sha256
from nwb_compact.simulate import simulate_session
from nwb_compact.student import example_student
from nwb_compact.teacher import TeacherSession, fit_teacher

FEW = """
field_images = 4
similarity_images = 8
ablation_images = 6
robustness_images = 6
scrambled_images = 4
extremes = 3
maximizing = 2
maximizing_grey = 1
minimizing = 1
minimizing_grey = 0
adversarial = 1
steps = 3
adversarial_steps = 2
vone_images = 4
"""
TABLES = {
    "receptive_fields", "probes", "tuning", "preferences", "consolidation", "consolidation_test", "similarity", "similarity_test",
    "output_similarity", "early_filters", "early_filter_clusters", "ablation", "circuit_filters", "circuit_connections", "circuits",
    "made_images", "made_image_similarity", "natural_images", "natural_answers", "robustness", "field_maps", "structure",
    "near_pairs", "provenance",
}
TAUGHT = {f"teacher_{name}" for name in ("agreement", "made_images", "natural_images", "near_pairs", "probes", "robustness", "tuning")}


def constant(student):
    """A student that answers the same to everything."""
    return StudentWeights({name: array if name in ("input.mean", "readout.bias") else 0 * array for name, array in student.arrays.items()})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Three units, the second of which has a student with constant output."""
    path, session = tmp_path_factory.mktemp("interpret") / "session.nwb", simulate_session(n_units=3, n_images=20, n_repeats=2, seed=0)
    write_session(session, path)
    students = [example_student((4, 4, 3, 3, 3), seed=seed) for seed in range(3)]
    write_results(replace(example_results(session), students=(students[0], constant(students[1]), students[2])), path)
    return path


@pytest.fixture
def run(tmp_path):
    """The command with few images and steps."""
    few = tmp_path / "few.toml"
    few.write_text(FEW)
    return lambda *arguments: CliRunner().invoke(main, ["interpret", "--config", str(few), *map(str, arguments), "--quiet"])


def test_every_finding_is_written_for_every_unit_and_a_constant_student_disturbs_none(fitted, run, tmp_path):
    done = run(fitted, "--export", tmp_path / "images")
    assert done.exit_code == 0, done.output
    assert "3 units interpreted" in done.output
    found = read_interpretation(fitted, "example")
    assert set(found) == TABLES
    for name, table in found.items():
        assert all(column.meaning for column in table.columns.values()), name
    for name in ("tuning", "preferences", "receptive_fields", "made_image_similarity", "consolidation"):
        assert found[name]["unit"].tolist() == [0, 1, 2], name
    assert found["preferences"]["preference"][1] == "unclear"
    assert np.isnan(found["receptive_fields"]["rf_row_px"]).tolist() == [False, True, False]
    assert set(found["made_images"]["unit"]) == {0, 1, 2}
    up = found["made_images"]["kind"] == "maximizing"
    assert (found["made_images"]["answer"] > found["made_images"]["start_answer"])[up & (found["made_images"]["unit"] != 1)].any()
    assert len(list((tmp_path / "images").glob("*.png"))) == len(found["made_images"])
    assert not list(fitted.parent.glob(".session*")), "the work folder is gone"


def test_some_units_only(fitted, run):
    names = example_names(fitted)
    done = run(fitted, "--units", names[2], names[0], "--replace")
    assert done.exit_code == 0, done.output
    found = read_interpretation(fitted, "example")
    assert found["preferences"]["unit"].tolist() == [0, 2]
    assert set(found["ablation"]["unit"]) == {0, 2}
    assert found["probes"]["student"].shape[1] == 2


def test_the_teacher_is_shown_what_its_students_were_shown(run, tmp_path):
    path, session = tmp_path / "taught.nwb", simulate_session(n_units=3, n_images=20, n_repeats=2, seed=0)
    write_session(session, path)
    small = config.Teacher(members=2, epochs=1, least_steps=1, channels=4, trunk_channels=4, core_blocks=1)
    mean = np.random.default_rng(0).gamma(2.0, 1.0, (20, 3))
    teacher = fit_teacher([TeacherSession(session.images.pixels, mean, np.arange(14), np.arange(14, 20))], small, seed=0)
    students = [example_student((4, 4, 3, 3, 3), seed=seed) for seed in range(3)]
    students = (students[0], constant(students[1]), students[2])
    provenance = {"setting.teacher.backbone": "conv", "setting.teacher.loss": "mse"}
    members = np.moveaxis(teacher.predict_members(session.images.pixels, 0), 0, 2)
    results = replace(example_results(session), students=students, teacher=weights_of(teacher, 0), provenance=provenance)
    write_results(replace(results, teacher_prediction=members.mean(axis=2), teacher_member_prediction=members), path)
    done = run(path, "--units", session.units.name[0], session.units.name[2], "--export", tmp_path / "images")
    assert done.exit_code == 0, done.output
    assert "not asked" not in done.output
    found = read_interpretation(path, "example")
    assert set(found) == TABLES | TAUGHT
    made, answered = found["made_images"], found["teacher_made_images"]
    assert answered["unit"].tolist() == made["unit"].tolist()
    assert set(made["unit"]) == {0, 2}
    of_all = teacher.predict_members(made["image"], 0)
    expected = of_all[:, np.arange(len(made)), made["unit"]].T
    np.testing.assert_allclose(answered["members"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answered["answer"], expected.mean(axis=1), rtol=1e-4, atol=1e-6)
    with (tmp_path / "images" / "images.csv").open(newline="", encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    np.testing.assert_allclose([float(row["teacher_answer"]) for row in listed], answered["answer"], rtol=1e-3)
    np.testing.assert_allclose([float(row["teacher_member_2"]) for row in listed], answered["members"][:, 1], rtol=1e-3)
    natural = found["natural_images"]
    np.testing.assert_allclose(
        found["teacher_natural_images"]["answer"], teacher.predict(session.images.pixels, 0)[natural["row"], natural["unit"]], rtol=1e-4,
        atol=1e-6)
    for name in ("probes", "tuning", "robustness", "near_pairs"):
        assert len(found[f"teacher_{name}"]) == len(found[name]), name
        assert all("teacher" in column.meaning or "student" not in column.meaning for column in found[f"teacher_{name}"].columns.values())
    assert (found["teacher_probes"]["teacher"] != found["probes"]["student"]).any()
    assert found["teacher_robustness"]["answer_r2"][0].tolist() == pytest.approx([1, 1])
    assert found["teacher_agreement"]["unit"].tolist() == [0, 2]
    done = run(path, "--units", session.units.name[1], "--replace")
    assert done.exit_code == 0, done.output
    assert np.isnan(read_interpretation(path, "example")["teacher_natural_images"]["answer"]).all()


def test_a_model_behind_a_fixed_v1_learns_from_the_teacher_and_is_shown_the_changed_images(run, tmp_path, monkeypatch):
    learned_from, train = [], findings.vone_student
    monkeypatch.setattr(findings, "vone_student", lambda images, *more, **k: learned_from.append(images) or train(images, *more, **k))
    path, session = tmp_path / "a.nwb", simulate_session(n_units=2, n_images=20, n_repeats=2, seed=0)
    write_session(session, path)
    results = replace(example_results(session), students=tuple(example_student((4, 4, 3, 3, 3), seed=seed) for seed in range(2)))
    results = replace(results, side=("unused", *results.side[1:]))  # it looks like a scored one
    write_results(results, path)
    done = run(path, "--vone")
    assert done.exit_code == 0, done.output
    found = read_interpretation(path, "example")
    assert set(found) == TABLES | {"vone_robustness"}
    own = found["vone_robustness"]
    assert own["change"].tolist() == found["robustness"]["change"].tolist()
    assert own["answer_r2"][0].tolist() == pytest.approx([1, 1])
    assert (own["answer_r2"][1:] < 1).all()
    assert "behind a fixed V1" in own.columns["answer_r2"].meaning
    assert re.search("learned [0-9,]+ numbers for all units from [0-9]+ images", own.description)
    (images,) = learned_from
    scored = {image_sha256(image) for image, side in zip(session.images.pixels, results.side, strict=True) if side == "scored"}
    assert len(images) == 20 - len(scored) - 1
    assert image_sha256(session.images.pixels[0]) not in {image_sha256(image) for image in images}
    assert not scored & {image_sha256(image) for image in images}
    write_results(replace(results, run_id="all-scored", side=("scored",) * 20), path)
    refused = run(path, "--vone")
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1)
    assert "--vone: found 0 images that a model may learn from" in refused.output


def test_a_run_without_a_teacher_is_interpreted_and_that_is_said(fitted, run):
    done = run(fitted, "--units", example_names(fitted)[0], "--replace")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{fitted}: the teacher is not asked: run example: found no teacher in the file"), "before the work"
    refused = run(fitted, "--backbone", "vone")
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1), refused.output


def example_names(path):
    from nwb_compact.nwb_results import read_results

    return read_results(path)[0].unit_name


def test_same_seed_same_tables(fitted, run):
    names = example_names(fitted)
    found = []
    for seed in (1, 1, 2):
        assert run(fitted, "--units", names[0], "--replace", "--seed", seed).exit_code == 0
        found.append(read_interpretation(fitted, "example"))
    for name in TABLES - {"provenance"}:
        for key, column in found[0][name].columns.items():
            np.testing.assert_array_equal(column.values, found[1][name][key], err_msg=f"{name} {key}")
    assert (found[0]["made_images"]["image"] != found[2]["made_images"]["image"]).any()


def test_what_cannot_be_found_out_is_said_and_the_rest_is_complete(tmp_path, run):
    """A grey session none of whose images is scored, and a student with constant output."""
    session = simulate_session(n_units=2, n_images=20, n_repeats=2, seed=0)
    pixels = np.repeat(np.asarray(session.images.pixels)[..., :1], 3, axis=3)
    session = replace(session, images=Images(session.images.name, tuple(map(image_sha256, pixels)), pixels))
    write_session(session, tmp_path / "grey.nwb")
    students = (example_student((4, 4, 3, 3, 3)), constant(example_student()))
    results = replace(example_results(session), side=("fit",) * 20, students=students)
    write_results(results, tmp_path / "grey.nwb")
    done = run(tmp_path / "grey.nwb")
    assert done.exit_code == 0, done.output
    assert f"no image moves the answers of {results.unit_name[1]}:" in done.output
    assert "no image is scored" in done.output
    assert "nothing is said of colour" in done.output
    found = read_interpretation(tmp_path / "grey.nwb", results.run_id)
    assert np.isnan(found["preferences"]["colour_index"]).all()
    assert np.isnan(found["robustness"]["r2"]).all()
    assert np.isnan(found["ablation"]["r2_change"]).all()
    assert np.isfinite(found["robustness"]["answer_r2"][:, 0]).all()
    assert np.isfinite(found["ablation"]["r2_with_intact"][found["ablation"]["unit"] == 0]).all()


@pytest.mark.parametrize(("arguments", "says"), [
    (["--units", "unit-01"], "found no unit 'unit-01'"),
    (["--run", "examples"], "no run 'examples'"),
    (["--resume"], "no stopped"),
    (["--config", "no such.toml"], "expected a readable TOML file"),
])
def test_bad_input_is_one_line(fitted, run, arguments, says):
    before = fitted.read_bytes()
    done = run(fitted, *arguments)
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert fitted.read_bytes() == before


def test_a_file_without_a_run_or_without_pixels(tmp_path, run):
    session = simulate_session(n_units=2, n_images=20, n_repeats=2, seed=0)
    write_session(session, tmp_path / "bare.nwb")
    done = run(tmp_path / "bare.nwb")
    assert done.exit_code == 1
    assert "no fitted run" in done.output
    hashes = replace(session, images=replace(session.images, pixels=None))
    write_session(hashes, tmp_path / "hashes.nwb")
    write_results(replace(example_results(hashes), students=(example_student(),) * 2), tmp_path / "hashes.nwb")
    done = run(tmp_path / "hashes.nwb")
    assert done.exit_code == 1
    assert "found hashes instead of images, expected pixels to show students" in done.output


def test_a_part_of_the_units_does_not_drop_the_others_unasked(fitted, run, tmp_path):
    here = shutil.copy(fitted, tmp_path / "session.nwb")
    first, _, third = example_names(here)
    assert run(here, "--units", first, third, "--replace").exit_code == 0
    before = here.read_bytes()
    done = run(here, "--units", first)
    assert done.exit_code == 1
    assert f"--units: found an interpretation of 1 other unit ({third}, ...), which would be dropped" in done.output
    assert here.read_bytes() == before
    assert run(here, "--units", first, "--replace").exit_code == 0
    assert read_interpretation(here, "example")["receptive_fields"]["unit"].tolist() == [0]


def test_students_that_were_replaced_meanwhile_get_no_findings_of_others(fitted, run, tmp_path, monkeypatch):
    here = shutil.copy(fitted, tmp_path / "session.nwb")
    whole = findings.similarity

    def meanwhile(*arguments, **options):
        (run_now,) = read_results(here, "example")
        write_results(replace(run_now, students=run_now.students[::-1]), here, replace=True)
        return whole(*arguments, **options)

    monkeypatch.setattr(findings, "similarity", meanwhile)
    done = run(here, "--seed", 9)
    assert done.exit_code == 1
    assert "found other students in run example than when this began" in done.output
    assert not read_interpretation(here, "example")


def test_the_placeholder_of_a_converter_is_no_natural_image(tmp_path, run):
    session = simulate_session(n_units=1, n_images=20, n_repeats=2, seed=0)
    kind = ("natural",) * 19 + (BLANK,)
    session = replace(session, images=replace(session.images, kind=kind))
    write_session(session, tmp_path / "blank.nwb")
    results = replace(example_results(session), students=(example_student((4, 4, 3, 3, 3), seed=0),))
    write_results(replace(results, side=(*results.side[:19], "unused")), tmp_path / "blank.nwb")
    assert run(tmp_path / "blank.nwb").exit_code == 0
    found = read_interpretation(tmp_path / "blank.nwb", "example")
    assert found["natural_answers"]["n_images"].tolist() == [19]
    assert 19 not in found["natural_images"]["row"]
    assert 19 not in found["made_images"]["start_row"]


def test_what_was_stopped_goes_on(fitted, run, monkeypatch):
    calls = []
    whole = findings.similarity

    def stops(*arguments, **options):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(findings, "similarity", stops)
    names = example_names(fitted)
    assert run(fitted, "--units", names[0], "--replace", "--seed", 5).exit_code != 0
    monkeypatch.setattr(findings, "similarity", whole)
    monkeypatch.setattr(findings, "receptive_fields", stops)  # is not asked again
    done = run(fitted, "--units", names[0], "--replace", "--seed", 5, "--resume")
    assert done.exit_code == 0, done.output
    assert len(calls) == 1
