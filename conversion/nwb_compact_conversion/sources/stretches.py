"""Stretches of time, such as those in which a recording ran: joined, in common, and with gaps cut out.

A set of stretches is an array of starts and stops in seconds. What is returned ascends, and its stretches neither touch nor are empty.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Stretches = Float[np.ndarray, "_ 2"]


def joined(stretches: Stretches) -> Stretches:
    """The time that any of the stretches covers; those that touch become one, so that a window may lie across their border.

    Examples
    --------
    >>> joined(np.array([[5.0, 7.0], [0.0, 2.0], [2.0, 4.0]])).tolist()
    [[0.0, 4.0], [5.0, 7.0]]
    """
    return _covered(stretches, 1)


def in_common(sets: Sequence[Stretches]) -> Stretches:
    """The time that every set covers.

    Examples
    --------
    >>> in_common([np.array([[0.0, 4.0], [5.0, 7.0]]), np.array([[3.0, 6.0]])]).tolist()
    [[3.0, 4.0], [5.0, 6.0]]
    """
    return _covered(np.concatenate([joined(one) for one in sets]), len(sets))


def without(stretches: Stretches, gaps: Stretches) -> Stretches:
    """The time that the stretches cover and no gap does.

    Examples
    --------
    >>> without(np.array([[0.0, 10.0]]), np.array([[2.0, 3.0], [9.0, 12.0]])).tolist()
    [[0.0, 2.0], [3.0, 9.0]]
    """
    gaps = joined(gaps)
    rest = np.column_stack([np.append(-np.inf, gaps[:, 1]), np.append(gaps[:, 0], np.inf)])
    return in_common([stretches, rest])


def _covered(stretches: Stretches, times: int) -> Stretches:
    """Where at least so many of the stretches lie over each other."""
    edge_s = stretches.T.ravel()
    step = np.repeat([1, -1], len(stretches))
    order = np.lexsort((-step, edge_s))  # at one time starts come before stops
    is_in = np.cumsum(step[order]) >= times
    was_in = np.append(False, is_in[:-1])
    found = np.column_stack([edge_s[order][is_in & ~was_in], edge_s[order][~is_in & was_in]])
    return found[found[:, 0] < found[:, 1]]
