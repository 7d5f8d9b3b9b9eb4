"""What a unit prefers, in a word, with the evidence beside it.

A neuron that prefers dots may well answer a grating more, which fills its receptive field with parts of what it likes. So a label does not
go by which stimulus drives most but by what only such a neuron does: an edge neuron is tuned to orientation, a curvature neuron to
the side that a curve faces, a dot neuron answers dots and neither large edges nor large surfaces, a texture neuron crossed lines and no
single element, and a colour neuron colours of equal luma more than anything grey. Each of these is an index; a label is given where its
index passes its criterion, and by a clear margin over the others.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from nwb_compact.interpretation.physiology import above_blank, is_family, modulation_index, share
from nwb_compact.interpretation.stimuli import DOT_PX, Stimulus
from nwb_compact.interpretation.tables import UNIT, Column, Table

CRITERIA = {"colour": 0.2, "edge": 0.5, "curvature": 0.4, "dot": 0.33, "texture": 0.45}
"""Least index for each label. Ours: between the values of the simulated neurons of seeds 100 to 105 that have the preference and those
that have not; how often labels are right is in docs/measured.md."""
MARGIN = 1.1
"""By how much the best index over its criterion must exceed the next one."""
LEAST_DRIVE = 0.2
"""Share of the unit's strongest answer to any made image that the images a label is about must reach: selectivity of answers near 0 is that
of what happens to be left there."""
DRIVE = f"strongest answer to the images that the label is about over the strongest to any; the label needs at least {LEAST_DRIVE:g}"
UNCLEAR = "unclear"
CHROMATIC = ("red", "green", "blue", "yellow")
"""Colours of `stimuli.COLOURS` that have the luma of the background."""
MEANINGS = {
    "colour": "(best coloured - best grey) / (sum of both), answers above blank",
    "edge": "orientation selectivity of gratings, `osi` of `tuning`",
    "curvature": "selectivity for the side that curves face, as in `tuning`",
    "dot": "(best dot - best of large edges and the largest dot) / (sum of both)",
    "texture": "(best crossed lines - best dot, curve or angle) / (sum of both)",
}


def preferences(
    stimuli: Sequence[Stimulus], answers: Float[np.ndarray, "stimulus unit"], tuning: Table, *, coloured: bool = True
) -> Table:
    """The label of each unit and the index of each label.

    Parameters
    ----------
    stimuli, answers
        The battery and what each unit answers.
    tuning
        From `physiology.tuning` of the same.
    coloured
        Whether the unit's model learned from any image in colour; what it answers to colours means nothing where it did not.

    Returns
    -------
    One row a unit: `preference` (a key of `CRITERIA`, or "unclear"), `<label>_index` for each label, -1 to 1, NaN where nothing of it
    drives the unit, `<label>_least`, the criterion, and `<label>_drive`, how far the images it is about drive the unit.
    """
    driven = np.maximum(above_blank(stimuli, answers), 0)

    def best(chosen: Bool[np.ndarray, "stimulus"]) -> Float[np.ndarray, "unit"]:
        return driven[chosen].max(axis=0)

    chromatic, is_dot = np.array([stimulus.colour in CHROMATIC for stimulus in stimuli]), is_family(stimuli, "dot")
    is_large = is_family(stimuli, "edge") | (is_dot & np.array([stimulus.size_px == DOT_PX[-1] for stimulus in stimuli]))
    lines = best(is_family(stimuli, "lines"))
    indices = {
        "colour": modulation_index(best(chromatic), best(~chromatic)) if coloured else np.full(answers.shape[1], np.nan),
        "edge": tuning["osi"],
        "curvature": tuning["curve_selectivity"],
        "dot": modulation_index(best(is_dot), best(is_large)),
        "texture": modulation_index(lines, best(is_family(stimuli, "dot", "curve", "angle"))),
    }
    about = {
        "colour": best(chromatic), "edge": best(is_family(stimuli, "grating", "bar", "edge") & ~chromatic),
        "curvature": best(is_family(stimuli, "curve")), "dot": best(is_dot), "texture": lines,
    }
    drive = {name: share(answer, driven.max(axis=0)) for name, answer in about.items()}
    labels = [
        label({name: float(index[unit]) for name, index in indices.items() if drive[name][unit] >= LEAST_DRIVE})
        for unit in range(answers.shape[1])
    ]
    evidence = {f"{name}_index": Column(MEANINGS[name], index) for name, index in indices.items()}
    least = {f"{name}_least": Column(f"least {name}_index for the label", np.full(len(labels), value)) for name, value in CRITERIA.items()}
    meaning = (
        f"one of {', '.join(CRITERIA)}, or '{UNCLEAR}' where none passes its criterion by a clear margin with images that drive the unit"
    )
    return Table("what each unit prefers, and the evidence", {
        UNIT: Column("the unit", np.arange(len(labels))),
        "preference": Column(meaning, np.array(labels)),
        **evidence,
        **least,
        **{f"{name}_drive": Column(DRIVE, share) for name, share in drive.items()},
    })


def label(indices: dict[str, float]) -> str:
    """The label whose index is highest over its criterion, if it is at least 1 and clearly above the next.

    Examples
    --------
    >>> label({"edge": 0.7, "dot": -0.1, "colour": float("nan")})
    'edge'
    >>> label({"edge": 0.55, "curvature": 0.44}), label({"edge": 0.1})
    ('unclear', 'unclear')
    """
    scores = sorted(((index / CRITERIA[name], name) for name, index in indices.items() if np.isfinite(index)), reverse=True)
    if not scores or scores[0][0] < 1 or (len(scores) > 1 and scores[0][0] < MARGIN * scores[1][0]):
        return UNCLEAR
    return scores[0][1]
