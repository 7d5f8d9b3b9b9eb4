"""The natural images that each unit's student answers most and least, out of a pool of any size (the study: out of 500,000).

Images are read and answered some at a time and only the extremes so far are kept, so that memory does not grow with the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Integer

from nwb_compact import progress
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.results import StudentWeights
from nwb_compact.streaming import one_ahead
from nwb_compact.student import predict_all
from nwb_compact.views import Pictures

READ_TOGETHER = 1024
"""Images a step: 39 MB of pixels, twice since the next ones are read while these are answered."""
UNIT_MEANING, SPIKES = "row of the unit in the run", "expected spikes in the counting window"


def natural_extremes(
    students: Sequence[StudentWeights], pictures: Pictures, n: int = 10, advance: progress.Advance = progress.silent
) -> tuple[Table, Table]:
    """Strongest and weakest natural images of each unit, and mean and SD of its answers to all of them.

    Parameters
    ----------
    students
        One a unit.
    pictures
        The pool.
    n
        Images of each kind that are kept; all, where the pool has fewer.
    advance
        Told how many more images were answered.

    Returns
    -------
    One row for each unit, kind and rank, and one row for each unit. Rank 0 is the most extreme image; of images that are answered alike the
    one that comes first in the pool goes first. A student that answers all images alike, or with NaN, has no extremes: its rows in the
    pool are -1 and the answers NaN.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> class Greys:
    ...     def __len__(self): return 256
    ...     def read(self, rows): return np.broadcast_to(rows[:, None, None, None], (len(rows), 112, 112, 3)).astype(np.uint8)
    >>> extremes, answers = natural_extremes([example_student()], Greys(), n=2)
    >>> extremes["kind"].tolist()
    ['natural-strongest', 'natural-strongest', 'natural-weakest', 'natural-weakest']
    """
    parts = [np.arange(start, min(start + READ_TOGETHER, len(pictures))) for start in range(0, len(pictures), READ_TOGETHER)]
    strongest = weakest = _Extremes(np.empty((0, len(students)), np.int64), np.empty((0, len(students)), np.float32))
    moments = _Moments(0, np.zeros(len(students)), np.zeros(len(students)))
    for rows, images in zip(parts, one_ahead(parts, pictures.read), strict=True):
        answers = predict_all(students, images)
        answers[~np.isfinite(answers)] = np.nan
        strongest, weakest = _merged(strongest, rows, answers, n, -1), _merged(weakest, rows, answers, n, 1)
        moments = _added(moments, answers)
        advance(len(rows))
    return _extremes_table(strongest, weakest), _moments_table(moments)


@dataclass(frozen=True, eq=False)
class _Extremes:
    """The most extreme images so far, most extreme first."""

    row: Integer[np.ndarray, "rank unit"]
    answer: Float32[np.ndarray, "rank unit"]


@dataclass(frozen=True, eq=False)
class _Moments:
    n: int
    mean: Float64[np.ndarray, "unit"]
    squares: Float64[np.ndarray, "unit"]
    """Sum of the squared distances from the mean."""


def _merged(
    extremes: _Extremes, rows: Integer[np.ndarray, "image"], answers: Float32[np.ndarray, "image unit"], n: int, sign: int
) -> _Extremes:
    """Sign 1 keeps the lowest answers, -1 the highest. Earlier images come first, and a stable sort leaves equal ones in their order."""
    answer = np.concatenate([extremes.answer, answers])
    row = np.concatenate([extremes.row, np.broadcast_to(rows[:, None], answers.shape)])
    kept = np.argsort(sign * answer, axis=0, kind="stable")[:n]
    return _Extremes(np.take_along_axis(row, kept, axis=0), np.take_along_axis(answer, kept, axis=0))


def _added(moments: _Moments, answers: Float32[np.ndarray, "image unit"]) -> _Moments:
    """Moments of both groups together (Chan, Golub & LeVeque 1983), which lose no digits as sums of squares would."""
    new, exact = len(answers), answers.astype(np.float64)
    n, mean = moments.n + new, exact.mean(axis=0)
    squares = ((exact - mean) ** 2).sum(axis=0)
    apart = mean - moments.mean
    return _Moments(n, moments.mean + apart * new / n, moments.squares + squares + apart**2 * moments.n * new / n)


def _extremes_table(strongest: _Extremes, weakest: _Extremes) -> Table:
    n, n_units = strongest.row.shape
    row, answer = np.concatenate([strongest.row, weakest.row]), np.concatenate([strongest.answer, weakest.answer])
    varies = (strongest.answer[:1] > weakest.answer[:1]).any(axis=0)
    row, answer = np.where(varies, row, -1), np.where(varies, answer, np.float32(np.nan))
    return Table("Natural images that each unit's student answers most and least", {
        UNIT: Column(UNIT_MEANING, np.repeat(np.arange(n_units), 2 * n)),
        "kind": Column("natural-strongest or natural-weakest", np.tile(np.repeat(["natural-strongest", "natural-weakest"], n), n_units)),
        "rank": Column("0: the most extreme", np.tile(np.arange(n), 2 * n_units)),
        "row": Column("place of the image in the pool; -1: the student answers all alike", row.T.reshape(-1)),
        "answer": Column(f"of the student, {SPIKES}", answer.T.reshape(-1)),
    })


def _moments_table(moments: _Moments) -> Table:
    return Table("Answers of each unit's student to the natural images of the pool", {
        UNIT: Column(UNIT_MEANING, np.arange(len(moments.mean))),
        "mean_answer": Column(f"mean over the pool, {SPIKES}", moments.mean),
        "sd_answer": Column(f"standard deviation over the pool, {SPIKES}", np.sqrt(moments.squares / max(moments.n, 1))),
        "n_images": Column("images in the pool", np.full(len(moments.mean), moments.n)),
    })
