import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import About, Images, ResponseUnits, Session, Subject, Units
from nwb_compact_conversion.metadata import TIME_NOT_GIVEN, Metadata, SessionFacts, SubjectFacts, overlay, read_metadata

START = datetime(2019, 9, 23, tzinfo=UTC)
ABOUT = About("id-1", f"flashed images. {TIME_NOT_GIVEN}", START, session_id="190923", source_script="program: x")
BARE = Session(ABOUT, None, Images((), ()), None, Units(()), ResponseUnits(np.zeros(0, np.uint32), None, None), None, None)


def written(tmp_path, text):
    file = tmp_path / "m.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def all_refused(tmp_path, text):
    with pytest.raises(NwbCompactError) as caught:
        read_metadata(written(tmp_path, text))
    assert {fault.where for fault in caught.value.faults} == {str(tmp_path / "m.yaml")}
    assert str(caught.value).count("\n") == len(caught.value.faults) - 1
    return caught.value.faults


def refused(tmp_path, text):
    (fault,) = all_refused(tmp_path, text)
    return fault


def test_every_field_of_subject_and_session_can_be_told():
    assert set(SubjectFacts.model_fields) == {field.name for field in fields(Subject)}
    assert set(SessionFacts.model_fields) == {field.name for field in fields(About)} - {"source_script"}


def test_facts_are_laid_over_the_session(tmp_path):
    text = """
subject: {sex: M, age: P8Y6M, weight: "9.1 kg"}
session:
  session_start_time: 2019-09-23T10:30:00-04:00
  experimenter: ["Müller, Ana"]
  lab: Çelik lab
"""
    metadata = read_metadata(written(tmp_path, text))
    told = overlay(replace(BARE, subject=Subject(subject_id="WE", species="Macaca mulatta")), metadata)
    assert told.subject == Subject(subject_id="WE", species="Macaca mulatta", sex="M", age="P8Y6M", weight="9.1 kg")
    assert told.about == replace(
        ABOUT,
        session_description="flashed images.",
        session_start_time=datetime(2019, 9, 23, 10, 30, tzinfo=timezone(timedelta(hours=-4))),
        experimenter=("Müller, Ana",),
        lab="Çelik lab",
        source_script=f"program: x\nmetadata: m.yaml sha256:{sha256(text.encode()).hexdigest()}",
    )
    assert told.images is BARE.images


def test_a_subject_can_be_told_where_the_source_gave_none(tmp_path):
    assert overlay(BARE, read_metadata(written(tmp_path, "subject: {subject_id: A, sex: F}"))).subject == Subject(subject_id="A", sex="F")


def test_no_facts_change_nothing():
    told = overlay(BARE, Metadata())
    assert told.about == BARE.about
    assert told.subject is None


def test_an_unknown_key_names_the_nearest(tmp_path):
    fault = refused(tmp_path, "subject: {sx: M}")
    assert (fault.found, fault.expected) == ("unknown key 'subject.sx'", "a known key (did you mean 'sex'?)")


def test_an_unknown_section_names_the_nearest(tmp_path):
    fault = refused(tmp_path, "subjekt: {sex: M}")
    assert (fault.found, fault.expected) == ("unknown key 'subjekt'", "a known key (did you mean 'subject'?)")


def test_all_faults_come_at_once(tmp_path):
    session = "session: {session_start_time: 2019-09-23T10:30:00, source_script: x}"
    faults = all_refused(tmp_path, f"subject: {{sex: male, age: 8 years, speces: x}}\n{session}")
    assert [fault.found for fault in faults] == [
        "subject.sex = 'male'",
        "subject.age = '8 years'",
        "unknown key 'subject.speces'",
        "session.session_start_time = '2019-09-23 10:30:00'",
        "unknown key 'session.source_script'",
    ]
    assert [fault.expected for fault in faults] == [
        "'M', 'F', 'O' or 'U'",
        "an ISO 8601 duration such as P8Y or P8Y6M, or a range such as P8Y/P9Y",
        "a known key (did you mean 'species'?)",
        "a time with its time zone, such as 2019-09-23T10:30:00-04:00",
        faults[4].expected,
    ]
    assert faults[4].expected.startswith("a known key (")


@pytest.mark.parametrize("value", ["20190923", '"20190923"', "2019-09-23", "soon", "true"])
def test_a_start_without_a_time_zone_or_that_is_a_number_is_refused(tmp_path, value):
    assert refused(tmp_path, f"session: {{session_start_time: {value}}}").found.startswith("session.session_start_time = ")


@pytest.mark.parametrize("text", ["2011-04-01", '"2011-04-01"', "2011-04-01T00:00:00", "2011-04-01T00:00:00Z"])
def test_a_birthday_is_midnight_utc(tmp_path, text):
    assert read_metadata(written(tmp_path, f"subject: {{date_of_birth: {text}}}")).subject.date_of_birth == datetime(2011, 4, 1, tzinfo=UTC)


AGES = ["P8Y", "P8Y6M", "P90D", "P2W", "P1.5Y", "PT12H", "P8Y/P9Y", "P8Y/", "8", "P", "PT", "8Y", "P8", "P6M8Y", "P8Y/9", "p8y", "P/P9Y"]


@pytest.mark.parametrize("age", AGES)
def test_ages_are_those_that_the_inspector_accepts(age):
    nwbinspector = pytest.importorskip("nwbinspector")
    from pynwb.file import Subject as NwbSubject

    accepted = nwbinspector.checks.check_subject_age(NwbSubject(subject_id="a", age=age)) is None
    try:
        SubjectFacts(age=age)
    except ValueError:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing"),
        ("- a", "['a']"),
        ("subject: M", "subject = 'M'"),
        ("subject: {subject_id: a/b}", "subject.subject_id = 'a/b'"),
        ("subject: {subject_id: 12}", "subject.subject_id = '12'"),
        ("subject: {species: monkey}", "subject.species = 'monkey'"),
        ("session: {experimenter: Ana}", "session.experimenter = 'Ana'"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(tmp_path, text, found):
    assert refused(tmp_path, text).found == found


@pytest.mark.parametrize("content", [b"subject: {sex: M", b"a: \xff", b"!!python/object/apply:os.getcwd []"])
def test_what_is_no_yaml_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "m.yaml").write_bytes(content)
    with pytest.raises(NwbCompactError, match="expected a readable YAML file") as caught:
        read_metadata(tmp_path / "m.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NwbCompactError, match="No such file"):
        read_metadata(tmp_path / "none.yaml")


def test_the_example_and_the_keys_of_the_documentation_are_those_that_are_read(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "convert_cowley_v4.md").read_text(encoding="utf-8")
    after = text[text.index("## Adding what you know") :]
    example = "\n".join(line[4:] for line in after.splitlines() if line.startswith("    "))
    assert read_metadata(written(tmp_path, example)).subject.age == "P8Y"
    (keys,) = re.findall(r"Keys of\s+`subject`: `([^`]+)`.*`session`: `([^`]+)`", after, re.S)
    subject_keys, session_keys = (set(names.split()) for names in keys)
    assert subject_keys == set(SubjectFacts.model_fields)
    assert session_keys == set(SessionFacts.model_fields)
