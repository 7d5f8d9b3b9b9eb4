"""From what a source holds to a session, top to bottom: who, what was shown, on one clock, by which units, how they answered.

Everything cheap comes first, so that a wrong name stops the conversion before hours of sorting.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import About, Device, Electrodes, Images, Presentations, Session, SpikeCounts, Subject, Units
from nwb_compact_conversion.about import about_session, conversion_record, file_hashes, source_files, start_of, subject_of, with_subject
from nwb_compact_conversion.clock.alignment import Aligned, align, pick_events
from nwb_compact_conversion.clock.photodiode import photodiode_edges
from nwb_compact_conversion.clock.word_check import refuse_other_images
from nwb_compact_conversion.electrodes import electrodes_of, placed, with_geometry
from nwb_compact_conversion.metadata import Metadata
from nwb_compact_conversion.recorded import Recorded, observed_s
from nwb_compact_conversion.respond import respond
from nwb_compact_conversion.session_yaml import Alignment, DeviceFacts, SessionYaml
from nwb_compact_conversion.sources.counts import read_counts, responses_of, told_windows
from nwb_compact_conversion.spikes.sorting import check_settings, sort_units
from nwb_compact_conversion.stimulus.presentations import log_from_words, present, present_in_order
from nwb_compact_conversion.stimulus.stimuli import read_stimuli
from nwb_compact_conversion.stimulus.stimulus_log import ShownOrder, StimulusLog, read_log, read_order
from nwb_compact_conversion.stimulus.while_recording import recorded_s, while_recording
from nwb_compact_conversion.stub import counted_before, first_observed, first_seconds, spikes_before
from nwb_compact_conversion.voltage import voltage_adder, voltage_bytes

UNTIMED = "Rows are in the order shown; the times are not given."
OF_SORTED_UNITS = {"exclude_labels", "keep_unsorted"}
"""Keys of `sorting.curation` for units that come sorted; the others measure units in the voltage they were found in."""
NO_IMAGES, NO_UNITS = Images((), ()), Units(())


@dataclass(frozen=True, eq=False)
class OwnStimuli:
    """The log and the images that a source itself holds; None where the settings name them."""

    log: StimulusLog | None = None
    images: Images | None = None


@dataclass(frozen=True, eq=False)
class Converted:
    """A session and what has to be written with it."""

    session: Session
    add_voltage: Callable[[Any], None] | None
    voltage_bytes: int


def convert_recorded(
    recorded: Recorded, told: SessionYaml, metadata: Metadata, *, command: str, scratch: Path | None = None,
    shown: OwnStimuli | None = None, about: About | None = None, subject: Subject | None = None, stub_s: float | None = None,
    n_jobs: int = 1, seed: int = 0, report: Callable[[str], None] = lambda line: None,
) -> Converted:
    """The session of one recording.

    Parameters
    ----------
    recorded
        What the source holds.
    told
        The settings of session.yaml.
    metadata
        Its facts on animal and session.
    command
        What a person typed, for the record in the file.
    scratch
        A folder for what sorters leave; it needs room for one filtered copy of the voltage. None where nothing is sorted.
    shown, about, subject
        What the source itself tells of stimuli, session and animal.
    stub_s
        Convert only so many seconds from the start, to try the settings.
    n_jobs
        Threads that read, filter and sort the voltage.
    seed
        For the random halves of reliabilities.
    report
        Called with a line on each step.

    Raises
    ------
    NwbCompactError
        With all that is wrong, before any long work where it can be known by then.
    """
    metadata = with_subject(metadata, subject)
    start = start_of(recorded, metadata, about=about)
    _require_sortable(recorded, told)
    device = _device(recorded.device, told.device)
    recording = None if recorded.recording is None else with_geometry(recorded.recording, told.device)
    electrodes = _electrodes(recorded, recording, told.device)
    if electrodes is None and (idle := told.device.model_fields_set - {"keep_voltage"}):
        report(f"the source tells of no electrodes, so device ({', '.join(sorted(idle))}) is not in the file")
    _require_names(device, electrodes)
    images, presentations, aligned = _stimuli(recorded, told, shown or OwnStimuli(), report)
    observed = recorded_s(recorded)
    if presentations is not None and observed is not None:
        presentations = while_recording(presentations, observed, told.responses, report)
    if stub_s is not None:
        recording = first_seconds(recording, stub_s)
        presentations = counted_before(presentations, first_observed(recording, observed, stub_s), told.responses)
        if presentations is None and len(images):
            report(f"no image was shown in the first {stub_s:g} s")
    add_voltage = None if recording is None or electrodes is None else voltage_adder(
        recording, electrodes, device, keep_voltage=told.device.keep_voltage
    )
    units, sorting = _units(recorded, recording, told, scratch=scratch, n_jobs=n_jobs, stub_s=stub_s, report=report)
    if electrodes is not None and len(units) and units.electrode_index is None:
        report(f"not every unit is known to lie on one of the {len(electrodes.name)} electrodes, so the file tells the electrode of none")
    response_units, counts = respond(units, presentations, told.responses, seed=seed, report=report)
    if presentations is not None and counts is None:
        report("there are no units, so the file will hold no responses and cannot be fitted")
    hashes = file_hashes(source_files(recorded, told), stub=stub_s is not None)
    record = conversion_record(recorded, told, metadata, command, hashes, {} if aligned is None else aligned.record(), sorting)
    session = Session(
        about=about_session(recorded, metadata, start, hashes, record, about=about),
        subject=subject_of(metadata),
        images=images,
        presentations=presentations,
        units=units,
        response_units=response_units,
        counts=counts,
        mean_responses=None,
        electrodes=electrodes,
        device=device,
        events=recorded.events,
    )
    keeps = recording is not None and told.device.keep_voltage
    return Converted(session, add_voltage, voltage_bytes(recording) if keeps else 0)


def convert_counted(
    file_path: Path, told: SessionYaml, metadata: Metadata, *, command: str, stub_s: float | None = None, seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> Converted:
    """The session of a matrix of counts, or of arrays of spike times; settings, errors and result as in `convert_recorded`."""
    told = told.model_copy(update={"alignment": Alignment(method="none")})
    images = read_stimuli(told.stimuli)
    untimed = told.stimuli.columns.onset is None
    log = None if told.stimuli.log is None else read_order(told.stimuli) if untimed else read_log(told.stimuli)
    counted = read_counts(file_path, told.responses, n_images=len(images), n_presentations=None if log is None else len(log.image))
    recorded = Recorded(counted.files, counted.reader, units=counted.units)
    if counted.values is None:
        shown_images = OwnStimuli(images=images)
        return convert_recorded(
            recorded, told, metadata, command=command, shown=shown_images, stub_s=stub_s, seed=seed, report=report
        )
    start = start_of(recorded, metadata)
    shown = None
    if isinstance(log, ShownOrder):
        images, shown = present_in_order(log, images, told.stimuli)
    elif log is not None:
        images, shown = present(log, images, told.stimuli, log.onset_s, None)
        if len(shown) < len(log.image):
            found = f"{len(log.image) - len(shown)} rows without an onset"
            expected, next_step = "an onset in each row, as counts have a row for each", "leave these rows out of log and counts"
            raise NwbCompactError(told.stimuli.log, found=found, expected=expected, next_step=next_step)
    windows, counted_in = told_windows(told.responses, len(counted.units))
    counted_in += f". {UNTIMED}" if isinstance(log, ShownOrder) else ""
    presentations, responses = responses_of(counted, shown, counted_in)
    counts, means = (responses, None) if isinstance(responses, SpikeCounts) else (None, responses)
    hashes = file_hashes(source_files(recorded, told), stub=stub_s is not None)
    about = about_session(recorded, metadata, start, hashes, conversion_record(recorded, told, metadata, command, hashes))
    return Converted(Session(about, subject_of(metadata), images, presentations, counted.units, windows, counts, means), None, 0)


# Stages ---------------------------------------------------------------------------------------------------------------


def _require_sortable(recorded: Recorded, told: SessionYaml) -> None:
    """Before anything is read: a sorter that is there and takes its parameters, and voltage for one that a person asked for."""
    if recorded.recording is not None and told.sorting.sorter != "none":
        check_settings(told.sorting)
        return
    measures = told.sorting.curation.model_fields_set - OF_SORTED_UNITS
    if measures:
        expected, next_step = "none, since the units come sorted", "curate them where they were sorted, or leave it out"
        raise NwbCompactError("sorting.curation", found=", ".join(sorted(measures)), expected=expected, next_step=next_step)
    if told.sorting.sorter != "none" and "sorter" in told.sorting.model_fields_set:
        expected, next_step = "none, since the source holds no voltage", "name the file that holds the voltage, or leave sorting.sorter out"
        raise NwbCompactError("sorting.sorter", found=told.sorting.sorter, expected=expected, next_step=next_step)


def _electrodes(recorded: Recorded, recording: BaseRecording | None, told: DeviceFacts) -> Electrodes | None:
    if recording is not None:
        return electrodes_of(recording)
    return None if recorded.electrodes is None else placed(recorded.electrodes, told)


def _device(source: Device | None, told: DeviceFacts) -> Device | None:
    given = {name: value for name in ("name", "description", "manufacturer") if (value := getattr(told, name)) is not None}
    return replace(source or Device("unknown"), **given) if source or given else None


def _require_names(device: Device | None, electrodes: Electrodes | None) -> None:
    """HDF5 takes no name with a slash and HDMF none with a colon, which would else be found when the file is written, after the sorting."""
    names = [] if electrodes is None else [device.name if device else "", *electrodes.group]
    if wrong := next((name for name in names if set(name) & set("/:")), None):
        expected = "names of device and arrays without / and :"
        raise NwbCompactError("device", found=f"'{wrong}'", expected=expected, next_step="rename it in session.yaml or in the map")


def _stimuli(
    recorded: Recorded, told: SessionYaml, shown: OwnStimuli, report: Callable[[str], None]
) -> tuple[Images, Presentations | None, Aligned | None]:
    if shown.images is None and told.stimuli.images is None:
        report("session.yaml names no stimuli.images: the file will hold the recording, and cannot be fitted")
        return NO_IMAGES, None, None
    images = shown.images or read_stimuli(told.stimuli)
    if shown.log is None and told.stimuli.log is None:
        if not recorded.events:
            expected = "the log of what was shown, as the source has no events"
            raise NwbCompactError("stimuli.log", found="nothing", expected=expected, next_step="name it in session.yaml")
        _, words = pick_events(recorded.events, told.alignment)
        marks = np.ones(len(words.code), bool) if told.alignment.codes is None else np.isin(words.code, told.alignment.codes)
        log = log_from_words(words.time_s[marks], words.code[marks], told.stimuli)
        return *present(log, images, told.stimuli, log.onset_s, None), None
    if shown.log is not None:  # a file that holds units and log has one clock
        return *_presented(shown.log, images, told, shown.log.onset_s, None, report), None
    log = read_log(told.stimuli)
    aligned = _on_the_recordings_clock(log, recorded, told.alignment)
    report(aligned.line())
    if told.alignment.check_words and told.stimuli.columns.code is None and told.alignment.method == "events":
        refuse_other_images(log.image, aligned.code)
    residual_s = aligned.residual_s if aligned.n_paired else None
    return *_presented(log, images, told, aligned.onset_s, residual_s, report), aligned


def _presented(
    log: StimulusLog, images: Images, told: SessionYaml, onset_s: np.ndarray, residual_s: np.ndarray | None, report: Callable[[str], None]
) -> tuple[Images, Presentations]:
    images, presentations = present(log, images, told.stimuli, onset_s, residual_s)
    if len(presentations) < len(log.image):
        report(f"{len(log.image) - len(presentations)} rows of the log have no onset, so no time: they are left out")
    return images, presentations


def _on_the_recordings_clock(log: StimulusLog, recorded: Recorded, settings: Alignment) -> Aligned:
    if settings.method == "none":
        return align(log.onset_s, log.code, None, settings)
    if settings.method == "events":
        channel, events = pick_events(recorded.events, settings)
        return align(log.onset_s, log.code, events, settings, channel)
    channel = _photodiode(list(recorded.analog), settings)
    return align(log.onset_s, None, photodiode_edges(recorded.analog[channel], settings), settings, channel)


def _photodiode(known: list[str], settings: Alignment) -> str:
    """The analog channel that is named, or the only one."""
    if settings.channel in known:
        return settings.channel
    if settings.channel is None and len(known) == 1:
        return known[0]
    found = "no channel named" if settings.channel is None else repr(settings.channel)
    next_step = "name one as alignment.channel" if known else "use alignment.method events, or none if the clocks are one"
    expected = "an analog channel of the recording"
    raise NwbCompactError("photodiode", found=f"{found} (there: {', '.join(known) or 'none'})", expected=expected, next_step=next_step)


def _units(
    recorded: Recorded, recording: BaseRecording | None, told: SessionYaml, *, scratch: Path | None, n_jobs: int, stub_s: float | None,
    report: Callable[[str], None],
) -> tuple[Units, Mapping[str, str]]:
    """Sorted here, or as the source had them; a source without either gives no units."""
    if recording is not None and told.sorting.sorter != "none":
        assert scratch is not None
        if recorded.units is not None:
            report(f"the {len(recorded.units)} units of the source are not used; sorting: {{sorter: none}} keeps them")
        found = sort_units(recording, told.sorting, scratch=scratch, n_jobs=n_jobs, report=report)
        return _computed(found.units), found.record
    observed = None if recording is None else observed_s(recording)
    units = _computed(recorded.units or NO_UNITS)
    units = units if observed is None else replace(units, obs_intervals_s=observed)
    return (units if stub_s is None else spikes_before(units, stub_s)), {}


def _computed(units: Units) -> Units:
    """Without the columns that could not be computed for any unit."""
    properties = {name: values for name, values in units.properties.items() if values.dtype.kind != "f" or not np.isnan(values).all()}
    return replace(units, properties=properties)
