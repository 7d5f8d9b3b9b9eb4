"""Who was recorded, when, and how the file was made: what archives demand is asked for before any work, nothing is invented."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path

from nwb_compact import __version__
from nwb_compact.config import Stage, flat
from nwb_compact.errors import Fault, SeveralFaults
from nwb_compact.provenance import commit
from nwb_compact.session import About, Subject
from nwb_compact_conversion.metadata import Metadata
from nwb_compact_conversion.recorded import Recorded
from nwb_compact_conversion.session_yaml import SessionYaml
from nwb_compact_conversion.sources.source_files import file_sha256

NO_DESCRIPTION = "No description of the session was given."
"""NWB requires a text."""


def about_session(recorded: Recorded, metadata: Metadata, *, about: About | None = None) -> About:
    """What names and dates the session: facts a person gave, then those of the source.

    Parameters
    ----------
    recorded
        What the source tells of its start and files.
    metadata
        The sections `subject` and `session` of session.yaml.
    about
        What the source itself says of the session, if it is a session file of its own.

    Raises
    ------
    SeveralFaults
        One line for each thing that NWB or DANDI demands and neither source nor person gave: a start time with its time zone, and
        subject_id, species, sex, and age or date of birth of the animal.
    """
    told = metadata.session.model_dump(exclude_none=True)
    start = told.get("session_start_time") or (about.session_start_time if about else recorded.start_time)
    faults = [*_start_faults(start), *_subject_faults(metadata)]
    if faults or start is None:
        raise SeveralFaults(tuple(faults))
    first = recorded.files[0]
    base = about or About(f"{first.stem}-{file_sha256(first)[:12]}", NO_DESCRIPTION, start)
    return replace(base, **(told | {"session_start_time": start}))


def subject_of(metadata: Metadata, subject: Subject | None = None) -> Subject:
    """The animal: facts a person gave, then those of the source."""
    return replace(subject or Subject(), **metadata.subject.model_dump(exclude_none=True))


def with_subject(metadata: Metadata, subject: Subject | None) -> Metadata:
    """The facts of a person, and where they are silent those that the source gives of its animal."""
    given = {} if subject is None else {item.name: value for item in fields(subject) if (value := getattr(subject, item.name)) is not None}
    return replace(metadata, subject=metadata.subject.model_copy(update=given | metadata.subject.model_dump(exclude_none=True)))


def conversion_record(recorded: Recorded, told: SessionYaml, metadata: Metadata, command: str, *stages: Mapping[str, str]) -> str:
    """How the file was made, one `key: value` a line: program, files with their SHA-256, what each stage found, every setting that is on.

    Files are those of the source, the stimulus log and the geometry; images have their hashes in a table of the file. Settings that name
    a path keep its last part only: folders of a lab's machines belong in no shared file.
    """
    lines = {"program": "nwb-compact", "version": __version__, **commit(), "command": command, "reader": recorded.reader}
    if metadata.origin is not None:
        lines["metadata"] = metadata.origin
    for stage in stages:
        lines |= stage
    for name in ("stimuli", "alignment", "sorting", "responses"):
        settings = flat(_without_folders(told, name))
        lines |= {f"setting.{name}.{key}": value for key, value in settings.items() if value not in ("None", "()", "{}")}
    read = (*recorded.files, *(path for path in (told.stimuli.log, told.device.geometry) if path is not None))
    files = [f"file: {name} sha256:{file_sha256(path)}" for name, path in zip(_names(read), read, strict=True)]
    return "\n".join([f"{key}: {value}" for key, value in lines.items()] + files)


def _start_faults(start: datetime | None) -> list[Fault]:
    next_step = "add session: {session_start_time: 2019-09-23T10:30:00-04:00} to session.yaml"
    if start is None:
        return [Fault("session_start_time", "no date in the source", "when the recording began, with its time zone", next_step)]
    if start.tzinfo is None:
        found = f"{start.isoformat(sep=' ', timespec='seconds')} without a time zone in the source"
        next_step = f"add session: {{session_start_time: {start.isoformat()}-04:00}} to session.yaml, with your zone"
        return [Fault("session_start_time", found, "a time zone", next_step)]
    return []


def _subject_faults(metadata: Metadata) -> list[Fault]:
    missing = [name for name in ("subject_id", "species", "sex") if getattr(metadata.subject, name) is None]
    if metadata.subject.age is None and metadata.subject.date_of_birth is None:
        missing.append("age")
    next_step = "add it to the section subject of session.yaml; nwb-compact convert template shows its form"
    return [Fault(f"subject.{name}", "nothing", "what DANDI demands of every animal", next_step) for name in missing]


def _without_folders(told: SessionYaml, name: str) -> Stage:
    section: Stage = getattr(told, name)
    return section.model_copy(update={key: Path(value.name) for key, value in section if isinstance(value, Path)})


def _names(files: Sequence[Path]) -> list[str]:
    """Names of files from the folder that they share."""
    shared = Path(files[0]).absolute().parent if files else Path()
    return [path.absolute().relative_to(shared).as_posix() if path.absolute().is_relative_to(shared) else path.name for path in files]
