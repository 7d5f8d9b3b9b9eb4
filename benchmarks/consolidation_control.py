"""Does pruning alone make consolidation and early filters in common? Students of simulated neurons against students of shuffled answers.

    python benchmarks/consolidation_control.py [--units 16] [--images-seen 20000] [--pool 2000] [--threads 2]

Both are trained, pruned and retrained in the same way; for the second the neurons' answers are put to other images, so that there is
nothing to learn. Printed are, for both: r2 with what was taught on the images it was taught with, filters kept by layer, after which layer
most of them go in how many units (`consolidation`), and how alike the layers of different units are (`similarity`).

What both have in common is made by the procedure, not by the neurons.
"""

from dataclasses import replace

import numpy as np
from bank import UNSEEN, fitted, lessons_of, of_length, options, r2

from nwb_compact.distill import Lessons
from nwb_compact.interpretation.consolidation import consolidation
from nwb_compact.interpretation.similarity import similarity
from nwb_compact.natural_images import natural_images
from nwb_compact.student import filters_per_layer, predict_all

COMPARED_IMAGES = 100


def main() -> None:
    """Measure and print."""
    wanted = options(__doc__, units=16, images_seen=20_000, pool=2000)
    settings, pixels = of_length(wanted.images_seen), natural_images(wanted.pool + UNSEEN, seed=wanted.seed)
    taught, _ = lessons_of(wanted.units, pixels, settings, wanted.seed)
    rows = np.arange(min(500, wanted.pool))
    print("taught      r2    filters of layers 1 to 5   most filters go after layer 1, 2, 3, 4, 5 (units)   CKA of layers 1 to 5")
    for name, lessons in (("the answers", taught), ("shuffled", shuffled(taught, wanted.seed))):
        students, _, _ = fitted(lessons, settings, wanted.seed)
        accuracy = np.median(r2(predict_all(students, lessons.images(rows)), lessons.z(rows)))
        filters = np.stack([filters_per_layer(student) for student in students])
        after = consolidation(filters)["largest_drop_after_layer"]
        drops = " ".join(str(int((after == layer).sum())) for layer in range(1, 6))
        cka = " ".join(f"{one:.2f}" for one in similarity(students, pixels[-COMPARED_IMAGES:])["median_cka"])
        kept = " ".join(f"{one:.0f}" for one in np.median(filters, axis=0))
        print(f"{name:11s} {accuracy:.2f}  {kept:25s}  {drops:55s} {cka}", flush=True)


def shuffled(taught: Lessons, seed: int) -> Lessons:
    """The same images and views, each with the answers to another picture."""
    order = np.random.default_rng(seed).permutation(len(taught.pictures))
    return replace(taught, answers=tuple(view[order] for view in taught.answers))


if __name__ == "__main__":
    main()
