"""What a source does not tell and a person knows: facts about the animal and the session, laid over what was read.

One YAML file with the sections `subject` (fields of `nwb_compact.session.Subject`) and `session` (fields of
`nwb_compact.session.About`) serves every converter.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from nwb_compact.config import Stage
from nwb_compact.session import Session, Subject
from nwb_compact_conversion.yaml_file import read_yaml

TIME_NOT_GIVEN = "The source gives only the date; 00:00 UTC stands for the unknown time of day."
"""A converter that had to invent the time of day ends `session_description` with this; a start time from a person removes it."""


def _moment(value: object) -> datetime:
    # Pydantic would take a bare number for seconds since 1970: `20190923` for a day in August 1970.
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value if isinstance(value, str) else value.isoformat() if isinstance(value, date) else "")
    except ValueError as error:
        raise ValueError("a date and time such as 2019-09-23T10:30:00-04:00") from error


def _birthday(value: object) -> datetime:
    moment = _moment(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _duration(value: str) -> str:
    one = r"P(?=\d|T\d)(\d+(\.\d+)?Y)?(\d+(\.\d+)?M)?(\d+(\.\d+)?W)?(\d+(\.\d+)?D)?(T(?=\d)(\d+(\.\d+)?H)?(\d+(\.\d+)?M)?(\d+(\.\d+)?S)?)?"
    if not re.fullmatch(rf"{one}(/({one})?)?", value):
        raise ValueError("an ISO 8601 duration such as P8Y or P8Y6M, or a range such as P8Y/P9Y")
    return value


def _species(value: str) -> str:
    if not re.fullmatch(r"[A-Z][a-z]+ [a-z]+|https?://purl\.obolibrary\.org/obo/NCBITaxon_\d+", value):
        raise ValueError("a Latin binomial such as Macaca mulatta, or an NCBI taxonomy link")
    return value


def _without_slash(value: str) -> str:
    if not value or "/" in value:
        raise ValueError("text without a slash, since it becomes part of a file name")
    return value


Duration = Annotated[str, AfterValidator(_duration)]
Species = Annotated[str, AfterValidator(_species)]
Tag = Annotated[str, AfterValidator(_without_slash)]


class SubjectFacts(Stage):
    """Fields of `Subject`."""

    subject_id: Tag | None = None
    """Name or number of the animal, without a slash."""
    species: Species | None = None
    """Latin binomial such as Macaca mulatta, or an NCBI taxonomy link."""
    sex: Literal["M", "F", "O", "U"] | None = None
    """M, F, O (other) or U (unknown)."""
    age: Duration | None = None
    """At the recording: ISO 8601 duration such as P8Y or P8Y6M, or a range such as P8Y/P9Y."""
    date_of_birth: Annotated[datetime, BeforeValidator(_birthday)] | None = None
    """Instead of age. A date alone is midnight UTC."""
    description: str | None = None
    """Anything else about the animal."""
    weight: str | None = None
    """With its unit, for example 9.1 kg."""
    strain: str | None = None
    """Strain, for rodents."""
    genotype: str | None = None
    """Genotype."""


class SessionFacts(Stage):
    """Fields of `About`, except `source_script`, which belongs to the program."""

    identifier: str | None = None
    """Unique over all files of the world; by default made from the source."""
    session_description: str | None = None
    """What was done, in a sentence."""
    session_start_time: Annotated[AwareDatetime, BeforeValidator(_moment)] | None = None
    """Date, time and time zone, for example 2019-09-23T10:30:00-04:00."""
    session_id: Tag | None = None
    """Short name of the session, without a slash."""
    experimenter: tuple[str, ...] | None = None
    """List of 'Last, First'."""
    institution: str | None = None
    """University or institute."""
    lab: str | None = None
    """Name of the lab."""
    keywords: tuple[str, ...] | None = None
    """List of words."""
    related_publications: tuple[str, ...] | None = None
    """List of DOIs."""
    experiment_description: str | None = None
    """The experiment in general."""
    notes: str | None = None
    """Anything else."""


@dataclass(frozen=True)
class Metadata:
    """What a person adds. A field that is absent leaves the session as it was."""

    subject: SubjectFacts = field(default_factory=SubjectFacts)
    session: SessionFacts = field(default_factory=SessionFacts)
    origin: str | None = None
    """Name and SHA-256 of the file this came from, for the record in the session."""


def read_metadata(file_path: Path) -> Metadata:
    """The facts of a YAML file.

    Raises
    ------
    SeveralFaults
        One line for every unknown key (with the nearest known one) and every value that will not do.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "animal.yaml")
    ...     _ = file.write_text("subject: {sex: M, age: P8Y}")
    ...     read_metadata(file).subject.age
    'P8Y'
    """
    told, origin = read_yaml(file_path, _Sections)
    return Metadata(told.subject, told.session, origin)


def missing_facts(subject: Subject | SubjectFacts) -> list[str]:
    """What DANDI demands of every animal and is not told.

    Examples
    --------
    >>> missing_facts(Subject(subject_id="M1", sex="F"))
    ['species', 'age']
    """
    missing = [name for name in ("subject_id", "species", "sex") if getattr(subject, name) is None]
    return missing + (["age"] if subject.age is None and subject.date_of_birth is None else [])


def overlay(session: Session, metadata: Metadata) -> Session:
    """The session with the facts of `metadata` in place of, or in addition to, its own.

    Examples
    --------
    >>> from nwb_compact.session import About, Images, ResponseUnits, Units
    >>> import numpy as np
    >>> about = About("a", "flashed images. " + TIME_NOT_GIVEN, datetime(2019, 9, 23, tzinfo=UTC))
    >>> bare = Session(about, None, Images((), ()), None, Units(()), ResponseUnits(np.zeros(0, np.uint32), None, None), None, None)
    >>> start = datetime(2019, 9, 23, 10, tzinfo=UTC)
    >>> told = overlay(bare, Metadata(subject=SubjectFacts(sex="M"), session=SessionFacts(session_start_time=start)))
    >>> told.subject.sex, told.about.session_description
    ('M', 'flashed images.')
    """
    about = session.about
    if metadata.session.session_start_time is not None:
        about = replace(about, session_description=about.session_description.replace(TIME_NOT_GIVEN, "").strip())
    if metadata.origin is not None:
        about = replace(about, source_script="\n".join(filter(None, (about.source_script, f"metadata: {metadata.origin}"))))
    about = replace(about, **metadata.session.model_dump(exclude_none=True))
    told = metadata.subject.model_dump(exclude_none=True)
    subject = replace(session.subject or Subject(), **told) if told else session.subject
    return replace(session, about=about, subject=subject)


class _Sections(Stage):
    subject: SubjectFacts = SubjectFacts()
    session: SessionFacts = SessionFacts()
