"""Who may see which image: the fitting, validation and scored side, by identity and never by presentation."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from nwb_compact.config import Split
from nwb_compact.errors import NwbCompactError
from nwb_compact.responses import Responses


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
    >>> from nwb_compact.responses import responses_of
    >>> from nwb_compact.simulate import simulate_session
    >>> responses = responses_of(simulate_session(n_units=4, n_images=40, n_repeats=2, seed=0))
    >>> (sides,), _ = split_images([responses], [], Split(), seed=0)
    >>> sides.count("scored"), set(sides[20:])
    (20, {'scored'})
    """
    scored = set().union(*(_scored(responses, split, seed) for responses in fitted))
    training = {image for responses in (*fitted, *lent) for image in _answered(responses)} - scored
    held = set(_by_hash(training, "validation", seed)[: round(split.validation_fraction * len(training))])
    sides_fitted = tuple(_sides(responses, scored, held, "scored") for responses in fitted)
    sides_lent = tuple(_sides(responses, scored, held, "unused") for responses in lent)
    for sides in sides_fitted:
        require_every_side(sides)
    return sides_fitted, sides_lent


def require_every_side(sides: Sequence[str]) -> None:
    """Stop where a fitted file has nothing to fit on, to stop by, or to score.

    Raises
    ------
    NwbCompactError
        Naming the side that is empty.
    """
    for side in ("fit", "validation", "scored"):
        if side not in sides:
            found = f"no image on the {side} side of {len(sides)}"
            next_step = "use more images or another --split (of a column 'split', images that say 'test' are scored)"
            raise NwbCompactError("split", found=found, expected="some on every side", next_step=next_step)


def _scored(responses: Responses, split: Split, seed: int) -> set[str]:
    distinct = list(dict.fromkeys(_answered(responses)))  # in the order of the image table
    if split.method == "first-half":
        return set(distinct[-(-len(distinct) // 2) :])
    if split.method == "random":
        return set(_by_hash(set(distinct), "scored", seed)[: round(split.scored_fraction * len(distinct))])
    if responses.stored_split is None:
        next_step = "use --split first-half or random, or store the column"
        raise NwbCompactError("--split column", found="no 'split' column in the file", expected="one", next_step=next_step)
    return {image for image, side in zip(responses.image_sha256, responses.stored_split, strict=True) if side == "test"}


def _answered(responses: Responses) -> list[str]:
    """Images that have a response: those that were never shown move no side."""
    return [responses.image_sha256[row] for row in np.flatnonzero(np.isfinite(responses.mean).any(axis=1))]


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
