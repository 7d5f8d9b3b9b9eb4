"""Two clocks of one recording system that both saw the same square wave: times of one on the other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from nwb_compact.errors import NwbCompactError

MAX_ERROR_S = 1e-3
"""A clock that is off by more than this is refused: it is well below a video frame and the width of counting windows."""
CLOCK_ERROR = 1e-4
"""Share by which two uncalibrated crystals may differ: 50 parts in a million each."""


@dataclass(frozen=True)
class Clock:
    """Seconds of one clock as seconds of another: offset_s + rate x time."""

    offset_s: float
    rate: float

    def of(self, time_s: Float[np.ndarray, "_"]) -> Float[np.ndarray, "_"]:
        """The same moments on the other clock."""
        return self.offset_s + self.rate * time_s


def shared_clock(rises_s: Float[np.ndarray, "rise"], onto_s: Float[np.ndarray, "other"], period_s: float) -> Clock | None:
    """How to turn times of the clock of `rises_s` into times of the clock of `onto_s`; None with fewer than two common rises.

    Parameters
    ----------
    rises_s, onto_s
        When the square wave rose, on either clock. The clocks must agree within half a period where both began to see it; each
        may miss rises.
    period_s
        Of the wave.

    Raises
    ------
    NwbCompactError
        If the wave is not the same: a common rise is more than a millisecond from the line through all of them.

    Examples
    --------
    >>> true = Clock(0.02, 1.00002)
    >>> rises = np.arange(0.3, 600.0)
    >>> found = shared_clock(np.delete(rises, [0, 7]), true.of(rises)[3:], 1.0)
    >>> round(found.offset_s, 6), round(found.rate, 6)
    (0.02, 1.00002)
    """
    if len(rises_s) < 2 or len(onto_s) < 2:
        return None
    first = max(rises_s[0], onto_s[0])
    here, there = (int(np.argmin(np.abs(times - first))) for times in (rises_s, onto_s))
    numbers, others = _numbered(rises_s, here, period_s), _numbered(onto_s, there, period_s)
    _, mine, theirs = np.intersect1d(numbers, others, return_indices=True)
    if len(mine) < 2:
        return None
    middle = rises_s[mine].mean()
    rate, centre = np.polyfit(rises_s[mine] - middle, onto_s[theirs], 1)
    clock = Clock(float(centre - rate * middle), float(rate))
    if (worst := np.abs(clock.of(rises_s[mine]) - onto_s[theirs]).max()) > MAX_ERROR_S:
        found, next_step = f"rises {1e3 * worst:.1f} ms from a line through all of them", "see that one square wave was recorded on both"
        raise NwbCompactError("sync wave", found=found, expected=f"at most {1e3 * MAX_ERROR_S:g} ms", next_step=next_step)
    return clock


def within(duration_s: float, where: Path, what: str) -> None:
    """Return where two clocks without a common signal can be taken as one for so long.

    Raises
    ------
    NwbCompactError
        If they may drift apart by more than a millisecond.

    Examples
    --------
    >>> within(600.0, Path("run"), "two clocks")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: run: found two clocks for 600 s, expected at most 10 s, after which they may be 1 ms apart.
    Next: record the square wave on both; or move the files of the second clock elsewhere
    """
    longest_s = MAX_ERROR_S / CLOCK_ERROR
    if duration_s > longest_s:
        expected = f"at most {longest_s:.0f} s, after which they may be {1e3 * MAX_ERROR_S:g} ms apart"
        next_step = "record the square wave on both; or move the files of the second clock elsewhere"
        raise NwbCompactError(where, found=f"{what} for {duration_s:.0f} s", expected=expected, next_step=next_step)


def _numbered(rises_s: Float[np.ndarray, "rise"], zero: int, period_s: float) -> Int[np.ndarray, "rise"]:
    """Which rise of the wave each is, counted from the one at index `zero`; a missed rise leaves out its number."""
    number = np.concatenate([[0], np.cumsum(np.rint(np.diff(rises_s) / period_s))]).astype(np.int64)
    return number - number[zero]
