"""The whole interpretation of two small students with few steps: what is in the file, for which units, and what bad input says."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact import interpret
from nwb_compact.cli import main
from nwb_compact.nwb_interpretation import read_interpretation
from nwb_compact.nwb_results import write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import StudentWeights, example_results
from nwb_compact.session import Images, image_sha256
from nwb_compact.simulate import simulate_session
from nwb_compact.student import example_student

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
"""
TABLES = {
    "receptive_fields", "probes", "tuning", "preferences", "consolidation", "consolidation_test", "similarity", "similarity_test",
    "output_similarity", "early_filters", "early_filter_clusters", "ablation", "circuit_filters", "circuit_connections", "circuits",
    "made_images", "made_image_similarity", "natural_images", "natural_answers", "robustness", "field_maps", "structure",
    "near_pairs", "provenance",
}


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
    done = run(fitted, "--units", names[2], names[0])
    assert done.exit_code == 0, done.output
    found = read_interpretation(fitted, "example")
    assert found["preferences"]["unit"].tolist() == [0, 2]
    assert set(found["ablation"]["unit"]) == {0, 2}
    assert found["probes"]["student"].shape[1] == 2


def example_names(path):
    from nwb_compact.nwb_results import read_results

    return read_results(path)[0].unit_name


def test_same_seed_same_tables(fitted, run):
    names = example_names(fitted)
    found = []
    for seed in (1, 1, 2):
        assert run(fitted, "--units", names[0], "--seed", seed).exit_code == 0
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


def test_what_was_stopped_goes_on(fitted, run, monkeypatch):
    calls = []
    whole = interpret.similarity

    def stops(*arguments, **options):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(interpret, "similarity", stops)
    names = example_names(fitted)
    assert run(fitted, "--units", names[0], "--seed", 5).exit_code != 0
    monkeypatch.setattr(interpret, "similarity", whole)
    monkeypatch.setattr(interpret, "receptive_fields", stops)  # is not asked again
    done = run(fitted, "--units", names[0], "--seed", 5, "--resume")
    assert done.exit_code == 0, done.output
    assert len(calls) == 1
