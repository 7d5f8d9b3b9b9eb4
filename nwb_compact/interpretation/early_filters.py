"""Early filters: what the kernels of layer 1 look for, and which of them many units have in common.

Layer 1 is the only one whose kernels look at the image itself, so each can be described in the field's terms: how much it cares about
colour, and which orientation, spatial frequency and phase it has. The description is a fit, and `gabor_r2` says how far to believe it.
Kernels are alike by the cosine of the angle between them. Its sign counts, since filters are rectified and one with the opposite sign
answers where the other is silent. Their size does not, since the weights of the next layer can make up for it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.results import StudentWeights
from nwb_compact.student import KERNEL_PX

ORIENTATIONS_DEG = tuple(15.0 * step for step in range(12))
FREQUENCIES_CPP = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Cycles a pixel. 0 is a blob; at 0.1 a kernel shows half a cycle, and below that no difference; 0.5 is the most that pixels can show."""
SIZES_PX = (1.0, 1.5, 2.5, 5.0)
"""Standard deviation of the Gaussian, pixels; at 5 a kernel is all sinusoid."""
ALIKE = 0.7
"""Least cosine of kernels that count as alike. Of the 10,201 kernels of the published models the most common is then found in 141 of 219
models (0.8: 36), and in 15 (0.8: 3) where kernels are Gaussian noise with the same covariance."""
NO_HALF = 1e-6
"""Length of a sine that is 0 at every pixel but for rounding: of a blob, and of two pixels a cycle."""
NO_CLUSTER = -1
"""Of kernels that are 0 everywhere or hold no number."""
N_WEIGHTS = 3 * KERNEL_PX**2
CHUNK = 2048
"""Kernels that are compared with all others at a time, to bound memory."""
FIT_COLUMNS: Mapping[str, str] = {
    "colour_opponency": "share of the kernel's energy that is not along the achromatic direction (1, 1, 1): 0 grey, 1 no answer to grey",
    "colour": "dominant colour direction, length 1, red green blue: first principal component over colours, uncentred; its sum is positive",
    "colour_share": "share of the kernel's energy along that direction: 1 where all colours have one profile",
    "orientation_deg": "of the bars or edges, degrees counter-clockwise from horizontal, in steps of 15; NaN for a blob",
    "frequency_cpp": "spatial frequency, cycles a pixel of the 112 of an image; 0: a blob",
    "phase_deg": "0: the dominant colour in the middle, 180: the opposite one; -90: the dominant colour above (at a vertical edge to the "
    "left), 90: below",
    "odd_share": "share of the fit's energy that is odd: 0 a bar or blob, 1 an edge",
    "size_px": "standard deviation of the Gaussian envelope, pixels",
    "gabor_r2": "share of the energy of the profile in the dominant colour direction that the Gabor explains; the median of white noise is "
    "0.32, its 95th percentile 0.48",
}
"""What `gabor_fit` finds of each kernel."""


def early_filters(students: Sequence[StudentWeights], *, alike: float = ALIKE) -> tuple[Table, Table]:
    """Describe every filter of layer 1 of all students, and find those that units have in common.

    Parameters
    ----------
    students
        One a unit.
    alike
        Least cosine between a kernel and the one that stands for its cluster.

    Returns
    -------
    filters
        One row a filter of a unit: `unit`, `filter`, `FIT_COLUMNS`, its `cluster` and the cosine to that cluster's kernel.
    clusters
        One row a cluster, that with most filters first: its `kernel`, filters, units that use it (each counted once), and shares of all.

    Examples
    --------
    >>> from nwb_compact.student import example_student
    >>> first, other = example_student(3, seed=0), example_student(3, seed=1)
    >>> filters, clusters = early_filters([first, other, first])        # as students cut from one network hold the same filters
    >>> filters["cluster"], clusters["n_units"]
    (array([0, 1, 2, 3, 4, 5, 0, 1, 2]), array([2, 2, 2, 1, 1, 1]))
    """
    n_filters = [len(student.arrays["layer1.kernel"]) for student in students]
    unit = np.repeat(np.arange(len(students)), n_filters)
    number = np.arange(len(unit)) - np.repeat(np.cumsum(n_filters, dtype=int) - n_filters, n_filters)
    kernels = np.concatenate([np.empty((0, 3, KERNEL_PX, KERNEL_PX)), *(student.arrays["layer1.kernel"] for student in students)])
    cluster, leader = clustered(kernels, alike)
    directions = _directions(kernels)[0].reshape(kernels.shape)
    cosine = (directions * directions[leader][cluster]).sum(axis=(1, 2, 3)) if len(leader) else np.full(len(unit), np.nan)
    filters = {
        UNIT: Column("row of the unit in the run", unit),
        "filter": Column("number of the filter in layer 1 of the unit's student, from 0", number),
        **{name: Column(FIT_COLUMNS[name], values) for name, values in gabor_fit(kernels).items()},
        "cluster": Column(f"row of its cluster among those of alike filters; {NO_CLUSTER} where the kernel is 0 or no number", cluster),
        "cosine": Column("cosine between the kernel and that of its cluster", np.where(cluster == NO_CLUSTER, np.nan, cosine)),
    }
    return Table("Filters of layer 1 of all students", filters), _clusters(directions[leader], cluster, unit, len(students), alike)


def gabor_fit(kernels: Float[np.ndarray, "filter 3 5 5"]) -> dict[str, Float[np.ndarray, "filter ..."]]:
    """The Gabor nearest to each kernel's profile in its dominant colour direction.

    The profile is fitted by exp(-(x^2 + y^2) / (2 size^2)) cos(2 pi frequency u + phase), about the middle of the kernel, where u runs
    across the bars: upwards where they are horizontal, to the left where they are vertical. Orientation, frequency and size are those of a
    grid (`ORIENTATIONS_DEG`, `FREQUENCIES_CPP`, `SIZES_PX`) that explain most; amplitude and phase are least squares, of the even and the
    odd half of the Gabor, which are orthogonal since the kernel is symmetric about its middle.

    Parameters
    ----------
    kernels
        Of layer 1, colours red, green, blue, row 0 at the top.

    Returns
    -------
    `FIT_COLUMNS`, (filter,) each and `colour` (filter 3); NaN for a kernel that is 0 or holds no number.

    Examples
    --------
    >>> stripes = np.zeros((1, 3, 5, 5))
    >>> stripes[:, :, [0, 2, 4]], stripes[:, :, [1, 3]] = 1, -1          # light rows 0, 2 and 4: horizontal, two pixels a cycle
    >>> found = gabor_fit(stripes)
    >>> [float(found[name][0].round(3)) for name in ("orientation_deg", "frequency_cpp", "phase_deg", "colour_opponency")]
    [0.0, 0.5, 0.0, 0.0]
    """
    directions, known = _directions(kernels)
    by_colour = directions.reshape(len(kernels), 3, KERNEL_PX**2)
    energy, colours = np.linalg.eigh(by_colour @ by_colour.transpose(0, 2, 1))
    colour = colours[:, :, -1] * np.where(colours[:, :, -1].sum(axis=1) < 0, -1, 1)[:, None]
    profile = np.einsum("fc,fcp->fp", colour, by_colour)
    parameters, halves, lengths = _gabors()
    best = ((profile @ halves.transpose(0, 2, 1)) ** 2).sum(axis=0).argmax(axis=1)
    explained = (profile * halves[:, best]).sum(axis=2)
    even, odd = explained / lengths[:, best]
    both, whole = (explained**2).sum(axis=0), (profile**2).sum(axis=1)
    orientation, frequency, size = parameters[best].T
    found = {
        "colour_opponency": np.maximum(1 - (by_colour.sum(axis=1) ** 2).sum(axis=1) / 3, 0),
        "colour": colour,
        "colour_share": energy[:, -1],
        "orientation_deg": np.where(frequency > 0, orientation, np.nan),
        "frequency_cpp": frequency,
        "phase_deg": np.rad2deg(np.arctan2(0.0 - odd, even)),  # not -0.0, which would turn 180 into -180
        "odd_share": explained[1] ** 2 / np.where(both > 0, both, 1),
        "size_px": size,
        "gabor_r2": both / np.where(whole > 0, whole, 1),
    }
    return {name: np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan) for name, values in found.items()}


def clustered(
    kernels: Float[np.ndarray, "filter 3 5 5"], alike: float = ALIKE
) -> tuple[Integer[np.ndarray, "filter"], Integer[np.ndarray, "cluster"]]:
    """Clusters of kernels about the one that has most others near it (Daura et al. 1999, Angew. Chem. 38:236).

    The kernel with the most kernels alike becomes the first cluster together with them; the same is done with those that are left until
    none is. Nothing is drawn at random, and equal kernels are always together. A pattern that is shifted by a pixel is another kernel,
    although a convolution finds it at other places all the same.

    Returns
    -------
    cluster
        Of each kernel, numbered from 0 by falling number of kernels; `NO_CLUSTER` where the kernel is 0 or holds no number.
    leader
        Row of the kernel that each cluster is about, the first of equal ones.
    """
    directions, known = _directions(kernels)
    rows = np.flatnonzero(known)
    flat = kernels.reshape(len(kernels), N_WEIGHTS)[rows] + 0.0  # -0.0 is another row to `unique` than 0.0
    _, first, inverse, copies = np.unique(flat, axis=0, return_index=True, return_inverse=True, return_counts=True)
    vectors = directions[rows[first]].astype(np.float32)
    free, leader = np.ones(len(vectors), bool), np.full(len(vectors), -1)
    near = _n_alike(vectors, vectors, copies, alike)
    while (near > copies)[free].any():
        chosen = int(np.argmax(np.where(free, near, 0)))
        members = free & (vectors @ vectors[chosen] >= alike)
        members[chosen] = True
        free &= ~members
        leader[members] = chosen
        near = near - _n_alike(vectors, vectors[members], copies[members], alike)
    leader = np.where(free, np.arange(len(vectors)), leader)  # those that are left are like no other
    leaders, cluster = np.unique(leader, return_inverse=True)
    order = np.lexsort((first[leaders], -np.bincount(cluster, copies)))
    numbers = np.full(len(kernels), NO_CLUSTER)
    numbers[rows] = np.argsort(order)[cluster][inverse.reshape(-1)]
    return numbers, rows[first[leaders[order]]]


def _clusters(
    kernel: Float[np.ndarray, "cluster 3 5 5"], cluster: Integer[np.ndarray, "filter"], unit: Integer[np.ndarray, "filter"], n_units: int,
    alike: float,
) -> Table:
    n_filters = np.bincount(cluster[cluster != NO_CLUSTER], minlength=len(kernel))
    users = np.unique(np.stack([cluster, unit], axis=1)[cluster != NO_CLUSTER], axis=0)
    units = np.bincount(users[:, 0], minlength=len(kernel))
    return Table(f"Filters of layer 1 that are alike (cosine of at least {alike:g} with the kernel that stands for them)", {
        "kernel": Column("the one of them that has most others near it, at length 1: colour (red green blue), row, column", kernel),
        "n_filters": Column("filters in the cluster", n_filters),
        "n_units": Column("units that have at least one of them", units),
        "filter_share": Column("share of all filters that are in the cluster", n_filters / max(len(cluster), 1)),
        "unit_share": Column("share of all units that have at least one of them", units / max(n_units, 1)),
    })


def _directions(kernels: np.ndarray) -> tuple[Float[np.ndarray, "filter 75"], Bool[np.ndarray, "filter"]]:
    """Kernels at length 1, and which have a direction; 0 where they have none."""
    flat = kernels.reshape(len(kernels), N_WEIGHTS).astype(float)
    largest = np.abs(flat).max(axis=1, initial=0)
    known = np.isfinite(largest) & (largest > 0)
    flat = np.where(known[:, None], flat, 0) / np.where(known, largest, 1)[:, None]  # no square of a tiny weight becomes 0
    return flat / np.where(known, np.linalg.norm(flat, axis=1), 1)[:, None], known


def _gabors() -> tuple[Float[np.ndarray, "gabor 3"], Float[np.ndarray, "2 gabor 25"], Float[np.ndarray, "2 gabor"]]:
    """Orientation, frequency and size of each Gabor, its even and odd half at length 1, and the lengths they had; 0 and 1 of no half."""
    parameters = np.array([
        (orientation, frequency, size)
        for frequency in FREQUENCIES_CPP for orientation in (ORIENTATIONS_DEG if frequency else (0.0,)) for size in SIZES_PX
    ])
    orientation, frequency, size = (column[:, None] for column in (np.deg2rad(parameters[:, 0]), parameters[:, 1], parameters[:, 2]))
    row, column = (index.reshape(1, -1) - KERNEL_PX // 2 for index in np.indices((KERNEL_PX, KERNEL_PX)))
    across = -row * np.cos(orientation) - column * np.sin(orientation)
    envelope = np.exp(-(row**2 + column**2) / (2 * size**2))
    halves = envelope * np.stack([wave(2 * np.pi * frequency * across) for wave in (np.cos, np.sin)])
    lengths = np.linalg.norm(halves, axis=2)
    there = lengths > NO_HALF
    return parameters, np.where(there[:, :, None], halves, 0) / np.where(there, lengths, 1)[:, :, None], np.where(there, lengths, 1)


def _n_alike(
    vectors: Float[np.ndarray, "vector 75"], others: Float[np.ndarray, "other 75"], copies: Integer[np.ndarray, "other"], alike: float
) -> Integer[np.ndarray, "vector"]:
    """How many of the others, with all their copies, are alike each vector."""
    starts = range(0, len(vectors), CHUNK)
    counted = [(vectors[start : start + CHUNK] @ others.T >= alike) @ copies for start in starts]
    return np.concatenate([np.empty(0, int), *counted])
