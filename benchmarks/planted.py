"""What students of simulated neurons, whose wiring is known, make of it: size by kind of neuron, and the planted first stage found again.

    python benchmarks/planted.py [--units 33] [--images-seen 60000] [--pool 3000] [--filters-1 40] [--filters-2 56] [--threads 2]

The teacher is the simulated neurons themselves. One table tells, by kind of neuron, how many filters the smallest students keep whose r2
is at most 5 % below the unpruned network's, and how well they answer to 500 images that none has seen; each rung of
their ladder is retrained on a quarter as many images as the first training saw, and on a twentieth in the end, not on as many as in a fit.
The other tells how well the planted channels (oriented edges and lines, spots, colours, all rectified and pooled, see `simulated_filters`)
are found in the layers of the network that all students are cut from: of each channel that any neuron reads, the highest correlation, over
images and places, with one filter of layer 1, 2 or 3, pooled as the channels are, and with the best weighted sum of a layer's filters; of
all of them, and of those that neurons share, which at least two read. Last, the same of the students themselves: with one filter of a
student whose neuron reads the channel, and, to see what is found by chance or because channels resemble each other, of one whose neuron
does not.

Exit status 1 unless the student of the median edge neuron keeps fewer filters than that of each kind that consolidates (dot, curvature,
texture), and 80 % of the shared channels correlate with some filter of the network that students are cut from by at least 0.8.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from bank import UNSEEN, lessons_of, options, r2
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from nwb_compact import config
from nwb_compact.bank import Bank
from nwb_compact.interpretation.open_student import open_student
from nwb_compact.natural_images import natural_images
from nwb_compact.results import IMAGE_PX, StudentWeights
from nwb_compact.simulated_filters import POOL_SIGMA_PX, channel_maps
from nwb_compact.simulated_neurons import simulated_neurons
from nwb_compact.streaming import as_tensor
from nwb_compact.student import filters_per_layer, n_parameters, predict_all
from nwb_compact.students import fit_students, shared_shape
from nwb_compact.work import Work

CONSOLIDATING = ("dot", "curvature", "texture")
LEAST_CORRELATION, LEAST_SHARE = 0.8, 0.8
TOLERANCE = 0.05
IMAGES = 100
MARGIN = 3
"""Places at the border, where filters see outside the image, that are left out."""


def main() -> None:
    """Measure and print."""
    of_1, of_2 = config.Student().early_filters
    wanted = options(__doc__, units=33, images_seen=60_000, pool=3000, filters_1=of_1, filters_2=of_2)
    pruned = {"images_seen": wanted.images_seen // 4, "last_images_seen": wanted.images_seen // 20, "tolerance": (TOLERANCE,)}
    early = {"early_filters": (wanted.filters_1, wanted.filters_2)}
    settings = config.configure(changes={"distill": {"images_seen": wanted.images_seen}, "prune": pruned, "student": early})
    pixels = natural_images(wanted.pool + UNSEEN, seed=wanted.seed)
    taught, truth = lessons_of(wanted.units, pixels, settings, wanted.seed)
    with TemporaryDirectory() as folder:
        students = fit_students(taught, "0", settings, Work("cpu", Path(folder)), seed=wanted.seed)[TOLERANCE]
        together = Bank(shared_shape(wanted.units, settings.student))
        together.load_state_dict(torch.load(Path(folder) / "students_0.pt", weights_only=True)["network"])
    neurons = simulated_neurons(wanted.units, seed=wanted.seed)
    roles = np.array([neuron.role for neuron in neurons])
    filters, size = np.array([filters_per_layer(student) for student in students]), np.array([n_parameters(one) for one in students])
    accuracy = r2(predict_all(students, pixels[-UNSEEN:]), truth)
    print("kind        units  r2 with the neuron  filters  by layer           parameters   (medians)")
    for role in dict.fromkeys(roles):
        of_role = roles == role
        layers = " ".join(f"{n:.0f}" for n in np.median(filters[of_role], axis=0))
        print(f"{role:10s} {of_role.sum():6d} {np.median(accuracy[of_role]):19.3f} {np.median(filters[of_role].sum(axis=1)):8.0f}  "
              f"{layers:18s} {np.median(size[of_role]):10,.0f}")
    channels = sorted({connection.channel for neuron in neurons for connection in neuron.connections})
    planted = channel_maps(pixels[-IMAGES:], channels)
    target = np.stack([planted[channel] for channel in channels], axis=1)
    reads = np.array([[any(one.channel == channel for one in neuron.connections) for channel in channels] for neuron in neurons])
    n_readers = reads.sum(axis=0)
    best = np.zeros(len(channels))
    for layer, maps in enumerate(shared_maps(together.eval(), pixels[-IMAGES:]), start=1):
        single, summed = found(maps, target)
        best = np.maximum(best, single)
        print(f"layer {layer}: of {len(channels)} planted channels {np.mean(single >= LEAST_CORRELATION):.0%} correlate by "
              f"{LEAST_CORRELATION} or more with one filter (median {np.median(single):.2f}), "
              f"{np.mean(summed >= LEAST_CORRELATION):.0%} with a weighted sum (median {np.median(summed):.2f})")
    share = share_of_shared(best, n_readers, channels)
    of_units = np.stack([of_student(student, pixels[-IMAGES:], target) for student in students])
    for who, whose in (("reads", reads), ("does not read", ~reads)):
        highest = np.where(whose, of_units, 0).max(axis=0)
        print(f"in a student whose neuron {who} the channel: {np.mean(highest >= LEAST_CORRELATION):.0%}, median {np.median(highest):.2f}; "
              f"in one such student: {np.mean(of_units[whose] >= LEAST_CORRELATION):.0%}, median {np.median(of_units[whose]):.2f}")
    total = {role: np.median(filters[roles == role].sum(axis=1)) for role in (*CONSOLIDATING, "edge")}
    sys.exit(0 if share >= LEAST_SHARE and all(total["edge"] < total[role] for role in CONSOLIDATING) else 1)


def share_of_shared(best: np.ndarray, n_readers: np.ndarray, channels: list[str]) -> float:
    """How much of the channels that several neurons read was found; prints it beside all others, and what was not found."""
    recovered, shared = best >= LEAST_CORRELATION, n_readers > 1
    print(f"in any of these layers: {recovered.mean():.0%} of all (median {np.median(best):.2f}), {recovered[shared].mean():.0%} of the "
          f"{shared.sum()} that several neurons read, {recovered[~shared].mean():.0%} of the {np.sum(~shared)} that one reads")
    print("not found: " + ", ".join(f"{channels[one]} ({best[one]:.2f}, read by {n_readers[one]})" for one in np.flatnonzero(~recovered)))
    return float(recovered[shared].mean())


def shared_maps(bank: Bank, images: np.ndarray) -> list[np.ndarray]:
    """Maps (image filter row column) of layers 1 to 3."""
    with torch.inference_mode():
        x = torch.cat([bank.enter(as_tensor(images[start : start + 20], "cpu")) for start in range(0, len(images), 20)])
        border = (x.shape[2] - images.shape[1]) // 2  # the first layer leaves the border that the second needs
        maps = [x[:, :, border : border + images.shape[1], border : border + images.shape[2]].numpy()]
        for layer in (2, 3):
            x = bank.mix(bank.spatial(x, layer), layer)
            maps.append(x.numpy())
    return [pooled(of_layer) for of_layer in maps]


def of_student(student: StudentWeights, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Of each target the highest correlation with one filter of layers 1 to 3 of a student."""
    opened, layers = open_student(student), []
    with torch.inference_mode():
        for start in range(0, len(images), 20):
            layers.append([maps.numpy() for maps in opened.maps(as_tensor(images[start : start + 20], "cpu"))[:3]])
    return np.max([found(pooled(np.concatenate(maps)), target)[0] for maps in zip(*layers, strict=True)], axis=0)


def pooled(maps: np.ndarray) -> np.ndarray:
    """Maps pooled as the planted channels are."""
    return gaussian_filter(maps, POOL_SIGMA_PX * maps.shape[-1] / IMAGE_PX, axes=(2, 3))


def found(maps: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each target the highest correlation with one map, and with the best weighted sum of all, on the coarser of both grids."""
    side = min(maps.shape[-1], target.shape[-1])
    x, y = (flat(resized(values, side)) for values in (maps, target))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    x, y = x[x.std(axis=1) > 0], y / np.linalg.norm(y, axis=1, keepdims=True)
    single = np.abs(y @ (x / np.linalg.norm(x, axis=1, keepdims=True)).T).max(axis=1)
    covariance = x @ x.T
    weights = np.linalg.solve(covariance + 1e-6 * np.diag(np.diag(covariance)), x @ y.T)
    return single, np.sqrt(np.einsum("fc,fc->c", weights, x @ y.T))


def resized(maps: np.ndarray, side: int) -> np.ndarray:
    """Averages over as many places as one of the coarser grid holds, without the border."""
    smaller = functional.avg_pool2d(torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32)), maps.shape[-1] // side).numpy()
    return smaller[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]


def flat(maps: np.ndarray) -> np.ndarray:
    return maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], -1).astype(np.float64)


if __name__ == "__main__":
    main()
