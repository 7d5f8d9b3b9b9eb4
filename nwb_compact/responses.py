"""From a session to what models are fitted on: repeat averages, and single counts in long form."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, UInt

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
    n_repeats: Float[np.ndarray, "image"] | None
    """Presentations behind each average; None where the source does not say."""
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
    names, images = tuple(session.units.name[index] for index in session.response_units.unit_index), session.images
    if session.counts is not None and session.presentations is not None:
        kept = kept_presentations(session)
        image = session.presentations.image_index[session.counts.presentation_index[kept]].astype(np.int64)
        count = session.counts.count[kept]
        mean, n_repeats = mean_by_image(count, image, len(images)), np.bincount(image, minlength=len(images)).astype(float)
        return Responses(names, images.sha256, images.split, mean, n_repeats, count, image)
    if session.mean_responses is not None:
        averages = session.mean_responses
        return Responses(names, images.sha256, images.split, averages.mean.astype(np.float64), averages.n_repeats, None, None)
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
