from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import entry_points

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import read_session
from nwb_compact.session import example_session
from nwb_compact_conversion.cli import SOURCES, absent_facts, convert, refuse_existing, summary
from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4

ANIMAL = "subject: {sex: M, age: P8Y}\n"


def run(*arguments):
    return CliRunner().invoke(convert, ["cowley-v4", *map(str, arguments)])


def assert_same(written, given):
    """Every value of two sessions, arrays by their bytes; the file may keep whole numbers in a smaller type."""
    if is_dataclass(given):
        for item in fields(given):
            assert_same(getattr(written, item.name), getattr(given, item.name))
    elif isinstance(given, np.ndarray):
        np.testing.assert_array_equal(written, given, strict=given.dtype.kind == "f")
    else:
        assert written == given


@pytest.mark.parametrize("averages_only", [False, True])
def test_the_file_holds_what_was_read(tmp_path, source, averages_only):
    source = replace(source, raw=None) if averages_only else source
    result = run("--data", source.write().data, "--session", source.session, "-o", tmp_path / "a.nwb")
    assert result.exit_code == 0, result.output
    assert_same(read_session(tmp_path / "a.nwb"), read_cowley_v4(source.data, source.session))


def test_it_says_what_it_wrote_and_what_is_not_known(tmp_path, source):
    result = run("--data", source.write().data, "--session", source.session, "-o", tmp_path / "a.nwb")
    assert result.stdout == f"{tmp_path / 'a.nwb'}: 2 units, 3 images, 6 presentations (1 to 3 repeats an image)\n"
    assert result.stderr == "The source does not tell the animal; --metadata FILE.yaml can add it (section subject).\n"


def test_absent_facts_name_what_nobody_told(source):
    source = replace(source, session="211008", raw=None, mean=np.ones((21, 3))).write()
    session = read_cowley_v4(source.data, source.session)
    assert absent_facts(session) == ["Not given by the source: sex, age; --metadata FILE.yaml can add it (section subject)."]
    born = replace(session.subject, sex="F", date_of_birth=datetime(2011, 1, 1, tzinfo=UTC))
    assert absent_facts(replace(session, subject=born)) == []


def test_pictures_shown_twice_are_told(source):
    source.members["image0003.jpg"] = source.members["image0001.jpg"]
    assert summary(read_cowley_v4(source.write().data, source.session)).startswith("2 units, 3 images (2 distinct), ")


def test_metadata_is_laid_over_and_recorded(tmp_path, source):
    (tmp_path / "m.yaml").write_text("subject: {subject_id: A, species: Macaca mulatta, sex: M, age: P8Y}")
    arguments = ("--data", source.write().data, "--session", source.session, "-o", tmp_path / "a.nwb", "--metadata", tmp_path / "m.yaml")
    assert run(*arguments).stderr == ""
    session = read_session(tmp_path / "a.nwb")
    assert (session.subject.subject_id, session.subject.sex, session.subject.age) == ("A", "M", "P8Y")
    assert "\nmetadata: m.yaml sha256:" in session.about.source_script


@pytest.mark.parametrize("fault", ["zip", "raw_file", "mean_file"])
def test_a_damaged_source_leaves_no_file(tmp_path, source, fault):
    file = getattr(source.write(), fault)
    file.write_bytes(file.read_bytes()[:-10])
    (tmp_path / "out").mkdir()
    result = run("--data", source.data, "--session", source.session, "-o", tmp_path / "out" / "a.nwb")
    assert isinstance(result.exception, NwbCompactError)
    assert str(result.exception).startswith(f"{file}: found ")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bad_metadata_file_leaves_no_file(tmp_path, source):
    (tmp_path / "m.yaml").write_text("subject: {sex: male}")
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "a.nwb"
    result = run("--data", source.write().data, "--session", source.session, "-o", output, "--metadata", tmp_path / "m.yaml")
    assert isinstance(result.exception, NwbCompactError)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path, source):
    output = tmp_path / "a.nwb"
    output.write_bytes(b"mine")
    arguments = ("--data", source.write().data, "--session", source.session, "-o", output)
    result = run(*arguments)
    assert str(result.exception) == f"{output}: found a file, expected none. Next: choose another name or give --overwrite"
    assert output.read_bytes() == b"mine"
    assert run(*arguments, "--overwrite").exit_code == 0
    assert len(read_session(output).units) == 2


def test_a_missing_output_folder_is_named_before_the_read(tmp_path):
    with pytest.raises(NwbCompactError, match=r"none: found no such folder, expected a folder for the output\. Next: create it first"):
        refuse_existing(tmp_path / "none" / "a.nwb", overwrite=False)


def test_the_command_is_found_through_its_entry_point():
    (entry,) = entry_points(group="nwb_compact.commands", name="convert")
    assert entry.load() is convert


def test_the_list_of_sources_fits_a_terminal():
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(convert, ["--help"]).output
    lines = shown.partition("Commands:\n")[2].splitlines()
    assert not [line for line in lines if line.endswith("...") or len(line) > 79]
    assert [line.split()[0] for line in lines] == sorted([*SOURCES, "cowley-v4", "cowley-v4-models", "template"])
    assert all(command.short_help for command in convert.commands.values())


def test_a_missing_option_is_wrong_usage(source):
    assert run("--data", source.data).exit_code == 2


# The published files ---------------------------------------------------------------------------------------------------


def test_repeats_are_those_of_valid_presentations():
    session = example_session()
    valid = session.presentations.is_valid.copy()
    assert summary(session).endswith("60 presentations (2 to 3 repeats an image)")
    valid[session.presentations.image_index == 0] = False
    valid[-2:] = False
    some = replace(session, presentations=replace(session.presentations, is_valid=valid))
    assert summary(some).endswith("60 presentations (1 to 3 repeats an image, 4 of them invalid)")
    none = replace(session, presentations=replace(session.presentations, is_valid=np.zeros(60, bool)))
    assert summary(none).endswith("60 presentations (none of them valid)")


@pytest.fixture(scope="module")
def converted(published_v4, tmp_path_factory):
    """The file of a published session, made once."""

    @cache
    def convert_once(session_id, animal=""):
        folder = tmp_path_factory.mktemp(session_id)
        (folder / "m.yaml").write_text(animal)
        metadata = ("--metadata", folder / "m.yaml") if animal else ()
        result = run("--data", published_v4, "--session", session_id, "-o", folder / "a.nwb", *metadata)
        assert result.exit_code == 0, result.output
        return folder / "a.nwb"

    return convert_once


@pytest.mark.parametrize("session_id", ["190923", "190925", "210322", "210325"])
def test_a_published_session_reads_back_as_the_source_bit_for_bit(converted, published_v4, session_id):
    assert_same(read_session(converted(session_id)), read_cowley_v4(published_v4, session_id))


@pytest.mark.parametrize("session_id", ["190923", "210325"])
@pytest.mark.parametrize(("animal", "expected"), [("", {"check_subject_sex", "check_subject_age"}), (ANIMAL, set())])
def test_the_inspector_misses_only_what_the_source_does_not_tell(converted, session_id, animal, expected):
    nwbinspector = pytest.importorskip("nwbinspector")
    config = nwbinspector.load_config("dandi")
    found = list(nwbinspector.inspect_nwbfile(nwbfile_path=converted(session_id, animal), config=config))
    severe = [message for message in found if message.importance.name != "BEST_PRACTICE_SUGGESTION"]
    assert {message.check_function_name for message in severe} == expected, severe
