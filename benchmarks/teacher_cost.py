"""What the teacher's training costs with cached features, against the number of sessions and of members.

    python benchmarks/teacher_cost.py [--sessions 1 2 4 8] [--members 1 2 4 5 8] [--epochs 2] [--device cpu]

A session is 1,200 images, 40 units and random float16 maps of 232 x 10 x 10, the size of the example backbone's (examples/); numbers do not
change what a step costs. Every cell is a process of its own, which trains for one epoch and again for one and `--epochs` more: the
difference, divided by `--epochs`, is the time of an epoch with its validation, without what happens once. Memory is the process's
high-water mark, maps included.

Two tables are ratios in this run. Sessions: an epoch of n sessions over n epochs of one, 1 where cost grows linearly. Members: an
epoch of m members over m epochs of one, below 1 where it grows more slowly than the members. Exit status 1 if a fit of 8 sessions and 5
members with the standard number of epochs would take longer than 20 minutes or more than 6 GiB.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from peak_memory import peak_mib

from nwb_compact.config import Teacher
from nwb_compact.ensemble import BLOCK_KERNEL
from nwb_compact.memory import keep_freed_memory
from nwb_compact.teacher import TeacherSession, fit_teacher

IMAGES, UNITS, MAP = 1200, 40, (232, 10, 10)
VALIDATION_SHARE = 0.15
LIMIT_CELL, LIMIT_MINUTES, LIMIT_MIB = (8, 5), 20, 6 * 1024
Cells = dict[tuple[int, int], dict[str, float]]


def main() -> None:
    """Measure every cell and print three tables and what the standard preset would take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 5, 8])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--changes", type=json.loads, default={}, help="JSON, over the standard settings of config.Teacher")
    parser.add_argument("--cell", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cell:
        print(json.dumps(measure(*asked.cell, asked)))
        return
    cells: Cells = {}
    for sessions in asked.sessions:
        for members in asked.members:
            cells[sessions, members] = told = in_a_process(sessions, members)
            print(f"{sessions} sessions, {members} members: {told['epoch_s']:.2f} s an epoch, {told['peak_mib']:.0f} MiB, "
                  f"{told['member_images_a_s']:.0f} members x images / s, {told['share_of_matmul']:.0%} of the matmul rate", flush=True)
    table("seconds an epoch", asked, lambda n, m: f"{cells[n, m]['epoch_s']:8.2f}")
    table("peak memory, MiB", asked, lambda n, m: f"{cells[n, m]['peak_mib']:8.0f}")
    fewest, alone = min(asked.sessions), min(asked.members)
    table(f"sessions: an epoch of n sessions / (n / {fewest} epochs of {fewest})", asked,
          lambda n, m: f"{cells[n, m]['epoch_s'] / (n / fewest * cells[fewest, m]['epoch_s']):8.2f}")
    table(f"members: an epoch of m members / (m / {alone} epochs of {alone})", asked,
          lambda n, m: f"{cells[n, m]['epoch_s'] / (m / alone * cells[n, alone]['epoch_s']):8.2f}")
    sys.exit(0 if LIMIT_CELL not in cells or standard(cells[LIMIT_CELL]) else 1)


def table(title: str, asked: argparse.Namespace, cell: Callable[[int, int], str]) -> None:
    print(f"\n{title}\nsessions" + "".join(f"{members:6d} m" for members in asked.members))
    for sessions in asked.sessions:
        print(f"{sessions:8d}" + "".join(cell(sessions, members) for members in asked.members))


def standard(told: dict[str, float]) -> bool:
    """Whether all epochs of the standard preset fit the limits."""
    minutes = told["epoch_s"] * told["standard_epochs"] / 60
    sessions, members = LIMIT_CELL
    print(f"\n{sessions} sessions, {members} members, {told['standard_epochs']:.0f} epochs: {minutes:.1f} min (limit {LIMIT_MINUTES}), "
          f"{told['peak_mib'] / 1024:.2f} GiB (limit {LIMIT_MIB / 1024:.0f})")
    return minutes <= LIMIT_MINUTES and told["peak_mib"] <= LIMIT_MIB


def in_a_process(sessions: int, members: int) -> dict[str, float]:
    """One cell, measured by this program in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--cell", str(sessions), str(members)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    if done.returncode:
        sys.exit(f"the cell of {sessions} sessions and {members} members ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(n_sessions: int, members: int, asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of an epoch and the most memory of one cell, in this process."""
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    rng = np.random.default_rng(0)
    held = round(VALIDATION_SHARE * IMAGES)
    sessions = [
        TeacherSession(rng.standard_normal((IMAGES, *MAP), np.float32).astype(np.float16), rng.random((IMAGES, UNITS)),
                       np.arange(held, IMAGES), np.arange(held))
        for _ in range(n_sessions)
    ]

    def seconds(epochs: int) -> float:
        settings = Teacher(**{"backbone": "none", **asked.changes, "members": members, "epochs": epochs, "least_steps": 1})
        begin = time.perf_counter()
        fit_teacher(sessions, settings, seed=0, device=asked.device)
        return time.perf_counter() - begin

    rate = matmul_rate(asked.device)
    seconds(1)  # the first compiles, and takes memory from the system
    short = seconds(1)
    epoch_s = (seconds(1 + asked.epochs) - short) / asked.epochs
    settings = Teacher(**asked.changes)
    member_images = members * n_sessions * (IMAGES - held) / epoch_s
    return {"epoch_s": epoch_s, "peak_mib": peak_mib(), "standard_epochs": settings.epochs, "member_images_a_s": member_images,
            "share_of_matmul": member_images * 3 * products(settings) / rate}


def products(settings: Teacher) -> float:
    """Operations of a member's answer to one image, multiplications and additions counted each; a training step takes about three times."""
    channels, rows, columns = MAP
    block = settings.channels**2 + settings.channels * BLOCK_KERNEL**2
    return 2 * rows * columns * (channels * settings.channels + settings.core_blocks * block + settings.channels * UNITS)


def matmul_rate(device: str) -> float:
    """Operations a second of a large matrix product, in the precision that training uses."""
    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    one, other = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        begin = time.perf_counter()
        float((one @ other)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - begin)
    return 2 * n**3 / min(seconds)


if __name__ == "__main__":
    main()
