"""A published network and the student made of it answer the same; the oracle is the network as published, BatchNorm unfolded."""

from io import BytesIO
from zipfile import ZipFile

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from nwb_compact.errors import NwbCompactError
from nwb_compact.images import as_rgb
from nwb_compact.results import shared_arrays
from nwb_compact.student import filters_per_layer, n_parameters, predict, predict_all
from nwb_compact_conversion.sources.cowley_v4 import read_cowley_v4
from nwb_compact_conversion.sources.cowley_v4_networks import compact_network, shared_network

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)


def same(x: torch.Tensor, kernel: torch.Tensor, stride: int, groups: int) -> torch.Tensor:
    """A convolution with TensorFlow's "same" padding: as much as the last step needs, the odd row and column behind."""
    needed = max((-(-x.shape[2] // stride) - 1) * stride + kernel.shape[2] - x.shape[2], 0)
    before, after = needed // 2, needed - needed // 2
    return functional.conv2d(functional.pad(x, (before, after, before, after)), kernel, stride=stride, groups=groups)


def last_map(weights: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """(image 28 28 filter), in float64."""
    taken = iter(weights)
    x = torch.from_numpy(images.astype(float) - [116.222, 109.270, 100.381]).permute(0, 3, 1, 2)
    for number, stride in enumerate((1, 2, 2, 1, 1), 1):
        tensors = [torch.from_numpy(next(taken).astype(float)) for _ in range(6 if number == 1 else 7)]
        *kernels, bias, gain, shift, mean, variance = tensors
        if number == 1:
            x = same(x, kernels[0].permute(3, 2, 0, 1), stride, groups=1)
        else:
            x = same(x, kernels[0].permute(2, 3, 0, 1), stride, groups=x.shape[1])
            x = functional.conv2d(x, kernels[1].permute(3, 2, 0, 1))
        x = torch.relu(functional.batch_norm(x + bias[:, None, None], mean, variance, gain, shift, eps=1e-3))
    return x.permute(0, 2, 3, 1).numpy()


def test_a_network_of_one_neuron_answers_as_published(tmp_path, made):
    weights = made.compact_weights((4, 3, 5, 2, 3))
    network = compact_network(made.save_weight_list(tmp_path / "a.npy", weights))
    (student,) = network.students
    expected = last_map(weights, IMAGES).reshape(len(IMAGES), -1) @ weights[-2].astype(float)[:, 0] + weights[-1][0]
    np.testing.assert_allclose(predict(student, IMAGES), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert network.n_parameters == sum(array.size for array in weights)
    assert n_parameters(student) == network.n_parameters - 4 * (4 + 3 + 5 + 2 + 3)
    np.testing.assert_array_equal(filters_per_layer(student), [4, 4, 3, 5, 2])
    assert {array.dtype for array in student.arrays.values()} == {np.dtype(np.float32)}


def test_a_network_of_many_neurons_answers_as_published(tmp_path, made):
    weights = made.shared_weights(5, n_units=3)
    network = shared_network(made.save_keras(tmp_path / "a.keras", weights, n_units=3), 3)
    mixing, mixing_bias, space, bias = (array.astype(float) for array in weights[-4:])
    mixed = last_map(weights, IMAGES) @ mixing[0, 0] + mixing_bias
    expected = np.einsum("ihwu,hwu->iu", mixed, space[..., 0]) + bias
    np.testing.assert_allclose(predict_all(network.students, IMAGES), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert network.n_parameters == sum(array.size for array in weights)
    assert len(shared_arrays(network.students)) == 1 + 2 + 4 * 3, "input mean, first layer, four separable layers"
    assert n_parameters(network.students[0]) == sum(a.size for a in weights[:-4]) - 4 * (3 * 5 + 2 * 4) + 4 + 28 * 28 + 1


def test_epsilon_of_an_archive_is_the_one_it_names(tmp_path, made):
    """A tenth of the smallest variances apart, so it shows."""
    weights = made.shared_weights(5, n_units=2)
    layers = made.keras_layers([5, 5, 5, 4, 4], 2)
    answers = []
    for epsilon in (1e-3, 1e-5):
        for layer in layers:
            layer["config"] |= {"epsilon": epsilon} if layer["class_name"] == "BatchNormalization" else {}
        answers.append(predict_all(shared_network(made.save_keras(tmp_path / "a.keras", weights, layers), 2).students, IMAGES))
    assert np.abs(answers[0] / answers[1] - 1).max() > 0.05


def altered(weights: list[np.ndarray], place: int, array: np.ndarray | None) -> list[np.ndarray]:
    return weights[:place] + ([] if array is None else [array]) + weights[place + 1 :]


COMPACT = {
    "array 1 of 36 with shape (3, 3, 3, 4), expected (5, 5, 3, filters)": (0, np.zeros((3, 3, 3, 4), np.float32)),
    "array 7 of 36 with shape (5, 5, 9, 1), expected (5, 5, 4, 1)": (6, np.zeros((5, 5, 9, 1), np.float32)),
    "array 8 of 36 with shape (1, 1, 4, 0), expected (1, 1, 4, filters)": (7, np.zeros((1, 1, 4, 0), np.float32)),
    "array 10 of 36 with shape (3, 1), expected (3)": (9, np.zeros((3, 1), np.float32)),
    "array 35 of 36 with shape (784, 1), expected (2352, 1)": (34, np.zeros((784, 1), np.float32)),
    "35 arrays, expected more": (35, None),
    "negative numbers in array 6 of 36, expected the variance of BatchNorm": (5, -np.ones(4, np.float32)),
    "numbers in array 2 of 36 that are not finite, expected finite weights": (1, np.full(4, np.nan, np.float32)),
}


@pytest.mark.parametrize("said", COMPACT)
def test_weights_of_another_network_are_refused(tmp_path, made, said):
    path = made.save_weight_list(tmp_path / "a.npy", altered(made.compact_weights((4, 3, 5, 2, 3)), *COMPACT[said]))
    with pytest.raises(NwbCompactError) as caught:
        compact_network(path)
    assert str(caught.value) == f"{path}: found {said} as in the published networks. Next: download the file again"


def test_arrays_that_are_left_over_are_told(tmp_path, made):
    path = made.save_weight_list(tmp_path / "a.npy", [*made.compact_weights(), np.zeros(3, np.float32)])
    with pytest.raises(NwbCompactError, match=r"found 37 arrays, expected 36 as in the published networks"):
        compact_network(path)


SHARED = {
    "17 layers, expected 19 layers as in the shared models": lambda layers: layers[:-2],
    "Dense as layer 19, expected Flatten as in the shared models": lambda layers: [*layers[:-1], {"class_name": "Dense", "config": {}}],
    "strides [1, 1] in layer layer1_conv, expected [2, 2]": lambda layers: with_config(layers, 4, strides=[1, 1]),
    "activation linear in layer layer0_act, expected relu": lambda layers: with_config(layers, 3, activation="linear"),
    "padding valid in layer layer0_conv, expected same": lambda layers: with_config(layers, 1, padding="valid"),
    "scale False in layer layer4_bn, expected True": lambda layers: with_config(layers, 14, scale=False),
}


def with_config(layers: list[dict], place: int, **config: object) -> list[dict]:
    layers[place]["config"] |= config
    return layers


@pytest.mark.parametrize("said", SHARED)
def test_another_architecture_is_refused(tmp_path, made, said):
    """The linear models of the study, which have no ReLU, are no compact students."""
    layers = SHARED[said](made.keras_layers([3, 3, 3, 4, 4], 2))
    path = made.save_keras(tmp_path / "a.keras", made.shared_weights(3, n_units=2), layers)
    with pytest.raises(NwbCompactError) as caught:
        shared_network(path, 2)
    next_step = "name a model of the published compact architecture, or download the file again"
    assert str(caught.value) == f"{path}: found {said}. Next: {next_step}"


def test_a_model_of_other_neurons_is_refused(tmp_path, made):
    path = made.save_keras(tmp_path / "a.keras", made.shared_weights(3, n_units=2), n_units=2)
    with pytest.raises(NwbCompactError, match=r"found array 35 of 38 with shape \(1, 1, 4, 2\), expected \(1, 1, 4, 219\) as in"):
        shared_network(path, 219)


# The published files ----------------------------------------------------------------------------------------------------


def test_sizes_are_those_that_the_study_lists(published_v4):
    networks = [compact_network(path) for path in sorted((published_v4 / "compact_models").glob("*.npy"))]
    assert len(networks) == 219
    assert np.median([network.n_parameters for network in networks]) == 12_469
    filters = np.array([filters_per_layer(network.students[0]) for network in networks])
    np.testing.assert_array_equal(np.median(filters, axis=0), [47, 47, 57, 3, 7])
    assert np.median(filters.sum(axis=1)) == 160


def test_shared_models_hold_as_many_numbers_as_the_study_s(published_v4):
    expected = {5: 208_909, 10: 210_384, 25: 215_409, 35: 219_259, 50: 225_784, 75: 238_659, 100: 254_034, 200: 340_534}
    folder = published_v4 / "shared_models"
    found = {filters: shared_network(folder / f"from_ensemble_model_{filters}filters.keras", 219).n_parameters for filters in expected}
    assert found == expected


@pytest.fixture(scope="module")
def second_half(published_v4):
    """Images and responses that the study scores in session 190923."""
    session = read_cowley_v4(published_v4, "190923")
    return as_rgb(session.images.pixels[600:]), session.mean_responses.mean[600:]


def r2(predicted: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(predicted[:, unit], mean[:, unit])[0, 1] ** 2 for unit in range(mean.shape[1])])


def test_the_models_of_190923_predict_it_as_well_as_the_study_s(published_v4, second_half):
    images, mean = second_half
    paths = [published_v4 / "compact_models" / f"compact_model_190923_neuron{unit}.npy" for unit in range(33)]
    predicted = predict_all([compact_network(path).students[0] for path in paths], images)
    assert abs(np.median(r2(predicted, mean)) - 0.404) < 0.002


def test_the_first_neurons_of_a_shared_model_are_those_of_190923(published_v4, second_half):
    images, mean = second_half
    students = shared_network(published_v4 / "shared_models" / "from_ensemble_model_5filters.keras", 219).students
    predicted = predict_all(students, images[:200])
    assert abs(np.median(r2(predicted[:, :33], mean[:200])) - 0.354) < 0.05
    for first in (33, 100, 186):
        assert np.median(r2(predicted[:, first : first + 33], mean[:200])) < 0.1


def test_weights_that_link_to_another_file_are_refused(tmp_path, made):
    path = made.save_keras(tmp_path / "a.keras", made.shared_weights(3, n_units=2), n_units=2)
    with ZipFile(path) as zipped:
        held = {name: zipped.read(name) for name in zipped.namelist()}
    stored = BytesIO(held["model.weights.h5"])
    with h5py.File(stored, "a") as weights:
        weights["more"] = h5py.ExternalLink("other.h5", "/taken")
    held["model.weights.h5"] = stored.getvalue()
    with ZipFile(path, "w") as zipped:
        for name, content in held.items():
            zipped.writestr(name, content)
    with pytest.raises(NwbCompactError, match=r"a\.keras: /more: found a link into another file, other\.h5, expected"):
        shared_network(path, 2)
