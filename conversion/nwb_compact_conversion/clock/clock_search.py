"""Two lists of times of the same events, on two clocks: the offset and the drift between them, found without a first guess.

Rows of a stimulus log and marks in a recording may start hours apart, drift by up to 1000 ppm and each lack events of the other. Where
presentations follow each other regularly, many shifts fit nearly all of them; therefore a search returns every shift that explains the
data about as well as the best, and `evidence` says by how much one is better than another.

1. Stretches of the log with the rarest intervals vote: every difference between a row and a mark of the same word is one vote for an
   offset, at each drift the clocks may have (a Hough transform). The fits are then extended from the stretch to the whole log.
2. At the drift of the best fit, the cross-correlation of all rows with all marks tells every other shift that pairs as many.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

MAX_DRIFT = 1e-3
"""Fraction by which one clock may be faster than the other; crystals are within 1e-4."""
EVENTS_LOST = 0.01
"""Share of rows or marks that are lost where a pairing is right; sets how much one that lacks a partner speaks against a pairing."""
FINEST_S = 1e-4
"""Residuals below this, of the order of a sample, are taken for equal."""
_STRETCHES, _SEEDS, _SHIFTS = 8, 6, 12
_VOTES = 5e7
"""Votes of one stretch over all drifts; bounds time and memory."""
_BINS = 2**23
"""Most bins of a vote; longer recordings are voted on more coarsely."""


@dataclass(frozen=True, eq=False)
class Train:
    """Events in the order of their times."""

    time_s: Float[np.ndarray, "event"]
    word: Integer[np.ndarray, "event"]
    """Only events of the same word are paired; all 0 where words are not compared."""

    def __len__(self) -> int:
        return len(self.time_s)

    def __getitem__(self, which: slice | Bool[np.ndarray, "event"]) -> "Train":
        return Train(self.time_s[which], self.word[which])


@dataclass(frozen=True)
class Clock:
    """The time on another clock: `there_s + slope * (time_s - here_s)`."""

    here_s: float
    there_s: float
    slope: float

    def __call__(self, time_s: Float[np.ndarray, "event"]) -> Float[np.ndarray, "event"]:
        """Times on the other clock."""
        return self.there_s + self.slope * (time_s - self.here_s)


@dataclass(frozen=True, eq=False)
class Pairing:
    """Rows and marks that a clock brings together, one to one."""

    clock: Clock
    mark: Integer[np.ndarray, "row"]
    """Index of each row's mark; -1 where there is none."""
    residual_s: Float[np.ndarray, "row"]
    """Time of the mark minus that of the row on the marks' clock; NaN where there is none."""
    n_marks_left: int
    """Marks between the first and the last paired one that have no row. Those outside belong to what was not logged."""

    @property
    def paired(self) -> Bool[np.ndarray, "row"]:
        """Which rows have a mark."""
        return self.mark >= 0

    @property
    def n_unexplained(self) -> int:
        """Rows without a mark and marks, among them, without a row."""
        return int((~self.paired).sum()) + self.n_marks_left


def find_pairings(rows: Train, marks: Train, tolerance_s: float) -> list[Pairing]:
    """The pairings of different shift that explain most rows and marks, best first by `evidence`.

    Parameters
    ----------
    rows, marks
        Events on the two clocks; at least one each.
    tolerance_s
        How far a pair may lie from the line; also the resolution of the search, so at most a quarter of the usual interval.

    Examples
    --------
    >>> row = np.cumsum([0.0, 0.2, 0.2, 0.5, 0.2, 0.3])
    >>> word = np.zeros(6, int)
    >>> found = find_pairings(Train(row, word), Train(7200 + 1.0001 * row, word), 0.008)[0]
    >>> found.n_unexplained, round(float(found.clock(np.zeros(1))[0]), 4), round(1e6 * (found.clock.slope - 1))
    (0, 7200.0, 100)
    """
    found: list[Pairing] = []
    most = min(len(rows), len(marks))
    for start, stop in _stretches(rows, marks, tolerance_s):
        seeds = _votes(rows[start:stop], marks, tolerance_s)
        found = _ranked(found + [_extended(clock, rows, marks, start, stop, tolerance_s) for clock in seeds])
        if found[0].paired.sum() > most / 4:
            found = _with_shifts(found, rows, marks, tolerance_s)
        if found[0].paired.sum() > 0.9 * most:
            return found
    return _with_shifts(found, rows, marks, tolerance_s)


def evidence(one: Pairing, other: Pairing) -> float:
    """How much better one pairing explains the events than another: the logarithm of the ratio of their likelihoods.

    Each row or mark without a partner has the probability `EVENTS_LOST`; residuals are normal, with the robust standard deviation of
    their pairing. A difference of residuals counts only where it is beyond chance (5 standard errors).
    """
    n = max(1, min(int(one.paired.sum()), int(other.paired.sum())))
    narrower = np.log(_spread(other) / _spread(one))
    # The standard error of the logarithm of a median absolute deviation is about 1.17 / sqrt(n), that of a difference 1.65 / sqrt(n).
    told_by_residuals = n * narrower if abs(narrower) > 5 * 1.65 / np.sqrt(n) else 0.0
    return float((other.n_unexplained - one.n_unexplained) * -np.log(EVENTS_LOST) + told_by_residuals)


def pair(clock: Clock, rows: Train, marks: Train, tolerance_s: float) -> Pairing:
    """Each row with the nearest mark of its word, within `tolerance_s`; of several rows at one mark the nearest."""
    guess = clock(rows.time_s)
    first, last = marks.time_s[0] - 2 * tolerance_s - 1, marks.time_s[-1] + 2 * tolerance_s + 1
    # One sorted list for all words: each word has a stretch of its own, too far from the next for a pair across.
    rank = np.unique(np.concatenate([rows.word, marks.word]), return_inverse=True)[1] * (last - first + 1)
    row_key, mark_key = np.clip(guess, first, last) + rank[: len(rows)], marks.time_s + rank[len(rows) :]
    order = np.argsort(mark_key, kind="stable")
    right = np.searchsorted(mark_key[order], row_key).clip(1, max(1, len(marks) - 1))
    nearest = order[np.stack([right - 1, right.clip(max=len(marks) - 1)])]
    mark = np.take_along_axis(nearest, np.abs(mark_key[nearest] - row_key).argmin(0)[None], 0)[0]
    away = np.abs(mark_key[mark] - row_key)
    by_distance = np.argsort(-away, kind="stable")
    owner = np.full(len(marks), -1)
    owner[mark[by_distance]] = by_distance  # of several rows the last, nearest one stays
    mine = (away <= tolerance_s) & (owner[mark] == np.arange(len(rows)))
    mark = np.where(mine, mark, -1)
    left = int(np.ptp(mark[mine])) + 1 - int(mine.sum()) if mine.any() else 0
    return Pairing(clock, mark, np.where(mine, marks.time_s[mark] - guess, np.nan), left)


def fit(rows: Train, marks: Train, pairing: Pairing, *, robust: bool = True) -> Clock:
    """The line through the pairs: by least squares or, robust, with Huber's weights (Huber 1964), which rein in single wrong pairs."""
    x, y = rows.time_s[pairing.paired], marks.time_s[pairing.mark[pairing.paired]]
    if len(x) < 2 or x[0] == x[-1]:
        return pairing.clock
    weight = np.ones_like(x)
    for _ in range(5 if robust else 1):
        here, there = np.average(x, weights=weight), np.average(y, weights=weight)
        slope = np.sum(weight * (x - here) * (y - there)) / np.sum(weight * (x - here) ** 2)
        away = np.abs(y - there - slope * (x - here))
        weight = 1 / np.maximum(1, away / max(1.345 * 1.4826 * float(np.median(away)), FINEST_S))
    return Clock(float(here), float(there), float(np.clip(slope, 1 - 1.5 * MAX_DRIFT, 1 + 1.5 * MAX_DRIFT)))


def _stretches(rows: Train, marks: Train, tolerance_s: float) -> Iterator[tuple[int, int]]:
    """The stretch with the rarest intervals of each eighth of the log, the rarest first: it votes for few shifts beside the right one."""
    interval = np.diff(rows.time_s)
    # So many drifts a row, each with a vote for every mark and a bin for every tolerance, may take `_VOTES` steps.
    drifts = MAX_DRIFT * max(float(interval.mean()) if len(interval) else 0.0, tolerance_s) / tolerance_s
    bins = min(_BINS, float(np.ptp(marks.time_s)) / tolerance_s) * drifts
    size = int(np.clip((np.sqrt(bins**2 + 4 * drifts * len(marks) * _VOTES) - bins) / (2 * drifts * len(marks)), 32, 512))
    if len(rows) <= size:
        yield 0, len(rows)
        return
    _, kind, count = np.unique(np.round(interval / tolerance_s), return_inverse=True, return_counts=True)
    rarity = np.concatenate([[0], np.cumsum(np.log(len(interval) / count)[kind])])
    told = rarity[size - 1 :] - rarity[: len(rarity) - size + 1]
    starts = [part[told[part].argmax()] for part in np.array_split(np.arange(len(told)), _STRETCHES) if len(part)]
    for start in sorted(starts, key=lambda start: -told[start]):
        yield int(start), int(start) + size


def _votes(rows: Train, marks: Train, tolerance_s: float) -> list[Clock]:
    """The clocks that most differences between a row and a mark agree on."""
    center, length = float(rows.time_s.mean()), float(np.ptp(rows.time_s))
    same = None if (rows.word[0] == rows.word).all() and (rows.word[0] == marks.word).all() else rows.word[:, None] == marks.word
    low = float(marks.time_s[0]) - 1.01 * length
    reach = float(marks.time_s[-1]) + 1.01 * length - low
    width = max(tolerance_s, reach / _BINS)
    # At the ends of the stretch, half a step of the drift moves an event by half the tolerance.
    steps = min(np.ceil(MAX_DRIFT * length / (2 * width)), _VOTES / (len(rows) * len(marks) + reach / width))
    slopes = 1 + np.linspace(-MAX_DRIFT, MAX_DRIFT, 2 * int(steps) + 1)
    peaks = []
    for slope in slopes:
        at = ((marks.time_s - low) / width - (slope * (rows.time_s - center) / width)[:, None]).astype(np.int32)
        votes = np.bincount(at.ravel() if same is None else at[same])
        votes = votes[:-1] + votes[1:]  # so that the edge of a bin does not split a peak
        top = np.flatnonzero(votes >= 0.7 * votes.max(initial=1))
        top = top[np.argsort(-votes[top], kind="stable")[: 2 * _SEEDS]]
        peaks += [(int(votes[k]), low + float(k + 1) * width, float(slope)) for k in top]
    chosen: list[Clock] = []
    for _, there, slope in sorted(peaks, reverse=True):
        if all(abs(there - clock.there_s) > 2 * width for clock in chosen):
            chosen.append(Clock(center, there, slope))
    return chosen[:_SEEDS]


def _extended(clock: Clock, rows: Train, marks: Train, start: int, stop: int, tolerance_s: float) -> Pairing:
    """A fit of one stretch, carried to twice its length until it holds the whole log."""
    while stop - start < len(rows):
        clock = _settled(clock, rows[start:stop], marks, tolerance_s, rounds=2).clock
        half = (stop - start + 1) // 2
        start, stop = max(0, start - half), min(len(rows), stop + half)
    return _settled(clock, rows, marks, tolerance_s)


def _settled(clock: Clock, rows: Train, marks: Train, tolerance_s: float, rounds: int = 6) -> Pairing:
    """Pairing and fitting in turn, until the pairs stay; the first pairing is wider, since a vote is only as fine as its bins."""
    pairing = pair(clock, rows, marks, 2 * tolerance_s)
    for _ in range(rounds):
        before, pairing = pairing, pair(fit(rows, marks, pairing), rows, marks, tolerance_s)
        if np.array_equal(before.mark, pairing.mark):
            break
    return pairing


def _with_shifts(found: list[Pairing], rows: Train, marks: Train, tolerance_s: float) -> list[Pairing]:
    """With the pairings at other shifts of the best clock; again from a better one, if that turns up."""
    for _ in range(3):
        best = found[0]
        found = _ranked(found + [_settled(clock, rows, marks, tolerance_s) for clock in _shifted(best.clock, rows, marks, tolerance_s)])
        if found[0] is best:
            break
    return found


def _shifted(clock: Clock, rows: Train, marks: Train, tolerance_s: float) -> list[Clock]:
    """The clock moved to the highest peaks of the cross-correlation of all rows with all marks."""
    from scipy.fft import irfft, next_fast_len, rfft

    moved = clock(rows.time_s)
    low, high = min(moved[0], marks.time_s[0]), max(moved[-1], marks.time_s[-1])
    width = max(tolerance_s, (high - low) / _BINS)
    size = next_fast_len(2 * (int((high - low) / width) + 2), real=True)
    # A number for each word, with mean 0 and mean square 1: pairs of the same word add up, others cancel.
    words = np.unique(np.concatenate([rows.word, marks.word]), return_inverse=True)[1]
    sign = np.sqrt(2) * np.cos(2 * np.pi * 0.618034 * words) if words.any() else np.ones(len(words))
    one, other = (
        rfft(np.bincount(((time - low) / width).astype(int), values, size).astype(np.float32))
        for time, values in ((moved, sign[: len(rows)]), (marks.time_s, sign[len(rows) :]))
    )
    together = irfft(other * one.conj(), size)
    together += np.roll(together, 1) + np.roll(together, -1)
    clocks = []
    for _ in range(_SHIFTS):
        peak = int(together.argmax())
        shift = (peak if peak < size // 2 else peak - size) * width
        clocks.append(Clock(clock.here_s, clock.there_s + shift, clock.slope))
        together[np.arange(peak - 3, peak + 4) % size] = -np.inf
    return clocks


def _ranked(found: list[Pairing]) -> list[Pairing]:
    """Without those that share most pairs with a better one."""
    chosen: list[Pairing] = []
    for one in sorted(found, key=lambda pairing: pairing.n_unexplained):
        if not any(2 * (one.paired & (one.mark == other.mark)).sum() > one.paired.sum() for other in chosen):
            chosen.append(one)
    for k, other in enumerate(chosen[1:], 1):
        if evidence(other, chosen[0]) > 0:
            chosen[0], chosen[k] = chosen[k], chosen[0]
    return chosen


def _spread(pairing: Pairing) -> float:
    residual_s = pairing.residual_s[pairing.paired]
    return max(FINEST_S, 1.4826 * float(np.median(np.abs(residual_s - np.median(residual_s))))) if len(residual_s) else FINEST_S
