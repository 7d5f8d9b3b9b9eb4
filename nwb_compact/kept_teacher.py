"""The teacher as a file keeps it, and asked again: what `interpret` compares students with.

Kept is the ensemble with the readout of the file's own session, some hundred thousand numbers a member. A frozen backbone is not kept; it
is made again by its name, which the user gives unless it is one of ours, since a name in a file of a stranger could run anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from nwb_compact import config
from nwb_compact.backbones import AUTO, OURS, Backbone, frozen_backbone, looked_at
from nwb_compact.ensemble import Ensemble, ensemble_of
from nwb_compact.errors import NwbCompactError, told_as_damage
from nwb_compact.results import IMAGE_PX, Results, TeacherWeights
from nwb_compact.teacher import Teacher

OFFSET, SCALE = "answer.offset", "answer.scale"
"""Of each unit: mean and SD of the counts, by which z-scored answers become counts."""
SEEN_TOGETHER = 256
"""Images whose features are in memory at a time: those of `vone` take 50 MB."""
NEXT = "run 'nwb-compact fit' again to have a teacher that can be asked"


@dataclass(frozen=True, eq=False)
class KeptTeacher:
    """The teacher of one run."""

    teacher: Teacher
    backbone: Backbone | None

    def members(self, images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "member image unit"]:
        """Expected counts of the units of the run, of each member of the ensemble."""
        answers = [np.empty((self.teacher.network.n_members, 0, len(self.teacher.offset[0])), np.float32)]
        for start in range(0, len(images), SEEN_TOGETHER):
            seen = looked_at(self.backbone, images[start : start + SEEN_TOGETHER], self.teacher.device)
            answers.append(self.teacher.predict_members(seen, 0))
        return np.concatenate(answers, axis=1)


def weights_of(teacher: Teacher, session: int) -> TeacherWeights:
    """What is to be kept of a teacher for one of its sessions.

    Examples
    --------
    >>> sorted(weights_of(_example(), 0).arrays)[:3]
    ['answer.offset', 'answer.scale', 'blocks.0.depthwise.weight']
    """
    readout = f"readouts.{session}."
    state = {name.replace(readout, "readouts.0.", 1): value.cpu().numpy() for name, value in teacher.network.state_dict().items()
             if not name.startswith("readouts.") or name.startswith(readout)}
    return TeacherWeights(state | {OFFSET: teacher.offset[session], SCALE: teacher.scale[session]})


def kept_teacher(results: Results, backbone: str | None = None) -> KeptTeacher:
    """The teacher of a run, ready to be asked.

    Parameters
    ----------
    results
        The run.
    backbone
        Name of the frozen backbone it stands on, as `fit --backbone` took it; needed unless it is one of `OURS`.

    Raises
    ------
    NwbCompactError
        If the run keeps no teacher, what it keeps is none, or its backbone is not named, cannot be made, or is another one.
    """
    where = f"run {results.run_id}"
    if results.teacher is None:
        raise NwbCompactError(where, found="no teacher in the file", expected="one", next_step=_to_have_one(results.provenance))
    frozen = _backbone(results.provenance, backbone, where)
    with told_as_damage(where, "arrays of an ensemble of this version", found="a teacher that cannot be put together", next_step=NEXT):
        kept = KeptTeacher(_teacher(results.teacher.arrays, results), frozen)
        kept.members(np.zeros((1, IMAGE_PX, IMAGE_PX, 3), np.uint8))  # so that network and backbone are known to fit together
    return kept


def _to_have_one(facts: Mapping[str, str]) -> str:
    if "teacher_not_kept_mb" in facts:
        return f"fit again with teacher.most_kept_mb = {facts['teacher_not_kept_mb']} or more (docs/configuration.md)"
    if "teacher_from_file.0" in facts:
        return f"interpret {facts['teacher_from_file.0'].split(' sha256:')[0]} of the file that taught, whose networks are the teacher"
    return NEXT


def visual_degrees(facts: Mapping[str, str]) -> float:
    """Width of the images of a run in degrees of visual angle, from its provenance; the setting's default where that says nothing else."""
    usual = config.Teacher().vone_visual_degrees
    try:
        return float(facts.get("setting.teacher.vone_visual_degrees", usual))
    except ValueError:
        return usual


def _backbone(facts: Mapping[str, str], named: str | None, where: str) -> Backbone | None:
    fitted = facts.get("setting.teacher.backbone", "")
    if named is None and fitted not in OURS:  # a name in a file of a stranger could run anything
        next_step = f"give --backbone {fitted}, if you trust it" if fitted else NEXT
        raise NwbCompactError(where, found=f"a teacher that stands on {fitted or 'an unknown backbone'}",
                              expected="its name, since it may run any program", next_step=next_step)
    backbone = frozen_backbone(named or fitted, facts.get("layer") or AUTO, vone_visual_degrees=visual_degrees(facts))
    identity = facts.get("backbone_sha256", "") if backbone is not None else ""
    if backbone is not None and backbone.sha256 != identity:
        raise NwbCompactError(f"--backbone {backbone.name}", found="other weights than those that the teacher was fitted on",
                              expected=f"those of SHA-256 {identity[:12]}...", next_step="name the backbone of the fit")
    return backbone


def _teacher(arrays: Mapping[str, np.ndarray], results: Results) -> Teacher:
    numbers = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    if broken := [name for name, array in numbers.items() if not np.isfinite(array).all()]:
        raise ValueError(f"{broken[0]} holds what is no number")
    offset, scale = numbers.pop(OFFSET), numbers.pop(SCALE)
    network = ensemble_of(numbers)
    n_units = network.readouts[0].mixing.shape[1]
    if not offset.shape == scale.shape == (n_units,) == (len(results.unit_name),):
        raise ValueError(f"it answers for {n_units} units, the run has {len(results.unit_name)}")
    loss = results.provenance.get("setting.teacher.loss", "mse")
    if loss not in config.choices(config.Teacher, "loss"):
        raise ValueError(f"no loss is called {loss}")
    return Teacher(network.requires_grad_(False), (offset,), (scale,), loss, (), (), float("nan"), "cpu")


def _example() -> Teacher:
    """For the documentation."""
    settings = config.Teacher(members=2, channels=4, trunk_channels=4, core_blocks=1)
    network = Ensemble((IMAGE_PX, IMAGE_PX, 3), [2], settings, from_images=True, seed=0)
    one = np.ones(2, np.float32)
    return Teacher(network, (one,), (one,), "mse", (), (), float("nan"), "cpu")
