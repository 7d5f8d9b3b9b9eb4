"""The log's onsets on the recording's clock: rows are paired with digital words or edges, and a line is fitted through the pairs.

A pairing that the data do not carry is refused with what was found: rows or marks without a partner, a clock that jumped, onsets further
from the line than half a video frame, and shifts between which the data cannot decide. Two shifts are told apart by the rows and marks
that they leave without a partner, those in the middle as those at the ends, and by residuals that clearly differ. Presentations that all
follow at one interval therefore need as many marks as rows: each shift then leaves an onset out, and the order decides. With one mark
less or more at an end, nothing can decide, and the alignment is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from nwb_compact.errors import NwbCompactError, counted, nearest
from nwb_compact_conversion.clock.alignment_faults import FEWEST, Given, few, refuse_another_unit, refuse_faults
from nwb_compact_conversion.clock.clock_search import Train, find_pairings
from nwb_compact_conversion.recorded import Events
from nwb_compact_conversion.session_yaml import Alignment
from nwb_compact_conversion.stimulus.stimulus_log import NO_CODE

_WHERE, _LOG = "alignment", "stimulus log"
WITHOUT_EVENTS = (
    "give the marks with --events FILE.csv (sources recording and sorted), name a photodiode (alignment.method photodiode), or set "
    "alignment: {method: none} if the log's onsets are on the recording's clock"
)
"""What to do where a source has no events."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """Onsets on the recording's clock, and how well they are known."""

    onset_s: Float[np.ndarray, "presentation"]
    """The time of the row's own mark, of the fitted line where it has none, NaN where the log has no onset."""
    residual_s: Float[np.ndarray, "presentation"]
    """Mark minus line; NaN for a row without a mark."""
    drift_ppm: float
    """By how many millionths the stimulus clock is slower than the recording's."""
    offset_s: float
    """Time on the recording's clock when the stimulus clock was at 0."""
    n_rows: int
    """Rows of the log that have an onset and, where words are compared, a word."""
    n_marks: int
    """Events that could mark an onset."""
    n_paired: int
    marks: str
    """What the marks are, for example `words of 'digital'`; empty where none were used."""
    code: Integer[np.ndarray, "presentation"]
    """Of the row's own mark, as it was recorded; `NO_CODE` for a row without a mark."""
    n_outside: int = 0
    """Marks before the first that is paired or after the last: what was recorded and not logged."""

    @property
    def residual_median_s(self) -> float:
        """Median of the absolute residuals."""
        return float(np.nanmedian(np.abs(self.residual_s))) if self.n_paired else float("nan")

    @property
    def residual_max_s(self) -> float:
        """Largest absolute residual."""
        return float(np.nanmax(np.abs(self.residual_s))) if self.n_paired else float("nan")

    def record(self) -> dict[str, str]:
        """For the provenance of the session file."""
        if not self.marks:
            return {"alignment": self.line()}
        outside = {"alignment.marks_outside_the_log": str(self.n_outside)} if self.n_outside else {}
        return {
            "alignment.marks": f"{self.n_marks} {self.marks}",
            "alignment.paired": f"{self.n_paired} of {self.n_rows}",
            **outside,
            "alignment.offset_s": f"{self.offset_s:.6f}",
            "alignment.drift_ppm": f"{self.drift_ppm:.3f}",
            "alignment.residual_median_s": f"{self.residual_median_s:.6f}",
            "alignment.residual_max_s": f"{self.residual_max_s:.6f}",
        }

    def line(self) -> str:
        """For the terminal."""
        if not self.marks:
            return f"{self.n_rows:,} onsets taken as they are: the log is on the recording's clock"
        outside = f"; {counted(self.n_outside, 'mark')} before or after the log" if self.n_outside else ""
        return (
            f"{self.n_paired:,} of {self.n_rows:,} onsets paired with {self.marks}; drift {self.drift_ppm:.1f} ppm; "
            f"residual median {1e3 * self.residual_median_s:.1f} ms, largest {1e3 * self.residual_max_s:.1f} ms{outside}"
        )


def align(
    onset_s: Float[np.ndarray, "presentation"], code: Integer[np.ndarray, "presentation"] | None, events: Events | None,
    settings: Alignment, channel: str | None = None,
) -> Aligned:
    """The log's onsets on the recording's clock.

    Marks are the events of `settings.codes`; without these, words that the log's `code` names; without these, the edges of
    `settings.edge` on a line (codes 0 and 1) or all words of a port. A row is paired only with a mark of its own word where the log
    has words and `settings.codes`, if given, holds them all. The clocks may be hours apart and drift by 1000 ppm; the log may begin
    before or after the recording.

    Every row counts against `settings.max_unpaired_fraction`; of the marks only those between the first and the last that are
    paired, since a recording may go on before and after what was logged.

    Parameters
    ----------
    onset_s
        On the stimulus clock, in the order shown; NaN where a row has none. Such rows stay NaN.
    code
        The word sent at each onset; `NO_CODE` where none was, so that the row gets the fitted time and counts neither as paired nor as not.
    events
        Of the channel that holds the marks; unused with `method: none`.
    settings
        The section alignment of session.yaml.
    channel
        Name of the channel, for messages.

    Raises
    ------
    NwbCompactError
        If there is nothing to pair, a clock goes back or jumps, rows or marks stay without a partner, a mark is too far from the
        line, or more than one shift explains the events.

    Examples
    --------
    >>> onset_s = np.cumsum([0.0, 0.2, 0.2, 0.7, 0.2, 0.3, 0.2])
    >>> events = Events(60 + 1.00005 * onset_s, np.ones(7, int))
    >>> aligned = align(onset_s, None, events, Alignment(), "line 1")
    >>> aligned.line()
    "7 of 7 onsets paired with rising edges of 'line 1'; drift 50.0 ppm; residual median 0.0 ms, largest 0.0 ms"
    >>> aligned.onset_s[:3]
    array([60.     , 60.20001, 60.40002])
    """
    if settings.method == "none":
        nothing = np.full(len(onset_s), np.nan)
        return Aligned(onset_s, nothing, 0.0, 0.0, int(np.isfinite(onset_s).sum()), 0, 0, "", np.full(len(onset_s), NO_CODE))
    code = None if code is None or (code == NO_CODE).all() else code
    events = _in_order(onset_s, events, channel)
    which, words, compared = _marks(code, events, settings, channel)
    word = code if compared and code is not None else np.zeros(len(onset_s), np.int64)
    sent = np.flatnonzero(np.isfinite(onset_s) & (word != NO_CODE))
    rows = Train(onset_s[sent], word[sent].astype(np.int64))
    marks = Train(which.time_s, which.code.astype(np.int64) if compared else np.zeros(len(which.time_s), np.int64))
    if len(rows) < FEWEST:
        found, next_step = counted(len(rows), "onset"), "check stimuli.columns.onset"
        raise NwbCompactError(_LOG, found=found, expected=f"at least {FEWEST}", next_step=next_step)
    given = Given(rows, marks, sent, settings, words, events.code[~np.isin(events.code, which.code)])
    refuse_another_unit(given)
    pairings = find_pairings(rows, marks, given.search_s)
    pairing = given.fitted(pairings[0].clock)
    refuse_faults(given, pairing, pairings)
    aligned_s, residual_s = pairing.clock(onset_s), np.full(len(onset_s), np.nan)
    own = pairing.mark[pairing.paired]
    aligned_s[sent[pairing.paired]] = marks.time_s[own]
    residual_s[sent] = pairing.residual_s
    own_code = np.full(len(onset_s), NO_CODE)
    own_code[sent[pairing.paired]] = which.code[own]
    drift_ppm, offset_s = 1e6 * (pairing.clock.slope - 1), pairing.clock.there_s - pairing.clock.slope * pairing.clock.here_s
    n_outside = len(marks) - int(np.ptp(own)) - 1
    return Aligned(aligned_s, residual_s, drift_ppm, offset_s, len(rows), len(marks), len(own), words, own_code, n_outside)


def pick_events(events: Mapping[str, Events], settings: Alignment) -> tuple[str, Events]:
    """Name and events of the channel that `settings.channel` names, or of the only one that has any.

    Raises
    ------
    NwbCompactError
        If the recording has no events, none of this name, or several channels and none is named.

    Examples
    --------
    >>> line = Events(np.array([0.5]), np.array([1]))
    >>> pick_events({"sync": line, "spare": Events(np.zeros(0), np.zeros(0, int))}, Alignment())[0]
    'sync'
    """
    listed = ", ".join(f"{name} ({len(one.time_s):,} events)" for name, one in events.items())
    if settings.channel is not None:
        if not events:
            found, expected = f"{settings.channel!r} in a source without events", "the channel that marks image onsets"
            raise NwbCompactError(f"{_WHERE}.channel", found=found, expected=expected, next_step=WITHOUT_EVENTS)
        if settings.channel not in events:
            hint = nearest(settings.channel, list(events))
            raise NwbCompactError(f"{_WHERE}.channel", found=repr(settings.channel), expected=f"one of: {listed}", next_step=hint)
        return settings.channel, events[settings.channel]
    used = [name for name, one in events.items() if len(one.time_s)]
    if len(used) != 1:
        found = f"{len(used) or 'no'} channels with events" + (f": {listed}" if used else "")
        next_step = "name one as alignment.channel" if used else WITHOUT_EVENTS
        raise NwbCompactError(_WHERE, found=found, expected="the one that marks image onsets", next_step=next_step)
    return used[0], events[used[0]]


def _in_order(onset_s: Float[np.ndarray, "presentation"], events: Events | None, channel: str | None) -> Events:
    """The events, if they and the log are in order."""
    known, name = np.flatnonzero(np.isfinite(onset_s)), f"events of {channel!r}" if channel else "events"
    if events is None or not len(events.time_s):
        next_step = "name another channel as alignment.channel, or check its cable"
        raise NwbCompactError(name, found=f"none for the {len(known):,} onsets of the log", expected="one for each", next_step=next_step)
    _refuse_steps_back(_LOG, "row", onset_s[known], known)
    _refuse_steps_back(name, "event", events.time_s, np.arange(len(events.time_s)))
    return events


def _refuse_steps_back(where: str, item: str, time_s: Float[np.ndarray, "event"], index: Integer[np.ndarray, "event"]) -> None:
    back = np.flatnonzero(~(np.diff(time_s) >= 0))
    if len(back):
        k = int(back[0])
        raise NwbCompactError(
            where, found=f"{time_s[k + 1]:.6g} s after {time_s[k]:.6g} s at {item} {index[k + 1] + 1:,} (a clock was reset?)",
            expected="times that never go back", next_step="convert the parts before and after as sessions of their own, or sort them",
        )


def _marks(
    code: Integer[np.ndarray, "presentation"] | None, events: Events, settings: Alignment, channel: str | None
) -> tuple[Events, str, bool]:
    """The events that mark onsets, what they are called, and whether their words are compared with those of the log."""
    line, of = bool(np.isin(events.code, (0, 1)).all()), f" of {channel!r}" if channel else ""
    compared = False
    if settings.method == "events" and settings.codes is not None:
        wanted, name = np.array(settings.codes), "words"
        compared = code is not None and bool(np.isin(code, [*settings.codes, NO_CODE]).all())
    elif settings.method == "events" and code is not None:
        wanted, name, compared = np.unique(code[code != NO_CODE]), "words", True
        if line and not np.isin(wanted, (0, 1)).all():
            raise NwbCompactError(
                _WHERE, found=f"words {few(wanted)} in the log and edges of one line{of}", expected="a port that carries the words",
                next_step="name the port as alignment.channel, or leave out stimuli.columns.code to pair by time alone",
            )
    elif line:
        wanted, name = np.array([int(settings.edge == "rising")]), f"{settings.edge} edges"
    else:
        wanted, name = np.unique(events.code), "words"
    marks = np.isin(events.code, wanted)
    if not marks.any():
        raise NwbCompactError(
            _WHERE, found=f"no {name} {few(wanted)}{of}; there are {few(events.code)}", expected="a mark for each onset",
            next_step="name the words that mark onsets in alignment.codes, or another alignment.channel",
        )
    return Events(events.time_s[marks], events.code[marks]), name + of, compared
