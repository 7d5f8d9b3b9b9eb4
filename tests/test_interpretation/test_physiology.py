"""Units whose tuning is known in closed form: they read the battery's own parameters, not its pixels."""

import numpy as np
import pytest

from nwb_compact.interpretation.physiology import INDICES, above_blank, probe_table, probed, tuning
from nwb_compact.interpretation.receptive_field import receptive_fields
from nwb_compact.interpretation.stimuli import Stimulus, battery
from nwb_compact.interpretation.tables import Column, Table
from nwb_compact.natural_images import natural_images

STIMULI = battery()


def answers_of(unit, blank=1.0):
    """What a unit, a function of a stimulus, answers above `blank`."""
    return np.array([[blank + (0.0 if stimulus.family == "blank" else float(unit(stimulus)))] for stimulus in STIMULI])


def indices_of(unit, **kwargs):
    found = tuning(STIMULI, answers_of(unit, **kwargs))
    return {name: found[name][0] for name in INDICES}


def grating(stimulus, of):
    return of(stimulus) if stimulus.family == "grating" and stimulus.colour == "grey" else 0.0


@pytest.mark.parametrize("preferred", [0.0, 30.0, 120.0])
def test_orientation_and_its_selectivity_of_a_von_mises_unit(preferred):
    """For exp(k cos 2(theta - preferred)) the circular mean is I1(k) / I0(k): 0.4464 at k = 1."""
    found = indices_of(lambda s: grating(s, lambda g: np.exp(np.cos(2 * np.deg2rad(g.orientation_deg - preferred)))))
    assert found["osi"] == pytest.approx(0.4464, abs=1e-3)
    assert abs((found["orientation_deg"] - preferred + 90) % 180 - 90) < 0.1


def test_a_unit_of_one_orientation_is_fully_selective_and_one_of_all_not_at_all():
    one = indices_of(lambda s: grating(s, lambda g: 2.0 * (g.orientation_deg == 45) * (g.wavelength_px == 7)))
    assert (one["osi"], one["orientation_deg"], one["wavelength_px"]) == (pytest.approx(1), pytest.approx(45), 7)
    assert indices_of(lambda s: grating(s, lambda g: 2.0))["osi"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("of_phase", "expected"), [
    (lambda phase: max(np.cos(phase), 0.0), 2.0),  # of the four phases one drives: F0 1/4, F1 2/4
    (lambda phase: np.cos(phase), 2.0),  # answers below blank count as none, so a linear unit is as simple as a rectified one
    (lambda phase: 1.0, 0.0),
    (lambda phase: 1.0 + 0.5 * np.cos(phase), 0.5),
])
def test_modulation_ratio(of_phase, expected):
    def unit(s):
        return grating(s, lambda g: of_phase(np.deg2rad(g.phase_deg)) * (1 + (g.orientation_deg == 0) + (g.wavelength_px == 10)))

    found = indices_of(unit)
    assert found["f1_f0"] == pytest.approx(expected, abs=1e-9)


def test_preferred_dot_and_what_larger_ones_suppress():
    found = indices_of(lambda s: (s.family == "dot") * (s.polarity == -1) * {12.0: 8.0, 64.0: 2.0}.get(s.size_px, 4.0))
    assert (found["dot_px"], found["dot_polarity"], found["size_suppression"]) == (12, -1, pytest.approx(0.75))
    assert found["polarity_index"] == pytest.approx(-1)


def test_a_dot_beside_the_centre_is_not_a_size():
    found = indices_of(lambda s: (s.family == "dot") * (9.0 if s.row_offset_px == 24 else 1.0 * (s.size_px == 20)))
    assert found["dot_px"] == 20


def test_surround_suppression_is_of_the_best_grating():
    def unit(s):
        if s.family != "surround":
            return 0.0
        return {32.0: 10.0, 96.0: 4.0}.get(s.size_px, 5.0) * (1.0 if s.orientation_deg == 90 else 0.5)

    assert indices_of(unit)["surround_suppression"] == pytest.approx(0.6)


@pytest.mark.parametrize(("curve", "expected"), [
    (lambda c: c, 0.5),
    (lambda c: min(c / 0.25, 1.0), 0.125),  # full from a quarter on
    (lambda c: c**2 / (c**2 + 0.3**2), (0.5 / (1 + 0.3**2) - 0.0625 / 0.1525) / (0.25 / 0.34 - 0.0625 / 0.1525) * 0.25 + 0.25),
])
def test_half_of_the_full_contrast_is_that_of_the_best_grating(curve, expected):
    def unit(s):
        return 6 * curve(s.contrast) * (1.0 if s.orientation_deg == 45 else 0.3 * s.contrast) if s.family == "contrast" else 0.0

    assert indices_of(unit)["c50"] == pytest.approx(expected)


def test_a_unit_that_no_contrast_drives_has_no_c50():
    assert np.isnan(indices_of(lambda s: float(s.family == "dot"))["c50"])


def test_the_side_that_curves_face():
    def unit(s):
        is_best = s.family == "curve" and s.size_px == 16 and s.polarity == 1
        return max(np.cos(np.deg2rad(s.orientation_deg - 67.5)), 0) if is_best else 0.0

    found = indices_of(unit)
    assert found["curve_deg"] == pytest.approx(67.5)
    assert found["curve_selectivity"] == pytest.approx(np.pi / 4, abs=0.02), "of a half-wave rectified cosine, at 16 directions"


def test_indices_do_not_depend_on_gain_or_baseline():
    def unit(s):
        size, angle = np.nan_to_num([s.size_px, s.orientation_deg], nan=30.0)
        return np.exp(-abs(size - 12) / 10) * (1 + np.cos(np.deg2rad(angle)))

    plain, louder = indices_of(unit), indices_of(lambda s: 7 * unit(s), blank=30.0)
    for name, value in plain.items():
        assert louder[name] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_a_unit_that_nothing_drives_has_no_indices_and_does_not_disturb_others(value):
    both = np.concatenate([answers_of(lambda s: value), answers_of(lambda s: grating(s, lambda g: 1.0))], axis=1)
    found = tuning(STIMULI, both)
    assert all(np.isnan(found[name][0]) for name in INDICES)
    assert found["osi"][1] == pytest.approx(0, abs=1e-12)


def test_the_battery_is_shown_where_each_unit_looks():
    spots = [np.s_[:, 34:38, 70:74], np.s_[:, 62:66, 42:46]]

    def answers(images, units):
        return np.stack([images[spots[unit]].mean(axis=(1, 2, 3)) for unit in units], axis=1)

    fields = receptive_fields(answers, 2, natural_images(20, seed=1))
    dots = [Stimulus("blank"), Stimulus("dot", size_px=16.0, polarity=1.0)]
    found = above_blank(dots, probed(answers, fields, dots))
    assert (found[1] > 80).all(), "a bright dot covers the spot of either unit"


def test_a_unit_without_a_field_is_shown_the_middle():
    nowhere = Table("", {"rf_row_px": Column("", np.array([np.nan])), "rf_column_px": Column("", np.array([np.nan]))})
    dots = [Stimulus("dot", size_px=16.0, polarity=1.0)]
    assert probed(lambda images, units: images[:, 56:57, 56, 0].astype(float), nowhere, dots) > 190


def test_the_table_holds_stimuli_and_answers():
    kept = probe_table(STIMULI[:5], np.arange(10.0).reshape(5, 2))
    assert kept["family"][0] == "blank"
    assert kept["student"].shape == (5, 2)
