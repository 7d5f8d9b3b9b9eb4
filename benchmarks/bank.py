"""Students trained together against students trained one after another, on simulated neurons.

    python benchmarks/bank.py [--units 33] [--alone 3] [--pipeline 1] [--images-seen 20000] [--more 2] [--pool 2000] [--threads 2]

The teacher is the simulated neurons themselves. All `--units` students are trained together, pruned and retrained as a fit does, and so
are the first `--alone` ones, each by itself, with the same settings and pool. Those together see `--more` times as many images, since
each has a part of the network to itself only, and the time they save is there to be spent. The first `--pipeline` neurons also go through
the study's pipeline, by our optimizer and pruning: a network of 100 filters a layer for each, pruned, then trained as long again, on as
many images as those together see. r2 with the teacher is that of standalone students on 500 images that none has seen. In this run:

- wall time: all students one after another (the time of those alone, scaled to all) over all together;
- floating-point operations: the pipeline for each neuron (scaled to all) over all together;
- time a neuron, for 1, `--units` and 219 units;
- the rate of training over that of a large float32 matrix product in the same process.

Exit status 1 if all together cost more than 1/8 of the time, or more than 1/20 of the operations, or the median r2 of the same neurons is
lower than alone or than by the pipeline, or the rate is below 35 %.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from peak_memory import peak_mib

from nwb_compact import config
from nwb_compact.distill import Lessons, asked, lessons, n_views
from nwb_compact.image_pool import ImagePool
from nwb_compact.memory import keep_freed_memory
from nwb_compact.natural_images import natural_images
from nwb_compact.reliability import correlation
from nwb_compact.results import StudentWeights
from nwb_compact.simulated_neurons import expected_counts, simulated_neurons
from nwb_compact.student import n_parameters, predict_all
from nwb_compact.students import fit_students
from nwb_compact.work import Work

UNSEEN = 500
OF_THE_STUDY = 100
"""Filters in each layer of the network that the study trains for a neuron and then prunes."""
MANY = 219
STAGES = ("students", "pruning", "retraining")


def main() -> None:
    """Measure and print."""
    wanted = options(__doc__, units=33, alone=3, pipeline=1, images_seen=20_000, more=2.0, pool=2000)
    settings = of_length(wanted.images_seen)
    pixels = natural_images(wanted.pool + UNSEEN, seed=wanted.seed)
    taught, truth = lessons_of(wanted.units, pixels, settings, wanted.seed)
    rate = matrix_rate()
    longer = of_length(round(wanted.more * wanted.images_seen))
    together, seconds, flop = fitted(taught, longer, wanted.seed)
    r2_together = r2(predict_all(together, pixels[-UNSEEN:]), truth)
    first = flop["students"] / seconds["students"]
    print(f"{wanted.units} together: {sum(seconds.values()):.0f} s {told(seconds)}, {sum(flop.values()) / 1e12:.1f} TFLOP, "
          f"median r2 {np.median(r2_together):.3f}, {np.median([n_parameters(one) for one in together]):.0f} parameters; "
          f"{first / 1e9:.0f} GFLOP/s, {first / rate:.0%} of the matrix product's {rate / 1e9:.0f}", flush=True)
    judged = partial(one_by_one, taught=taught, unseen=pixels[-UNSEEN:], truth=truth, together=r2_together, seed=wanted.seed)
    alone, _, fair = judged("alone", wanted.alone, settings)
    _, pipeline, just = judged("by the study's pipeline", wanted.pipeline, as_in_the_study(longer))
    ratio = alone * wanted.units / sum(seconds.values())
    saved = pipeline * wanted.units / sum(flop.values())
    print(f"\none after another / together: {ratio:.1f} times the time")
    print(f"the study's pipeline / together: {saved:.0f} times the operations ({pipeline * wanted.units / 1e12:.0f} TFLOP)")
    short = settings.model_copy(update={
        "distill": settings.distill.model_copy(update={"images_seen": 2000}),
        "prune": settings.prune.model_copy(update={"images_seen": 600, "last_images_seen": 200, "images": 200}),
    })
    for n_units in (1, wanted.units, MANY):
        some, _ = lessons_of(n_units, pixels[: 500 + UNSEEN], short, wanted.seed)
        _, spent, _ = fitted(some, short, wanted.seed)
        print(f"{n_units} units, 2,000 images: {sum(spent.values()):.0f} s, {sum(spent.values()) / n_units:.2f} s a neuron", flush=True)
    print(f"peak memory {peak_mib():.0f} MiB")
    sys.exit(0 if ratio >= 8 and saved >= 20 and fair and just and first / rate >= 0.35 else 1)


def options(doc: str, **defaults: int | float) -> argparse.Namespace:
    """What the command line says; besides these numbers, of the type of their defaults, --threads (torch uses as many) and --seed."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, value in {**defaults, "threads": 2, "seed": 0}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    keep_freed_memory()
    return wanted


def of_length(images_seen: int) -> config.Fit:
    """A fit whose first training sees so many images, the others in the proportion of the settings."""
    usual = config.configure()
    share = images_seen / usual.distill.images_seen
    return config.configure(changes={
        "distill": {"images_seen": images_seen},
        "prune": {
            "images_seen": round(share * usual.prune.images_seen), "last_images_seen": round(share * usual.prune.last_images_seen),
            "images": 500,
        },
    })


def as_in_the_study(settings: config.Fit) -> config.Fit:
    """The same for a network of the study's size, trained as long again after it is pruned."""
    filters = (OF_THE_STUDY,) * 5
    return settings.model_copy(update={
        "student": settings.student.model_copy(update={"early_filters": filters[:2], "shared_filters": filters[2:]}),
        "prune": settings.prune.model_copy(update={"images_seen": settings.distill.images_seen}),
    })


def lessons_of(n_units: int, pixels: np.ndarray, settings: config.Fit, seed: int) -> tuple[Lessons, np.ndarray]:
    """What the neurons answer to views of all but the last images, and what they answer to these."""
    neurons, pool = simulated_neurons(n_units, seed=seed), ImagePool(pixels[:-UNSEEN])

    def teacher(images: np.ndarray) -> np.ndarray:
        return expected_counts(neurons, images).astype(np.float32)

    answers = tuple(asked(teacher, pool, view, settings.distill, seed=seed) for view in range(n_views(len(pool), settings)))
    return lessons(pool, answers, settings.distill, seed=seed), teacher(pixels[-UNSEEN:])


def one_by_one(
    name: str, n_units: int, how: config.Fit, *, taught: Lessons, unseen: np.ndarray, truth: np.ndarray, together: np.ndarray, seed: int
) -> tuple[float, float, bool]:
    """Train the first units each by itself: mean seconds and operations of one, and whether those together are as accurate."""
    took, did, r2_alone = [], [], []
    for unit in range(n_units):
        (student,), seconds, flop = fitted(of_unit(taught, unit), how, seed)
        took.append(sum(seconds.values()))
        did.append(sum(flop.values()))
        r2_alone.append(r2(predict_all((student,), unseen), truth[:, unit : unit + 1])[0])
        print(f"unit {unit} {name}: {took[-1]:.0f} s {told(seconds)}, {did[-1] / 1e12:.1f} TFLOP, {n_parameters(student)} parameters, "
              f"r2 {r2_alone[-1]:.3f} (together {together[unit]:.3f})", flush=True)
    medians = float(np.median(together[:n_units])), float(np.median(r2_alone))
    print(f"median r2 of the {n_units}: together {medians[0]:.4f}, {name} {medians[1]:.4f}", flush=True)
    return float(np.mean(took)), float(np.mean(did)), medians[0] >= medians[1]


def of_unit(taught: Lessons, unit: int) -> Lessons:
    only = slice(unit, unit + 1)
    answers = tuple(view[:, only] for view in taught.answers)
    return replace(taught, answers=answers, offset=taught.offset[only], scale=taught.scale[only])


def fitted(taught: Lessons, settings: config.Fit, seed: int) -> tuple[tuple[StudentWeights, ...], dict[str, float], dict[str, float]]:
    """Students, and the seconds and operations of each stage."""
    with TemporaryDirectory() as folder:
        work = Work("cpu", Path(folder), quiet=True)
        students = fit_students(taught, "0", settings, work, seed=seed)[None]
        costs = work.costs()
    return students, {name: costs[name].seconds for name in STAGES}, {name: float(costs[name].flop or 0) for name in STAGES}


def matrix_rate() -> float:
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = min(timed(lambda: a @ b) for _ in range(8))
    return 2 * 2048**3 / best


def timed(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def told(seconds: dict[str, float]) -> str:
    return "(" + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()) + ")"


def r2(predicted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return correlation(predicted.astype(float), wanted.astype(float)) ** 2


if __name__ == "__main__":
    main()
