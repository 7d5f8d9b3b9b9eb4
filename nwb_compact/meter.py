"""Seconds, operations, peak memory and joules of what is done inside a `with`.

A thread looks at memory twenty times a second, and every second at the energy counters, which begin again at 0 when they are full, and
tells what was spent so far, so that of a program that is killed no more than that is lost.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from nwb_compact.cost import Cost
from nwb_compact.operations import Count, counted

SAMPLE_S = 0.05
"""Between two looks at memory."""
TELL_S = 1.0
"""Between two looks at the energy counters, which fill up in some tens of minutes at the earliest."""
ROOT = Path("/")


@contextmanager
def metered(tell: Callable[[Cost], None], *, device: str = "cpu", root: Path = ROOT) -> Iterator[None]:
    """Measure what is done inside, in this thread as far as operations go. Must not stand inside another one.

    Parameters
    ----------
    tell
        Called every second, by another thread, and at the end, also of work that fails, with all that was spent so far.
    device
        cpu or cuda: whether a GPU's memory and energy belong to it.
    root
        Where the system's files are.

    Examples
    --------
    >>> told = []
    >>> with metered(told.append):
    ...     product = torch.zeros(2, 3) @ torch.zeros(3, 4)
    >>> told[-1].flop, told[-1].seconds > 0
    (48, True)
    """
    with counted() as count:
        meter = _Meter(count, device, root)
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(meter, tell, done), name="meter", daemon=True)
        watch.start()
        try:
            yield
        finally:
            done.set()
            watch.join()
            tell(meter.cost())


@dataclass(frozen=True)
class EnergyCounter:
    """A counter of the machine that only rises, until it begins again at 0."""

    name: str
    read: Callable[[], float]
    """Joules since some moment."""
    full: float = float("inf")
    """Joules at which it begins again."""

    def spent(self, before: float, now: float) -> float:
        """Joules between two readings, the counter having begun again at most once.

        Examples
        --------
        >>> EnergyCounter("package-0", lambda: 0.0, full=100.0).spent(90.0, 5.0)
        15.0
        """
        return now - before if now >= before else now - before + self.full


def energy_counters(device: str = "cpu", root: Path = ROOT) -> tuple[EnergyCounter, ...]:
    """Those that can be read: of each processor package (Linux, RAPL; most systems let only root read them), and of the GPU if it computes.

    They count what the whole package or GPU takes, whoever uses it, and not the memory beside it, discs or losses. A GPU's needs the
    package `pynvml`.

    Examples
    --------
    >>> energy_counters(root=Path("/no/such/folder"))
    ()
    """
    found = [_package(zone) for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))]
    return tuple(counter for counter in (*found, _gpu() if device == "cuda" else None) if counter is not None)


class _Meter:
    """What was spent since it was made."""

    def __init__(self, count: Count, device: str, root: Path):
        self.count, self.root, self.cuda = count, root, device == "cuda"
        self.start_s, self.high, self.peak = time.monotonic(), _high_water_bytes(root), _resident_bytes(root)
        self.counters = energy_counters(device, root)
        self.reading = [counter.read() for counter in self.counters]
        self.joules = 0.0
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def look(self) -> None:
        self.peak = max(self.peak, _resident_bytes(self.root))

    def cost(self) -> Cost:
        """Looks at everything."""
        self.look()
        high = _high_water_bytes(self.root)
        # Where the mark of the whole process rose, it rose here, and is exact. (What is sampled alone can miss a peak of milliseconds.)
        peak = high if high > self.high or not self.peak else self.peak
        self._read_energy()
        return Cost(
            seconds=time.monotonic() - self.start_s,
            flop=self.count.flop or None,
            peak_bytes=peak or None,
            gpu_peak_bytes=torch.cuda.max_memory_allocated() if self.cuda else None,
            joules=self.joules if self.counters else None,
        )

    def _read_energy(self) -> None:
        try:
            now = [counter.read() for counter in self.counters]
        except Exception:  # whatever a driver raises: a counter that is lost ends no fit, and what is left is no sum
            self.counters = ()
            return
        self.joules += sum(counter.spent(*pair) for counter, *pair in zip(self.counters, self.reading, now, strict=True))
        self.reading = now


def _watch(meter: _Meter, tell: Callable[[Cost], None], done: threading.Event) -> None:
    told_s = time.monotonic()
    while not done.wait(SAMPLE_S):
        meter.look()
        if time.monotonic() - told_s > TELL_S:
            told_s = time.monotonic()
            with suppress(OSError):  # a full disk is found by who does the work, which ends with a line that says so
                tell(meter.cost())


def _resident_bytes(root: Path) -> int:
    """Memory that the process holds now; 0 where the system does not tell."""
    try:
        return int((root / "proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _high_water_bytes(root: Path) -> int:
    """The most memory that the process has held since it began.

    Linux keeps it by itself: what `getrusage` gives there counts the process that started this one, too.
    """
    try:
        lines = (root / "proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _package(zone: Path) -> EnergyCounter | None:
    """None of a part of a package, of the platform around it, or where the file cannot be read."""
    try:
        name = (zone / "name").read_text().strip()
        full = int((zone / "max_energy_range_uj").read_text()) / 1e6
        counter = EnergyCounter(name, lambda: int((zone / "energy_uj").read_text()) / 1e6, full)
        counter.read()
    except (OSError, ValueError):
        return None
    return counter if name.startswith("package") else None


def _gpu() -> EnergyCounter | None:
    """Of the GPU that torch uses."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}")
        counter = EnergyCounter("gpu", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
        counter.read()
    except Exception:  # not installed, no driver, a GPU that does not count, an older torch: there is nothing to read
        return None
    return counter
