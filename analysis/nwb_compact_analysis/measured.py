"""What was measured, lined up with a run's images and units."""

import numpy as np
from jaxtyping import Float

from nwb_compact.errors import NwbCompactError
from nwb_compact.results import Results
from nwb_compact.session import Session, SpikeCounts, kept_presentations


def measured_means(session: Session, results: Results) -> Float[np.ndarray, "image unit"]:
    """Repeat averages over valid presentations, NaN where nothing was measured; (image unit) in the order of `results`.

    Raises
    ------
    NwbCompactError
        If the run was made on other images or units than the file holds.
    """
    if session.images.sha256 != results.image_sha256:
        found = f"{len(results.image_sha256)} images in run {results.run_id}"
        expected = f"the {len(session.images)} images of the session, in their order"
        raise NwbCompactError("image_sha256", found=found, expected=expected, next_step="fit the file again")
    column = {session.units.name[unit]: j for j, unit in enumerate(session.response_units.unit_index)}
    missing = [name for name in results.unit_name if name not in column]
    if missing:
        expected = f"a unit of the session for each of the {len(results.unit_name)} fitted"
        found = f"no '{missing[0]}' in the file"
        raise NwbCompactError(f"run {results.run_id}", found=found, expected=expected, next_step="fit the file again")
    return _all_means(session)[:, [column[name] for name in results.unit_name]]


def _all_means(session: Session) -> Float[np.ndarray, "image response_unit"]:
    if session.counts is not None:
        return _means_of_counts(session, session.counts)
    if session.mean_responses is not None:
        return session.mean_responses.mean.astype(float)
    return np.full((len(session.images), len(session.response_units.unit_index)), np.nan)


def _means_of_counts(session: Session, counts: SpikeCounts) -> Float[np.ndarray, "image response_unit"]:
    assert session.presentations is not None  # counts refer to presentations
    kept = kept_presentations(session)
    image = session.presentations.image_index[counts.presentation_index[kept]]
    total = np.zeros((len(session.images), counts.count.shape[1]))
    np.add.at(total, image, counts.count[kept])
    n = np.bincount(image, minlength=len(session.images))[:, None]
    return np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)
