"""Two recordings never share an identifier; what archives demand is asked for with an example of its form."""

from datetime import UTC, datetime, timedelta

import pytest

from nwb_compact.errors import SeveralFaults
from nwb_compact.session import About, Subject
from nwb_compact_conversion.about import about_session, file_hashes, start_of, with_subject
from nwb_compact_conversion.metadata import Metadata, SessionFacts, SubjectFacts
from nwb_compact_conversion.recorded import Recorded

START = datetime(2024, 5, 15, 12, tzinfo=UTC)
WHO = Metadata(SubjectFacts(subject_id="M1", species="Macaca mulatta", sex="F", age="P8Y"))


def identifier(folder, contents, start=START):
    """Of a source whose first file is the same in every recording, as SpikeInterface's folders are."""
    folder.mkdir()
    files = tuple(folder / f"{k}.bin" for k in range(len(contents)))
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    recorded = Recorded(files, "reader", start_time=start)
    return about_session(recorded, WHO, start, file_hashes(files, stub=False), "record").identifier


def test_the_identifier_tells_every_file_and_the_start(tmp_path):
    same = identifier(tmp_path / "a", [b"header", b"voltage 1"])
    assert same == identifier(tmp_path / "b", [b"header", b"voltage 1"])
    assert same.startswith("M1-20240515T120000-")
    others = {identifier(tmp_path / "c", [b"header", b"voltage 2"]),
              identifier(tmp_path / "d", [b"header", b"voltage 1"], START + timedelta(days=1))}
    assert len(others | {same}) == 3


def test_a_stub_reads_no_file_to_its_end(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert list(file_hashes([tmp_path / "a"], stub=True).values()) == ["not hashed in a stub, 5 bytes"]
    assert file_hashes([tmp_path / "a"], stub=False)[tmp_path / "a"].startswith("sha256:5994471abb01112afcc18159f6cc74b4")


def test_a_person_tells_more_than_the_source_and_the_source_more_than_nothing():
    about = About("theirs", "what they did", START, lab="their lab")
    told = Metadata(WHO.subject, SessionFacts(lab="our lab"))
    joined = about_session(Recorded((), ""), told, START, {}, "record", about=about)
    assert (joined.identifier, joined.lab, joined.session_description) == ("theirs", "our lab", "what they did")
    assert with_subject(Metadata(SubjectFacts(sex="M")), Subject(subject_id="B", sex="F")).subject == SubjectFacts(subject_id="B", sex="M")


def test_all_that_is_missing_is_told_at_once_with_its_form():
    with pytest.raises(SeveralFaults) as caught:
        start_of(Recorded((), "", start_time=datetime(2024, 5, 15, 12)), Metadata(SubjectFacts(species="Macaca mulatta")))
    start, *subject = (str(fault) for fault in caught.value.faults)
    assert "found 2024-05-15 12:00:00 without a time zone in the source, expected a time zone" in start
    assert [line.split(" Next: ")[1] for line in subject] == [
        f"add subject: {{{key}}} to session.yaml, with yours" for key in ("subject_id: M1", "sex: F", "age: P8Y")
    ]
