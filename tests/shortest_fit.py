"""Settings of fits that go through all stages and no further than they must, for tests of what a fit reads and writes."""

from collections.abc import Mapping

SHORTEST: Mapping[str, object] = {
    "bootstraps": 10,
    "teacher.members": 1, "teacher.epochs": 1, "teacher.least_steps": 1,
    "teacher.channels": 4, "teacher.trunk_channels": 4, "teacher.core_blocks": 1,
    "student.early_filters": [3, 3], "student.shared_filters": [3, 3, 3], "student.most_late_filters": [3, 3, 3],
    "distill.images_seen": 100, "distill.views": 1,
    "prune.images": 50, "prune.images_seen": 100, "prune.last_images_seen": 100,
}


def short_fit(changes: Mapping[str, object]) -> str:
    """The shortest fit with some settings changed, as the TOML of `--config`."""
    return "".join(f"{name} = {value}\n" for name, value in {**SHORTEST, **changes}.items())


SHORTEST_FIT = short_fit({})
