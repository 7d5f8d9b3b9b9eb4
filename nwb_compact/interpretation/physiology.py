"""In-silico physiology: every unit is shown the battery about its receptive field, and its tuning is put in the field's own indices.

All indices are of answers above the answer to the blank screen, those below counted as 0 where an index is a share.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from nwb_compact.interpretation.receptive_field import Answers, shown_at_fields
from nwb_compact.interpretation.stimuli import RMS_CONTRAST, Stimulus, columns_of, drawn
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.progress import Advance, silent

INDICES = {
    "orientation_deg": "preferred orientation of gratings, degrees counter-clockwise from horizontal stripes",
    "osi": "orientation selectivity, |sum r exp(2 i theta)| / sum r over orientations at the best wavelength, r averaged over phases "
    "(1 - circular variance; Ringach et al. 2002)",
    "wavelength_px": "preferred wavelength of gratings, pixels",
    "f1_f0": "modulation ratio F1/F0 over the phase of the best grating (Skottun et al. 1991); above 1: simple, below 1: complex",
    "dot_px": "preferred diameter of dots, pixels",
    "dot_polarity": "polarity of the best dot: 1 bright, -1 dark",
    "size_suppression": "1 - answer to the largest dot / answer to the best dot, of the preferred polarity (after Cavanaugh et al. 2002)",
    "surround_suppression": "1 - answer to the largest grating / answer to the best size, at the best orientation and wavelength, averaged "
    "over phases (Cavanaugh et al. 2002)",
    "c50": f"contrast at which the best grating is answered half as much as at full contrast, as a share of it (RMS contrast "
    f"{RMS_CONTRAST:g}); between contrasts that were shown by a straight line, where Naka & Rushton 1966 fit a curve",
    "polarity_index": "(bright - dark) / (bright + dark) of the best dots, bars, curves and angles of either polarity",
    "curve_deg": "direction that the best curve faces, degrees counter-clockwise from the right",
    "curve_selectivity": "|sum r exp(i theta)| / sum r over directions of curves at the best diameter and polarity (ours, as osi)",
}
"""Columns of `tuning` and what they mean."""


def probed(
    answers: Answers, receptive_fields: Table, stimuli: Sequence[Stimulus], *, advance: Advance = silent
) -> Float[np.ndarray, "stimulus unit"]:
    """What every unit answers to the battery, shown about its own receptive field.

    Parameters
    ----------
    answers
        The model.
    receptive_fields
        From `receptive_field.receptive_fields`; a unit without one is shown the battery in the middle.
    stimuli
        The battery.
    advance
        Told of units.
    """
    return shown_at_fields(answers, receptive_fields, partial(drawn, stimuli), advance=advance)


def probe_table(stimuli: Sequence[Stimulus], found: Float[np.ndarray, "stimulus unit"], *, model: str = "student") -> Table:
    """Stimuli and answers as they are kept in the file, in a column of the model's name."""
    meaning = f"answers of the {model}, expected spikes in the counting window; one column a unit, in the order of interpretation_tuning"
    answers = {model: Column(meaning, found.astype(np.float32))}
    return Table(f"made images, shown about the receptive field of each unit, and what the {model} answers", columns_of(stimuli) | answers)


def tuning(stimuli: Sequence[Stimulus], answers: Float[np.ndarray, "stimulus unit"], *, model: str = "student") -> Table:
    """The `INDICES` of each unit, from its answers to the battery.

    Parameters
    ----------
    stimuli
        The battery.
    answers
        From `probed`.
    model
        What answered.

    Returns
    -------
    One row a unit. NaN where nothing of the family drives the unit above the blank screen, or its answers are not numbers.

    References
    ----------
    OSI as 1 - circular variance: Ringach, Shapley & Hawken 2002. F1/F0: Skottun et al. 1991. Suppression indices: Cavanaugh, Bair &
    Movshon 2002.
    """
    rows = [_indices(stimuli, answers[:, unit]) for unit in range(answers.shape[1])]
    columns = {name: Column(meaning, np.array([row.get(name, np.nan) for row in rows])) for name, meaning in INDICES.items()}
    return Table(f"tuning of the {model} to the made images", {UNIT: Column("the unit", np.arange(len(rows))), **columns})


def above_blank(stimuli: Sequence[Stimulus], answers: Float[np.ndarray, "stimulus *more"]) -> Float[np.ndarray, "stimulus *more"]:
    """Answers less the answer to the blank screen."""
    blank = next(number for number, stimulus in enumerate(stimuli) if stimulus.family == "blank")
    return answers - answers[blank]


def is_family(stimuli: Sequence[Stimulus], *families: str) -> Bool[np.ndarray, "stimulus"]:
    """Which stimuli are of these families."""
    return np.array([stimulus.family in families for stimulus in stimuli])


def modulation_index(one: Float[np.ndarray, "unit"], other: Float[np.ndarray, "unit"]) -> Float[np.ndarray, "unit"]:
    """(one - other) / (one + other); NaN where the sum is not above 0.

    Examples
    --------
    >>> modulation_index(np.array([3.0, 0.0]), np.array([1.0, 0.0]))
    array([0.5, nan])
    """
    return share(one - other, one + other)


def share(part: Float[np.ndarray, "unit"], whole: Float[np.ndarray, "unit"]) -> Float[np.ndarray, "unit"]:
    """Part over whole; NaN where the whole is not above 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _indices(stimuli: Sequence[Stimulus], answers: Float[np.ndarray, "stimulus"]) -> dict[str, float]:
    driven = above_blank(stimuli, answers)
    if not np.isfinite(driven).all():
        return {}
    parts = (_gratings, _dots, _surround, _contrast, _polarity, _curves)
    return {name: value for part in parts for name, value in part(stimuli, driven).items()}


def _gratings(stimuli: Sequence[Stimulus], driven: np.ndarray) -> dict[str, float]:
    grey = [s.family == "grating" and s.colour == "grey" for s in stimuli]
    found = _tuned(stimuli, driven, grey, ("orientation_deg", "wavelength_px", "phase_deg"))
    if found is None:
        return {}
    (orientations, wavelengths, phases), cube = found[0], np.maximum(found[1], 0)
    best = np.unravel_index(cube.argmax(), cube.shape)
    over_phases = cube[best[0], best[1]]
    by_orientation = cube[:, best[1]].mean(axis=1)
    f0, f1 = over_phases.mean(), 2 * np.abs((over_phases * np.exp(1j * np.deg2rad(phases))).mean())
    osi, preferred = _circular(by_orientation, 2 * orientations)
    return {"orientation_deg": preferred / 2, "osi": osi, "wavelength_px": float(wavelengths[best[1]]),
            "f1_f0": float(f1 / f0) if f0 > 0 else np.nan}


def _dots(stimuli: Sequence[Stimulus], driven: np.ndarray) -> dict[str, float]:
    centred = [s.family == "dot" and s.row_offset_px == s.column_offset_px == 0 for s in stimuli]
    found = _tuned(stimuli, driven, centred, ("polarity", "size_px"))
    if found is None:
        return {}
    (polarities, sizes), plane = found
    polarity, size = np.unravel_index(plane.argmax(), plane.shape)
    return {"dot_px": float(sizes[size]), "dot_polarity": float(polarities[polarity]),
            "size_suppression": float(1 - max(plane[polarity, -1], 0) / plane[polarity, size])}


def _surround(stimuli: Sequence[Stimulus], driven: np.ndarray) -> dict[str, float]:
    axes = ("orientation_deg", "wavelength_px", "size_px", "phase_deg")
    found = _tuned(stimuli, driven, [s.family == "surround" for s in stimuli], axes)
    if found is None:
        return {}
    cube = np.maximum(found[1], 0).mean(axis=3)
    best = np.unravel_index(cube.argmax(), cube.shape)
    return {"surround_suppression": float(1 - cube[best[0], best[1], -1] / cube[best])}


def _contrast(stimuli: Sequence[Stimulus], driven: np.ndarray) -> dict[str, float]:
    axes = ("orientation_deg", "wavelength_px", "contrast", "phase_deg")
    found = _tuned(stimuli, driven, [s.family == "contrast" for s in stimuli], axes)
    if found is None:
        return {}
    contrasts, cube = found[0][2], np.maximum(found[1], 0).mean(axis=3)
    best = np.unravel_index(cube[:, :, -1].argmax(), cube.shape[:2])
    contrasts, curve = np.append(0.0, contrasts), np.append(0.0, cube[best])  # without contrast it is the blank screen
    half = curve[-1] / 2
    above = int(np.argmax(curve >= half))
    if not half > 0:
        return {}
    share = (half - curve[above - 1]) / (curve[above] - curve[above - 1])
    return {"c50": float(contrasts[above - 1] + share * (contrasts[above] - contrasts[above - 1]))}


def _polarity(stimuli: Sequence[Stimulus], driven: np.ndarray) -> dict[str, float]:
    polarity = np.array([s.polarity for s in stimuli])
    bright, dark = (max(float(driven[polarity == sign].max(initial=0)), 0.0) for sign in (1, -1))
    return {"polarity_index": (bright - dark) / (bright + dark)} if bright + dark > 0 else {}


def _curves(stimuli: Sequence[Stimulus], driven: np.ndarray) -> dict[str, float]:
    found = _tuned(stimuli, driven, [s.family == "curve" for s in stimuli], ("size_px", "polarity", "orientation_deg"))
    if found is None:
        return {}
    (_, _, directions), cube = found
    best = np.unravel_index(cube.argmax(), cube.shape)
    selectivity, preferred = _circular(np.maximum(cube[best[0], best[1]], 0), directions)
    return {"curve_deg": preferred, "curve_selectivity": selectivity}


def _tuned(
    stimuli: Sequence[Stimulus], driven: np.ndarray, chosen: Sequence[bool], axes: tuple[str, ...]
) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Answers to a full set of stimuli along its axes, and the values there; None where none of them was shown or drives the unit."""
    rows = [row for row, is_chosen in enumerate(chosen) if is_chosen]
    if not rows:
        return None
    values = [np.unique([getattr(stimuli[row], axis) for row in rows]) for axis in axes]
    place = tuple(np.array([np.searchsorted(known, getattr(stimuli[row], axis)) for row in rows])
                  for known, axis in zip(values, axes, strict=True))
    cube = np.full([len(known) for known in values], np.nan)
    cube[place] = driven[rows]
    return (values, cube) if cube.max() > 0 else None


def _circular(answers: np.ndarray, angles_deg: np.ndarray) -> tuple[float, float]:
    """Length of the mean vector over the sum of its parts, and its angle from 0 to 360 degrees; NaN where there is no answer."""
    if not answers.sum() > 0:
        return np.nan, np.nan
    vector = (answers * np.exp(1j * np.deg2rad(angles_deg))).sum() / answers.sum()
    return float(np.abs(vector)), float(np.rad2deg(np.angle(vector)) % 360)
