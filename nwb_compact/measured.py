"""What was measured, lined up with a run's images and units."""

import numpy as np
from jaxtyping import Float

from nwb_compact.errors import NwbCompactError
from nwb_compact.responses import responses_of
from nwb_compact.results import Results
from nwb_compact.session import Session


def measured_means(session: Session, results: Results) -> Float[np.ndarray, "image unit"]:
    """Repeat averages over valid presentations, NaN where nothing was measured; (image unit) in the order of `results`.

    A unit of the session whose responses were never counted has NaN everywhere.

    Raises
    ------
    NwbCompactError
        If the run was made on other images or units than the file holds.
    """
    if session.images.sha256 != results.image_sha256:
        found = f"{len(results.image_sha256)} images in run {results.run_id}"
        expected = f"the {len(session.images)} images of the session, in their order"
        raise NwbCompactError("image_sha256", found=found, expected=expected, next_step="fit the file again")
    responses = responses_of(session)  # the same averages that the fit was scored on
    missing = [name for name in results.unit_name if name not in session.units.name]
    if missing:
        found, expected = f"no '{missing[0]}' in the file", f"a unit of the session for each of the {len(results.unit_name)} fitted"
        raise NwbCompactError(f"run {results.run_id}", found=found, expected=expected, next_step="fit the file again")
    column = {name: j for j, name in enumerate(responses.unit_name)}
    uncounted = np.full(len(session.images), np.nan)
    return np.stack([responses.mean[:, column[name]] if name in column else uncounted for name in results.unit_name], axis=1)
