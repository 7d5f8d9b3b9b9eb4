"""`nwb-compact convert`: one sub-command a source. Each reads, joins what a person knows, and writes one session file."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import quote
from typing import Any

import click
import numpy as np

from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_session import write_session
from nwb_compact.safe_write import SPARE_BYTES
from nwb_compact.session import Session
from nwb_compact_conversion.metadata import Metadata, overlay, read_metadata
from nwb_compact_conversion.scratch import scratch_folder
from nwb_compact_conversion.session_yaml import SessionYaml, read_session_yaml
from nwb_compact_conversion.template import template

SOURCES = ("blackrock", "spikeglx", "openephys", "intan", "plexon", "recording", "sorted", "counts", "nwb")
EVENTS_HELP = "CSV of digital events: time_s, code and, if several, channel."


@click.group()
def convert() -> None:
    """Turn recordings or published data into one session file (NWB)."""


@dataclass(frozen=True)
class Job:
    """What every source is asked for."""

    output: Path
    yaml: Path | None
    overwrite: bool
    stub: bool
    jobs: int
    scratch: Path | None

    def told(self) -> tuple[SessionYaml, Metadata]:
        """The settings; refused here if the output could not be written in the end."""
        refuse_existing(self.output, overwrite=self.overwrite)
        if self.scratch is not None and not self.scratch.is_dir():
            raise NwbCompactError(self.scratch, found="no such folder", expected="a folder for --scratch", next_step="create it first")
        return (SessionYaml(), Metadata()) if self.yaml is None else read_session_yaml(self.yaml)


def source(name: str, metavar: str, short_help: str) -> Callable[[Callable[..., None]], click.Command]:
    """A sub-command of `convert` that reads a source at a path and takes the options that all sources share.

    `short_help` is its line in `convert --help`, which has room for 63 characters.
    """

    def decorate(body: Callable[..., None]) -> click.Command:
        def command(path: Path, **given: Any) -> None:
            body(path, Job(**{item.name: given.pop(item.name) for item in fields(Job)}), **given)

        command.__doc__ = body.__doc__
        command.__click_params__ = getattr(body, "__click_params__", [])  # type: ignore[attr-defined]
        file = click.Path(path_type=Path)
        options = [
            click.argument("path", metavar=metavar, type=file),
            click.option("--yaml", type=file, help="Settings and facts of the session; see nwb-compact convert template."),
            click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="NWB file to write."),
            click.option("--overwrite", is_flag=True, help="Replace OUTPUT where it exists."),
            click.option("--stub", is_flag=True, help="Convert the first half minute only, to try the settings."),
            click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Threads that read, filter and sort."),
            click.option("--scratch", type=file, help="Folder with room for a copy of the voltage, used while sorting."),
        ]
        for option in reversed(options):
            command = option(command)
        return convert.command(name, short_help=short_help)(command)

    return decorate


@convert.command("template", short_help="Print a commented session.yaml for SOURCE.")
@click.argument("source_name", metavar="SOURCE", type=click.Choice(SOURCES))
def print_template(source_name: str) -> None:
    """Print a commented session.yaml for SOURCE."""
    click.echo(template(source_name), nl=False)


@source("blackrock", "FILE.nsX|FILE.nev", "Blackrock: .nsX voltage with the .nev's words, or .nev spikes.")
def blackrock(path: Path, job: Job) -> None:
    """Blackrock: the voltage of an .nsX with the words of its .nev, or the spikes of a .nev."""
    from nwb_compact_conversion.sources.blackrock import read_blackrock

    _convert(job, lambda told: read_blackrock(path, voltage=told.sorting.sorter != "none"))


@source("spikeglx", "FOLDER", "SpikeGLX: a probe with its sync line, and a NI-DAQ.")
@click.option("--stream", help="For example imec0.ap; needed where there are several probes.")
@click.option("--shortened", is_flag=True, help="Read files that are shorter than their .meta says, as far as they go.")
def spikeglx(path: Path, job: Job, stream: str | None, shortened: bool) -> None:
    """SpikeGLX: a probe's voltage with its sync line, and the lines and channels of a NI-DAQ."""
    from nwb_compact_conversion.sources.spikeglx import read_spikeglx

    _convert(job, lambda told: read_spikeglx(path, stream=stream, shortened=shortened))


@source("openephys", "FOLDER", "Open Ephys: binary or legacy format, with TTL events.")
@click.option("--stream", help="Name of the stream; needed where there are several.")
def openephys(path: Path, job: Job, stream: str | None) -> None:
    """Open Ephys: binary or legacy format, with TTL events."""
    from nwb_compact_conversion.sources.openephys import read_openephys

    _convert(job, lambda told: read_openephys(path, stream=stream))


@source("intan", "FILE.rhd|FILE.rhs", "Intan: the amplifier channels, digital and analog inputs.")
def intan(path: Path, job: Job) -> None:
    """Intan: the amplifier channels, digital and analog inputs."""
    from nwb_compact_conversion.sources.intan import read_intan

    _convert(job, lambda told: read_intan(path))


@source("plexon", "FILE.plx", "Plexon: units and events of a .plx, and its wideband voltage.")
def plexon(path: Path, job: Job) -> None:
    """Plexon: the sorted units and events of a .plx, and its wideband voltage where it has one."""
    from nwb_compact_conversion.sources.plexon import read_plexon

    _convert(job, lambda told: read_plexon(path))


@source("recording", "PATH", "Anything that SpikeInterface reads or saved.")
@click.option("--format", "format_name", help="A reader of SpikeInterface, for example mcsraw; without it the path must tell.")
@click.option("--events", type=click.Path(path_type=Path), help=EVENTS_HELP)
def recording(path: Path, job: Job, format_name: str | None, events: Path | None) -> None:
    """Anything that SpikeInterface reads or saved."""
    from nwb_compact_conversion.sources.recording import read_recording

    _convert(job, lambda told: read_recording(path, format_name=format_name, events_csv=events))


@source("sorted", "PATH", "Sorted units: phy, Kilosort, SpikeInterface, .nev, .plx.")
@click.option("--format", "format_name", help="phy, kilosort, ...; without it the path must tell.")
@click.option("--rate-hz", type=float, help="Sampling rate, in place of the one that the source tells.")
@click.option("--events", type=click.Path(path_type=Path), help=EVENTS_HELP)
def sorted_units(path: Path, job: Job, format_name: str | None, rate_hz: float | None, events: Path | None) -> None:
    """Units that come sorted: a phy or Kilosort folder, what SpikeInterface saved, .nev sort codes, .plx units."""
    from nwb_compact_conversion.sources.sorted_spikes import read_sorted

    _convert(job, lambda told: read_sorted(
        path, format=format_name, sampling_frequency_hz=rate_hz, exclude_labels=told.sorting.curation.exclude_labels, events_csv=events
    ))


@source("counts", "FILE", "A matrix of counts, or spike times: .npy, .npz, .csv, .mat.")
def counts(path: Path, job: Job) -> None:
    """A matrix of counts, or arrays of spike times: .npy, .npz, .csv, .mat."""
    from nwb_compact_conversion.convert import STUB_S, convert_counted

    told, metadata = job.told()
    stub_s = STUB_S if job.stub else None
    _write(job, convert_counted(path, told, metadata, command=_command_line(), stub_s=stub_s, report=_report))


@source("nwb", "FILE.nwb", "An NWB file with units and presentations under other names.")
def foreign_nwb(path: Path, job: Job) -> None:
    """An NWB file with units and presentations under other names."""
    from nwb_compact_conversion.convert import STUB_S, Shown, convert_recorded
    from nwb_compact_conversion.sources.foreign_nwb import read_foreign_nwb, with_blank

    told, metadata = job.told()
    recorded, log, images, about, subject = read_foreign_nwb(path, told.stimuli)
    told = told.model_copy(update={"stimuli": with_blank(told.stimuli)})
    shown, stub_s = Shown(log, images), STUB_S if job.stub else None
    _write(job, convert_recorded(recorded, told, metadata, command=_command_line(), scratch=path.parent, shown=shown, about=about,
                                 subject=subject, stub_s=stub_s, report=_report))


@convert.command("cowley-v4", short_help="Published macaque V4 sessions of Cowley et al. (Nature 2026).")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the published data, or a clone of its repository.")
@click.option("--session", "session_id", required=True, help="Session id, for example 190923.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="NWB file to write.")
@click.option("--metadata", "metadata_file", type=click.Path(path_type=Path), help="YAML with what the source does not tell.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT where it exists.")
def cowley_v4(data: Path, session_id: str, output: Path, metadata_file: Path | None, overwrite: bool) -> None:
    """Published macaque V4 sessions of Cowley, Stan, Pillow & Smith (Nature 2026)."""
    from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4

    refuse_existing(output, overwrite=overwrite)
    metadata = read_metadata(metadata_file) if metadata_file else Metadata()
    session = overlay(read_cowley_v4(data, session_id), metadata)
    write_session(session, output, overwrite=overwrite)
    _tell(output, session)


def _convert(job: Job, read: Callable[[SessionYaml], Any]) -> None:
    """Read a recording, make a session of it and write it, with all that can be refused refused before the long work."""
    from nwb_compact_conversion.convert import STUB_S, convert_recorded

    told, metadata = job.told()
    recorded = read(told)
    _refuse_full_disk(job, recorded, told)
    with scratch_folder(job.output, job.scratch) as scratch:
        _write(job, convert_recorded(recorded, told, metadata, command=_command_line(), scratch=scratch,
                                     stub_s=STUB_S if job.stub else None, n_jobs=job.jobs, report=_report))


def _refuse_full_disk(job: Job, recorded: Any, told: SessionYaml) -> None:
    """Ask for the room of the voltage before it is sorted, not only when it is written."""
    from nwb_compact_conversion.voltage import voltage_bytes

    if recorded.recording is None or job.stub or not told.device.keep_voltage:
        return
    free, needed = shutil.disk_usage(job.output.absolute().parent).free, SPARE_BYTES + voltage_bytes(recorded.recording)
    if free < needed:
        found, expected = f"{free / 2**20:.0f} MiB free on its disk", f"at least {needed / 2**20:.0f} MiB for the voltage"
        next_step = "free some space, write elsewhere, or leave the voltage out (device: {keep_voltage: false})"
        raise NwbCompactError(job.output, found=found, expected=expected, next_step=next_step)


def _write(job: Job, converted: Any) -> None:
    write_session(
        converted.session, job.output, overwrite=job.overwrite, add_voltage=converted.add_voltage, voltage_bytes=converted.voltage_bytes
    )
    _tell(job.output, converted.session)


def _report(line: str) -> None:
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
        responses = "repeat averages" if session.mean_responses is not None else "no responses"
    else:
        assert session.presentations is not None
        valid = session.presentations.is_valid
        repeats = np.bincount(session.presentations.image_index)
        left_out = "" if valid.all() else f", {len(valid) - valid.sum()} of them invalid"
        responses = f"{len(session.counts.count)} presentations ({repeats.min()} to {repeats.max()} repeats an image{left_out})"
    return f"{len(session.units)} units, {images} images{shown_twice}, {responses}"


def absent_facts(session: Session) -> list[str]:
    """What NWB archives ask for, the source does not give and nobody added, a line each."""
    if session.subject is None:
        return ["The source does not tell the animal; --metadata FILE.yaml can add it (section subject)."]
    missing = [name for name in ("subject_id", "species", "sex") if getattr(session.subject, name) is None]
    missing += ["age"] if session.subject.age is None and session.subject.date_of_birth is None else []
    return [f"Not given by the source: {', '.join(missing)}; --metadata FILE.yaml can add it (section subject)."] if missing else []


def _tell(output: Path, session: Session) -> None:
    click.echo(f"{output}: {summary(session)}")
    for line in absent_facts(session):
        click.echo(line, err=True)


def _command_line() -> str:
    """What was typed, with file names in place of paths: folders of a lab's machines belong in no shared file."""
    return " ".join(quote(os.path.basename(word.rstrip("/")) if os.sep in word else word) for word in ["nwb-compact", *sys.argv[1:]])
