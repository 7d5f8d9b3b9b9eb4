"""Small models in the published form, and a folder of them with the images and responses of one session, for the tests."""

import json
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import h5py
import numpy as np
from PIL import Image

N_SHARED = 219
LAYER = ("Conv2D", "SeparableConv2D", "SeparableConv2D", "SeparableConv2D", "SeparableConv2D")
STRIDES = (1, 2, 2, 1, 1)
EPSILON = 1e-3


def layer_weights(number: int, n_before: int, filters: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Of one layer as Keras lists them: kernels (height width channel filter), bias, and of BatchNorm gain, shift, mean and variance."""
    kernels = [(5, 5, n_before, filters)] if number == 1 else [(5, 5, n_before, 1), (1, 1, n_before, filters)]
    arrays = [rng.normal(size=shape) / np.sqrt(np.prod(shape[:3])) for shape in kernels]
    arrays += [rng.normal(size=filters), rng.uniform(0.5, 2, filters), rng.normal(size=filters), rng.normal(size=filters)]
    # Some variances are as small as in the published models, where the epsilon matters.
    return [array.astype(np.float32) for array in [*arrays, rng.choice([6e-5, 0.5, 40.0], filters)]]


def core_weights(filters: tuple[int, ...], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    before = (3, *filters)
    return [array for number, n in enumerate(filters, 1) for array in layer_weights(number, before[number - 1], n, rng)]


def compact_weights(filters: tuple[int, ...] = (4, 3, 5, 2, 3), seed: int = 0) -> list[np.ndarray]:
    """What `model.get_weights()` gives of a model of one neuron."""
    rng = np.random.default_rng(1000 + seed)
    readout = [rng.normal(size=(28 * 28 * filters[-1], 1)), rng.normal(size=1)]
    return core_weights(filters, seed) + [array.astype(np.float32) for array in readout]


def shared_weights(filters: int, n_units: int = N_SHARED, seed: int = 0) -> list[np.ndarray]:
    """Of a model of many neurons; its last layers have four filters, where the published ones have 100."""
    rng = np.random.default_rng(2000 + seed)
    shapes = [(1, 1, 4, n_units), (n_units,), (28, 28, n_units, 1), (n_units,)]
    return core_weights((filters, filters, filters, 4, 4), seed) + [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def save_weight_list(path: Path, weights: list[np.ndarray]) -> Path:
    """As `numpy.save` saves a list of arrays that differ in shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = np.empty(len(weights), object)
    listed[:] = weights
    np.save(path, listed, allow_pickle=True)
    return path


def keras_layers(n_filters: list[int], n_units: int = N_SHARED) -> list[dict]:
    """The layers in config.json of a shared model, with what of each the answer depends on."""
    same = {"kernel_size": [5, 5], "padding": "same", "activation": "linear", "use_bias": True}
    layers: list[tuple[str, dict]] = [("InputLayer", {"name": "image_input"})]
    for number, (kind, stride, filters) in enumerate(zip(LAYER, STRIDES, n_filters, strict=True)):
        layers += [
            (kind, {"name": f"layer{number}_conv", "filters": filters, "strides": [stride, stride], **same}),
            ("BatchNormalization", {"name": f"layer{number}_bn", "epsilon": EPSILON, "center": True, "scale": True}),
            ("Activation", {"name": f"layer{number}_act", "activation": "relu"}),
        ]
    layers += [
        ("Conv2D", {**same, "name": "mixing_stage", "kernel_size": [1, 1], "strides": [1, 1], "filters": n_units}),
        ("DepthwiseConv2D", {**same, "name": "spatial_pool_stage", "kernel_size": [28, 28], "padding": "valid"}),
        ("Flatten", {"name": "output_responses"}),
    ]
    return [{"class_name": kind, "config": config} for kind, config in layers]


def save_keras(path: Path, weights: list[np.ndarray], layers: list[dict] | None = None, n_units: int = N_SHARED) -> Path:
    """As Keras 3.1 saves a model: weights in groups that are numbered by class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_filters = [weights[place].shape[-1] for place in (0, 7, 14, 21, 28)]
    groups = [("conv2d", 2), ("batch_normalization", 4)]
    for number in range(4):
        suffix = f"_{number}" if number else ""
        groups += [(f"separable_conv2d{suffix}", 3), (f"batch_normalization_{number + 1}", 4)]
    groups += [("conv2d_1", 2), ("depthwise_conv2d", 2)]
    stored, remaining = BytesIO(), iter(weights)
    with h5py.File(stored, "w") as file:
        for name, n_arrays in groups:
            for place in range(n_arrays):
                file[f"layers/{name}/vars/{place}"] = next(remaining)
    with ZipFile(path, "w") as zipped:
        zipped.writestr("metadata.json", json.dumps({"keras_version": "3.1.1"}))
        zipped.writestr("config.json", json.dumps({"config": {"layers": layers or keras_layers(n_filters, n_units)}}))
        zipped.writestr("model.weights.h5", stored.getvalue())
    return path


def save_session(folder: Path, session: str = "190923", n_units: int = 33, n_images: int = 24) -> np.ndarray:
    """Images and repeat averages of one session, in the published layout; gives back the averages (unit image)."""
    rng = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "responses_repeat_averaged").mkdir(exist_ok=True)
    with ZipFile(folder / "images" / f"images_{session}.zip", "w") as zipped:
        for number in range(1, n_images + 1):
            content = BytesIO()
            Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)).save(content, "JPEG", quality=95)
            zipped.writestr(f"image{number:04d}.jpg", content.getvalue())
    mean = rng.gamma(2.0, 1.0, (n_units, n_images))
    np.save(folder / "responses_repeat_averaged" / f"responses_{session}.npy", mean)
    return mean


def save_published(folder: Path, *, n_images: int = 24) -> np.ndarray:
    """A folder as --data takes it: models of three neurons, two shared models, session 190923; gives back its averages (unit image)."""
    for seed, (session, number) in enumerate([("190923", 0), ("190923", 10), ("201025", 2)]):
        save_weight_list(folder / "compact_models" / f"compact_model_{session}_neuron{number}.npy", compact_weights(seed=seed))
    for filters in (10, 5):
        save_keras(folder / "shared_models" / f"from_ensemble_model_{filters}filters.keras", shared_weights(filters))
    return save_session(folder, n_images=n_images)
