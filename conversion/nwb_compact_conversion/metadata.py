"""What a source does not tell and a person knows: facts about the animal and the session, laid over what was read.

One YAML file with the sections `subject` (fields of `nwb_compact.session.Subject`) and `session` (fields of
`nwb_compact.session.About`) serves every converter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, ValidationError

from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.session import Session, Subject

TIME_NOT_GIVEN = "The source gives only the date; 00:00 UTC stands for the unknown time of day."
"""A converter that had to invent the time of day ends `session_description` with this; a start time from a person removes it."""

SEE = "correct the file; docs/convert_cowley_v4.md lists the keys"


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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SubjectFacts(_Section):
    """Fields of `Subject`."""

    subject_id: Tag | None = None
    species: Species | None = None
    sex: Literal["M", "F", "O", "U"] | None = None
    age: Duration | None = None
    date_of_birth: Annotated[datetime, BeforeValidator(_birthday)] | None = None
    """A date alone is midnight UTC."""
    description: str | None = None
    weight: str | None = None
    strain: str | None = None
    genotype: str | None = None


class SessionFacts(_Section):
    """Fields of `About`, except `source_script`, which belongs to the program."""

    identifier: str | None = None
    session_description: str | None = None
    session_start_time: Annotated[AwareDatetime, BeforeValidator(_moment)] | None = None
    session_id: Tag | None = None
    experimenter: tuple[str, ...] | None = None
    institution: str | None = None
    lab: str | None = None
    keywords: tuple[str, ...] | None = None
    related_publications: tuple[str, ...] | None = None
    experiment_description: str | None = None
    notes: str | None = None


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
    NwbCompactError
        One for the whole file, with every unknown key (and the nearest known one) and every value that will not do.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "animal.yaml")
    ...     _ = file.write_text("subject: {sex: M, age: P8Y}")
    ...     read_metadata(file).subject.age
    'P8Y'
    """
    try:
        content = file_path.read_bytes()
        facts = yaml.safe_load(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        found = " ".join(str(error).split())
        raise NwbCompactError(file_path, found=found, expected="a readable YAML file", next_step=SEE) from error
    if not isinstance(facts, Mapping):
        expected = "the sections 'subject' and 'session'"
        raise NwbCompactError(file_path, found="nothing" if facts is None else repr(facts), expected=expected, next_step=SEE)
    sections = _validated(file_path, facts)
    return Metadata(sections.subject, sections.session, f"{file_path.name} sha256:{sha256(content).hexdigest()}")


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


class _Sections(_Section):
    subject: SubjectFacts = SubjectFacts()
    session: SessionFacts = SessionFacts()


def _validated(file_path: Path, facts: Mapping[Any, Any]) -> _Sections:
    try:
        return _Sections.model_validate(facts)
    except ValidationError as error:
        faults = [_fault(dict(one)) for one in error.errors()]
        found, expected = ("; ".join(part) for part in zip(*faults, strict=True))
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=SEE) from error


def _fault(error: dict[str, Any]) -> tuple[str, str]:
    where = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"subject": SubjectFacts, "session": SessionFacts}
        section = sections[where[0]] if len(where) > 1 else _Sections
        known = list(section.model_fields)
        return f"unknown key '{'.'.join(where)}'", f"a known key ({nearest(where[-1], known)})"
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("Input should ")
    return f"{'.'.join(where)} = {' '.join(str(error['input']).split())!r}", expected
