"""The one file a lab writes for a session: who, what was shown, how its clock relates to the recording's, how spikes are found and counted.

Every section and key is optional unless the source leaves it open. `nwb-compact convert template SOURCE` prints the file with the
comments below, which are the docstrings of the keys. What the source recorded needs no key; what nobody recorded stays absent.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from nwb_compact.config import Stage
from nwb_compact_conversion.metadata import Metadata, SessionFacts, SubjectFacts
from nwb_compact_conversion.yaml_file import read_yaml

Sorter = Literal["spykingcircus2", "lupin", "tridesclous2", "kilosort4", "threshold", "none"]
Axis = Literal["presentation", "image", "repeat", "unit"]
LONGEST_WINDOW_S = 10.0
"""No response to a flashed image is counted so late; larger numbers are milliseconds."""
Seconds = Annotated[float, Field(ge=0)]


class DeviceFacts(Stage):
    """What recorded, and where its electrodes are."""

    name: str | None = None
    """Name of the recording system or probe, where the source does not name it."""
    description: str | None = None
    """What it is, in words."""
    manufacturer: str | None = None
    """Who made it."""
    location: str | dict[str, str] | None = None
    """Brain area of all electrodes (V4), or of each array by its name ({A: V1, B: V4})."""
    geometry: Path | None = None
    """Where the electrodes are: a Utah .cmp map, a CSV with columns channel, x_um, y_um (and array), or a probeinterface .json."""
    keep_voltage: bool = True
    """Whether the raw voltage goes into the session file."""


class LogColumns(Stage):
    """What the columns of the stimulus log are called."""

    image: str = "image"
    """Which image: its file name with or without suffix, or its number."""
    onset: str | None = "onset"
    """When it came on, on the stimulus computer's clock. null, of counts only: the log has no times, its rows are in the order shown."""
    offset: str | None = None
    """When it went off. Without it `stimuli.duration_s` tells."""
    is_valid: str | None = None
    """Whether the presentation counts, for example fixation held. Without it all do."""
    code: str | None = None
    """The digital word that was sent at the onset, to pair rows with words by value."""

    @model_validator(mode="after")
    def _offset_after_an_onset(self) -> "LogColumns":
        if self.onset is None and self.offset is not None:
            raise ValueError("no offset, where there is no onset")
        return self


class Stimuli(Stage):
    """The images and the log of what was shown when."""

    images: Path | None = None
    """A folder, a .zip or a .npy stack (uint8, image height width [3]) of the images, beside this file or absolute."""
    log: Path | None = None
    """CSV, TSV, JSON lines (.jsonl) or .mat; one row a presentation, in the order shown. Without it the words of the recording
    are the log: each names an image by its number."""
    table: str | None = None
    """nwb: the table of intervals, or IndexSeries, that is the log, for example natural_scenes_presentations or trials; needed where
    the file has several. The onset and offset columns are start_time and stop_time unless named."""
    templates: str | None = None
    """nwb: the object in /stimulus that holds the images, needed where the file has several and `images` names none. Numbers in
    the log count its images from 0 unless first_number says otherwise."""
    columns: LogColumns = LogColumns()
    """What its columns are called."""
    first_number: int = Field(1, ge=0)
    """Number of the first image where the log counts images: 1 (MATLAB) or 0 (Python)."""
    blank: tuple[str, ...] = ()
    """Values of the image column that mean that nothing was shown; such rows stay, as invalid presentations of an image `blank`."""
    valid_values: tuple[str, ...] = ("1", "true", "yes", "correct")
    """Values of the is_valid column that mean yes, in any case. Where they are given here all others mean no; where not, the column must
    hold 1 and 0, true and false, yes and no or correct and incorrect only."""
    onset_unit: Literal["s", "ms", "us"] = "s"
    """Unit of the onset and offset columns."""
    duration_s: Seconds | None = None
    """How long an image was on, where the log has no offsets."""
    kind: str | None = None
    """What sort of images they are, for example natural."""
    source: str | None = None
    """Where they are from."""
    licence: str | None = None
    """Their licence; archives ask."""
    keep_pixels: bool = True
    """False keeps hashes only, for images that may not be redistributed; such a session can be shared and not fitted."""


class Alignment(Stage):
    """How the stimulus clock is put on the recording's clock."""

    method: Literal["events", "photodiode", "none"] = "events"
    """events: digital words or TTL edges of the recording. photodiode: an analog channel. none: the log's onsets are on the recording's
    clock already."""
    channel: str | None = None
    """Name of the digital line or port, or of the photodiode channel; needed only where the source has more than one."""
    codes: tuple[int, ...] | None = None
    """Words that mark an image onset; without it, where the log has no code column, rising edges (a line) or all words (a port) do."""
    edge: Literal["rising", "falling"] = "rising"
    """Which edge of a line or photodiode marks the onset."""
    threshold: float | None = None
    """Photodiode level of an onset, in the channel's units; without it halfway between dark and light."""
    max_unpaired_fraction: float = Field(0.01, ge=0, lt=1)
    """Refuse when more than this share of the log's rows, or of the marks, cannot be paired."""
    frame_rate_hz: float = Field(60.0, gt=0)
    """Video frames a second of the stimulus screen."""
    max_residual_frames: float = Field(0.5, gt=0)
    """Refuse when a paired onset is further than this from the fitted clock, in video frames."""
    check_words: bool = True
    """Whether to refuse a log, paired by time alone, whose images contradict words that seem to name images: as many words as images,
    each as often, that go together as by chance. false where the words mean something else."""


class Curation(Stage):
    """Units are kept that meet every criterion given here; a metric that cannot be computed does not exclude. Names as SpikeInterface's."""

    min_num_spikes: int | None = Field(50, ge=0)
    """Fewest spikes."""
    max_isi_violations_ratio: float | None = Field(None, ge=0)
    """Highest isi_violations_ratio (Hill et al. 2011); 0.5 is the Allen Institute's default."""
    min_presence_ratio: float | None = Field(None, ge=0, le=1)
    """Lowest presence_ratio; 0.9 is the Allen Institute's default."""
    min_snr: float | None = Field(None, ge=0)
    """Lowest snr."""
    max_amplitude_cutoff: float | None = Field(None, ge=0, le=1)
    """Highest amplitude_cutoff (Hill et al. 2011); 0.1 is the Allen Institute's default."""
    exclude_labels: tuple[str, ...] = ("noise",)
    """sorted: labels (of phy's group, else Kilosort's KSLabel) of units that are left out; add mua for single units only."""
    keep_unsorted: bool = True
    """blackrock, plexon, sorted: whether threshold crossings that nobody sorted (sort code 0 of a .nev or .plx) are a unit of their
    channel. It says nothing of spikes that are found in the voltage."""


class Sorting(Stage):
    """How spikes are found in the voltage."""

    sorter: Sorter = "spykingcircus2"
    """A SpikeInterface sorter; threshold: multi-unit activity of each channel, for Utah arrays; none: the source comes sorted."""
    freq_min_hz: float = Field(300.0, gt=0)
    """Lower edge of the band that spikes are looked for in."""
    freq_max_hz: float | None = Field(6000.0, gt=0)
    """Upper edge; null for none beyond what the amplifier recorded."""
    filter: Literal["zero-phase", "causal"] = "zero-phase"
    """zero-phase keeps the shape of spikes. causal: the fourth-order Butterworth of recording systems, to find the spikes they found."""
    common_reference: Literal["none", "median", "average"] | None = None
    """Subtracted from every channel of an array at each sample; by default none for threshold and below 32 channels, median otherwise."""
    bad_channels: tuple[str, ...] | Literal["detect"] = "detect"
    """Channels that are not sorted: their names, or detect (SpikeInterface's coherence+psd for 16 channels or more a group, else mad)."""
    threshold_mad: float = Field(4.5, gt=0)
    """threshold: depth of a spike in robust standard deviations (median absolute deviation / 0.6745) below zero; Quiroga et al. 2004 use
    4 to 5. At 4 the spikes of far neurons, which no one can tell apart, cost simulated units a tenth to a third of their accuracy."""
    threshold_uv: float | None = Field(None, gt=0)
    """threshold: depth of a spike in microvolts below zero, in place of threshold_mad."""
    dead_time_s: float = Field(0.001, gt=0)
    """threshold: no second spike of a channel sooner than this."""
    sorter_params: dict[str, str | int | float | bool | dict[str, str | int | float | bool]] = Field(default_factory=dict)
    """Parameters of the sorter, under its own names."""
    curation: Curation = Curation()
    """Which units are kept."""

    @model_validator(mode="after")
    def _band(self) -> "Sorting":
        if self.freq_max_hz is not None and not self.freq_min_hz < self.freq_max_hz:
            raise ValueError("freq_min_hz below freq_max_hz")
        return self


class Responses(Stage):
    """How spikes are counted."""

    window_s: tuple[float, float] = (0.05, 0.15)
    """From and to, after image onset. The default suits V4 and 100 ms flashes; V1 answers sooner and IT later."""
    latency: Literal["fixed", "per-unit"] = "fixed"
    """per-unit: the window has the same length and starts at the unit's latency, where its split-half reliability is largest."""
    latency_range_s: tuple[float, float] = (0.01, 0.15)
    """Where latencies are looked for (dicarlo-lab-to-nwb looks at 10 to 150 ms)."""
    latency_step_s: float = Field(0.01, gt=0)
    """Step of the search."""
    axes: tuple[Axis, ...] | None = None
    """counts: what the axes of the array count, in its order: [presentation, unit] with a stimulus log; [image, unit], [unit, image,
    repeat] and so on without. Repeats that are missing are NaN. Needed only where the sizes allow several."""
    holds: Literal["counts", "spike times"] | None = None
    """counts: what the array holds; by default spike times where there is one vector a unit, or columns unit and time, else counts."""
    variable: str | None = None
    """counts: name of the array in the file (structure.field in MATLAB's structures), where it holds several."""
    unit_names: str | None = None
    """counts: name of the variable that names the units. A CSV names them in its header."""
    time_unit: Literal["s", "ms", "samples"] = "s"
    """counts: unit of spike times, which count from the start of the recording."""
    sampling_frequency_hz: float | None = Field(None, gt=0)
    """counts: samples a second of the recording that spikes were found in. Needed where their times are in samples; DANDI's inspector asks
    for it (as the resolution of spike times) in any unit."""

    @model_validator(mode="after")
    def _ordered(self) -> "Responses":
        for name in ("window_s", "latency_range_s"):
            start, stop = getattr(self, name)
            if not start < stop:
                raise ValueError(f"{name} that starts before it stops")
            if max(abs(start), abs(stop)) > LONGEST_WINDOW_S:
                raise ValueError(f"{name} in seconds, at most {LONGEST_WINDOW_S:g}")
        return self


class SessionYaml(Stage):
    """A whole session.yaml."""

    subject: SubjectFacts = SubjectFacts()
    """The animal. DANDI demands subject_id, species, sex, and age or date_of_birth."""
    session: SessionFacts = SessionFacts()
    """What names and dates the session. NWB demands session_start_time with its time zone, where the source does not record it."""
    device: DeviceFacts = DeviceFacts()
    stimuli: Stimuli = Stimuli()
    alignment: Alignment = Alignment()
    sorting: Sorting = Sorting()
    responses: Responses = Responses()


def read_session_yaml(file_path: Path) -> tuple[SessionYaml, Metadata]:
    """The settings of a session and, for the record in its file, the facts with the file's name and hash.

    Relative paths in the file are relative to the folder it lies in.

    Raises
    ------
    SeveralFaults
        One line for every unknown key (with the nearest known one) and every value that will not do.
    """
    told, origin = read_yaml(file_path, SessionYaml)
    here = file_path.absolute().parent
    stimuli = {name: here / path for name in ("images", "log") if (path := getattr(told.stimuli, name)) is not None}
    device = {} if told.device.geometry is None else {"geometry": here / told.device.geometry}
    told = told.model_copy(update={"stimuli": told.stimuli.model_copy(update=stimuli), "device": told.device.model_copy(update=device)})
    return told, Metadata(told.subject, told.session, origin)
