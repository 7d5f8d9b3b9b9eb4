"""Does a training end in the same bytes whenever it is started? Counts the outcomes of one tiny teacher in fresh processes.

    python benchmarks/same_bytes.py [--processes 100]

Printed are, with torch's first calls settled (`nwb_compact/first_calls.py`) and without, how often each outcome was seen; for each process
a hash of the teacher's answers. Only on an Intel CPU has more than one been seen.
"""

import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter

TRAINING = """
import hashlib
import numpy as np
from nwb_compact import config, teacher, training
from nwb_compact.memory import keep_freed_memory

if {unsettled}:
    training.settle_first_calls = lambda: None
keep_freed_memory()
rng = np.random.default_rng(0)
images, counts = rng.integers(0, 255, size=(60, 56, 56, 3), dtype=np.uint8), rng.poisson(3, size=(60, 4)).astype(float)
settings = config.Teacher(backbone="conv", members=2, epochs=3, least_steps=1, channels=8, trunk_channels=8)
session = teacher.TeacherSession(images, counts, np.arange(40), np.arange(40, 60))
print(hashlib.sha256(teacher.fit_teacher([session], settings, seed=0).predict(images, 0).tobytes()).hexdigest()[:8])
"""


def main() -> None:
    """Count and print."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=100)
    n = parser.parse_args().processes
    for name, unsettled in (("settled", False), ("not settled", True)):
        outcomes = Counter(outcome(unsettled=unsettled) for _ in range(n))
        print(f"{name:12s} " + ", ".join(f"{seen} of {n} {which}" for which, seen in outcomes.most_common()), flush=True)


def outcome(*, unsettled: bool) -> str:
    """Hash of the answers of a teacher trained in a process of its own."""
    code = TRAINING.format(unsettled=unsettled)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
