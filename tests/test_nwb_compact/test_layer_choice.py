import numpy as np
import pytest
import torch
from torch import nn

from nwb_compact.backbones import Backbone
from nwb_compact.errors import NwbCompactError
from nwb_compact.layer_choice import GRID, MOST_IMAGES, Sample, best_layer, choose_layer, layer_scores, sample
from nwb_compact.ridge import ridge_predictions

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (120, 28, 28, 3), np.uint8)


class Stages(nn.Module):
    """Three layers: one that blurs everything away, one that holds squares of the pixels, one of the pixels; counts its images."""

    def __init__(self):
        super().__init__()
        self.shown = 0

    def forward(self, images):
        self.shown += len(images)
        x = images / 255 - 0.5
        return {"flat": x.mean((2, 3), keepdim=True), "energy": nn.functional.avg_pool2d(x**2, 4), "pixels": nn.functional.avg_pool2d(x, 2)}


def backbone() -> Backbone:
    return Backbone("torch:lab:stages", Stages(), "1f", ("flat", "energy", "pixels"), None)


def energy_cells(n_units=3, noise=0.0):
    """Units that answer to energy at some places."""
    with torch.no_grad():
        energy = Stages()(torch.tensor(IMAGES).permute(0, 3, 1, 2).float())["energy"].flatten(1).numpy()
    return energy[:, RNG.integers(0, energy.shape[1], (n_units, 2))].sum(axis=2) + noise * RNG.normal(size=(len(IMAGES), n_units))


MEAN = energy_cells()
SEEN = Sample(IMAGES[:100], MEAN[:100], 80)


def test_the_layer_that_holds_what_neurons_answer_to_is_chosen(tmp_path):
    chosen, scores = choose_layer(backbone(), [SEEN], tmp_path)
    assert chosen.layer == "energy"
    assert list(scores) == ["flat", "energy", "pixels"]
    assert scores["energy"] > scores["pixels"] + 0.1
    assert scores["energy"] > scores["flat"] + 0.1


def test_a_score_is_that_of_ridge_on_means_of_the_map():
    """By hand: pixels of 14 x 14 averaged in fours."""
    found = layer_scores(backbone(), SEEN)["pixels"]
    maps = (SEEN.images / 255 - 0.5).reshape(100, GRID, 4, GRID, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(100, -1)
    expected = ridge_predictions(maps.astype(np.float16), SEEN.mean, np.arange(80), np.arange(80, 100)).validation_r2
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_median_is_over_the_units_of_all_sessions():
    first = {"a": np.array([0.9, 0.1, np.nan]), "b": np.array([0.2, 0.2, np.nan])}
    second = {"a": np.array([0.1]), "b": np.array([0.2])}
    assert best_layer([first, second]) == ("b", {"a": 0.1, "b": 0.2})
    assert best_layer([{"x": [0.5], "y": [0.5]}])[0] == "x"


def test_scores_are_kept_for_the_same_images_answers_and_network_alone(tmp_path):
    first, again, other = backbone(), backbone(), backbone()
    one, two = (choose_layer(what, [SEEN], tmp_path) for what in (first, again))
    assert one[1] == two[1]
    assert (first.network.shown, again.network.shown) == (100, 0)
    choose_layer(other, [Sample(SEEN.images, SEEN.mean + 1e-3, 80)], tmp_path)
    choose_layer(Backbone("x", other.network, "2f", other.layers, None), [SEEN], tmp_path)
    assert other.network.shown == 200


def test_the_ranking_is_told(tmp_path, capsys):
    _, scores = choose_layer(backbone(), [SEEN], tmp_path, quiet=False)
    ranking = f"flat {scores['flat']:.3f}, energy {scores['energy']:.3f}, pixels {scores['pixels']:.3f}"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"layer energy, which predicts validation images best (median r2 of ridge: {ranking})")
    choose_layer(backbone(), [SEEN], tmp_path)
    assert capsys.readouterr().err == ""


def test_without_any_unit_that_varies_the_layer_must_be_named(tmp_path):
    with pytest.raises(NwbCompactError) as caught:
        choose_layer(backbone(), [Sample(SEEN.images, np.full((100, 2), np.nan), 80)], tmp_path)
    assert str(caught.value) == ("--layer auto: found no unit with a validation score, expected one whose responses vary, to choose the "
                                 "layer by. Next: name a layer")


def test_a_sample_is_the_fitting_side_in_order_and_never_more_than_needed():
    few = sample(IMAGES, MEAN, np.arange(0, 60, 2), np.arange(1, 20, 2))
    np.testing.assert_array_equal(few.images, IMAGES[[*range(0, 60, 2), *range(1, 20, 2)]])
    np.testing.assert_array_equal(few.mean, MEAN[[*range(0, 60, 2), *range(1, 20, 2)]])
    assert few.n_fit == 30
    many = np.zeros((4000, 1, 1, 3), np.uint8)
    number = np.arange(4000.0)[:, None]
    found = sample(many, number, np.arange(3000), np.arange(3000, 4000))
    assert (len(found.images), found.n_fit) == (MOST_IMAGES, 750)
    assert len(np.unique(found.mean)) == MOST_IMAGES
    assert found.mean[:750].max() > 2900
    assert found.mean[750:].min() == 3000
