"""Sets of stretches against the same sets as points on a fine grid."""

import numpy as np
import pytest

from nwb_compact_conversion.sources.stretches import in_common, joined, without

MIDDLES = np.arange(0.5, 40)
"""Borders are whole numbers, so that no middle lies on one."""


def drawn(rng, most=6):
    start = rng.integers(0, 36, rng.integers(0, most))
    return np.column_stack([start, start + rng.integers(0, 5, len(start))]).astype(float)


def on_grid(stretches):
    return ((stretches[:, :1] <= MIDDLES) & (stretches[:, 1:] > MIDDLES)).any(axis=0)


def is_tidy(stretches):
    return (np.diff(stretches.ravel()) > 0).all()


@pytest.mark.parametrize("seed", range(50))
def test_sets_of_stretches_are_sets_of_time(seed):
    rng = np.random.default_rng(seed)
    first, second, third = (drawn(rng) for _ in range(3))
    for found, expected in [
        (joined(first), on_grid(first)),
        (in_common([first, second]), on_grid(first) & on_grid(second)),
        (in_common([first, second, third]), on_grid(first) & on_grid(second) & on_grid(third)),
        (without(first, second), on_grid(first) & ~on_grid(second)),
    ]:
        np.testing.assert_array_equal(on_grid(found), expected)
        assert is_tidy(found)


def test_nothing_stays_nothing():
    none = np.zeros((0, 2))
    assert joined(none).shape == in_common([none, np.array([[0.0, 1.0]])]).shape == (0, 2)
    assert without(np.array([[0.0, 1.0]]), none).tolist() == [[0, 1]]
