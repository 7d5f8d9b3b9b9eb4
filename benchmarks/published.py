"""Our students beside the published compact models: the same neurons, the same held-out images, one table.

    nwb-compact convert cowley-v4 --data V4_compact_models --session 190923 -o 190923.nwb            (and the sessions that are lent)
    nwb-compact convert cowley-v4-models --data V4_compact_models -o models.nwb
    PYTHONPATH=examples nwb-compact fit 190923.nwb --train 190925.nwb ... --backbone torch:efficientnet_lite0:features --images PHOTOS.zip
    python benchmarks/published.py 190923.nwb models.nwb

r2 is that of the repeat average on the second half of the session's images, which fitted neither. The study counts parameters with
BatchNorm as numbers of its own; ours are folded, and so are the published ones here, but for the column that says otherwise.
Exit status 1 if our students' median is below 0.38, more than 0.03 below our teacher's, or their median size is above 12,500.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nwb_compact.cost import costs_of
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import open_session
from nwb_compact.results import Results, median

LEAST_R2, LARGEST_GAP, MOST_PARAMETERS = 0.38, 0.03, 12_500
BOOTSTRAPS = 2000


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fitted", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--run", help="of the fitted file; its last one by default")
    asked = parser.parse_args()
    ours = read_results(asked.fitted, asked.run)[-1]
    published = {run.run_id: run for run in read_results(asked.models)}
    with open_session(asked.fitted) as read:
        session = read.about.session_id
    print(f"{len(ours.unit_name)} units of {session}, {ours.side.count('scored')} images; run {ours.run_id}")
    print("model                          median r2  90 % interval   mean   parameters  filters a layer (medians)  ahead of published in")
    compact = Rows(published["published-compact"], ours.unit_name, session)
    line("our teacher", ours.scores["teacher_r2"], None, None, compact.r2)
    line("our students", ours.scores["student_r2"], ours.scores["student_parameters"], ours.filters_per_layer, compact.r2)
    line("published compact models", compact.r2, compact.parameters, compact.filters, compact.r2)
    for run_id, run in published.items():
        if run_id.startswith("published-shared-"):
            shared = Rows(run, ours.unit_name, session)
            line(f"published, shared {run_id.rsplit('-', 1)[1]}", shared.r2, shared.parameters, shared.filters, compact.r2)
    print(f"students with our teacher: median r2 {median(ours.scores['teacher_student_r2']):.3f}")
    for stage, cost in costs_of(ours.provenance).items():
        print(f"{stage}: {cost.seconds / 60:.1f} min, {(cost.peak_bytes or np.nan) / 2**30:.2f} GiB")
    teacher, student = median(ours.scores["teacher_r2"]), median(ours.scores["student_r2"])
    held = student >= LEAST_R2 and student >= teacher - LARGEST_GAP and median(ours.scores["student_parameters"]) <= MOST_PARAMETERS
    sys.exit(0 if held else 1)


class Rows:
    """The rows of a run of published models that are of some units, in their order."""

    def __init__(self, run: Results, unit_names: Sequence[str], session: str):
        rows = [run.unit_name.index(f"{session}-{name}") for name in unit_names]
        self.r2 = run.scores["student_r2"][rows]
        self.parameters = run.scores["student_parameters"][rows]
        self.filters = run.filters_per_layer[rows]


def line(name: str, r2: np.ndarray, parameters: np.ndarray | None, filters: np.ndarray | None, published: np.ndarray) -> None:
    rng, known = np.random.default_rng(0), r2[np.isfinite(r2)]
    low, high = np.quantile([np.median(rng.choice(known, len(known))) for _ in range(BOOTSTRAPS)], [0.05, 0.95])
    size = "" if parameters is None else f"{np.median(parameters):,.0f}"
    layers = "" if filters is None else " ".join(f"{n:.0f}" for n in np.median(filters, axis=0))
    ahead = f"{(r2 > published).sum()} of {len(r2)}"
    print(f"{name:30s} {np.median(known):9.3f}  {low:.3f} to {high:.3f} {known.mean():6.3f}  {size:>11s}  {layers:26s} {ahead}")


if __name__ == "__main__":
    main()
