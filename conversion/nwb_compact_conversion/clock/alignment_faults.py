"""What speaks against a pairing of the log's rows with the recording's marks, each told with its numbers and the way out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.clock.clock_search import Clock, Pairing, Train, evidence, find_pairings, fit, pair
from nwb_compact_conversion.session_yaml import Alignment

FEWEST = 3
"""A line goes through any two pairs."""
DECIDES = float(np.log(20))
"""A shift is chosen where the events are 20 times as likely as under any other; one row that lost its mark makes them 100 times less so."""
LONGER = 100.0
"""A log so many times as long as the recording's marks is in another unit, and could not be paired."""
FAR = 5.0
"""Up to so many times the largest residual allowed, a mark without a row is taken for a late mark of a row without a mark."""
BY_CHANCE = 1e-3
"""Late marks are told where so many beside rows without a mark would be rarer than this by chance."""
STEP = 40.0
"""Two lines must take off so many times the variance of a residual; the best of all splits takes off about 15 by chance."""


@dataclass(frozen=True, eq=False)
class Given:
    """What is to be paired, and how closely."""

    rows: Train
    marks: Train
    known: Integer[np.ndarray, "row"]
    """Index of each row in the log, which also has rows without an onset."""
    settings: Alignment
    words: str
    """What the marks are called."""
    others: Integer[np.ndarray, "event"]
    """Codes of the channel's events that are no marks."""

    @property
    def codes_told(self) -> bool:
        """Whether the settings name the words that mark onsets."""
        return self.settings.method == "events" and self.settings.codes is not None

    @property
    def residual_s(self) -> float:
        """The largest residual allowed."""
        return self.settings.max_residual_frames / self.settings.frame_rate_hz

    @property
    def usual_s(self) -> float:
        """The usual interval of the log."""
        return max(float(np.median(np.diff(self.rows.time_s))), 1e-3)

    @property
    def search_s(self) -> float:
        """How far a pair may lie from the line while the line is looked for: at least 8 ms, also where less is allowed in the end."""
        return min(max(self.residual_s, 0.008), self.usual_s / 4)

    @property
    def far_s(self) -> float:
        """How far a late mark is looked for."""
        return max(self.residual_s, min(FAR * self.residual_s, self.usual_s / 2))

    def fitted(self, clock: Clock) -> Pairing:
        """Least squares through all pairs within the largest residual allowed."""
        for _ in range(3):
            clock = fit(self.rows, self.marks, pair(clock, self.rows, self.marks, self.residual_s), robust=False)
        return pair(clock, self.rows, self.marks, self.residual_s)


def refuse_another_unit(given: Given) -> None:
    """Before the search, which would take long: a log many times as long as the marks, though not for lack of them."""
    log_s, marks_s = float(np.ptp(given.rows.time_s)), max(float(np.ptp(given.marks.time_s)), 1.0)
    if log_s > LONGER * marks_s and 2 * len(given.marks) > len(given.rows):
        raise NwbCompactError(
            "stimulus log", found=f"onsets over {log_s:,.0f} s where the recording has {given.words} over {marks_s:,.0f} s",
            expected="the same session on both clocks", next_step="check stimuli.onset_unit, and that log and recording belong together",
        )


def refuse_faults(given: Given, pairing: Pairing, found: list[Pairing]) -> None:
    """Raise an `NwbCompactError` for the first of these: a clock that jumped, late marks, rows or marks without a partner, another shift.

    Parameters
    ----------
    given
        Rows, marks and settings.
    pairing
        The one that is to be used.
    found
        All that the search found, the chosen one first.
    """
    _refuse_jumps(given, pairing)
    _refuse_late_marks(given, pairing)
    _refuse_unpaired_rows(given, pairing)
    _refuse_unpaired_marks(given, pairing)
    _refuse_other_shifts(given, found)


def few(words: Integer[np.ndarray, "event"]) -> str:
    """The commonest words, with how often they occur where that is not once.

    Examples
    --------
    >>> few(np.array([7, 9, 9]))
    '9 (2 times), 7'
    """
    word, count = np.unique(words, return_counts=True)
    order = np.argsort(-count, kind="stable")
    listed = [f"{word[k]}" + (f" ({count[k]:,} times)" if count[k] > 1 else "") for k in order[:6]]
    return ", ".join(listed) + (f" and {len(word) - 6} more" if len(word) > 6 else "")


def _refuse_jumps(given: Given, pairing: Pairing) -> None:
    """A clock that was set during the session fits two lines, not one."""
    jump = _small_jump(given, pairing) or _large_jump(given, pairing)
    if jump is not None:
        row, by_s = jump
        raise NwbCompactError(
            "stimulus log", found=f"a clock that jumps by {by_s:+.3f} s against the recording's at row {given.known[row] + 1:,}",
            expected="one clock that only drifts", next_step="convert the parts before and after as sessions of their own",
        )


def _small_jump(given: Given, pairing: Pairing) -> tuple[int, float] | None:
    """The split into two lines that leaves the smallest squares, where the lines do not meet."""
    near = pair(pairing.clock, given.rows, given.marks, given.far_s)
    index, y = np.flatnonzero(near.paired), near.residual_s[near.paired]
    fewest = max(10, len(index) // 50)
    if len(index) < 3 * fewest:
        return None
    x = given.rows.time_s[index]
    x = (x - x.mean()) / max(float(np.ptp(x)), 1e-9)
    sums = np.cumsum([np.ones_like(x), x, x * x, y, x * y, y * y], axis=1)
    splits = np.arange(fewest, len(index) - fewest + 1)
    before, after = sums[:, splits - 1], sums[:, -1:] - sums[:, splits - 1]
    (low, low_slope, low_squares), (high, high_slope, high_squares), one = _line(before), _line(after), float(_line(sums[:, -1:])[2][0])
    best = int((low_squares + high_squares).argmin())
    two, split = max(float(low_squares[best] + high_squares[best]), 1e-12), int(splits[best])
    middle = (x[split - 1] + x[split]) / 2
    by_s = float(high[best] + high_slope[best] * middle - low[best] - low_slope[best] * middle)
    # The rows at the split must show it too, which a single far mark cannot bring about.
    beside_s = abs(float(np.median(y[split : split + fewest]) - np.median(y[split - fewest : split])))
    jumped = min(abs(by_s), 2 * beside_s) > given.residual_s and one - two > STEP * two / len(index)
    return (int(index[split]), -by_s) if jumped else None


def _line(sums: Float[np.ndarray, "6 split"]) -> tuple[Float[np.ndarray, "split"], Float[np.ndarray, "split"], Float[np.ndarray, "split"]]:
    """Intercept, slope and sum of squares of the least-squares line, from the sums of 1, x, xx, y, xy and yy."""
    n, x, xx, y, xy, yy = sums
    slope = (xy - x * y / n) / np.maximum(xx - x * x / n, 1e-12)
    return (y - slope * x) / n, slope, yy - y * y / n - slope * (xy - x * y / n)


def _large_jump(given: Given, pairing: Pairing) -> tuple[int, float] | None:
    """Rows on one side of a split that have no mark, and fit the marks left over with another offset."""
    rows, paired = given.rows, pairing.paired
    if (~paired).mean() <= given.settings.max_unpaired_fraction:
        return None
    excess = np.cumsum(paired - paired.mean())
    split = int(np.abs(excess).argmax()) + 1
    later = bool(excess[split - 1] > 0)
    side = rows[split:] if later else rows[:split]
    left = np.setdiff1d(np.arange(len(given.marks)), pairing.mark)
    if min(len(side), len(left)) < 10:
        return None
    second = find_pairings(side, Train(given.marks.time_s[left], given.marks.word[left]), given.search_s)[0]
    if second.paired.mean() < 0.9:
        return None
    at = rows.time_s[split : split + 1]
    by_s = float((second.clock(at) - pairing.clock(at))[0])
    return split, -by_s if later else by_s


def _refuse_late_marks(given: Given, pairing: Pairing) -> None:
    """Rows whose mark is there, but further from the line than allowed."""
    from scipy.stats import poisson

    rows, marks = given.rows[~pairing.paired], np.setdiff1d(np.arange(len(given.marks)), pairing.mark)
    if not len(rows) or not len(marks) or not pairing.paired.any():
        return
    late = pair(pairing.clock, rows, Train(given.marks.time_s[marks], given.marks.word[marks]), given.far_s)
    n, n_paired, n_rows = int(late.paired.sum()), int(pairing.paired.sum()), len(given.rows)
    span_s = max(float(np.ptp(given.rows.time_s)), given.usual_s)
    chance = len(rows) * pairing.n_marks_left * 2 * (given.far_s - given.residual_s) / span_s
    if n and n_paired + n >= (1 - given.settings.max_unpaired_fraction) * n_rows and poisson.sf(n - 1, chance) < BY_CHANCE:
        worst = int(np.nanargmax(np.abs(late.residual_s)))
        frames = abs(late.residual_s[worst]) * given.settings.frame_rate_hz
        row = given.known[~pairing.paired][worst] + 1
        raise NwbCompactError(
            "alignment",
            found=f"{n:,} of {n_rows:,} onsets too far from the fitted clock, row {row:,} by {1e3 * late.residual_s[worst]:+.1f} ms",
            expected=f"at most {1e3 * given.residual_s:.1f} ms ({given.settings.max_residual_frames:g} video frames)",
            next_step="take onsets from the flip of the screen, not from the command; or, if such delays are real, raise "
            f"alignment.max_residual_frames above {frames:.1f}",
        )


def _refuse_unpaired_rows(given: Given, pairing: Pairing) -> None:
    rows, marks, allowed = given.rows, given.marks, given.settings.max_unpaired_fraction
    lacking = ~pairing.paired
    if lacking.sum() <= allowed * len(rows) and pairing.paired.sum() >= FEWEST:
        return
    guess = pairing.clock(rows.time_s)
    found = f"{int(lacking.sum()):,} of {len(rows):,} onsets without a mark among {len(marks):,} {given.words}"
    before, after = int((guess < marks.time_s[0] - given.far_s).sum()), int((guess > marks.time_s[-1] + given.far_s).sum())
    if pairing.paired.mean() < 0.5 and pairing.paired.sum() < 0.5 * len(marks):
        next_step = f"check alignment.channel, codes and edge, and that log and recording belong together{_unit_hint(given)}"
    elif given.codes_told and len(given.others) and len(marks) < (1 - allowed) * len(rows):
        found += f"; the channel has other words too: {few(given.others)}"
        next_step = "name all words that mark onsets in alignment.codes, or give the log of this recording only"
    elif before + after:
        found += f" ({before:,} before the first mark, {after:,} after the last)"
        next_step = "give the log of this recording only, or raise alignment.max_unpaired_fraction if the rest was not recorded"
    else:
        next_step = "check alignment.channel, codes and edge; raise alignment.max_unpaired_fraction if marks were lost"
    raise NwbCompactError(
        "alignment", found=found, next_step=next_step,
        expected=f"a mark within {1e3 * given.residual_s:.1f} ms of {100 * (1 - allowed):g} % of them",
    )


def _unit_hint(given: Given) -> str:
    """A hint at a wrong unit of time."""
    marks_s = float(np.median(np.diff(given.marks.time_s))) if len(given.marks) > 1 else given.usual_s
    if 1 / 20 < given.usual_s / max(marks_s, 1e-9) < 20:
        return ""
    return f"; onsets lie {given.usual_s:.3g} s apart and marks {marks_s:.3g} s, so check stimuli.onset_unit too"


def _refuse_unpaired_marks(given: Given, pairing: Pairing) -> None:
    allowed, left = given.settings.max_unpaired_fraction, pairing.n_marks_left
    within = slice(int(pairing.mark[pairing.paired].min()), int(pairing.mark.max()) + 1)
    n_within = within.stop - within.start
    if left > allowed * n_within:
        lacking = np.setdiff1d(np.arange(within.start, within.stop), pairing.mark)
        words = f": words {few(given.marks.word[lacking])}" if given.marks.word.any() else ""
        raise NwbCompactError(
            "alignment", expected=f"at most {100 * allowed:g} %",
            found=f"{left:,} of {n_within:,} {given.words} between the first and the last onset without a row of the log, "
            f"which has {len(given.rows):,}{words}",
            next_step="name the words that mark onsets in alignment.codes; or give the whole log",
        )


def _refuse_other_shifts(given: Given, found: list[Pairing]) -> None:
    """Where another shift explains the events as well, nothing tells which row is which."""
    one = found[0]
    for other in found[1:]:
        if evidence(one, other) < DECIDES:
            middle = given.rows.time_s[len(given.rows) // 2 :][:1]
            by_s = float((other.clock(middle) - one.clock(middle))[0])
            raise NwbCompactError(
                "alignment",
                found=f"two ways to pair {len(given.rows):,} onsets with {len(given.marks):,} {given.words}, {abs(by_s):.3f} s apart: "
                f"{int(one.paired.sum()):,} and {int(other.paired.sum()):,} pairs",
                expected="one that explains them better",
                next_step="send words that differ between images and name stimuli.columns.code, or give as many marks as onsets",
            )
