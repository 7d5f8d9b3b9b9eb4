"""The log joined with the images and the recording's clock: which image was on the screen when."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import BLANK, Images, Pixels, Presentations, counted_repeats, image_sha256
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.stimulus.logged_images import rows_of_images
from nwb_compact_conversion.stimulus.stimulus_log import ShownOrder, StimulusLog, plain

BLANK_SOURCE = "a grey field made by nwb-compact as a placeholder: nothing was shown"
BLANK_LICENCE = "CC0-1.0"
BLANK_LEVEL = 128
"""Mid-grey of 8 bits. No response to a blank is used, so its level has no consequence."""
READ_AT_ONCE = 16
"""Images."""
SET_DURATION = "set stimuli.duration_s, or name the log's column under stimuli.columns.offset"


def log_from_words(time_s: Float[np.ndarray, "presentation"], code: Integer[np.ndarray, "presentation"], settings: Stimuli) -> StimulusLog:
    """The digital words of a recording as its log: each names an image by its number. Times are on the recording's clock already.

    Raises
    ------
    NwbCompactError
        If there are no words, or `settings.duration_s` is not given: words tell no offsets.

    Examples
    --------
    >>> log_from_words(np.array([0.5, 0.7]), np.array([2, 1]), Stimuli(duration_s=0.1)).image
    ('2', '1')
    """
    if not len(code):
        found, next_step = "no word that marks an image", "set stimuli.log, or alignment.channel and alignment.codes"
        raise NwbCompactError("words of the recording", found=found, expected="a word for each image onset", next_step=next_step)
    if settings.duration_s is None:
        expected = "how long an image was on: words tell no offsets"
        raise NwbCompactError("stimuli.duration_s", found="nothing", expected=expected, next_step="set stimuli.duration_s")
    return StimulusLog(tuple(str(word) for word in code.tolist()), time_s, None, np.ones(len(code), bool), code)


def present(
    log: StimulusLog,
    images: Images,
    settings: Stimuli,
    onset_s: Float[np.ndarray, "presentation"],
    residual_s: Float[np.ndarray, "presentation"] | None,
) -> tuple[Images, Presentations]:
    """The presentations in the order of time, and the images with a placeholder `blank` at their end if nothing was shown in some.

    `nwb_compact_conversion.stimulus.logged_images` says how the log names an image.

    Parameters
    ----------
    log
        One row a presentation.
    images
        Those of `read_stimuli`.
    settings
        Says which values mean a blank, and how long an image was on where the log does not.
    onset_s
        Onset of each row of the log on the recording's clock; NaN where none can be told.
    residual_s
        As in `Presentations.alignment_residual_s`, for each row of the log; None where nothing was aligned.

    Returns
    -------
    Images, Presentations
        A row of the log that no time can be given to is not among the presentations, since a file cannot hold it: `len(log)` less
        `len(presentations)` of them were left out, and repeats are counted without them. Broken rows and blanks are, with `is_valid`
        False. An image goes off as long after its aligned onset as the log says, or `duration_s` later where it does not.

    Raises
    ------
    NwbCompactError
        As `rows_of_images`; if no time can be given to any row, or no offset to some.

    Examples
    --------
    >>> images = Images(("a.png", "b.png"), ("", ""), np.zeros((2, 4, 4), np.uint8))
    >>> onset_s = np.array([0.1, 0.3, 0.5])
    >>> log = StimulusLog(("b", "1", "0"), onset_s, None, np.ones(3, bool), None)
    >>> images, shown = present(log, images, Stimuli(blank=("0",), duration_s=0.1), onset_s + 2, None)
    >>> images.name, shown.image_index, shown.is_valid
    (('a.png', 'b.png', 'blank'), array([1, 0, 2], dtype=uint32), array([ True,  True, False]))
    """
    where = str(settings.log or "words of the recording")
    row, is_valid = _rows(where, log, images, settings)
    timed = np.flatnonzero(np.isfinite(onset_s))
    if not len(timed):
        found, next_step = "no row with a time on the recording's clock", "check the alignment"
        raise NwbCompactError(where, found=found, expected="presentations", next_step=next_step)
    in_time = timed[np.argsort(onset_s[timed], kind="stable")]
    image_index = row[in_time].astype(np.uint32)
    return _with_blank_if(row, images), Presentations(
        image_index=image_index,
        repeat=counted_repeats(image_index),
        is_valid=is_valid[in_time],
        start_time_s=onset_s[in_time],
        stop_time_s=onset_s[in_time] + _durations_s(where, log, settings, timed)[in_time],
        alignment_residual_s=None if residual_s is None else residual_s[in_time],
    )


def present_in_order(log: ShownOrder, images: Images, settings: Stimuli) -> tuple[Images, Presentations]:
    """The presentations of a log without times, in its order, and the images as of `present`.

    Raises
    ------
    NwbCompactError
        As `rows_of_images`.

    Examples
    --------
    >>> images = Images(("a.png", "b.png"), ("", ""), np.zeros((2, 4, 4), np.uint8))
    >>> _, shown = present_in_order(ShownOrder(("b", "1", "b"), np.ones(3, bool)), images, Stimuli())
    >>> shown.image_index.tolist(), shown.repeat.tolist(), shown.start_time_s
    ([1, 0, 1], [0, 0, 1], None)
    """
    row, is_valid = _rows(str(settings.log), log, images, settings)
    image_index = row.astype(np.uint32)
    return _with_blank_if(row, images), Presentations(image_index, counted_repeats(image_index), is_valid)


def _rows(
    where: str, log: StimulusLog | ShownOrder, images: Images, settings: Stimuli
) -> tuple[Integer[np.ndarray, "presentation"], Bool[np.ndarray, "presentation"]]:
    """The image of each row of the log, one past the last for a blank, and whether the row counts."""
    row_of = rows_of_images(where, log.image, images.name, settings)
    blank = {plain(value) for value in settings.blank}
    is_shown = np.array([plain(value) not in blank for value in log.image])
    return np.array([row_of[value] for value in log.image]), log.is_valid & is_shown


def _durations_s(
    where: str, log: StimulusLog, settings: Stimuli, timed: Integer[np.ndarray, "timed"]
) -> Float[np.ndarray, "presentation"]:
    """How long each image was on; of rows that are not `timed`, which are left out, it may be untold."""
    told_s = np.full(len(log), np.nan) if log.offset_s is None else log.offset_s - log.onset_s
    if settings.duration_s is not None:
        return np.where(np.isfinite(told_s), told_s, settings.duration_s)
    untold = timed[~np.isfinite(told_s[timed])]
    if len(untold):
        found = f"{len(untold)} of {len(log)} rows that do not tell how long the image was on (the first is row {untold[0] + 1})"
        raise NwbCompactError(where, found=found, expected="an offset of each image", next_step=SET_DURATION)
    return told_s


# Blanks -----------------------------------------------------------------------------------------------------------------


def _with_blank_if(row: Integer[np.ndarray, "presentation"], images: Images) -> Images:
    return images if (row < len(images)).all() else _with_blank(images)


def _with_blank(images: Images) -> Images:
    """One image more, at the end. Of images that are kept as hashes the size is not known: then the placeholder has one pixel."""
    grey = np.full((1, 1) if images.pixels is None else images.pixels.shape[1:], BLANK_LEVEL, np.uint8)

    def and_(told: tuple[str, ...] | None, blank: str) -> tuple[str, ...]:
        return (*(told or ("",) * len(images)), blank)

    return replace(
        images,
        name=(*images.name, BLANK),
        sha256=(*images.sha256, image_sha256(grey)),
        pixels=None if images.pixels is None else _one_more(images.pixels, grey),
        kind=and_(images.kind, BLANK),
        source=and_(images.source, BLANK_SOURCE),
        licence=None if images.licence is None else and_(images.licence, BLANK_LICENCE),
    )


def _one_more(pixels: Pixels, last: UInt8[np.ndarray, "*image_shape"]) -> Pixels:
    """Without a copy of the pixels, which may be a stack on disk."""
    from nwb_compact.nwb_images import LazyPixels  # imports pynwb, which takes a second

    n = pixels.shape[0]

    def read(start: int, stop: int) -> np.ndarray:
        return np.concatenate([pixels[start : min(stop, n)], last[None][: stop - n if stop > n else 0]])

    return LazyPixels((n + 1, *pixels.shape[1:]), READ_AT_ONCE, read)
