"""One training of our teacher for `benchmarks/teacher.py`, which starts it.

    python benchmarks/teacher_ours.py DATA.npz ANSWERS.npy BUDGET_S THREADS SETTINGS

The budget is not enforced: the settings decide how long it takes, and the table marks who is late.
"""

import json
import sys
import time

import numpy as np
import torch
from peak_memory import peak_mib

from nwb_compact.backbones import Backbone, features, frozen_backbone
from nwb_compact.config import Teacher
from nwb_compact.teacher import TeacherSession, fit_teacher


def main() -> None:
    """Features, training, answers; then one line of JSON."""
    data_path, answers_path, _, threads, settings = sys.argv[1:]
    torch.set_num_threads(int(threads))
    changes = json.loads(settings)
    seed = changes.pop("seed")
    with np.load(data_path) as data:
        stored = dict(data)
    begin = time.monotonic()
    backbone = frozen_backbone(changes["backbone"], changes.get("layer", "auto"))
    n_sessions = sum(name.startswith("mean_") for name in stored)
    names = ["scored_images", *(f"images_{number}" for number in range(n_sessions))]
    seen = {name: looked_at(backbone, stored.pop(name)) for name in names}
    features_s = time.monotonic() - begin if backbone is not None else 0.0
    sessions = [
        TeacherSession(
            seen[f"images_{number}"], *(stored[f"{what}_{number}"] for what in ("mean", "fit", "validation")), is_lent=number > 0
        )
        for number in range(n_sessions)
    ]
    teacher = fit_teacher(sessions, Teacher(**changes), seed=seed, device="cpu")
    np.save(answers_path, teacher.predict(seen["scored_images"], 0))
    seconds = time.monotonic() - begin
    notes = f"{changes['members']} members, validation r2 {teacher.validation_r2[-1]:.3f}, {teacher.n_parameters:,} parameters"
    print(json.dumps({"seconds": seconds, "features_s": features_s, "peak_mib": peak_mib(), "notes": notes}))


def looked_at(backbone: Backbone | None, images: np.ndarray) -> np.ndarray:
    """Feature maps, or for `conv` the images themselves."""
    if backbone is None:
        return images
    assert backbone.layer is not None, "name the layer among the settings: this backbone has several"
    return features(backbone.network, images, layer=backbone.layer)


if __name__ == "__main__":
    main()
