"""What a fit may see: sessions with the side of every image, and what the teacher is told.

An image that is scored anywhere is in nothing that any model learns from, by hash and by sight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nwb_compact.address import Address
from nwb_compact.config import Fit
from nwb_compact.errors import NwbCompactError
from nwb_compact.images import as_rgb, same_picture
from nwb_compact.nwb_session import open_session
from nwb_compact.responses import Responses, responses_of
from nwb_compact.split import require_every_side, split_images
from nwb_compact.teacher import TeacherSession


@dataclass(frozen=True, eq=False)
class SessionData:
    """What fitting needs of one file."""

    file_path: Path | Address
    responses: Responses
    images: UInt8[np.ndarray, "image 112 112 3"]
    sides: tuple[str, ...]
    """One of `results.SIDES` for each image; a file that is not fitted has no `scored` image."""
    session_id: str | None = None

    def rows(self, *sides: str) -> np.ndarray:
        """Images that fall on one of the sides."""
        return np.flatnonzero(np.isin(self.sides, sides))


def read_sessions(fitted: Sequence[Path | Address], lent: Sequence[Path | Address], settings: Fit) -> tuple[SessionData, ...]:
    """Sessions with the side of every image, fitted files first.

    An image that looks like a scored one (another size, saved again, grey) is not learned from either, although its hash differs, and
    neither is what was shown again in the same file.

    Raises
    ------
    NwbCompactError
        If a file has no pixels or no responses, or a split leaves a side empty.
    """
    read = []
    for file_path in (*fitted, *lent):
        with open_session(file_path) as session:
            if session.images.pixels is None:
                next_step = "convert the session with its images"
                raise NwbCompactError(file_path, found="hashes instead of images", expected="pixels to fit on", next_step=next_step)
            read.append((file_path, responses_of(session), as_rgb(session.images.pixels), session.about.session_id))
    responses = [what for _, what, _, _ in read]
    sides_fitted, sides_lent = split_images(responses[: len(fitted)], responses[len(fitted) :], settings.split, seed=settings.seed)
    sessions = [
        SessionData(file_path, of_units, images, sides, session_id)
        for (file_path, of_units, images, session_id), sides in zip(read, (*sides_fitted, *sides_lent), strict=True)
    ]
    scored = scored_pixels(sessions)
    unseen = tuple(_without(session, scored) for session in sessions)
    for one in unseen[: len(fitted)]:
        require_every_side(one.sides)
    return unseen


def scored_pixels(sessions: Sequence[SessionData]) -> UInt8[np.ndarray, "scored 112 112 3"]:
    """Every scored image."""
    return np.concatenate([session.images[session.rows("scored")] for session in sessions])


def own_pixels(sessions: Sequence[SessionData]) -> UInt8[np.ndarray, "own 112 112 3"]:
    """Every image of the sessions that may be learned from."""
    return np.concatenate([session.images[session.rows("fit", "validation")] for session in sessions])


def teacher_sessions(sessions: Sequence[SessionData], n_fitted: int, seen: Sequence[np.ndarray]) -> tuple[TeacherSession, ...]:
    """What the teacher may know of each session: it never holds a response that it may not see.

    Parameters
    ----------
    sessions
        From `read_sessions`.
    n_fitted
        How many are fitted; the others are lent.
    seen
        Features or images of each session.
    """
    known = [np.full_like(session.responses.mean, np.nan) for session in sessions]
    for mean, session in zip(known, sessions, strict=True):
        learned_from = session.rows("fit", "validation")
        mean[learned_from] = session.responses.mean[learned_from]
    return tuple(
        TeacherSession(
            inputs, mean, session.rows("fit"), session.rows("validation"), session.responses.n_repeats, is_lent=place >= n_fitted
        )
        for place, (session, inputs, mean) in enumerate(zip(sessions, seen, known, strict=True))
    )


def _without(session: SessionData, scored: UInt8[np.ndarray, "scored 112 112 3"]) -> SessionData:
    learned_from = session.rows("fit", "validation")
    sides = np.array(session.sides)
    sides[learned_from[same_picture(session.images[learned_from], scored)]] = "unused"
    return replace(session, sides=tuple(sides.tolist()))
