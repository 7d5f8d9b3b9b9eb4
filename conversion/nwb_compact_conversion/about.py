"""Who was recorded, when, and how the file was made: what archives demand is asked for before any work, nothing is invented."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from nwb_compact import __version__
from nwb_compact.config import Stage, flat
from nwb_compact.errors import Fault, SeveralFaults
from nwb_compact.provenance import commit
from nwb_compact.session import About, Subject
from nwb_compact_conversion.metadata import Metadata, missing_facts
from nwb_compact_conversion.recorded import Recorded
from nwb_compact_conversion.session_yaml import SessionYaml
from nwb_compact_conversion.sources.source_files import file_sha256

EXAMPLES = {"subject_id": "M1", "species": "Macaca mulatta", "sex": "F", "age": "P8Y"}
"""Values that show the form of what DANDI demands."""
NO_DESCRIPTION = "No description of the session was given."
"""NWB requires a text."""


def start_of(recorded: Recorded, metadata: Metadata, *, about: About | None = None) -> datetime:
    """When the session began, once everything that NWB and DANDI demand is there.

    Parameters
    ----------
    recorded
        What the source tells of its start.
    metadata
        The sections `subject` and `session` of session.yaml, joined with what the source says of the animal.
    about
        What the source itself says of the session, if it is a session file of its own.

    Raises
    ------
    SeveralFaults
        One line for each thing that neither source nor person gave: a start time with its time zone, and subject_id, species, sex, and
        age or date of birth of the animal.
    """
    start = metadata.session.session_start_time or (about.session_start_time if about else recorded.start_time)
    faults = [*_start_faults(start), *_subject_faults(metadata)]
    if faults or start is None:
        raise SeveralFaults(tuple(faults))
    return start


def about_session(
    recorded: Recorded, metadata: Metadata, start: datetime, hashes: Mapping[Path, str], record: str, *, about: About | None = None
) -> About:
    """What names and dates the session: facts a person gave, then those of the source.

    The identifier is the animal, the start and a digest over all files of the source, so that no other recording has it.
    """
    digest = sha256("\n".join(hashes[path] for path in recorded.files).encode()).hexdigest()
    made = f"{metadata.subject.subject_id}-{start:%Y%m%dT%H%M%S}-{digest[:16]}"
    told = metadata.session.model_dump(exclude_none=True) | {"session_start_time": start, "source_script": record}
    return replace(about or About(made, NO_DESCRIPTION, start), **told)


def file_hashes(paths: Sequence[Path], *, stub: bool) -> dict[Path, str]:
    """SHA-256 of each file. A stub reads none: its hashes are of name and size and say so."""
    if not stub:
        return {path: f"sha256:{file_sha256(path)}" for path in paths}
    return {path: f"not hashed in a stub, {path.stat().st_size} bytes" for path in paths}


def source_files(recorded: Recorded, told: SessionYaml) -> tuple[Path, ...]:
    """The files that a session is made from; images have their hashes in a table of the file."""
    return (*recorded.files, *(path for path in (told.stimuli.log, told.device.geometry) if path is not None))


def subject_of(metadata: Metadata) -> Subject:
    """The animal, of which `with_subject` has joined what person and source tell."""
    return Subject(**metadata.subject.model_dump(exclude_none=True))


def with_subject(metadata: Metadata, subject: Subject | None) -> Metadata:
    """The facts of a person, and where they are silent those that the source gives of its animal."""
    given = {} if subject is None else {item.name: value for item in fields(subject) if (value := getattr(subject, item.name)) is not None}
    return replace(metadata, subject=metadata.subject.model_copy(update=given | metadata.subject.model_dump(exclude_none=True)))


def conversion_record(
    recorded: Recorded, told: SessionYaml, metadata: Metadata, command: str, hashes: Mapping[Path, str], *stages: Mapping[str, str]
) -> str:
    """How the file was made, one `key: value` a line: program, files with their SHA-256, what each stage found, every setting that is on.

    Settings that name a path keep its last part only: folders of a lab's machines belong in no shared file.
    """
    lines = {"program": "nwb-compact", "version": __version__, **commit(), "command": command, "reader": recorded.reader}
    if metadata.origin is not None:
        lines["metadata"] = metadata.origin
    for stage in stages:
        lines |= stage
    for name in ("stimuli", "alignment", "sorting", "responses"):
        settings = flat(_without_folders(told, name))
        lines |= {f"setting.{name}.{key}": value for key, value in settings.items() if value not in ("None", "()", "{}")}
    files = [f"file: {name} {found}" for name, found in zip(_names(tuple(hashes)), hashes.values(), strict=True)]
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
    return [Fault(f"subject.{name}", "nothing", "what DANDI demands of every animal",
                  f"add subject: {{{name}: {EXAMPLES[name]}}} to session.yaml, with yours") for name in missing_facts(metadata.subject)]


def _without_folders(told: SessionYaml, name: str) -> Stage:
    section: Stage = getattr(told, name)
    return section.model_copy(update={key: Path(value.name) for key, value in section if isinstance(value, Path)})


def _names(files: Sequence[Path]) -> list[str]:
    """Names of files from the folder that they share."""
    shared = Path(files[0]).absolute().parent if files else Path()
    return [path.absolute().relative_to(shared).as_posix() if path.absolute().is_relative_to(shared) else path.name for path in files]
