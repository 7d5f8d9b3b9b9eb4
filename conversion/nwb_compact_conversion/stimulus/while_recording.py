"""Which presentations count: those during which, and for as long after which, spikes were recorded."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Presentations
from nwb_compact_conversion.recorded import Recorded, observed_s
from nwb_compact_conversion.session_yaml import Responses

FRAME_S = 1 / 60
"""Images that follow each other at once may overlap by so much in a log."""

SILENCE_S = 1.0
"""Where only spikes and events tell when a recording ran, it may have gone on for so long after the last of them."""


def recorded_s(recorded: Recorded) -> Float[np.ndarray, "interval 2"] | None:
    """When spikes were recorded: as the source says, else until a second after the last spike or event of all; None where nothing tells."""
    if recorded.recording is not None:
        return observed_s(recorded.recording)
    if recorded.units is None or recorded.units.spike_times_s is None:
        return None
    if recorded.units.obs_intervals_s is not None:
        return recorded.units.obs_intervals_s
    known = [*recorded.units.spike_times_s, *(events.time_s for events in recorded.events.values())]
    times_s = np.concatenate([one for one in known if len(one)] or [np.zeros(0)])
    return np.array([[min(0.0, times_s.min()), times_s.max() + SILENCE_S]]) if len(times_s) else None


def while_recording(
    presentations: Presentations, observed: Float[np.ndarray, "interval 2"], responses: Responses, report: Callable[[str], None]
) -> Presentations:
    """The presentations, invalid where the counting window was not recorded from the onset to its end.

    Parameters
    ----------
    presentations
        With times.
    observed
        When spikes were recorded, a row for each stretch without a gap.
    responses
        The window, or the latest that a latency may put it.
    report
        Called with a line where presentations become invalid.

    Raises
    ------
    NwbCompactError
        If no valid presentation is left, or most last longer than until the next begins.

    Examples
    --------
    >>> onset_s = np.array([1.0, 2.0, 3.0])
    >>> shown = Presentations(np.arange(3, dtype=np.uint32), np.zeros(3, np.uint32), np.ones(3, bool), onset_s, onset_s + 0.1)
    >>> while_recording(shown, np.array([[0.0, 2.5]]), Responses(), print).is_valid
    1 of 3 presentations were not recorded to the end of their window: before, after or in a gap of the recording; they are invalid
    array([ True,  True, False])
    """
    onset_s = presentations.start_time_s
    if onset_s is None:
        return presentations
    _refuse_overlap(presentations)
    inside = window_observed(onset_s, observed, responses)
    kept = replace(presentations, is_valid=presentations.is_valid & inside)
    if not kept.is_valid.any():
        shown, ran = f"{onset_s.min():.1f} to {onset_s.max():.1f} s", f"{observed.min():.1f} to {observed.max():.1f} s"
        found = f"no valid presentation in the recording: onsets from {shown}, recorded from {ran}"
        next_step = "check the log, alignment.method (none takes onsets as they are) and responses.window_s (seconds)"
        raise NwbCompactError("presentations", found=found, expected="presentations that were recorded", next_step=next_step)
    if not inside.all():
        report(f"{np.sum(~inside)} of {len(inside)} presentations were not recorded to the end of their window: before, after or in a "
               "gap of the recording; they are invalid")
    return kept


def window_observed(
    onset_s: Float[np.ndarray, "presentation"], observed: Float[np.ndarray, "interval 2"], responses: Responses
) -> Bool[np.ndarray, "presentation"]:
    """Whether spikes were recorded from each onset to the end of its window, the latest that a latency may put it.

    Examples
    --------
    >>> window_observed(np.array([0.2, 0.9]), np.array([[0.0, 1.0]]), Responses(window_s=(0.05, 0.15)))
    array([ True, False])
    """
    start_s, stop_s = responses.window_s
    last_s = stop_s if responses.latency == "fixed" else max(stop_s, responses.latency_range_s[1] + stop_s - start_s)
    inside = np.zeros(len(onset_s), np.bool_)
    for begins, ends in observed:
        inside |= (onset_s + min(0.0, start_s) >= begins) & (onset_s + last_s <= ends)
    return inside


def _refuse_overlap(presentations: Presentations) -> None:
    """Presentations are in the order of time; one screen shows one image."""
    start_s, stop_s = presentations.start_time_s, presentations.stop_time_s
    assert start_s is not None
    assert stop_s is not None
    overlaps = start_s[1:] < stop_s[:-1] - FRAME_S
    if np.sum(overlaps) > len(overlaps) / 2:
        on_s, apart_s = np.median(stop_s - start_s), np.median(np.diff(start_s))
        found = f"{np.sum(overlaps)} of {len(start_s)} images that stay on ({on_s:.4g} s) until after the next has come ({apart_s:.4g} s)"
        next_step = "check stimuli.duration_s (seconds), stimuli.onset_unit and stimuli.columns.offset"
        raise NwbCompactError("presentations", found=found, expected="one image at a time", next_step=next_step)
