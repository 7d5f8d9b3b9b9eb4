"""Is what `interpret` says true? Asked of simulated neurons, whose wiring is known, and of the published models.

    python benchmarks/interpretation.py labels [--seeds 20]
    python benchmarks/interpretation.py images SESSION.nwb [--run RUN] [--pool 5000]
    python benchmarks/interpretation.py detectors MODELS.nwb [--run RUN] [--threads 2]
    python benchmarks/interpretation.py population MODELS.nwb [--run RUN] [--shown 300]
    python benchmarks/interpretation.py speed SESSION.nwb [--run RUN] [--minutes 10]

labels: a dot, an edge, a colour, a curvature and a texture neuron of each seed are shown the battery themselves; how many get the label of
what they are wired for. Exit status 1 unless all dot, edge, colour and curvature neurons do.

images: the made images of an interpreted run of a session that `nwb-compact simulate` wrote, shown to the true neurons. Exit status 1
unless at least 90 % of the neurons answer their best maximizing image more than the best of `--pool` natural images, as many answer their
minimizing one less than the median of these, and 80 % of the adversarial images move the true neuron the way they should.

detectors: of all students of a run (the published models: `nwb-compact convert cowley-v4-models`), those that select small dots, and how
necessary the filters of each layer are for that. Exit status 1 unless there is one that the study describes: a filter of its layer 4 is
necessary (index of at least 0.75), and none of its layer 3 (all below 0.25). The study counts kernels, so its filter k of layer 4 is the
one that gives our map k of layer 3.

population: of the same students, after which layer filters fall most, how alike the layers of different ones are (CKA), and how alike
their answers, over `--shown` natural images of the file. Exit status 1 unless it is as in the study: the largest fall after layer 3 in
198 of 219, by 50 filters in the median, p < 0.001; layers 1 and 2 more alike than 4 and 5, p < 0.001; answers with a mean r2 of 0.11,
within 0.02.

speed: `nwb-compact interpret` of copies of the file, with a quarter, a half and all of the units of a run. Exit status 1 unless all take at
most `--minutes`, and the cost of a unit does not rise by more than a tenth from half of them to all.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from nwb_compact.findings import size_curve
from nwb_compact.images import as_rgb
from nwb_compact.interpretation.ablation import answers_without_each, filters, size_index
from nwb_compact.interpretation.consolidation import consolidation, drop_test
from nwb_compact.interpretation.physiology import probed, tuning
from nwb_compact.interpretation.preference import preferences
from nwb_compact.interpretation.receptive_field import receptive_fields
from nwb_compact.interpretation.similarity import early_late_test, output_similarity, similarity
from nwb_compact.interpretation.stimuli import battery
from nwb_compact.natural_images import natural_images
from nwb_compact.nwb_interpretation import read_interpretation
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import open_session
from nwb_compact.simulated_neurons import LATER_ROLES, Neuron, expected_counts, neurons_from_wiring, simulated_neurons
from nwb_compact.student import N_LAYERS, filters_per_layer, predict_all

LEAST_SUPPRESSION, LARGEST_DOT_PX = 0.5, 24.0
MUST_BE_RIGHT = ("dot", "edge", "colour", "curvature")
FIELD_IMAGES, FIELD_SEED = 6, 5
POOL_SEED = 10_001
"""Another one than any simulated session has, so that its images are new."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    asked: dict[Callable[[argparse.Namespace], bool], dict[str, float]] = {
        labels: {"seeds": 20}, images: {"pool": 5000}, detectors: {"threads": 2}, population: {"shown": 300},
        speed: {"minutes": 10.0},
    }
    for measure, defaults in asked.items():
        command = commands.add_parser(measure.__name__)
        if measure is not labels:
            command.add_argument("session", type=Path)
            command.add_argument("--run")
        for name, value in defaults.items():
            command.add_argument(f"--{name}", type=type(value), default=value)
        command.set_defaults(measure=measure)
    wanted = parser.parse_args()
    sys.exit(0 if wanted.measure(wanted) else 1)


def labels(wanted: argparse.Namespace) -> bool:
    """How the true neurons are labelled."""
    stimuli, natural = battery(), natural_images(FIELD_IMAGES, seed=FIELD_SEED)
    given: dict[str, list[str]] = {role: [] for role in LATER_ROLES}
    for seed in range(wanted.seeds):
        neurons = simulated_neurons(len(LATER_ROLES), seed=seed)
        answers = partial(answers_of, neurons)
        shown = probed(answers, receptive_fields(answers, len(neurons), natural), stimuli)
        found = preferences(stimuli, shown, tuning(stimuli, shown))["preference"]
        for neuron, label in zip(neurons, found, strict=True):
            given[neuron.role].append(str(label))
    print("wired for   right  labels")
    for role, labels_of_role in given.items():
        names, n = np.unique(labels_of_role, return_counts=True)
        right = labels_of_role.count(role) / len(labels_of_role)
        print(f"{role:10s} {right:6.0%}  " + ", ".join(f"{count} {name}" for name, count in zip(names, n, strict=True)))
    return all(set(given[role]) == {role} for role in MUST_BE_RIGHT)


def answers_of(neurons: Sequence[Neuron], images: np.ndarray, units: Sequence[int]) -> np.ndarray:
    """The true neurons as a model."""
    return expected_counts([neurons[unit] for unit in units], images)


def images(wanted: argparse.Namespace) -> bool:
    """How the true neurons answer images that were made for their students."""
    results = read_results(wanted.session, wanted.run)[-1]
    found = read_interpretation(wanted.session, results.run_id)["made_images"]
    with open_session(wanted.session) as session:
        neurons, pixels = {neuron.name: neuron for neuron in neurons_from_wiring(session.wiring)}, as_rgb(session.images.pixels)
    units = sorted(set(found["unit"].tolist()))
    true = [neurons[results.unit_name[unit]] for unit in units]
    natural = expected_counts(true, natural_images(wanted.pool, seed=POOL_SEED))
    answers = expected_counts(true, found["image"])
    start = expected_counts(true, pixels[np.maximum(found["start_row"], 0)])
    best, least, moved = [], [], []
    print("unit        role       r2    best natural  best maximizing  median natural  best minimizing")
    for column, unit in enumerate(units):
        of_unit = found["unit"] == unit
        most = answers[of_unit & (found["kind"] == "maximizing"), column].max()
        fewest = answers[of_unit & (found["kind"] == "minimizing"), column].min()
        best.append(most > natural[:, column].max())
        least.append(fewest < np.median(natural[:, column]))
        r2 = results.scores["student_r2"][unit]
        print(f"{results.unit_name[unit]:10s} {true[column].role:10s} {r2:.2f} {natural[:, column].max():12.2f} "
              f"{most:14.2f} {np.median(natural[:, column]):14.2f} {fewest:14.2f}")
        for kind, sign in (("adversarial-up", 1), ("adversarial-down", -1)):
            chosen = of_unit & (found["kind"] == kind)
            moved += (sign * (answers[chosen, column] - start[chosen, column]) > 0).tolist()
    print(f"maximizing images above the best of {wanted.pool} natural ones: {np.mean(best):.0%} of {len(units)} neurons; "
          f"minimizing ones below their median: {np.mean(least):.0%}; adversarial images that move the neuron as they should: "
          f"{np.mean(moved):.0%} of {len(moved)}")
    return bool(np.mean(best) >= 0.9 and np.mean(least) >= 0.9 and np.mean(moved) >= 0.8)


def detectors(wanted: argparse.Namespace) -> bool:
    """Which students detect dots, and by filters of which layer."""
    torch.set_num_threads(wanted.threads)
    students = read_results(wanted.session, wanted.run)[-1].students
    natural, dots = natural_images(FIELD_IMAGES, seed=FIELD_SEED), [one for one in battery() if one.family in ("blank", "dot")]

    def answers(images: np.ndarray, units: Sequence[int]) -> np.ndarray:
        return predict_all([students[unit] for unit in units], images).astype(np.float64)

    fields = receptive_fields(answers, len(students), natural)
    tuned = tuning(dots, probed(answers, fields, dots))

    def largest_indices(unit: int) -> np.ndarray:
        intact, silenced = answers_without_each(students[unit], size_curve(fields, tuned, unit))
        layer, _ = filters(students[unit])
        index = size_index(silenced, intact)
        return np.array([index[layer == n].max() for n in range(1, N_LAYERS + 1)])

    selective = np.flatnonzero((tuned["size_suppression"] >= LEAST_SUPPRESSION) & (tuned["dot_px"] <= LARGEST_DOT_PX))
    with ThreadPoolExecutor(wanted.threads, initializer=lambda: threadpool_limits(1, user_api="openmp")) as threads:
        found = np.stack(list(threads.map(largest_indices, selective.tolist())))
    as_described = (found[:, 1] < 0.25) & (found[:, 2] >= 0.75)
    print(f"{len(selective)} of {len(students)} students are suppressed by at least {LEAST_SUPPRESSION:.0%} by the largest dot and prefer "
          f"one of at most {LARGEST_DOT_PX:g} px; {as_described.sum()} of them as the study describes")
    print("unit  dot, px  suppression  largest index of our maps of layers 1 to 5 (the study's layers 2 to 5 and the readout)")
    for row in np.argsort(found[:, 1] - found[:, 2], kind="stable")[:10]:
        unit, indices = selective[row], " ".join(f"{one:.2f}" for one in found[row])
        print(f"{unit:4d} {tuned['dot_px'][unit]:8g} {tuned['size_suppression'][unit]:12.2f}  {indices}")
    return bool(as_described.any())


def population(wanted: argparse.Namespace) -> bool:
    """What the students of a run have in common."""
    results = read_results(wanted.session, wanted.run)[-1]
    with open_session(wanted.session) as session:
        natural = np.flatnonzero(np.array(session.images.kind) == "natural")
        shown = as_rgb(session.images.pixels[natural[np.linspace(0, len(natural) - 1, wanted.shown).astype(int)]])
    filters = np.stack([filters_per_layer(student) for student in results.students])
    after, fall = np.bincount(consolidation(filters)["largest_drop_after_layer"], minlength=N_LAYERS), drop_test(filters)
    print(f"{len(filters)} students: the largest fall is after layer 1, 2, 3, 4 in {', '.join(map(str, after[1:5]))}; after layer 3 "
          f"{fall['median_drop'][0]:.0f} filters in the median, p = {fall['p'][0]:.4f}")
    similar = similarity(results.students, shown)
    test = early_late_test(similar)
    print(f"CKA of layers 1 to 5 over {len(shown)} images, medians of pairs: " + " ".join(f"{one:.2f}" for one in similar["median_cka"])
          + f"; layers 1 and 2 {test['median_early'][0]:.2f}, 4 and 5 {test['median_late'][0]:.2f}, p = {test['p'][0]:.4f}")
    answers = np.nanmean(output_similarity(predict_all(results.students, shown))["mean_r2"])
    print(f"answers of different students: mean r2 {answers:.3f}")
    as_filters = after[3] == 198 and fall["median_drop"][0] == 50 and fall["p"][0] < 0.001
    alike = test["median_early"][0] > test["median_late"][0] and test["p"][0] < 0.001 and abs(answers - 0.11) <= 0.02
    return bool(as_filters and alike)


def speed(wanted: argparse.Namespace) -> bool:
    """How long the whole battery takes."""
    results, cost = read_results(wanted.session, wanted.run)[-1], {}
    n_all = len(results.unit_name)
    for n in (n_all // 4, n_all // 2, n_all):
        with TemporaryDirectory() as folder:
            copy = shutil.copy(wanted.session, folder)
            command = [sys.executable, "-m", "nwb_compact.cli", "interpret", copy, "--run", results.run_id, "--quiet"]
            begin = time.monotonic()
            subprocess.run([*command, "--units", *results.unit_name[:n]], check=True, stdout=subprocess.DEVNULL)
            cost[n] = time.monotonic() - begin
        print(f"{n} units: {cost[n]:.0f} s, {cost[n] / n:.1f} s a unit", flush=True)
    linear = cost[n_all] / n_all <= 1.1 * cost[n_all // 2] / (n_all // 2)
    return linear and cost[n_all] <= 60 * wanted.minutes


if __name__ == "__main__":
    main()
