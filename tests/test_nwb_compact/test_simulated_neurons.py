import re
from dataclasses import replace

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact.natural_images import natural_images
from nwb_compact.simulated_filters import channel_maps
from nwb_compact.simulated_neurons import ROLES, expected_counts, neurons_from_wiring, simulated_neurons, wiring_rows

SIZE = 112
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def neurons():
    return simulated_neurons(16, seed=0)


@pytest.fixture(scope="module")
def images():
    return natural_images(400, seed=0)


@pytest.fixture(scope="module")
def counts(neurons, images):
    return expected_counts(neurons, images)


# What the four special neurons prefer -------------------------------------------------------------------------------


def as_rgb(grey):
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def from_centre(neuron):
    """Pixels downwards and to the right of the receptive field's centre."""
    return ROWS - round(neuron.rf_row_px), COLUMNS - round(neuron.rf_column_px)


def answers(neuron, pictures):
    return expected_counts((neuron,), np.stack(pictures))[:, 0] - neuron.baseline


def dot(neuron, radius, level):
    return as_rgb(110 + (level - 110) * np.clip(0.5 + radius - np.hypot(*from_centre(neuron)), 0, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_dot_neuron_prefers_dots_of_its_size_and_polarity(seed):
    neuron = simulated_neurons(1, seed=seed)[0]
    side = neuron.connections[0]
    likes_bright = side.channel == "edge-fine-180.0"
    wired_radius = side.column_offset_px
    right, wrong = (210, 30) if likes_bright else (30, 210)
    radii = (2, 3, 4, 6, 8, 10, 12, 16, 24, 40)
    tuning = dict(zip(radii, answers(neuron, [dot(neuron, radius, right) for radius in radii]), strict=True))
    print(seed, wired_radius, {radius: round(float(count), 2) for radius, count in tuning.items()})
    best = max(tuning, key=tuning.get)
    assert wired_radius <= best <= wired_radius + 4
    assert tuning[4] < 0.2 * tuning[best]
    assert tuning[24] < 0.7 * tuning[best]
    assert tuning[40] < 0.2 * tuning[best]
    assert answers(neuron, [dot(neuron, best, wrong)])[0] < 0.5 * tuning[best]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_edge_neuron_prefers_its_orientation(seed):
    neuron = simulated_neurons(2, seed=seed)[1]
    scale, wired = re.fullmatch(r"edge-(fine|coarse)-(.*)", neuron.connections[0].channel).groups()
    period = {"fine": 8, "coarse": 16}[scale]
    directions = np.arange(0, 180, 22.5)

    def grating(direction):
        angle = np.deg2rad(direction)
        return as_rgb(110 + 60 * np.sin(2 * np.pi / period * (COLUMNS * np.cos(angle) - ROWS * np.sin(angle))))

    tuning = answers(neuron, [grating(direction) for direction in directions])
    print(seed, scale, wired, tuning.round(2))
    assert directions[tuning.argmax()] == float(wired)
    orthogonal = (np.flatnonzero(directions == float(wired))[0] + 4) % 8
    assert tuning[orthogonal] < 0.05 * tuning.max()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_colour_neuron_prefers_its_colour_to_equiluminant_others(seed):
    neuron = simulated_neurons(3, seed=seed)[2]
    wired = neuron.connections[0].channel.removeprefix("colour-")
    hues = {"grey": (0, 0, 0), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}

    def field(hue):
        towards = np.array(hue) - np.dot(hue, [0.299, 0.587, 0.114])
        return np.full((SIZE, SIZE, 3), np.rint(110 + 60 * towards / max(np.abs(towards).max(), 1e-9)), np.uint8)

    tuning = dict(zip(hues, answers(neuron, [field(hue) for hue in hues.values()]), strict=True))
    print(seed, wired, {hue: round(float(count), 2) for hue, count in tuning.items()})
    assert max(tuning, key=tuning.get) == wired
    assert tuning["grey"] < 0.1 * tuning[wired]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_curvature_neuron_prefers_arcs_that_face_its_way(seed):
    neuron = simulated_neurons(4, seed=seed)[3]
    arc = neuron.connections[:4]
    row, column = np.mean([(side.row_offset_px, side.column_offset_px) for side in arc], axis=0)
    wired = np.rad2deg(np.arctan2(-row, column)) % 360
    inwards = float(arc[1].channel.removeprefix("edge-fine-"))
    likes_bright = abs((inwards - wired) % 360 - 180) < 60
    rows, columns = from_centre(neuron)

    def crescent(facing):
        """A disk whose outline is sharp on one side and fades on the other."""
        angle = np.deg2rad(facing)
        fade = np.clip(((columns * np.cos(angle) - rows * np.sin(angle)) / 8 + 0.2) * 1.2, 0, 1)
        return as_rgb(110 + (90 if likes_bright else -90) * np.clip(8.5 - np.hypot(rows, columns), 0, 1) * fade)

    facings = np.arange(0, 360, 45)
    tuning = answers(neuron, [crescent(facing) for facing in facings])
    print(seed, round(wired), "bright" if likes_bright else "dark", tuning.round(2))
    assert abs((facings[tuning.argmax()] - wired + 180) % 360 - 180) <= 45
    opposite = (tuning.argmax() + 4) % 8
    assert tuning[opposite] < 0.2 * tuning.max()


# What a fit can hope for --------------------------------------------------------------------------------------------


def test_rates_sparseness_and_reliability_are_those_of_v4(counts):
    mean = counts.mean(axis=0)
    sparseness = 1 - mean**2 / (counts**2).mean(axis=0)
    reliability = counts.var(axis=0) / (counts.var(axis=0) + mean / 8)
    assert mean.min() > 0.5
    assert mean.max() < 9
    assert sparseness.min() > 0.1
    assert sparseness.max() < 0.6
    assert reliability.min() > 0.7
    assert reliability.max() < 0.98


def test_no_neuron_is_driven_by_one_image_in_a_hundred(counts):
    deviation = np.sort((counts - counts.mean(axis=0)) ** 2, axis=0)
    assert (deviation[-4:].sum(axis=0) / deviation.sum(axis=0)).max() < 0.3


def test_a_linear_model_of_pixels_fails(images, counts):
    pixels = images.reshape(400, 16, 7, 16, 7, 3).mean(axis=(2, 4)).reshape(400, -1) / 255
    fit, test = slice(0, 300), slice(300, 400)
    centred, target = pixels - pixels[fit].mean(axis=0), counts - counts[fit].mean(axis=0)
    gram = centred @ centred[fit].T
    explained = [1 - ((gram[test] @ np.linalg.solve(gram[fit] + penalty * np.eye(300), target[fit]) - target[test]) ** 2).mean(axis=0)
                 / target[test].var(axis=0) for penalty in (1, 10, 100, 1000)]
    assert np.median(np.max(explained, axis=0)) < 0.3


def test_a_model_that_knows_the_channels_needs_only_their_weights(neurons, images):
    """Least squares on the shifted channel maps at each place gives back the wired weights, hence nothing else is hidden in them."""
    neuron = neurons[0]
    linear = replace(neuron, threshold=-1e3, gain=1e-9, peak=1e9, baseline=0.0)  # rate = RF-weighted sum + 1000
    maps = channel_maps(images[:64], [connection.channel for connection in neuron.connections])
    places = (np.arange(56) - 27.5) * 2
    field = np.outer(np.exp(-((places - neuron.rf_row_px) ** 2) / (2 * neuron.rf_sigma_px**2)),
                     np.exp(-((places - neuron.rf_column_px) ** 2) / (2 * neuron.rf_sigma_px**2)))
    shifted = [np.roll(maps[connection.channel], (-int(connection.row_offset_px) // 2, -int(connection.column_offset_px) // 2), axis=(1, 2))
               for connection in neuron.connections]
    pooled = np.stack([(part * field).sum(axis=(1, 2)) / field.sum() for part in shifted], axis=1)
    rate = expected_counts((linear,), images[:64])[:, 0]
    weights = np.linalg.lstsq(pooled - pooled.mean(axis=0), rate - rate.mean(), rcond=None)[0]
    np.testing.assert_allclose(weights, [connection.weight for connection in neuron.connections], atol=0.1)


# Wiring -------------------------------------------------------------------------------------------------------------


def test_the_first_four_roles_are_fixed_and_later_ones_vary(neurons):
    assert tuple(neuron.role for neuron in neurons[:4]) == ROLES[:4]
    assert len({neuron.role for neuron in neurons[4:]}) >= 4
    assert [neuron.name for neuron in neurons[:2]] == ["unit-001", "unit-002"]


def test_a_neuron_does_not_depend_on_how_many_there_are(neurons):
    assert simulated_neurons(5, seed=0) == neurons[:5]


def test_consolidations_differ_and_stay_small(neurons):
    assert len({neuron.connections for neuron in neurons}) > 10
    assert all(3 <= len(neuron.connections) <= 10 for neuron in neurons)


def test_rows_of_wiring_hold_everything(neurons, images):
    rebuilt = neurons_from_wiring(wiring_rows(neurons))
    assert rebuilt == neurons
    np.testing.assert_array_equal(expected_counts(rebuilt, images[:4]), expected_counts(neurons, images[:4]))


def test_an_image_is_answered_the_same_alone_and_among_others(neurons, images, counts):
    np.testing.assert_allclose(expected_counts(neurons, images[37:38]), counts[37:38], rtol=1e-9)


def test_wiring_without_rows_is_refused():
    with pytest.raises(NwbCompactError) as refused:
        neurons_from_wiring(())
    assert str(refused.value) == ("session.wiring: found no rows, expected the wiring of simulated neurons. "
                                  "Next: use a file that `nwb-compact simulate` wrote")


def test_wiring_without_a_parameter_is_refused(neurons):
    rows = tuple(row for row in wiring_rows(neurons[:1]) if row.channel != "gain")
    with pytest.raises(NwbCompactError) as refused:
        neurons_from_wiring(rows)
    assert str(refused.value) == ("wiring of unit-001: found no row for gain, expected one row each for "
                                  "threshold, rf_sigma_px, gain, peak, baseline. Next: simulate the file again with this version")
