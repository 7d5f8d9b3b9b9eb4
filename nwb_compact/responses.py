"""From a session to what models are fitted on: repeat averages, single counts in long form, and who may see which image."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from jaxtyping import Float, Integer, UInt

from nwb_compact.config import Split
from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Session, kept_presentations


@dataclass(frozen=True, eq=False)
class Responses:
    """How the units of one session answered its images."""

    unit_name: tuple[str, ...]
    image_sha256: tuple[str, ...]
    stored_split: tuple[str, ...] | None
    """The `split` column of the file, if it has one."""
    mean: Float[np.ndarray, "image unit"]
    """Mean spike count over valid repeats; NaN where there is none."""
    count: UInt[np.ndarray, "kept unit"] | None
    """Single counts, valid presentations only; None when the source kept averages."""
    image_of_count: Integer[np.ndarray, "kept"] | None
    """Image of each row of `count`."""


def responses_of(session: Session) -> Responses:
    """Responses of all counted units of a session, from single counts where there are any, else from the stored averages.

    Raises
    ------
    NwbCompactError
        If the session has neither.

    Examples
    --------
    >>> from nwb_compact.simulate import simulate_session
    >>> responses_of(simulate_session(n_units=4, n_images=20, n_repeats=3, seed=0)).mean.shape
    (20, 4)
    """
    names = tuple(session.units.name[index] for index in session.response_units.unit_index)
    if session.counts is not None and session.presentations is not None:
        kept = kept_presentations(session)
        image = session.presentations.image_index[session.counts.presentation_index[kept]].astype(np.int64)
        count = session.counts.count[kept]
        return Responses(names, session.images.sha256, session.images.split, mean_by_image(count, image, len(session.images)), count, image)
    if session.mean_responses is not None:
        return Responses(names, session.images.sha256, session.images.split, session.mean_responses.mean.astype(np.float64), None, None)
    found = "neither spike counts nor mean responses"
    raise NwbCompactError(session.about.identifier, found=found, expected="one of them", next_step="convert the session again")


def mean_by_image(
    count: UInt[np.ndarray, "kept unit"], image: Integer[np.ndarray, "kept"], n_images: int
) -> Float[np.ndarray, "image unit"]:
    """Average the rows of each image; NaN for an image without a row.

    Examples
    --------
    >>> mean_by_image(np.array([[2], [4], [5]], np.uint8), np.array([0, 0, 2]), 3).ravel()
    array([ 3., nan,  5.])
    """
    total = np.zeros((n_images, count.shape[1]))
    np.add.at(total, image, count)
    n = np.bincount(image, minlength=n_images)[:, None].astype(float)
    return np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)


def split_images(
    fitted: Sequence[Responses], lent: Sequence[Responses], split: Split, *, seed: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Decide for every image of every file whether it fits, validates or scores (`results.SIDES`).

    An image is known by its hash. If any fitted file scores it, every fitted file scores it and no lent file uses it: an image on the
    scored side is never trained on from anywhere. The validation part is drawn by hash too, so a picture shown twice stays together.

    Parameters
    ----------
    fitted
        Files that are fitted and scored.
    lent
        Files that only lend their images and responses (`--train`).
    split, seed
        How to split; the seed matters to `random` and to the validation part.

    Returns
    -------
    sides of the fitted files, sides of the lent files
        One string an image, in file order.

    Raises
    ------
    NwbCompactError
        If a side would be empty, or `column` is asked for and a fitted file has no such column.

    Examples
    --------
    >>> from nwb_compact.simulate import simulate_session
    >>> responses = responses_of(simulate_session(n_units=4, n_images=40, n_repeats=2, seed=0))
    >>> (sides,), _ = split_images([responses], [], Split(), seed=0)
    >>> sides.count("scored"), set(sides[20:])
    (20, {'scored'})
    """
    scored = set().union(*(_scored(responses, split, seed) for responses in fitted))
    training = {image for responses in (*fitted, *lent) for image in responses.image_sha256} - scored
    held = set(_by_hash(training, "validation", seed)[: round(split.validation_fraction * len(training))])
    sides_fitted = tuple(_sides(responses, scored, held, "scored") for responses in fitted)
    sides_lent = tuple(_sides(responses, scored, held, "unused") for responses in lent)
    for responses, sides in zip(fitted, sides_fitted, strict=True):
        for side in ("fit", "validation", "scored"):
            if side not in sides:
                found = f"no image on the {side} side of {len(sides)}"
                raise NwbCompactError("split", found=found, expected="some on every side", next_step="use more images or another --split")
        assert len(sides) == len(responses.image_sha256)
    return sides_fitted, sides_lent


def _scored(responses: Responses, split: Split, seed: int) -> set[str]:
    distinct = list(dict.fromkeys(responses.image_sha256))  # in the order of first appearance
    if split.method == "first-half":
        return set(distinct[-(-len(distinct) // 2) :])
    if split.method == "random":
        return set(_by_hash(set(distinct), "scored", seed)[: round(split.scored_fraction * len(distinct))])
    if responses.stored_split is None:
        next_step = "use --split first-half or random, or store the column"
        raise NwbCompactError("--split column", found="no 'split' column in the file", expected="one", next_step=next_step)
    return {image for image, side in zip(responses.image_sha256, responses.stored_split, strict=True) if side == "test"}


def _by_hash(images: set[str], purpose: str, seed: int) -> list[str]:
    """A shuffle that depends on each image's identity only, so it is the same in every file."""
    return sorted(images, key=lambda image: sha256(f"{purpose}:{seed}:{image}".encode()).digest())


def _sides(responses: Responses, scored: set[str], held: set[str], when_scored: str) -> tuple[str, ...]:
    answered = np.isfinite(responses.mean).any(axis=1)
    sides = []
    for image, has_answer in zip(responses.image_sha256, answered, strict=True):
        side = when_scored if image in scored else "validation" if image in held else "fit"
        sides.append(side if has_answer else "unused")
    return tuple(sides)
