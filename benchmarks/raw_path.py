"""From simulated voltage to students, against the truth: what is lost between the neurons and a lab's session file.

    python benchmarks/raw_path.py FOLDER [--layout probe|utah] [--units 16] [--images 600] [--repeats 6] [--channels 16]
                                         [--preset standard] [--no-fit]

Simulates a recording, converts it as a lab would (`nwb-compact convert recording` with the session.yaml that was simulated), fits the
true spikes and the sorted ones with the same settings, and prints: well isolated units found with an accuracy of at least 0.8
(SpikeInterface: hits / (hits + misses + false alarms), 0.4 ms), the correlation of their counts with the true ones over valid
presentations, and the students' r2_ER of both fits over the same units. What is in FOLDER already is not made again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from spikeinterface import NumpySorting
from spikeinterface.comparison import compare_sorter_to_ground_truth

from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import read_session
from nwb_compact.session import Session, Units

RATE_HZ = 30_000.0
FOUND_ACCURACY = 0.8
SAME_PRESENTATION_S = 0.02


def main() -> None:
    """Make what is not there, then print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for name, default in {"layout": "probe", "units": "16", "images": "600", "repeats": "6", "channels": "16", "seed": "0"}.items():
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--no-fit", action="store_true")
    asked = parser.parse_args()
    truth, lab, converted = asked.folder / "truth.nwb", asked.folder / "lab", asked.folder / "converted.nwb"
    asked.folder.mkdir(parents=True, exist_ok=True)
    if not truth.exists():
        options = [f"--{name}={getattr(asked, name)}" for name in ("layout", "units", "images", "repeats", "channels", "seed")]
        run("simulate", truth, "--raw", lab, *options)
    if not converted.exists():
        run("convert", "recording", lab / "recording", "--events", lab / "events.csv", "--yaml", lab / "session.yaml", "-o", converted)
    true, sorted_ = read_session(truth), read_session(converted)
    match = matched(true.units, sorted_.units)
    compare(true, sorted_, match)
    if not asked.no_fit:
        for file_path in (truth, converted):
            if not read_results(file_path):
                run("fit", file_path, "--preset", asked.preset, "--seed", "1")
        compare_fits(truth, converted, match, true.units, sorted_.units)


def run(*words: object) -> None:
    """One command of the program."""
    subprocess.run([sys.executable, "-m", "nwb_compact.cli", *map(str, words)], check=True)


def matched(true: Units, found: Units) -> list[tuple[int, int, float]]:
    """Pairs of a true unit and the one that was found for it, one to one, and their accuracy."""
    comparison = compare_sorter_to_ground_truth(as_sorting(true), as_sorting(found), exhaustive_gt=True)
    accuracy = comparison.get_performance()["accuracy"]
    best = comparison.best_match_12
    return [(int(unit), int(best[unit]), float(accuracy[unit])) for unit in best.index if best[unit] != -1]


def as_sorting(units: Units) -> NumpySorting:
    """Spike times as SpikeInterface compares them."""
    assert units.spike_times_s is not None
    samples = {row: np.round(times * RATE_HZ).astype(np.int64) for row, times in enumerate(units.spike_times_s)}
    return NumpySorting.from_unit_dict([samples], RATE_HZ)


def compare(true: Session, sorted_: Session, match: list[tuple[int, int, float]]) -> None:
    """Units and counts."""
    isolated = true.units.properties["is_well_isolated"].astype(bool)
    found = {unit for unit, _, accuracy in match if accuracy >= FOUND_ACCURACY}
    n_found, n_isolated = len(found & set(np.flatnonzero(isolated).tolist())), int(isolated.sum())
    print(f"units: {len(true.units)} true ({n_isolated} well isolated), {len(sorted_.units)} sorted; "
          f"{n_found} of {n_isolated} well isolated ones found with accuracy >= {FOUND_ACCURACY} ({100 * n_found / n_isolated:.0f} %)")
    rows_true, rows_sorted = same_presentations(true, sorted_)
    counts, other_counts = (session.counts.count for session in (true, sorted_))  # type: ignore[union-attr]
    r = [np.corrcoef(counts[rows_true, unit], other_counts[rows_sorted, other])[0, 1]
         for unit, other, accuracy in match if accuracy >= FOUND_ACCURACY]
    print(f"counts of {len(r)} matched units in {len(rows_true)} valid presentations: correlation with the truth "
          f"median {np.median(r):.4f}, lowest {np.min(r):.4f}")


def same_presentations(true: Session, sorted_: Session) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both that are the same presentation, both valid."""
    shown, other = true.presentations, sorted_.presentations
    nearest = np.abs(shown.start_time_s[None] - other.start_time_s[:, None]).argmin(1)  # type: ignore[union-attr,index]
    apart_s = np.abs(shown.start_time_s[nearest] - other.start_time_s)  # type: ignore[union-attr,index]
    same = (apart_s < SAME_PRESENTATION_S) & other.is_valid & shown.is_valid[nearest]  # type: ignore[union-attr]
    return nearest[same], np.flatnonzero(same)


def compare_fits(truth: Path, converted: Path, match: list[tuple[int, int, float]], true: Units, found: Units) -> None:
    """Students of the same units, fitted on the true spikes and on the sorted ones."""
    of_true, of_sorted = (dict(zip(run.unit_name, run.scores["student_r2_er"], strict=True)) for run in
                          (read_results(truth)[-1], read_results(converted)[-1]))
    known = [(true.name[unit], found.name[other]) for unit, other, accuracy in match if accuracy >= FOUND_ACCURACY]
    of_true, of_sorted = np.array([(of_true[one], of_sorted[other]) for one, other in known if one in of_true and other in of_sorted]).T
    lost = np.median(of_true) - np.median(of_sorted)
    print(f"students' r2_ER of {len(of_true)} matched units: true {np.median(of_true):.3f}, sorted {np.median(of_sorted):.3f} (medians), "
          f"lost {lost:.3f} (median of the differences {np.median(of_true - of_sorted):.3f})")


if __name__ == "__main__":
    main()
