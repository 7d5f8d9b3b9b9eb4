"""`nwb-compact convert`: one sub-command a source. Each reads, joins what a person knows, and writes one session file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from nwb_compact.address import require_path
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.provenance import command_line
from nwb_compact.results import median
from nwb_compact.safe_write import replaced_safely, require_room
from nwb_compact.session import Session
from nwb_compact_conversion.metadata import Metadata, missing_facts, overlay, read_metadata
from nwb_compact_conversion.scratch import scratch_folder
from nwb_compact_conversion.session_yaml import SessionYaml, read_session_yaml
from nwb_compact_conversion.template import template

if TYPE_CHECKING:  # these import SpikeInterface, for which --help should not wait
    from nwb_compact_conversion.convert import Converted
    from nwb_compact_conversion.recorded import Recorded

SOURCES = ("blackrock", "spikeglx", "openephys", "intan", "plexon", "recording", "sorted", "counts", "nwb")
EVENTS_HELP = "CSV of digital events: time_s, code and, if several, channel."


@click.group()
def convert() -> None:
    """Turn recordings or published data into one session file (NWB)."""


@dataclass(frozen=True)
class Job:
    """What every source is asked for."""

    source: Path
    output: Path
    yaml: Path | None
    overwrite: bool
    stub: bool
    jobs: int
    scratch: Path | None

    def told(self) -> tuple[SessionYaml, Metadata]:
        """The settings; refused here if the output could not be written in the end."""
        refuse_existing(self.output, overwrite=self.overwrite)
        if self.source.resolve() == self.output.resolve():  # what is not copied, as the voltage, would be lost
            raise NwbCompactError(self.source, found="the source as the output", expected="another file",
                                  next_step="choose another name for -o")
        if self.scratch is not None and not self.scratch.is_dir():
            raise NwbCompactError(self.scratch, found="no such folder", expected="a folder for --scratch", next_step="create it first")
        return (SessionYaml(), Metadata()) if self.yaml is None else read_session_yaml(self.yaml)


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all sources share, which come as keywords that make a `Job`."""
    file = click.Path(path_type=Path)
    options = [
        click.option("--yaml", type=file, help="Settings and facts of the session; see nwb-compact convert template."),
        click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="NWB file to write."),
        click.option("--overwrite", is_flag=True, help="Replace OUTPUT where it exists."),
        click.option("--stub", is_flag=True, help="Convert the first half minute only, to try the settings."),
        click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Threads that read, filter and sort."),
        click.option("--scratch", type=file, help="Folder with room for a copy of the voltage, used while sorting."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@convert.command("template", short_help="Print a commented session.yaml for SOURCE.")
@click.argument("source_name", metavar="SOURCE", type=click.Choice(SOURCES))
def print_template(source_name: str) -> None:
    """Print a commented session.yaml for SOURCE."""
    click.echo(template(source_name), nl=False)


@convert.command("blackrock", short_help="Blackrock: .nsX voltage and .nev words, or .nev spikes.")
@click.argument("path", metavar="FILE.nsX|FILE.nev", type=click.Path(path_type=Path))
@job_options
def blackrock(path: Path, **job: Any) -> None:
    """Blackrock: the voltage of an .nsX with the words of its .nev, or the spikes of a .nev."""
    from nwb_compact_conversion.sources.blackrock import read_blackrock

    _convert(Job(path, **job), lambda told: read_blackrock(
        path, voltage=told.sorting.sorter != "none", keep_unsorted=told.sorting.curation.keep_unsorted
    ))


@convert.command("spikeglx", short_help="SpikeGLX: a probe with its sync line, and a NI-DAQ.")
@click.argument("path", metavar="FOLDER", type=click.Path(path_type=Path))
@job_options
@click.option("--stream", help="For example imec0.ap; needed where there are several probes.")
@click.option("--shortened", is_flag=True, help="Read files that are shorter than their .meta says, as far as they go.")
def spikeglx(path: Path, stream: str | None, shortened: bool, **job: Any) -> None:
    """SpikeGLX: a probe's voltage with its sync line, and the lines and channels of a NI-DAQ."""
    from nwb_compact_conversion.sources.spikeglx import read_spikeglx

    _convert(Job(path, **job), lambda told: read_spikeglx(path, stream=stream, shortened=shortened))


@convert.command("openephys", short_help="Open Ephys: binary or legacy format, with TTL events.")
@click.argument("path", metavar="FOLDER", type=click.Path(path_type=Path))
@job_options
@click.option("--stream", help="Name of the stream; needed where there are several.")
def openephys(path: Path, stream: str | None, **job: Any) -> None:
    """Open Ephys: binary or legacy format, with TTL events."""
    from nwb_compact_conversion.sources.openephys import read_openephys

    _convert(Job(path, **job), lambda told: read_openephys(path, stream=stream))


@convert.command("intan", short_help="Intan: the amplifier channels, digital and analog inputs.")
@click.argument("path", metavar="FILE.rhd|FILE.rhs", type=click.Path(path_type=Path))
@job_options
def intan(path: Path, **job: Any) -> None:
    """Intan: the amplifier channels, digital and analog inputs."""
    from nwb_compact_conversion.sources.intan import read_intan

    _convert(Job(path, **job), lambda told: read_intan(path))


@convert.command("plexon", short_help="Plexon: units, events and wideband voltage of a .plx.")
@click.argument("path", metavar="FILE.plx", type=click.Path(path_type=Path))
@job_options
def plexon(path: Path, **job: Any) -> None:
    """Plexon: the sorted units and events of a .plx, and its wideband voltage where it has one."""
    from nwb_compact_conversion.sources.plexon import read_plexon

    _convert(Job(path, **job), lambda told: read_plexon(path, keep_unsorted=told.sorting.curation.keep_unsorted))


@convert.command("recording", short_help="Anything that SpikeInterface reads or saved.")
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@job_options
@click.option("--format", "format_name", help="A reader of SpikeInterface, for example mcsraw; without it the path must tell.")
@click.option("--events", type=click.Path(path_type=Path), help=EVENTS_HELP)
def recording(path: Path, format_name: str | None, events: Path | None, **job: Any) -> None:
    """Anything that SpikeInterface reads or saved."""
    from nwb_compact_conversion.sources.recording import read_recording

    _convert(Job(path, **job), lambda told: read_recording(path, format_name=format_name, events_csv=events))


@convert.command("sorted", short_help="Sorted units: phy, Kilosort, SpikeInterface, .nev, .plx.")
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@job_options
@click.option("--format", "format_name", help="phy, kilosort, ...; without it the path must tell.")
@click.option("--rate-hz", type=click.FloatRange(min=0, min_open=True), help="Sampling rate, in place of the one that the source tells.")
@click.option("--events", type=click.Path(path_type=Path), help=EVENTS_HELP)
def sorted_units(path: Path, format_name: str | None, rate_hz: float | None, events: Path | None, **job: Any) -> None:
    """Units that come sorted: a phy or Kilosort folder, what SpikeInterface saved, .nev sort codes, .plx units."""
    from nwb_compact_conversion.sources.sorted_spikes import read_sorted

    _convert(Job(path, **job), lambda told: read_sorted(
        path, format=format_name, sampling_frequency_hz=rate_hz, exclude_labels=told.sorting.curation.exclude_labels,
        keep_unsorted=told.sorting.curation.keep_unsorted, events_csv=events,
    ))


@convert.command("counts", short_help="Matrix of counts, or spike times: .npy .npz .csv .mat.")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@job_options
def counts(path: Path, **job: Any) -> None:
    """A matrix of counts, or arrays of spike times: .npy, .npz, .csv, .mat."""
    from nwb_compact_conversion.convert import convert_counted

    _write(Job(path, **job), lambda told, facts, **how: convert_counted(path, told, facts, **how))


@convert.command("nwb", short_help="NWB with units and presentations under other names.")
@click.argument("path", metavar="FILE.nwb", type=click.Path(path_type=Path))
@job_options
def foreign_nwb(path: Path, **job: Any) -> None:
    """An NWB file with units and presentations under other names."""
    from nwb_compact_conversion.convert import OwnStimuli, convert_recorded
    from nwb_compact_conversion.sources.foreign_nwb import read_foreign_nwb, with_blank

    def converted(told: SessionYaml, facts: Metadata, **how: Any) -> "Converted":
        recorded, log, images, about, subject = read_foreign_nwb(path, told.stimuli, how["report"])
        if told.stimuli.log is not None:
            found, next_step = "a file", "leave it out; stimuli.columns names the columns of the file's own tables"
            raise NwbCompactError("stimuli.log", found=found, expected="nothing: the log is in the NWB file", next_step=next_step)
        told = told.model_copy(update={"stimuli": with_blank(told.stimuli)})
        return convert_recorded(recorded, told, facts, shown=OwnStimuli(log, images), about=about, subject=subject, **how)

    _write(Job(path, **job), converted)


@convert.command("cowley-v4", short_help="Published V4 sessions of Cowley et al. (Nature 2026).")
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


@convert.command("cowley-v4-models", short_help="Published compact models of 219 V4 neurons.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A clone of the repository, or a folder of models and data.")
@click.option("--session", "session_id", default="190923", show_default=True, help="Whose images and responses go beside the models.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="NWB file to write.")
@click.option("--metadata", "metadata_file", type=click.Path(path_type=Path), help="YAML with what the source does not tell.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT where it exists.")
@click.option("--quiet", is_flag=True, help="No progress.")
def cowley_v4_models(data: Path, session_id: str, output: Path, metadata_file: Path | None, overwrite: bool, quiet: bool) -> None:
    """Published compact models of Cowley, Stan, Pillow & Smith (Nature 2026): 219 neurons, one network each, and shared ones."""
    from nwb_compact_conversion.sources.cowley_v4_models import read_cowley_v4_models

    refuse_existing(output, overwrite=overwrite)
    metadata = read_metadata(metadata_file) if metadata_file else Metadata()
    session, runs = read_cowley_v4_models(data, session_id, command=command_line("convert"), quiet=quiet)
    session = overlay(session, metadata)
    with replaced_safely(output) as temporary:  # the session and all runs, or nothing
        write_session(session, temporary)
        for results in runs:
            write_results(results, temporary)
    _tell(output, session)
    for results in runs:
        n_scored = int(np.isfinite(results.scores["student_r2"]).sum())
        said = f"{len(results.unit_name)} models, median r2 {median(results.scores['student_r2']):.3f} over {n_scored} scored units"
        click.echo(f"run {results.run_id}: {said}")


def _convert(job: Job, read: "Callable[[SessionYaml], Recorded]") -> None:
    """The session of a recording, with all that can be refused refused before the long work."""
    from nwb_compact_conversion.convert import convert_recorded

    def converted(told: SessionYaml, facts: Metadata, **how: Any) -> "Converted":
        recorded = read(told)
        _refuse_full_disk(job, recorded, told)
        with scratch_folder(job.output, job.scratch) as scratch:
            return convert_recorded(recorded, told, facts, scratch=scratch, n_jobs=job.jobs, **how)

    _write(job, converted)


def _write(job: Job, converted: "Callable[..., Converted]") -> None:
    """Make a session by the settings of a job and write it."""
    from nwb_compact_conversion.stub import STUB_S

    told, facts = job.told()
    made = converted(told, facts, command=command_line("convert"), stub_s=STUB_S if job.stub else None, report=_report)
    write_session(made.session, job.output, overwrite=job.overwrite, add_voltage=made.add_voltage, voltage_bytes=made.voltage_bytes)
    _tell(job.output, made.session)


def _refuse_full_disk(job: Job, recorded: "Recorded", told: SessionYaml) -> None:
    """Ask for the room of the voltage before it is sorted, not only when it is written."""
    from nwb_compact_conversion.voltage import voltage_bytes

    if recorded.recording is None or job.stub or not told.device.keep_voltage:
        return
    next_step = "free some space, write elsewhere, or leave the voltage out (device: {keep_voltage: false})"
    require_room(job.output, voltage_bytes(recorded.recording), what="the voltage", next_step=next_step)


def _report(line: str) -> None:
    click.echo(line, err=True)


def refuse_existing(output: Path, *, overwrite: bool) -> None:
    """Raise before the long read where the write would fail at its end."""
    require_path(output)
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
        repeats = np.bincount(session.presentations.image_index[valid])
        repeats = repeats[repeats > 0]
        valid_ones = f"{repeats.min()} to {repeats.max()} repeats an image" if len(repeats) else "none of them valid"
        left_out = f", {len(valid) - valid.sum()} of them invalid" if len(repeats) and not valid.all() else ""
        responses = f"{len(session.counts.count)} presentations ({valid_ones}{left_out})"
    return f"{len(session.units)} units, {images} images{shown_twice}, {responses}"


def absent_facts(session: Session) -> list[str]:
    """What NWB archives ask for, the source does not give and nobody added, a line each."""
    if session.subject is None:
        return ["The source does not tell the animal; --metadata FILE.yaml can add it (section subject)."]
    missing = missing_facts(session.subject)
    return [f"Not given by the source: {', '.join(missing)}; --metadata FILE.yaml can add it (section subject)."] if missing else []


def _tell(output: Path, session: Session) -> None:
    click.echo(f"{output}: {summary(session)}")
    for line in absent_facts(session):
        click.echo(line, err=True)
