"""The beginning of a session, to try the settings before hours of sorting."""

import numpy as np
from jaxtyping import Float
from spikeinterface import BaseRecording

from nwb_compact.session import Presentations, Units
from nwb_compact_conversion.recorded import observed_s
from nwb_compact_conversion.session_yaml import Responses
from nwb_compact_conversion.stimulus.while_recording import window_observed

STUB_S = 30.0
"""A stub holds so much of the recording, enough to see that a conversion works."""


def first_seconds(recording: BaseRecording | None, stub_s: float) -> BaseRecording | None:
    """The first segment, cut."""
    if recording is None:
        return None
    first = recording.select_segments([0])
    return first.frame_slice(0, min(first.get_num_samples(0), round(stub_s * first.sampling_frequency)))


def first_observed(
    recording: BaseRecording | None, observed: Float[np.ndarray, "interval 2"] | None, stub_s: float
) -> Float[np.ndarray, "kept 2"]:
    """When spikes were recorded, of what a stub keeps: of the voltage `first_seconds`, else until then."""
    if recording is not None:
        return observed_s(recording)
    return np.minimum(np.array([[-np.inf, np.inf]]) if observed is None else observed, stub_s)


def counted_before(
    presentations: Presentations | None, observed: Float[np.ndarray, "interval 2"], responses: Responses
) -> Presentations | None:
    """The presentations that ended while `observed`, but for valid ones whose window did not; None where there are none."""
    if presentations is None or presentations.start_time_s is None or presentations.stop_time_s is None:
        return presentations
    kept = presentations.stop_time_s <= observed.max()
    kept &= ~presentations.is_valid | window_observed(presentations.start_time_s, observed, responses)
    if not kept.any():
        return None
    return Presentations(**{name: values[kept] for name, values in vars(presentations).items() if values is not None})


def spikes_before(units: Units, stub_s: float) -> Units:
    """The spikes until then."""
    observed = units.obs_intervals_s
    if observed is not None:
        observed = np.minimum(observed, stub_s)
        observed = observed[observed[:, 0] < observed[:, 1]]
    spikes = None if units.spike_times_s is None else tuple(times[times < stub_s] for times in units.spike_times_s)
    return Units(**(vars(units) | {"spike_times_s": spikes, "obs_intervals_s": observed}))
