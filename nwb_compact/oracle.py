"""Who answers the lessons: the ensemble that was just fitted, or models that a file holds."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from nwb_compact.backbones import Backbone, looked_at
from nwb_compact.feature_cache import cached_features
from nwb_compact.file_teacher import FileTeacher
from nwb_compact.kept_teacher import weights_of
from nwb_compact.results import TeacherWeights
from nwb_compact.student import n_parameters
from nwb_compact.teacher import Teacher
from nwb_compact.work import Work


@runtime_checkable
class Oracle(Protocol):
    """A teacher of all fitted sessions, whatever it is."""

    @property
    def has_features(self) -> bool:
        """Whether it stands on a frozen backbone."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What the provenance should tell of it."""

    def answers(self, images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "image unit"]:
        """Expected counts of the units of all fitted sessions, side by side in their order."""

    def members(self, session: int) -> Float32[np.ndarray, "member image unit"]:
        """What each of its members expects for the images of one session."""

    def n_parameters(self, session: int) -> Integer[np.ndarray, "unit"]:
        """Numbers that make the answers of each unit of one session; what units share counts for each of them."""

    def weights(self, session: int) -> TeacherWeights | None:
        """What a file can keep of it to ask it again about one session's units; None where another file keeps it."""


class OwnTeacher:
    """The ensemble of this fit, on the features of its backbone."""

    def __init__(self, teacher: Teacher, backbone: Backbone | None, seen: Sequence[np.ndarray], device: str):
        """`seen`: what the ensemble looks at of each fitted session, from `seen_by`."""
        self._teacher, self._backbone, self._seen, self._device = teacher, backbone, seen, device
        self.has_features = backbone is not None
        self.facts = {
            "teacher_validation_r2": " ".join(f"{best:.4f}" for best in teacher.validation_r2),
            "teacher_member_validation_r2": " ".join(f"{best:.4f}" for best in teacher.member_validation_r2),
            "teacher_weight_decay": str(teacher.weight_decay),
        }

    def answers(self, images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "image unit"]:
        """As in `Oracle`; features of lessons are used once and not kept."""
        seen = looked_at(self._backbone, images, self._device)
        return np.concatenate([self._teacher.predict(seen, number) for number in range(len(self._seen))], axis=1)

    def members(self, session: int) -> Float32[np.ndarray, "member image unit"]:
        """As in `Oracle`."""
        return self._teacher.predict_members(self._seen[session], session)

    def n_parameters(self, session: int) -> Integer[np.ndarray, "unit"]:
        """As in `Oracle`; a frozen backbone learned none."""
        return np.full(len(self._teacher.offset[session]), self._teacher.n_parameters_of(session))

    def weights(self, session: int) -> TeacherWeights:
        """As in `Oracle`."""
        return weights_of(self._teacher, session)


class FileTeachers:
    """Models from a file, one set a fitted session; layers that models of several sessions share are computed once."""

    def __init__(self, teachers: Sequence[FileTeacher], images: Sequence[UInt8[np.ndarray, "image 112 112 3"]]):
        """`images`: of each fitted session."""
        self._teachers, self._images = teachers, images
        self._all = FileTeacher(teachers[0].run_id, tuple(network for teacher in teachers for network in teacher.networks))
        self.has_features = False
        self.facts = {} if teachers[0].meaning is None else {"answers": teachers[0].meaning}

    def answers(self, images: UInt8[np.ndarray, "image 112 112 3"]) -> Float32[np.ndarray, "image unit"]:
        """As in `Oracle`."""
        return self._all.predict(images)

    def members(self, session: int) -> Float32[np.ndarray, "member image unit"]:
        """As in `Oracle`; there is one."""
        return self._teachers[session].predict(self._images[session])[None]

    def n_parameters(self, session: int) -> Integer[np.ndarray, "unit"]:
        """As in `Oracle`."""
        return np.array([n_parameters(network) for network in self._teachers[session].networks])

    def weights(self, session: int) -> None:
        """As in `Oracle`."""


def seen_by(backbone: Backbone | None, images: UInt8[np.ndarray, "image 112 112 3"], name: str, work: Work) -> np.ndarray:
    """What a teacher looks at: the images themselves, or a frozen backbone's features of them, which other fits find again."""
    if backbone is None:
        return images
    return cached_features(backbone, images, work.cache, name=name, device=work.device, quiet=work.quiet)
