"""Whether the recording's words speak against the log that was paired with it by time alone.

A log of another session with the same cadence fits the marks as well as the right one. Where words name images they tell the two apart,
but words may as well count trials or tell conditions. A log is therefore refused only on strong evidence: there are as many different
words as images, each as often, in an order that no counter has, and yet word and image go together as by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.stimulus.stimulus_log import NO_CODE

FEWEST_WORDS = 10
"""Fewer different words may well be conditions, of which there happen to be as many as images."""
COUNTS_ALIKE = 0.02
"""Share of the rows by which words and images may differ in how often each occurs: twice the marks that may be lost."""
COUNTER = 0.5
"""Words of which so large a share follow their predecessors at one distance count trials, blocks or positions."""
CHANCE_SDS = 4.0
"""Pairs of rows are as many as by chance within so many standard deviations; below them the design crosses word and image."""


@dataclass(frozen=True)
class Together:
    """How words and images go together, by pairs of rows, as in the Rand index (Hubert & Arabie 1985, Journal of Classification 2:193)."""

    n_same_word: int
    """Pairs of rows with the same word."""
    n_both_same: int
    """Those of them in which the image is the same too; all where words name images."""
    by_chance: float
    """How many would be, had the images been shuffled over the rows."""

    @property
    def is_chance(self) -> bool:
        """Whether `n_both_same` is what chance would bring about, and could have been far more."""
        spread = CHANCE_SDS * float(np.sqrt(max(self.by_chance, 1.0)))
        return abs(self.n_both_same - self.by_chance) <= spread and self.n_same_word > self.by_chance + 5 * spread


def refuse_other_images(image: Sequence[str], code: Integer[np.ndarray, "presentation"]) -> None:
    """Raise an `NwbCompactError` if the words name images, and not those of the log.

    Parameters
    ----------
    image
        What each row of the log shows.
    code
        Word of the row's own mark; `NO_CODE` for a row without one.

    Examples
    --------
    >>> shown = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 10))
    >>> refuse_other_images([f"{number}.png" for number in shown], 100 + shown)
    >>> refuse_other_images([f"{number}.png" for number in shown], 100 + shown[::-1])
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: stimulus log: found 20 words as often as its 20 images, but of 900 pairs of rows with the same
    word 39 show the same image, as by chance (41), expected words that go with the images. Next: give the log of this recording;
    if the words mean something else, set alignment.check_words: false
    """
    paired = np.flatnonzero(code != NO_CODE)
    if not len(paired):
        return
    _, shown = np.unique(np.array(image)[paired], return_inverse=True)
    word = code[paired]
    _, sent = np.unique(word, return_inverse=True)
    n_words = int(sent.max()) + 1
    if n_words < FEWEST_WORDS or not _as_often(sent, shown) or _is_counter(word):
        return
    found = together(sent, shown)
    if found.is_chance:
        raise NwbCompactError(
            "stimulus log", expected="words that go with the images",
            found=f"{n_words:,} words as often as its {n_words:,} images, but of {found.n_same_word:,} pairs of rows with the same word "
            f"{found.n_both_same:,} show the same image, as by chance ({found.by_chance:,.0f})",
            next_step="give the log of this recording; if the words mean something else, set alignment.check_words: false",
        )


def together(word: Integer[np.ndarray, "row"], image: Integer[np.ndarray, "row"]) -> Together:
    """How the words, numbered from 0, go together with the images, numbered from 0.

    Examples
    --------
    >>> together(np.array([0, 0, 1, 1]), np.array([2, 2, 3, 2]))
    Together(n_same_word=2, n_both_same=1, by_chance=1.0)
    """
    same_word, same_image = _pairs(np.bincount(word)), _pairs(np.bincount(image))
    _, both = np.unique(word.astype(np.int64) * (int(image.max()) + 1) + image, return_counts=True)
    return Together(same_word, _pairs(both), same_word * same_image / max(len(word) * (len(word) - 1) // 2, 1))


def _pairs(count: Integer[np.ndarray, "kind"]) -> int:
    return int((count.astype(np.int64) * (count - 1) // 2).sum())


def _as_often(word: Integer[np.ndarray, "row"], image: Integer[np.ndarray, "row"]) -> bool:
    """Whether there are as many words as images, and the commonest word is as common as the commonest image, and so on."""
    words, images = np.sort(np.bincount(word)), np.sort(np.bincount(image))
    return len(words) == len(images) and int(np.abs(words - images).sum()) <= COUNTS_ALIKE * len(word)


def _is_counter(word: Integer[np.ndarray, "row"]) -> bool:
    _, times = np.unique(np.diff(word.astype(np.int64)), return_counts=True)
    return bool(times.max(initial=0) >= COUNTER * times.sum())
