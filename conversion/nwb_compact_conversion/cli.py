"""`nwb-compact convert`: one sub-command a source. Each reads, overlays what a person knows, and writes one session file."""

from pathlib import Path

import click
import numpy as np

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import write_session
from nwb_compact.session import Session
from nwb_compact_conversion.cowley_v4 import read_cowley_v4
from nwb_compact_conversion.metadata import Metadata, overlay, read_metadata


@click.group()
def convert() -> None:
    """Turn recordings or published data into one session file (NWB)."""


@convert.command("cowley-v4")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the published data, or a clone of its repository.")
@click.option("--session", "session_id", required=True, help="Session id, for example 190923.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="NWB file to write.")
@click.option("--metadata", "metadata_file", type=click.Path(path_type=Path), help="YAML with what the source does not tell.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT where it exists.")
def cowley_v4(data: Path, session_id: str, output: Path, metadata_file: Path | None, overwrite: bool) -> None:
    """Published macaque V4 sessions of Cowley, Stan, Pillow & Smith (Nature 2026)."""
    refuse_existing(output, overwrite=overwrite)
    metadata = read_metadata(metadata_file) if metadata_file else Metadata()
    session = overlay(read_cowley_v4(data, session_id), metadata)
    write_session(session, output, overwrite=overwrite)
    click.echo(f"{output}: {summary(session)}")
    for line in absent_facts(session):
        click.echo(line, err=True)


def refuse_existing(output: Path, *, overwrite: bool) -> None:
    """Raise before the long read where the write would fail at its end."""
    if output.exists() and not overwrite:
        raise NwbCompactError(output, found="a file", expected="none", next_step="choose another name or give --overwrite")
    if not output.absolute().parent.is_dir():
        raise NwbCompactError(output.parent, found="no such folder", expected="a folder for the output", next_step="create it first")


def summary(session: Session) -> str:
    """What was converted, in one line."""
    images, distinct = len(session.images), len(set(session.images.sha256))
    shown_twice = "" if distinct == images else f" ({distinct} distinct)"
    if session.counts is None:
        responses = "repeat averages"
    else:
        assert session.presentations is not None
        repeats = np.bincount(session.presentations.image_index)
        responses = f"{len(session.counts.count)} presentations ({repeats.min()} to {repeats.max()} repeats an image)"
    return f"{len(session.units)} units, {images} images{shown_twice}, {responses}"


def absent_facts(session: Session) -> list[str]:
    """What NWB archives ask for, the source does not give and nobody added, a line each."""
    if session.subject is None:
        return ["The source does not tell the animal; --metadata FILE.yaml can add it (section subject)."]
    missing = [name for name in ("subject_id", "species", "sex") if getattr(session.subject, name) is None]
    missing += ["age"] if session.subject.age is None and session.subject.date_of_birth is None else []
    return [f"Not given by the source: {', '.join(missing)}; --metadata FILE.yaml can add it (section subject)."] if missing else []
