"""Where things live in a session file: every module, table and column name, written once.

The NWB file is the only thing the three packages share, so a name that is spelled here is spelled nowhere else. Two kinds of names are
spelled where they are made, each with its meaning: columns of scores (`results`), and tables and columns of findings (`interpretation`).
Core NWB types only. `docs/nwb_layout.md` shows the same as a picture.
"""

CONTRACT_VERSION = "2"
"""Stored in every provenance table; a reader refuses a results module of a later version, and reads all earlier ones."""
CONTRACT_VERSION_WITHOUT_SHARED = "1"
"""Written where students hold no array in common: version 2 added nothing but a table for those, so older programs read such a run."""

# Images ---------------------------------------------------------------------------------------------------------------
IMAGES = "stimulus_images"
"""In /stimulus/templates: `Images` up to `IMAGES_AS_OBJECTS_LIMIT`, one `OpticalSeries` stack above it, nothing when hash-only."""
IMAGE_TABLE = "stimulus_image_table"
"""In /stimulus/presentation: one row an image, whichever way (or whether) the pixels are kept."""
IMAGE_INDEX_SERIES = "stimulus_image_index"
"""In /stimulus/presentation: derived from the presentations for readers that know only `IndexSeries` (`Images` layout with times)."""
IMAGES_AS_OBJECTS_LIMIT = 500
"""Above this, one HDF5 object an image costs about 1 ms each on every open (measured: 10.8 s against 0.09 s at 10,000)."""

NAME, SHA256, KIND, SOURCE, LICENCE, SPLIT = "image_name", "sha256", "kind", "source", "licence", "split"
OPTIONAL_IMAGE_COLUMNS = (KIND, SOURCE, LICENCE, SPLIT)

# Presentations --------------------------------------------------------------------------------------------------------
PRESENTATIONS = "stimulus_presentations"
"""/intervals when the source gave times; a plain table of the same name in /stimulus/presentation when it did not."""
IMAGE_INDEX, REPEAT, IS_VALID = "image_index", "repeat", "is_valid"
ALIGNMENT_RESIDUAL = "alignment_residual_s"
START_TIME, STOP_TIME = "start_time", "stop_time"
"""NWB's own column names, in seconds."""

# Units and responses --------------------------------------------------------------------------------------------------
UNIT_NAME = "unit_name"
SPIKE_TIMES, OBS_INTERVALS = "spike_times", "obs_intervals"
"""NWB's own column names, in seconds."""
ELECTRODES, WAVEFORM_MEAN, WAVEFORM_SD = "electrodes", "waveform_mean", "waveform_sd"
"""NWB's own: one electrode a unit, and its mean spike there in volts."""
UNIT_PROPERTIES = {
    "num_spikes": "spikes of the unit",
    "firing_rate": "mean rate while the recording ran, Hz",
    "presence_ratio": "share of equal stretches of the recording in which the unit fired (SpikeInterface)",
    "snr": "largest amplitude of the mean spike over the noise of its channel (SpikeInterface)",
    "isi_violations_ratio": "share of spikes of other units, from intervals below the refractory period (Hill et al. 2011)",
    "amplitude_cutoff": "estimated share of spikes below the detection threshold (Hill et al. 2011)",
    "nearest_similarity": "largest cosine between the spike of the unit and that of another; simulated units only",
    "is_well_isolated": "whether a sorter should find the unit: loud enough, unlike the others; simulated units only",
    "channel_name": "channel on which the unit was found",
    "sort_code": "number given by the program that sorted",
    "session": "session in which the unit was recorded, where the file holds units of several",
    "animal": "animal in which the unit was recorded, where the file holds units of several",
    "published_parameters": "numbers in the published compact model of the unit, BatchNorm not folded; NaN where there is none",
}
"""Descriptions of the further columns of the units that this program writes; others say 'as the source gave it'."""
EVENTS = "digital_events"
"""In /events: every digital event of the recording, the line or port it was on (`channel`) and its word (`code`)."""
CHANNEL, CODE, TIMESTAMP = "channel", "code", "timestamp"
CHANNEL_NAME = "channel_name"
"""In the electrodes table, as NeuroConv writes it."""
ECEPHYS = "ecephys"
NEURONS = "neurons"
"""In processing/ecephys: the units of a source that gave no spike times (a `Units` table without spikes is CRITICAL)."""
SPIKE_COUNTS = "spike_counts"
"""In processing/ecephys: one row a counted presentation, columns `presentation` (region) and `count` (n_units wide)."""
PRESENTATION, COUNT = "presentation", "count"
RESPONSE_UNITS = "response_units"
"""In processing/ecephys: row j describes column j of `count` or `mean`."""
UNIT, WINDOW_START, WINDOW_STOP = "unit", "window_start_s", "window_stop_s"
OPTIONAL_RESPONSE_UNIT_COLUMNS = ("latency_s", "reliability", "snr")
MEAN_RESPONSES = "mean_responses"
"""In processing/ecephys: repeat averages of a source that kept nothing else; row i is image i."""
MEAN, N_REPEATS = "mean", "n_repeats"

# Simulation -----------------------------------------------------------------------------------------------------------
WIRING = "simulated_wiring"
"""In /scratch: the wiring of simulated neurons, one row a connection (see `simulate`)."""

# Results --------------------------------------------------------------------------------------------------------------
RUN_PREFIX = "nwb_compact_"
"""Every fit adds one processing module, `nwb_compact_<run_id>`, that holds the tables below."""
RUN_UNITS, RUN_SCORES, RUN_PREDICTIONS = "fitted_units", "scores", "predictions"
RUN_PARAMETERS, RUN_FILTERS, RUN_PREFERRED, RUN_PROVENANCE = "student_parameters", "first_layer_filters", "preferred_images", "provenance"
UNIT_REASON, FILTERS_PER_LAYER = "reason", "filters_per_layer"
"""In `fitted_units`, whose row j is unit j of every other table of the run; `unit` there points into the session's units."""
SIDE, TEACHER, STUDENT, TEACHER_MEMBERS = "side", "teacher", "student", "teacher_members"
"""In `predictions`: row i is image i, `teacher` and `student` are n_units wide, `teacher_members` n_units x n_members."""
ARRAY_NAME, ARRAY_SHAPE, ARRAY_VALUE = "array_name", "shape", "value"
"""In `student_parameters`: one row an array of one student, both ragged; in `first_layer_filters` one row a filter:"""
RUN_SHARED = "shared_parameters"
"""Since version 2, where all students hold the same array: the columns of `student_parameters` but for the unit."""
RUN_TEACHER = "teacher_network"
"""The teacher's own network, the same columns; absent where it was no ensemble of this fit, or is larger than the settings keep."""
FILTER_INDEX, KERNEL = "filter_index", "kernel"
BEST, WORST = "best", "worst"
"""In `preferred_images`: rows of the image table, strongest first and weakest first."""
KEY, VALUE = "key", "value"
"""In `provenance`. The writer adds three keys that belong to the file and not to the fit, and the reader takes them off again:"""
CONTRACT_VERSION_KEY, RUN_NUMBER_KEY, SOURCE_KEY = FILE_KEYS = "contract_version", "run_number", "source_object_id"
"""`run_number` counts the runs of a file from 1, so that they keep their order; `source_object_id` is the session file's id in NWB, which a
file that `fit --output` writes has too."""

# Interpretation -------------------------------------------------------------------------------------------------------
INTERPRETATION_PREFIX = "interpretation_"
"""In a run: tables that `nwb-compact interpret` adds, each of what one room of `nwb_compact.interpretation` found. A column `unit` points
into `fitted_units`; every column says what it means."""
