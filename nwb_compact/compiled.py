"""Loops that numba compiles, for the few places where neither torch nor numpy has a fast operation."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import torch


def compiled(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call, without the shape checks that tests put around all functions.

    Its sums may be taken in any order (`fastmath`), else none could be taken several numbers at a time.
    """
    return lambda function: numba.njit(fastmath=True, error_model="numpy", parallel=parallel)(inspect.unwrap(function))


def threads() -> int:
    """As many threads as torch uses now and numba has; a parallel loop that is called next runs on so many."""
    wanted = torch.get_num_threads()
    few = min(wanted, _most_threads())
    numba.set_num_threads(few)
    return few


@cache
def _most_threads() -> int:
    """Starts numba's threads.

    As they start, numba tells OpenMP, and so torch, to use one a core, whatever OMP_NUM_THREADS or the caller said before.
    """
    of_torch = torch.get_num_threads()
    most = numba.get_num_threads()
    torch.set_num_threads(of_torch)
    return most
