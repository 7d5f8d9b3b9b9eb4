"""How SpikeInterface is let work: in threads, and in silence."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


def job_kwargs(n_jobs: int, **chunk: str) -> dict[str, object]:
    """Its settings for `n_jobs` threads; with processes a caller would need `if __name__ == "__main__"`.

    Examples
    --------
    >>> job_kwargs(2)
    {'n_jobs': 2, 'pool_engine': 'thread', 'progress_bar': False, 'chunk_duration': '1s'}
    >>> job_kwargs(1, chunk_memory="32M")
    {'n_jobs': 1, 'pool_engine': 'thread', 'progress_bar': False, 'chunk_memory': '32M'}
    """
    return {"n_jobs": n_jobs, "pool_engine": "thread", "progress_bar": False} | (chunk or {"chunk_duration": "1s"})


@contextmanager
def silence() -> Iterator[None]:
    """It prints, draws bars and warns of its own deprecations; what a user needs to know is told by the caller.

    Examples
    --------
    >>> with silence():
    ...     print("run_sorter")
    """
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        yield
