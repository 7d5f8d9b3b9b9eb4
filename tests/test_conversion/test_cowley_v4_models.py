"""The published models become one file: 219 units, what each model answers to the images, and scores where there are responses."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact.check import check
from nwb_compact.cli import main
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import read_session
from nwb_compact.results import SCORE_COLUMNS, shared_arrays
from nwb_compact.student import n_parameters, predict
from nwb_compact_conversion.sources import cowley_v4_models
from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4
from nwb_compact_conversion.sources.cowley_v4_model_files import UNITS, find_models, unit_name
from nwb_compact_conversion.sources.cowley_v4_models import NO_TEACHER, NOT_HERE, read_cowley_v4_models


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory) -> Path:
    """Models of three neurons, two of session 190923, and two shared ones; shared by all tests, which leave it as it is."""
    data = tmp_path_factory.mktemp("published")
    made.save_published(data)
    return data


@pytest.fixture(scope="module")
def read(folder):
    return read_cowley_v4_models(folder, command="nwb-compact convert cowley-v4-models")


def convert(data: Path, output: Path, *more: str):
    return CliRunner().invoke(main, ["convert", "cowley-v4-models", "--data", str(data), "-o", str(output), "--quiet", *more])


# The session ------------------------------------------------------------------------------------------------------------


def test_units_are_the_219_of_the_study_in_the_order_of_the_shared_models(read):
    session, _ = read
    names = session.units.name
    assert len(names) == len(set(names)) == 219
    assert (names[0], names[32], names[33], names[122], names[177], names[218]) == (
        "190923-neuron0", "190923-neuron32", "201025-neuron0", "210225-neuron0", "211022-neuron0", "211022-neuron41"
    )
    assert session.units.properties["session"].tolist() == [name.split("-")[0] for name in names]
    assert session.units.properties["animal"][[0, 33, 122, 177]].tolist() == ["WE", "PE", "PE", "RA"]


def test_only_the_units_of_the_session_have_responses_and_they_are_its_own(read, folder, assert_same):
    session, _ = read
    alone = read_cowley_v4(folder, "190923")
    assert session.response_units.unit_index.tolist() == list(range(33))
    assert [session.units.name[unit] for unit in session.response_units.unit_index] == [f"190923-{name}" for name in alone.units.name]
    for part in ("images", "presentations", "counts", "mean_responses"):
        assert_same(getattr(session, part), getattr(alone, part))


def test_another_session_of_the_study_may_lend_images_and_responses(made, folder, tmp_path):
    for name in ("compact_models", "shared_models"):
        (tmp_path / name).symlink_to(folder / name)
    made.save_session(tmp_path, "210225", n_units=55)
    session, runs = read_cowley_v4_models(tmp_path, "210225")
    assert session.response_units.unit_index.tolist() == list(range(122, 177))
    assert not np.isfinite(runs[0].scores["student_r2"]).any(), "no model of one of its neurons is in the folder"
    assert np.flatnonzero(np.isfinite(runs[1].scores["student_r2"])).tolist() == list(range(122, 177))


def test_the_file_says_what_it_was_made_of(read, folder):
    session, _ = read
    record = (session.about.source_script or "").splitlines()
    assert "command: convert cowley-v4-models" in record
    files = [line.split()[1] for line in record if line.startswith("file: ")]
    assert files == [
        "images/images_190923.zip", "responses_repeat_averaged/responses_190923.npy",
        *(f"compact_models/compact_model_{name}.npy" for name in ("190923_neuron0", "190923_neuron10", "201025_neuron2")),
        *(f"shared_models/from_ensemble_model_{filters}filters.keras" for filters in (5, 10)),
    ]
    assert session.about.session_id == "cowley-v4-models"
    assert session.subject.subject_id == "WE"
    assert session.subject.description.startswith("The animal of session 190923")


# The runs ---------------------------------------------------------------------------------------------------------------


def test_there_is_a_run_of_the_compact_models_and_one_of_each_shared_one(read):
    session, runs = read
    assert [run.run_id for run in runs] == ["published-compact", "published-shared-5", "published-shared-10"]
    assert runs[0].unit_name == ("190923-neuron0", "190923-neuron10", "201025-neuron2")
    assert runs[1].unit_name == runs[2].unit_name == session.units.name
    assert not shared_arrays(runs[0].students)
    for run in runs[1:]:
        assert len(shared_arrays(run.students)) == 15
        np.testing.assert_array_equal(run.scores["student_parameters"], n_parameters(run.students[0]))


def test_predictions_are_those_of_each_student_on_every_image(read):
    session, runs = read
    for run, unit in ((runs[0], 2), (runs[2], 218)):
        alone = predict(run.students[unit], session.images.pixels)
        np.testing.assert_allclose(run.student_prediction[:, unit], alone, rtol=1e-3, atol=1e-3)
        assert run.student_prediction.shape == (24, len(run.unit_name))


def test_the_second_half_is_scored_where_there_are_responses(read):
    session, runs = read
    for run in runs:
        assert run.side == ("fit",) * 12 + ("scored",) * 12
        assert list(run.scores) == list(SCORE_COLUMNS)
        for row, name in enumerate(run.unit_name):
            if not name.startswith("190923-"):
                assert np.isnan([run.scores["student_r2"][row], run.scores["mean_count"][row]]).all()
                assert run.reason[row] == NOT_HERE
                continue
            mean = session.mean_responses.mean[12:, session.units.name.index(name)]
            r = np.corrcoef(run.student_prediction[12:, row], mean)[0, 1]
            np.testing.assert_allclose([run.scores["student_r"][row], run.scores["student_r2"][row]], [r, r**2], rtol=1e-6)
            assert run.reason[row].startswith(f"{NO_TEACHER}; the source keeps repeat averages only")


def test_there_is_no_teacher_but_its_size_is_known(read):
    _, runs = read
    for run in runs:
        assert run.teacher_member_prediction is None
        assert np.isnan(run.teacher_prediction).all()
        assert np.isnan([values for name, values in run.scores.items() if name.startswith("teacher")]).all()
        np.testing.assert_allclose(run.scores["compression"], 56_434_200 / run.scores["student_parameters"])
        assert run.provenance["teacher_parameters"] == "56434200"


def test_the_study_s_count_stands_beside_ours(read, made):
    """It counts BatchNorm, of which a student has nothing left but the bias."""
    session, runs = read
    published = sum(array.size for array in made.compact_weights())
    counts = session.units.properties["published_parameters"]
    assert counts[[0, 10, 35]].tolist() == [published] * 3
    assert np.isnan(np.delete(counts, [0, 10, 35])).all()
    assert runs[0].provenance["published_parameters"] == str(published)
    np.testing.assert_array_equal(runs[0].scores["student_parameters"], published - 4 * (4 + 3 + 5 + 2 + 3))
    assert runs[2].provenance["published_parameters"] == str(sum(array.size for array in made.shared_weights(10)))


def test_units_that_lack_a_model_are_left_out_and_a_folder_may_hold_one_kind(made, folder, tmp_path):
    (tmp_path / "compact_models").symlink_to(folder / "compact_models")
    made.save_session(tmp_path)
    _, runs = read_cowley_v4_models(tmp_path)
    assert [run.run_id for run in runs] == ["published-compact"]


def test_a_clone_is_read_like_a_folder(made, folder, tmp_path):
    made.save_session(tmp_path / "data_V4_responses")
    (tmp_path / "data_compact_models").mkdir()
    (tmp_path / "data_compact_models" / "model_weights_npy").symlink_to(folder / "compact_models")
    shared = tmp_path / "data_shared_compact_models" / "from_ensemble_model"
    shared.mkdir(parents=True)
    (shared / "shared_compact_model_5filters.keras").symlink_to(folder / "shared_models" / "from_ensemble_model_5filters.keras")
    files = find_models(tmp_path)
    assert (list(files.compact), list(files.shared)) == (["190923-neuron0", "190923-neuron10", "201025-neuron2"], [5])
    assert [run.run_id for run in read_cowley_v4_models(tmp_path)[1]] == ["published-compact", "published-shared-5"]


# The file ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "models.nwb"
    return output, convert(folder, output)


def test_what_was_read_is_in_the_file(written, read, assert_same):
    output, result = written
    assert result.exit_code == 0, result.output
    session, runs = read
    for part in ("images", "units", "response_units", "mean_responses", "subject"):
        assert_same(getattr(session, part), getattr(read_session(output), part))
    for one, other in zip(runs, read_results(output), strict=True):
        told = {key: other.provenance[key] for key in one.provenance}
        assert {key for key in told if told[key] != one.provenance[key]} <= {"date", "command", "working_tree", "commit"}
        assert_same(replace(one, provenance={}), replace(other, provenance={}))


def test_the_command_tells_what_it_wrote(written, read):
    output, result = written
    lines = result.stdout.splitlines()
    assert lines[0] == f"{output}: 219 units, 24 images, repeat averages"
    median = np.nanmedian(read[1][0].scores["student_r2"])
    assert lines[1] == f"run published-compact: 3 models, median r2 {median:.3f} over 2 scored units"
    assert re.fullmatch(r"run published-shared-10: 219 models, median r2 0\.\d{3} over 33 scored units", lines[3])
    assert [path.name for path in output.parent.iterdir()] == ["models.nwb"]


def test_the_file_is_sound_and_the_inspector_finds_nothing_critical_but_what_the_source_does_not_tell(written):
    from nwbinspector import Importance, inspect_nwbfile, load_config

    output, _ = written
    assert check(output) == ()
    found = inspect_nwbfile(
        nwbfile_path=output, config=load_config("dandi"), importance_threshold=Importance.CRITICAL, skip_validate=False
    )
    assert sorted(message.check_function_name for message in found) == ["check_subject_age", "check_subject_sex"]


def test_it_is_shown(written):
    output, _ = written
    result = CliRunner().invoke(main, ["show", str(output), "--run", "published-compact"])
    assert result.exit_code == 0, result.output
    assert "190923-neuron10" in result.output
    assert f"201025-neuron2: {NOT_HERE}" in result.output


def test_facts_of_a_person_are_joined_and_the_inspector_is_content(folder, tmp_path):
    (tmp_path / "facts.yaml").write_text("subject: {sex: M, age: P8Y}\n")
    result = convert(folder, tmp_path / "a.nwb", "--metadata", str(tmp_path / "facts.yaml"))
    assert (result.exit_code, result.stderr) == (0, "")
    subject = read_session(tmp_path / "a.nwb").subject
    assert (subject.subject_id, subject.sex, subject.age) == ("WE", "M", "P8Y")


# Faults -----------------------------------------------------------------------------------------------------------------


def test_an_output_that_exists_is_replaced_on_request_only(folder, tmp_path):
    output = tmp_path / "a.nwb"
    output.write_text("mine")
    refused = convert(folder, output)
    assert (refused.exit_code, output.read_text()) == (1, "mine")
    assert convert(folder, output, "--overwrite").exit_code == 0
    assert len(read_results(output)) == 3


def test_a_failure_between_two_runs_leaves_no_file(folder, tmp_path, monkeypatch):
    """And an older one as it was."""
    from nwb_compact_conversion import cli

    def fail(results, file_path):
        if results.run_id == "published-shared-10":
            raise NwbCompactError(file_path, found="a full disk", expected="room", next_step="make some")
        return write_results(results, file_path)

    write_results = cli.write_results
    monkeypatch.setattr(cli, "write_results", fail)
    assert convert(folder, tmp_path / "new.nwb").exit_code == 1
    (tmp_path / "old.nwb").write_text("mine")
    assert convert(folder, tmp_path / "old.nwb", "--overwrite").exit_code == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.nwb": "mine"}


def test_a_session_outside_the_study_s_test_is_refused(folder, tmp_path):
    result = convert(folder, tmp_path / "a.nwb", "--session", "210325")
    assert (result.exit_code, result.output) == (1, (
        "--session: found '210325', expected one of 190923, 201025, 210225, 211022. Next: choose one of them, or convert the session with "
        "cowley-v4\n"
    ))


def test_a_folder_without_models_is_told(made, tmp_path):
    made.save_session(tmp_path)
    result = convert(tmp_path, tmp_path / "a.nwb")
    assert (result.exit_code, result.output) == (1, (
        f"{tmp_path}: found no published model, expected compact_model_SESSION_neuronN.npy in compact_models or "
        "data_compact_models/model_weights_npy, or .keras files in shared_models or data_shared_compact_models/from_ensemble_model. "
        "Next: give a clone of github.com/cowleygroup/V4_compact_models\n"
    ))


@pytest.mark.parametrize(("name", "said"), [
    ("compact_model_190923_neuron33.npy", "neuron 33 of session 190923"),
    ("compact_model_190101_neuron0.npy", "neuron 0 of session 190101"),
])
def test_a_model_of_no_neuron_of_the_study_is_told(tmp_path, name, said):
    (tmp_path / "compact_models").mkdir()
    (tmp_path / "compact_models" / name).write_bytes(b"")
    with pytest.raises(NwbCompactError) as caught:
        read_cowley_v4_models(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'compact_models' / name}: found {said}, expected neurons of 190923 (0 to 32), 201025 (0 to 88), 210225 (0 to 54), "
        "211022 (0 to 41). Next: remove that file"
    )


@pytest.mark.parametrize(("place", "content", "said"), [
    ("compact_models/compact_model_190923_neuron4.npy", b"?", "found unreadable content ("),
    ("shared_models/from_ensemble_model_25filters.keras", b"?", "found no zip, or a cut one, expected a .keras archive"),
])
def test_a_broken_model_is_one_line_before_any_long_work(made, tmp_path, monkeypatch, place, content, said):
    made.save_published(tmp_path)
    (tmp_path / place).write_bytes(content)
    monkeypatch.setattr(cowley_v4_models, "FileTeacher", None)
    result = convert(tmp_path, tmp_path / "a.nwb")
    assert result.exit_code == 1
    assert result.output.startswith(f"{tmp_path / place}: {said}")
    assert (result.output.count("\n"), (tmp_path / "a.nwb").exists()) == (1, False)


def test_without_images_or_responses_the_source_s_own_reader_says_so(folder, tmp_path):
    (tmp_path / "compact_models").symlink_to(folder / "compact_models")
    result = convert(tmp_path, tmp_path / "a.nwb")
    assert result.exit_code == 1
    assert result.output.startswith(f"{tmp_path}: found none of the folders, expected the folders images, responses_repeat_averaged")


def test_names_of_units_are_unique_over_sessions():
    assert len({unit_name(*unit) for unit in UNITS}) == len(UNITS) == 219


# The published files ----------------------------------------------------------------------------------------------------


def test_the_published_models_are_all_found(published_v4):
    files = find_models(published_v4)
    assert tuple(files.compact) == tuple(unit_name(*unit) for unit in UNITS)
    assert tuple(files.shared) == (5, 10, 25, 35, 50, 75, 100, 200)
