"""Progress of long work: a bar with an estimate on a terminal, one plain line at a time in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY_S = 15.0
"""Seconds between two lines of one stage in a log."""


@runtime_checkable
class Advance(Protocol):
    """Says that some of a stage's work is done, with a word on how it goes."""

    def __call__(self, n: int = 1, note: str = "") -> None:
        """Add `n` steps; `note` replaces the last one."""


def silent(n: int = 1, note: str = "") -> None:
    """An `Advance` that says nothing, for use from Python and in tests."""


@contextmanager
def stage(name: str, total: int, *, quiet: bool = False) -> Iterator[Advance]:
    """Show the progress of one stage on standard error.

    Parameters
    ----------
    name
        What is being done, in a few words.
    total
        Steps of the whole stage.
    quiet
        Show nothing.

    Examples
    --------
    >>> with stage("counting", 2, quiet=True) as advance:
    ...     advance()
    ...     advance(note="done")
    """
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=total, note="")
            yield lambda n=1, note="": bar.update(task, advance=n, **({"note": note} if note else {}))
    else:
        yield _LogLines(name, total)


class _LogLines:
    """Writes a line when a stage ends and at most one each `LOG_EVERY_S` before."""

    def __init__(self, name: str, total: int):
        self.name, self.total, self.done, self.note = name, total, 0, ""
        self.started = self.last_line = time.monotonic()

    def __call__(self, n: int = 1, note: str = "") -> None:
        self.done, self.note = self.done + n, note or self.note
        now = time.monotonic()
        if self.done < self.total and now - self.last_line < LOG_EVERY_S:
            return
        self.last_line, elapsed = now, now - self.started
        left = elapsed * (self.total - self.done) / max(self.done, 1)
        until = f", {left:.0f} s left" if self.done < self.total else ""
        print(f"{self.name}: {self.done}/{self.total}, {elapsed:.0f} s{until}  {self.note}".rstrip(), file=sys.stderr, flush=True)
