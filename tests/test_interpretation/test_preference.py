import numpy as np
import pytest

from nwb_compact.interpretation.physiology import probed, tuning
from nwb_compact.interpretation.preference import CRITERIA, UNCLEAR, label, preferences
from nwb_compact.interpretation.receptive_field import receptive_fields
from nwb_compact.interpretation.stimuli import battery
from nwb_compact.natural_images import natural_images
from nwb_compact.simulated_neurons import expected_counts, simulated_neurons

STIMULI = battery()


@pytest.mark.parametrize("seed", [0, 3])
def test_simulated_neurons_are_labelled_by_what_they_are_wired_for(seed):
    """Their wiring is known; twenty seeds are told in docs/measured.md."""
    neurons = simulated_neurons(4, seed=seed)

    def answers(images, units):
        return expected_counts([neurons[unit] for unit in units], images)

    shown = probed(answers, receptive_fields(answers, 4, natural_images(3, seed=5)), STIMULI)
    found = preferences(STIMULI, shown, tuning(STIMULI, shown))
    assert found["preference"].tolist() == [neuron.role for neuron in neurons] == ["dot", "edge", "colour", "curvature"]


def test_a_silent_and_a_broken_unit_are_unclear():
    shown = np.zeros((len(STIMULI), 2))
    shown[:, 1] = np.nan
    found = preferences(STIMULI, shown, tuning(STIMULI, shown))
    assert found["preference"].tolist() == [UNCLEAR, UNCLEAR]
    assert all(np.isnan(found[f"{name}_index"]).all() for name in CRITERIA)


def test_a_label_needs_its_criterion_and_a_margin():
    assert label({name: 0.99 * least for name, least in CRITERIA.items()}) == UNCLEAR
    for name, least in CRITERIA.items():
        assert label({name: least}) == name
        assert label({other: 0.95 * CRITERIA[other] for other in CRITERIA} | {name: least}) == UNCLEAR
        assert label({other: 0.5 * CRITERIA[other] for other in CRITERIA} | {name: 1.1 * least}) == name


def test_a_unit_of_large_surfaces_is_no_dot_neuron():
    """It answers any dot by its area, and no edge."""
    surface = np.array([[stimulus.size_px**2 if stimulus.family == "dot" else 0.0] for stimulus in STIMULI])
    small = np.array([[float(stimulus.size_px == 12) if stimulus.family == "dot" else 0.0] for stimulus in STIMULI])
    assert preferences(STIMULI, surface, tuning(STIMULI, surface))["preference"].tolist() == [UNCLEAR]
    assert preferences(STIMULI, small, tuning(STIMULI, small))["preference"].tolist() == ["dot"]


def test_selectivity_of_answers_near_nothing_gives_no_label():
    """Curves of one side drive it, but with a fiftieth of what crossed lines do."""
    def unit(curve):
        return np.array([[curve if stimulus.family == "curve" and stimulus.orientation_deg == 90 else 100.0 * (stimulus.family == "lines")
                          + 90.0 * (stimulus.family == "dot")] for stimulus in STIMULI])

    faint, strong = unit(2.0), unit(60.0)
    assert preferences(STIMULI, faint, tuning(STIMULI, faint))["preference"].tolist() == [UNCLEAR]
    assert preferences(STIMULI, strong, tuning(STIMULI, strong))["preference"].tolist() == ["curvature"]
