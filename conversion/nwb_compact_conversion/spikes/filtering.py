"""What is done to the voltage before spikes are looked for: arrays apart, bad channels out, one band kept, a reference subtracted.

Everything is lazy: nothing is filtered before it is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Integer
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact_conversion.session_yaml import Sorting
from nwb_compact_conversion.sources.reading import channel_names
from nwb_compact_conversion.spikes.jobs import silence
from nwb_compact_conversion.spikes.threshold import noise_sd

ORDER = {"zero-phase": 5, "causal": 4}
"""Of the Butterworth filter: SpikeInterface's default, run forward and backward; Blackrock's, run forward."""
MARGIN_PERIODS = 10
"""Periods of the lower edge that are filtered in addition on both sides of a chunk. The slowest transient of either filter has fallen
to 3e-9 by then, so that where a chunk begins changes nothing; SpikeInterface's own 3 periods leave 3e-3 of the field potential."""
WIDE_UM = 200.0
"""Contacts further apart than this do not share spikes: Utah arrays have 400 um, probes 15 to 50 um."""
MIN_REFERENCED_CHANNELS = 32
"""SpikeInterface's sorters subtract a median from as many channels or more; of few, the median holds the spikes themselves."""
MIN_COHERENCE_CHANNELS = 16
"""The method coherence+psd compares a channel with its 11 neighbours."""
STILL = 1e-6
"""A channel whose noise is so small beside its largest deflection never moves; a converter of 16 bits resolves 3e-5 of its range."""
BAD_CHUNK_S, BAD_CHUNKS = 0.3, {"coherence+psd": 100, "mad": 20}
"""Stretches of voltage that bad channels are found in. SpikeInterface's defaults, but for mad, which holds all of them in memory."""
MAX_BAD_FRACTION = 0.5
"""When more channels than this seem bad the detection itself has failed: it compares channels with the median of all."""


@dataclass(frozen=True, eq=False)
class Array:
    """Channels that are sorted together."""

    name: str | None
    """None where a recording has only one array."""
    recording: BaseRecording
    channel: Integer[np.ndarray, "channel"]
    """Their rows in the whole recording."""

    def part(self, keep: Bool[np.ndarray, "channel"]) -> "Array":
        """Some of its channels."""
        return replace(self, recording=self.recording.select_channels(self.recording.channel_ids[keep]), channel=self.channel[keep])


def arrays_of(recording: BaseRecording) -> tuple[Array, ...]:
    """The arrays or probes of a recording: channels of one `group_name` (as NeuroConv says) or `group` (as probes say), in their order.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> recording = NumpyRecording([np.zeros((30, 3))], sampling_frequency=30_000.0)
    >>> recording.set_property("group_name", np.array(["V1", "V4", "V1"]))
    >>> [(array.name, array.channel.tolist()) for array in arrays_of(recording)]
    [('V1', [0, 2]), ('V4', [1])]
    """
    given = next((values for name in ("group_name", "group") if (values := recording.get_property(name)) is not None), None)
    groups = np.array([""] * recording.get_num_channels() if given is None else [str(value) for value in given])
    names = list(dict.fromkeys(groups.tolist()))
    whole = Array(None, recording, np.arange(recording.get_num_channels()))
    return (whole,) if len(names) < 2 else tuple(replace(whole.part(groups == name), name=name) for name in names)


def pitch_um(recording: BaseRecording) -> float:
    """How far the nearest contact usually is, micrometres; infinite for one contact and where positions are not known.

    Examples
    --------
    >>> from spikeinterface import NumpyRecording
    >>> recording = NumpyRecording([np.zeros((30, 3))], sampling_frequency=30_000.0)
    >>> pitch_um(recording)
    inf
    >>> recording.set_dummy_probe_from_locations(np.array([[0, 0], [0, 20], [0, 40]]))
    >>> pitch_um(recording)
    20.0
    """
    if recording.get_num_channels() < 2 or (places := _places(recording)) is None:
        return float("inf")
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + np.diag(np.full(len(places), np.inf))
    return float(np.median(distance.min(axis=1)))


def _places(recording: BaseRecording) -> Float[np.ndarray, "channel 2"] | None:
    """None where they are not told, or not of all."""
    places = recording.get_channel_locations() if recording.has_probe() else np.full((1, 2), np.nan)
    return places if np.isfinite(places).all() else None


def check_positions(arrays: Sequence[Array], settings: Sorting) -> None:
    """Raise `NwbCompactError` where nobody told the positions of several contacts: a sorter must know which of them share spikes.

    Sorted each by itself, the contacts of a probe would give one neuron as many times as it is seen; all as one, those of a Utah array
    would be one electrode.
    """
    for array in arrays:
        n = array.recording.get_num_channels()
        if settings.sorter != "threshold" and n > 1 and _places(array.recording) is None:
            of = "" if array.name is None else f" of {array.name}"
            expected = f"them, since {settings.sorter} must know which electrodes see the same spikes"
            next_step = "give device.geometry, or sorting.sorter: threshold"
            raise NwbCompactError("sorting", found=f"no positions of {n} electrodes{of}", expected=expected, next_step=next_step)


def check_band(recording: BaseRecording, settings: Sorting) -> None:
    """Raise `NwbCompactError` where the recording has no such frequencies."""
    highest = max(settings.freq_min_hz, settings.freq_max_hz or 0)
    if highest >= recording.sampling_frequency / 2:
        found = f"{highest:g} Hz, in a recording of {recording.sampling_frequency:g} samples a second"
        next_step = "lower sorting.freq_max_hz, or convert the file with the higher sampling rate; field potentials hold no spikes"
        raise NwbCompactError("sorting: the band", found=found, expected="less than half the sampling rate", next_step=next_step)


def band_passed(recording: BaseRecording, settings: Sorting, dtype: str = "float32") -> BaseRecording:
    """The recording within the band of the settings, in the units of its samples."""
    from spikeinterface.preprocessing import filter as filtered

    above_only = settings.freq_max_hz is None
    return filtered(
        recording,
        band=settings.freq_min_hz if above_only else [settings.freq_min_hz, settings.freq_max_hz],
        btype="highpass" if above_only else "bandpass",
        filter_order=ORDER[settings.filter],
        margin_ms=1e3 * MARGIN_PERIODS / settings.freq_min_hz,
        add_reflect_padding=True,  # a stretch may be shorter than what a filter needs
        dtype=dtype,
        direction="forward" if settings.filter == "causal" else "forward-backward",
    )


def reference_of(array: Array, settings: Sorting) -> str:
    """none, median or average: what the settings say, else what suits the sorter and the array."""
    few = array.recording.get_num_channels() < MIN_REFERENCED_CHANNELS
    return settings.common_reference or ("none" if settings.sorter == "threshold" or few else "median")


def prepared(array: Array, settings: Sorting, dtype: str = "float32") -> BaseRecording:
    """The voltage of an array, band-passed and referenced."""
    from spikeinterface.preprocessing import common_reference

    passed, reference = band_passed(array.recording, settings, dtype), reference_of(array, settings)
    return passed if reference == "none" else common_reference(passed, reference="global", operator=reference)


def without_bad_channels(array: Array, settings: Sorting) -> tuple[Array, tuple[str, ...]]:
    """An array without its bad channels, and their names.

    Raises
    ------
    NwbCompactError
        If nothing would be left, or detection fails.

    Notes
    -----
    Detection is SpikeInterface's: coherence+psd (International Brain Laboratory 2022) for 16 channels or more with a geometry and a
    voltage scale, else mad (a deviation of over 5 times that of the median channel). A channel that never moves is bad in any case.
    """
    names = np.array(channel_names(array.recording))
    told = settings.bad_channels
    bad = _detected(array.recording, settings) if told == "detect" else np.isin(names, told)
    most = MAX_BAD_FRACTION if told == "detect" and len(names) > 2 else 1.0
    if bad.all() or bad.mean() > most:
        where = "bad channels" if array.name is None else f"bad channels of {array.name}"
        next_step = "name the bad ones in sorting.bad_channels ([] for none), or look at the voltage"
        found = f"{bad.sum()} of {len(bad)} channels"
        raise NwbCompactError(where, found=found, expected="most channels to be good", next_step=next_step)
    return array.part(~bad), tuple(names[bad].tolist())


def check_bad_channels(recording: BaseRecording, settings: Sorting) -> None:
    """Raise `NwbCompactError` where the settings name a channel that the recording does not have."""
    known = channel_names(recording)
    unknown = [] if settings.bad_channels == "detect" else [name for name in settings.bad_channels if name not in known]
    if unknown:
        found, next_step = f"no channel '{unknown[0]}'", f"correct the name; {nearest(unknown[0], known)}"
        raise NwbCompactError("sorting.bad_channels", found=found, expected="names of channels of the recording", next_step=next_step)


def _largest(recording: BaseRecording) -> Float[np.ndarray, "channel"]:
    """Largest deflection of each channel from zero in the first second, unfiltered."""
    first = recording.get_traces(0, start_frame=0, end_frame=min(int(recording.sampling_frequency), recording.get_num_samples(0)))
    return np.abs(first.astype(np.float64)).max(axis=0)


def _detected(recording: BaseRecording, settings: Sorting) -> Bool[np.ndarray, "channel"]:
    from spikeinterface.preprocessing import detect_bad_channels, unsigned_to_signed

    # A filter leaves rounding errors of a constant, on some runs and not on others.
    bad = noise_sd(band_passed(recording, settings)) <= STILL * _largest(recording)
    chunk = int(BAD_CHUNK_S * recording.sampling_frequency)
    long = [index for index in range(recording.get_num_segments()) if recording.get_num_samples(index) > chunk]
    if not long or bad.all():
        return bad
    moving, pitch = recording.select_segments(long).select_channels(recording.channel_ids[~bad]), pitch_um(recording)
    spatial = moving.get_num_channels() >= MIN_COHERENCE_CHANNELS and np.isfinite(pitch) and moving.has_scaleable_traces()
    method = "coherence+psd" if spatial else "mad"
    with silence():  # it warns where over a third is bad; `without_bad_channels` draws its own line
        _, labels = detect_bad_channels(
            unsigned_to_signed(moving) if moving.get_dtype().kind == "u" else moving,
            method=method,
            chunk_duration_s=BAD_CHUNK_S,
            num_random_chunks=-(-BAD_CHUNKS[method] // len(long)),
            highpass_filter_cutoff=settings.freq_min_hz,
            seed=0,
        )
    # Contacts above the brain are the top of a probe; an array of needles has no such end.
    bad[~bad] = np.isin(labels, ["dead", "noise"] if pitch >= WIDE_UM else ["dead", "noise", "out"])
    return bad
