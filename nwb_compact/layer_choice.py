"""Which layer of a backbone the teacher looks at: the one from which ridge regression predicts validation images best."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, Float64, Integer, UInt8
from torch import Tensor
from torch.nn import functional

from nwb_compact import __version__
from nwb_compact.backbones import Backbone, as_half, map_batches
from nwb_compact.errors import NwbCompactError
from nwb_compact.feature_cache import cached_values, images_sha256
from nwb_compact.progress import Advance, silent, stage
from nwb_compact.ridge import ridge_predictions

GRID = 7
"""Rows and columns that maps are averaged to, so that layers differ in what they see more than in how many numbers they give. On
validation images of 190923 and 210325 (mean over units, EfficientNet-Lite0), ridge predicted better from 7 x 7 means than from whole maps
in 17 of 18 layers of 10 x 10 to 80 x 80. 4 x 4 did about as well; 7 x 7 keeps more of where a small receptive field lies."""
MOST_IMAGES = 1000
"""Images of a session that the choice looks at, evenly over all: enough to rank layers, and the means of 13 layers of 768 channels then
take less than 1 GB."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What the choice may see of a session: images of its fitting side alone, fitting images before validation images."""

    images: UInt8[np.ndarray, "seen height width 3"]
    mean: Float[np.ndarray, "seen unit"]
    """Repeat averages; NaN where a unit has none."""
    n_fit: int


def sample(
    images: UInt8[np.ndarray, "image height width 3"], mean: Float[np.ndarray, "image unit"], fit_images: Integer[np.ndarray, "fit"],
    validation_images: Integer[np.ndarray, "held"],
) -> Sample:
    """At most `MOST_IMAGES` of a session's fitting and validation images, in the same proportion.

    Examples
    --------
    >>> found = sample(np.zeros((9, 4, 4, 3), np.uint8), np.zeros((9, 2)), np.arange(4), np.arange(4, 6))
    >>> len(found.images), found.n_fit
    (6, 4)
    """
    share = min(1.0, MOST_IMAGES / max(len(fit_images) + len(validation_images), 1))
    fit, held = (_evenly(rows, round(share * len(rows))) for rows in (fit_images, validation_images))
    rows = np.concatenate([fit, held])
    return Sample(images[rows], mean[rows], len(fit))


def choose_layer(
    backbone: Backbone, sessions: Sequence[Sample], folder: Path, *, device: str = "cpu", quiet: bool = True
) -> tuple[Backbone, dict[str, float]]:
    """The backbone, looked at in its best layer, and the median validation r2 of each layer; nothing where no choice is left.

    Parameters
    ----------
    backbone
        Of several layers.
    sessions
        Those that are fitted.
    folder
        Of cached features: the scores are kept there too, so that a resumed fit need not look through all layers again.
    device, quiet
        Where to compute, and how loudly.

    Raises
    ------
    NwbCompactError
        If no unit of any session has a score.

    Examples
    --------
    >>> from torch import nn
    >>> chosen, scores = choose_layer(Backbone("pool", nn.AvgPool2d(4), "1f"), [], Path("unused"))
    >>> chosen.layer, scores
    ('', {})
    """
    if backbone.layer is not None:
        return backbone, {}
    scores = []
    for number, seen in enumerate(sessions):
        decisive = [sha256(np.ascontiguousarray(seen.mean, "<f8").tobytes()).hexdigest(), seen.n_fit, images_sha256(seen.images)]
        with stage(f"layers, session {number + 1}", len(seen.images), quiet=quiet) as advance:
            compute = partial(_listed_scores, backbone, seen, device, advance)
            scores.append(cached_values(folder, ["layers", GRID, __version__, backbone.sha256, *decisive], compute))
    layer, medians = best_layer(scores)
    if not quiet:
        ranking = ", ".join(f"{name} {r2:.3f}" for name, r2 in medians.items())
        print(f"layer {layer}, which predicts validation images best (median r2 of ridge: {ranking})", file=sys.stderr, flush=True)
    return backbone.at(layer), medians


def layer_scores(
    backbone: Backbone, seen: Sample, *, device: str = "cpu", advance: Advance = silent
) -> dict[str, Float64[np.ndarray, "unit"]]:
    """Validation r2 of every unit from every layer (`ridge.RidgeFit.validation_r2`); layers in the backbone's order.

    Examples
    --------
    >>> from torch import nn
    >>> class Net(nn.Module):
    ...     def forward(self, images):
    ...         return {"pixels": images, "grey": images.mean(1, keepdim=True)}
    >>> images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), np.uint8)
    >>> seen = Sample(images, images[:, 1, 1, :1].astype(float), 40)
    >>> scores = layer_scores(Backbone("net", Net(), "1f", ("pixels", "grey"), None), seen)
    >>> bool(scores["pixels"][0] > scores["grey"][0])
    True
    """
    means: dict[str, list[np.ndarray]] = {layer: [] for layer in backbone.layers}
    for maps in map_batches(backbone.network, seen.images, device=device, advance=advance):
        for layer in backbone.layers:
            means[layer].append(_grid_means(maps[layer]))
    fit, held = np.arange(seen.n_fit), np.arange(seen.n_fit, len(seen.images))
    return {layer: ridge_predictions(np.concatenate(parts), seen.mean, fit, held).validation_r2 for layer, parts in means.items()}


def best_layer(scores: Sequence[Mapping[str, Sequence[float] | np.ndarray]]) -> tuple[str, dict[str, float]]:
    """The layer of highest median validation r2 over the units of all sessions, the first of equals, and the median of each.

    Raises
    ------
    NwbCompactError
        If no unit has a score.

    Examples
    --------
    >>> best_layer([{"stage1": [0.1, 0.2], "stage2": [0.3, float("nan")]}, {"stage1": [0.3], "stage2": [0.2]}])
    ('stage2', {'stage1': 0.2, 'stage2': 0.25})
    """
    medians = {}
    for layer in scores[0]:
        r2 = np.concatenate([np.asarray(session[layer], np.float64) for session in scores])
        known = r2[np.isfinite(r2)]
        if len(known) == 0:
            expected = "one whose responses vary, to choose the layer by"
            raise NwbCompactError("--layer auto", found="no unit with a validation score", expected=expected, next_step="name a layer")
        medians[layer] = float(np.median(known))
    return max(medians, key=lambda layer: medians[layer]), medians


def _listed_scores(backbone: Backbone, seen: Sample, device: str, advance: Advance) -> dict[str, list[float]]:
    return {layer: [float(r2) for r2 in scores] for layer, scores in layer_scores(backbone, seen, device=device, advance=advance).items()}


def _evenly(rows: Integer[np.ndarray, "row"], n: int) -> Integer[np.ndarray, "kept"]:
    return rows[(np.arange(n) * len(rows)) // max(n, 1)]


def _grid_means(maps: Tensor) -> Float16[np.ndarray, "batch feature"]:
    """Maps averaged to at most `GRID` x `GRID`."""
    rows, columns = min(GRID, maps.shape[2]), min(GRID, maps.shape[3])
    with torch.inference_mode():
        means = functional.adaptive_avg_pool2d(maps.float(), (rows, columns)).flatten(1)
    return as_half(means).cpu().numpy()
