import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nwb_compact import config
from nwb_compact.bank import BankShape, new_bank
from nwb_compact.bank_training import standardised_answers
from nwb_compact.prune import Inputs, Statistics, _gain, _size, _specialised, measure, narrow, refitted, smallest_sufficient, specialise
from nwb_compact.streaming import as_tensor
from nwb_compact.student import filters_per_layer, n_parameters, predict

WIDTHS, N_UNITS = (6, 5, 4, 4, 3), 2
WIDE = (10, 10, 8, 8, 4)
MANY = (99, 99, 99)
"""Filters of layers 3 to 5 that a unit may keep, where that is not to matter."""
KINDS = [(1, "separable", "separable"), (2, "separable", "dense"), (3, "separable", "separable"), (4, "dense", "dense"),
         (5, "separable", "separable"), (5, "separable", "dense")]
"""Layers that are shared before, readout before and readout after."""


N_IMAGES = 20


@cache
def images():
    small = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 14, 14, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(8, axis=1).repeat(8, axis=2))


def bank_of(shared_layers, widths=WIDTHS, readout="separable", n_units=N_UNITS, products=1):
    """A bank whose filters all do something, some more than others, and not all places weigh the same."""
    return copy.deepcopy(made_once(shared_layers, widths, readout, n_units, products))


@cache
def made_once(shared_layers, widths, readout, n_units, products):
    bank = new_bank(BankShape(n_units, widths, shared_layers, readout, products), as_tensor(images(), "cpu"), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer, bias in enumerate(bank.bias, start=1):
            loud = 0.5 + torch.rand(len(bias), generator=generator)
            weight = bank.kernel if layer == 1 else bank.pointwise[layer - 2]
            weight.mul_(loud[:, None, None, None] if layer == 1 else loud.reshape(*weight.shape[:2], 1))
            bias.mul_(loud).add_(0.3 + 0.3 * torch.randn(len(bias), generator=generator))
        bank.offset.copy_(torch.randn(n_units, generator=generator))
        for parameter in bank.readout_arrays():
            parameter.mul_(0.5 + torch.rand(parameter.shape, generator=generator))
    return bank.eval()


def answers(bank):
    return standardised_answers(bank, images())


def alone(bank):
    return np.stack([predict(student, images()) for student in students_of(bank)], axis=1)


def students_of(bank):
    n = bank.shape.n_units
    return bank.cut(np.ones(n, np.float32), np.zeros(n, np.float32))


def specialised(bank, most=MANY, readout="separable", **changes):
    return specialise(bank, images(), most, config.Prune(images=50, **changes), readout=readout)


def narrowed(bank, **changes):
    return narrow(bank, images(), config.Prune(images=50, **changes))


def both(bank, kept_first, **changes):
    """What is made in both steps; a bank of which only the first layer is shared is pruned in one."""
    own = specialised(bank, **changes)
    changes.pop("readout", None)
    return [own] if own.shape.shared_layers == 1 else [own, narrowed(own, kept_first=kept_first, **changes)]


def filters(student):
    """Of layers 1 to 5."""
    read = student.arrays["readout.filter" if "readout.filter" in student.arrays else "readout.weight"]
    return [*filters_per_layer(student)[1:].tolist(), len(read)]


def prefixes_oracle(covariance, weights, kept_variance, min_filters, most_filters=None):
    """Try the ranked inputs one after another; the share of variance is that of a least-squares fit."""
    n = len(covariance)
    most = n if most_filters is None else min(n, most_filters)
    order = sorted(range(n), key=lambda i: -covariance[i, i] * np.sum(weights[:, i] ** 2))
    total = np.trace(weights @ covariance @ weights.T)
    for count in range(min(min_filters, most), most):
        kept = order[:count]
        cross = covariance[kept] @ weights.T
        explained = np.trace(cross.T @ np.linalg.pinv(covariance[np.ix_(kept, kept)]) @ cross)
        if explained >= kept_variance * total:
            return sorted(kept)
    return sorted(order[:most])


# The criterion --------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), n_filters=st.integers(1, 4), kept_variance=st.floats(0.05, 0.99),
       min_filters=st.integers(1, 5), most_filters=st.none() | st.integers(1, 14))
def test_the_smallest_sufficient_set_is_the_first_prefix_that_suffices(seed, n, n_filters, kept_variance, min_filters, most_filters):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n, n)) * rng.gamma(1.0, 1.0, (n, 1))
    covariance, weights = mixing @ mixing.T + 1e-3 * np.eye(n), rng.normal(size=(n_filters, n))
    found = smallest_sufficient(covariance, weights, kept_variance, min_filters, most_filters)
    np.testing.assert_array_equal(found, prefixes_oracle(covariance, weights, kept_variance, min_filters, most_filters))


def test_silent_inputs_are_not_needed():
    covariance = np.diag([0.0, 3.0, 0.0, 2.0])
    np.testing.assert_array_equal(smallest_sufficient(covariance, np.ones((2, 4)), 0.999, 1), [1, 3])


def test_of_twins_one_is_enough():
    x = np.random.default_rng(0).normal(size=(200, 2))
    covariance = np.cov(np.column_stack([x[:, 0], x[:, 0], x[:, 1]]), rowvar=False)
    found = smallest_sufficient(covariance, np.array([[1.0, 1.0, 0.1]]), 0.9, 1)
    assert len(found) == 1


@pytest.mark.parametrize("covariance", [np.zeros((4, 4)), np.full((4, 4), np.nan), -1e-9 * np.eye(4)])
def test_where_no_variance_need_be_kept_the_fewest_are(covariance):
    """Also where there is none, where it is no number, and where rounding has made it negative."""
    assert len(smallest_sufficient(covariance, np.ones((2, 4)), 0.0, 2)) == 2


def test_the_refit_is_least_squares_on_samples():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 8))
    weights, kept = rng.normal(size=(3, 8)), np.array([0, 2, 3, 7])
    centred = samples - samples.mean(axis=0)
    expected = np.linalg.lstsq(centred[:, kept], centred @ weights.T, rcond=None)[0].T
    np.testing.assert_allclose(refitted(np.cov(samples, rowvar=False), weights, kept), expected, rtol=1e-3, atol=1e-4)


def test_with_all_inputs_the_weights_stay():
    rng = np.random.default_rng(0)
    samples, weights = rng.normal(size=(500, 6)), rng.normal(size=(3, 6))
    np.testing.assert_allclose(refitted(np.cov(samples, rowvar=False), weights, np.arange(6)), weights, rtol=1e-3, atol=1e-4)


def test_the_gain_of_the_readout_is_least_squares():
    """Of what the kept filters add, centred, on what all add: a filter that a dropped one resembles is turned up."""
    rng = np.random.default_rng(0)
    contribution = rng.normal(size=(500, 5)) + rng.normal(size=5)
    contribution[:, 3] = contribution[:, 0] + 0.1 * contribution[:, 3]
    kept = np.array([0, 1, 4])
    centred = contribution - contribution.mean(axis=0)
    expected = np.linalg.lstsq(centred[:, kept], centred.sum(axis=1), rcond=None)[0]
    assert expected[0] > 1.9
    np.testing.assert_allclose(_gain(contribution, kept), expected, rtol=1e-3)


@pytest.mark.parametrize("contribution", [
    np.zeros((20, 3)), np.full((20, 3), 7.0), np.random.default_rng(0).normal(size=(20, 1)) * [[1, 1, 1]],
])
def test_filters_that_say_nothing_or_the_same_are_not_turned_up_without_bounds(contribution):
    np.testing.assert_allclose(_gain(contribution, np.arange(3)), 1, rtol=1e-6)


# What is measured -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shared_layers", [1, 2, 5])
def test_measured_covariances_are_those_of_the_maps(shared_layers):
    bank = bank_of(shared_layers)
    measured = measure(bank, images())
    with torch.inference_mode():
        x = bank.enter(as_tensor(images(), "cpu"))
        for layer in range(2, 6):
            x = bank.spatial(x, layer)
            samples = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).double().numpy()
            groups = 1 if layer - 1 <= shared_layers else N_UNITS
            found = measured.inputs[layer]
            assert len(found.mean) == groups
            for group, columns in enumerate(np.split(samples, groups, axis=1)):
                np.testing.assert_allclose(found.mean[group], columns.mean(axis=0), rtol=1e-3, atol=1e-4)
                expected = np.cov(columns, rowvar=False, bias=True)
                np.testing.assert_allclose(found.covariance[group], expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())
            x = bank.mix(x, layer)


@pytest.mark.parametrize(("shared_layers", "readout"), [(2, "separable"), (2, "dense"), (5, "separable")])
def test_measured_contributions_sum_to_the_answer(shared_layers, readout):
    bank = bank_of(shared_layers, readout=readout)
    with torch.inference_mode():
        answer = bank(as_tensor(images(), "cpu")).numpy()
    contribution = measure(bank, images()).contribution
    assert contribution.shape == (N_IMAGES, N_UNITS, 3)
    np.testing.assert_allclose(contribution.sum(axis=2) + bank.offset.detach().numpy(), answer, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("shared_layers", "readout"), [(2, "separable"), (2, "dense"), (5, "separable")])
def test_a_measured_contribution_is_what_the_answer_loses_without_the_filter(shared_layers, readout):
    bank = bank_of(shared_layers, readout=readout)
    found, whole = measure(bank, images()).contribution[:, 1, 2], answers(bank)
    with torch.no_grad():
        (bank.readout_filter if readout == "separable" else bank.readout)[1, 2] = 0.0
    lost = whole - answers(bank)
    np.testing.assert_allclose(lost[:, 1], found, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(lost[:, 0], 0)


# Pruning --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("products", [1, 3])
@pytest.mark.parametrize(("shared_layers", "before", "after"), KINDS)
def test_where_nothing_may_be_lost_nothing_changes(shared_layers, before, after, products):
    bank = bank_of(shared_layers, readout=before, products=products)
    expected = answers(bank)
    tolerance = 1e-3 * np.abs(expected).max()
    made = both(bank, 1.0, kept_variance=1.0, last_layer_r2=1.0, readout=after)
    assert [pruned.shape.shared_layers for pruned in made] == ([1] if shared_layers == 1 else [2, 1])
    for pruned in made:
        assert pruned.shape.readout == after
        assert [filters(student) for student in students_of(pruned)] == [list(WIDTHS)] * N_UNITS
        np.testing.assert_allclose(answers(pruned), expected, atol=tolerance)
        np.testing.assert_allclose(alone(pruned), expected, atol=tolerance)


def test_the_bank_that_is_pruned_stays_as_it_is():
    bank = bank_of(5)
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    narrowed(specialised(bank, kept_variance=0.5, min_filters=1))
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())


def make_twins(bank, unit, layer):
    """Two filters of a layer answer the same, and the next layer looks at them alike but listens less to the second."""
    one, other = bank.channels(unit, layer)[:2]
    groups = 0 if layer <= bank.shape.shared_layers else unit
    if layer == 1:
        bank.kernel[other] = bank.kernel[one]
    else:
        bank.pointwise[layer - 2][groups, 1] = bank.pointwise[layer - 2][groups, 0]
    for values in (bank.bias[layer - 1], bank.depthwise[layer - 1]):
        values[other] = values[one]
    readers = slice(None) if layer <= bank.shape.shared_layers else unit
    bank.pointwise[layer - 1][readers, :, 1] *= 0.1


def make_constant(bank, unit, layer):
    """A filter of a layer answers 2 everywhere, and the next layer's kernel, one pixel wide, leaves it so at the borders, too."""
    channel = bank.channels(unit, layer)[1]
    if layer == 1:
        bank.kernel[channel] = 0.0
    else:
        bank.pointwise[layer - 2][0 if layer <= bank.shape.shared_layers else unit, 1] = 0.0
    bank.bias[layer - 1][channel] = 2.0
    bank.depthwise[layer - 1][channel] = 0.0
    bank.depthwise[layer - 1][channel, 0, 2, 2] = 1.0


@pytest.mark.parametrize("change", [make_twins, make_constant])
@pytest.mark.parametrize(("shared_layers", "layer", "expected"), [
    (1, 2, [4, 5]), (5, 2, [4, 4]), (5, 3, [3, 3]), (2, 3, [3, 4]), (5, 4, [3, 3]),
])
def test_a_filter_that_adds_nothing_new_goes_and_the_others_stand_in_for_it(change, shared_layers, layer, expected):
    """Refitted weights for a twin, a moved bias for a constant: the answers stay, without any retraining."""
    bank = bank_of(shared_layers)
    with torch.no_grad():
        change(bank, 0, layer)
    before = answers(bank)
    pruned = specialised(bank, kept_variance=0.9999, last_layer_r2=1.0, min_filters=1)
    assert [filters(student)[layer - 1] for student in students_of(pruned)] == expected
    assert (np.abs(answers(pruned) - before).max(axis=0) < 0.01 * before.std(axis=0)).all()


@pytest.mark.parametrize("change", [make_twins, make_constant])
def test_so_does_a_filter_of_the_first_layer(change):
    own = specialised(bank_of(5), kept_variance=1.0, last_layer_r2=1.0)
    with torch.no_grad():
        change(own, 0, 1)
    before = answers(own)
    pruned = narrowed(own, kept_first=0.9999, min_filters=1)
    assert [filters(student) for student in students_of(pruned)] == [[5, *WIDTHS[1:]]] * N_UNITS
    assert (np.abs(answers(pruned) - before).max(axis=0) < 0.01 * before.std(axis=0)).all()


def test_a_filter_of_the_last_layer_that_repeats_another_goes_and_the_other_is_turned_up():
    bank = bank_of(5)
    with torch.no_grad():
        bank.pointwise[3][0, 2], bank.bias[4][2] = bank.pointwise[3][0, 0], bank.bias[4][0]
        bank.readout_filter[0] = torch.tensor([[1.0], [0.7], [0.4]])
    before = answers(bank)[:, 0]
    pruned = specialised(bank, most=(99, 99, 2), kept_variance=1.0, last_layer_r2=1.0, min_filters=1)
    assert filters(students_of(pruned)[0])[-1] == 2
    np.testing.assert_allclose(pruned.readout_filter[0, :, 0].detach(), [1.4, 0.7], rtol=1e-2)
    moved = answers(pruned)[:, 0] - before
    assert moved.std() < 0.01 * before.std()


def test_how_loud_a_filter_is_where_the_next_layer_takes_it_back_does_not_decide():
    """Larger weights that are divided by later are the same network, so the same filters of the first layer are kept."""
    bank, louder = bank_of(2, WIDE), bank_of(2, WIDE)
    with torch.no_grad():
        louder.kernel[::3] *= 10.0
        louder.bias[0][::3] *= 10.0
        louder.pointwise[0][:, :, ::3] /= 10.0
    np.testing.assert_allclose(answers(louder), answers(bank), rtol=1e-3, atol=1e-4)
    kept = [narrowed(of, kept_first=0.9, min_filters=1).has(1) for of in (louder, bank)]
    assert not kept[1].all()
    np.testing.assert_array_equal(*kept)


@pytest.mark.parametrize("layer", [2, 3, 4])
def test_filters_that_are_louder_and_turned_down_above_change_nothing(layer):
    """The same network once more: how loud a filter is says nothing about how much the answer needs it."""
    bank, louder = bank_of(5, WIDE), bank_of(5, WIDE)
    with torch.no_grad():
        louder.pointwise[layer - 2][:, ::3] *= 30.0
        louder.bias[layer - 1][::3] *= 30.0
        louder.pointwise[layer - 1][:, :, ::3] /= 30.0
    np.testing.assert_allclose(answers(louder), answers(bank), rtol=1e-3, atol=1e-4)
    pruned = [specialised(of, kept_variance=0.9, last_layer_r2=0.9, min_filters=1) for of in (louder, bank)]
    for at in range(2, 6):
        assert at == 5 or not pruned[1].has(at).all()
        np.testing.assert_array_equal(*(of.has(at) for of in pruned))
    np.testing.assert_allclose(*map(answers, pruned), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("shared_layers", "before", "after"), KINDS)
def test_students_shrink_and_answer_nearly_as_before(shared_layers, before, after):
    bank = bank_of(shared_layers, WIDE, before)
    expected = answers(bank)
    for pruned in both(bank, 0.98, kept_variance=0.98, last_layer_r2=0.97, min_filters=2, readout=after):
        found, by_itself = answers(pruned), alone(pruned)
        for unit, student in enumerate(students_of(pruned)):
            assert sum(filters(student)[:4]) < 10 + 10 + 8 + 8
            assert np.corrcoef(found[:, unit], expected[:, unit])[0, 1] ** 2 > 0.8
            np.testing.assert_allclose(by_itself[:, unit], found[:, unit], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shared_layers", [1, 5])
def test_first_layers_that_stay_shared_stay_as_they_are(shared_layers):
    bank = bank_of(shared_layers, WIDE)
    pruned = specialised(bank, kept_variance=0.8, min_filters=1)
    for layer in range(1, min(shared_layers, 2) + 1):
        for old, new in zip(bank.arrays_of(layer), pruned.arrays_of(layer), strict=True):
            assert torch.equal(old, new)


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_only_the_first_two_layers_change_when_the_first_is_narrowed(readout):
    own = specialised(bank_of(5, WIDE), kept_variance=0.9, min_filters=1, readout=readout)
    last = narrowed(own, kept_first=0.8, min_filters=1)
    names = [name for name in students_of(own)[0].arrays if name.startswith(("layer3", "layer4", "layer5", "readout"))]
    assert len(names) == 9 + (3 if readout == "separable" else 2)
    for before, after in zip(students_of(own), students_of(last), strict=True):
        assert filters(after)[0] < filters(before)[0]
        assert filters(after)[1:] == filters(before)[1:]
        for name in names:
            np.testing.assert_array_equal(after.arrays[name], before.arrays[name])


# Sizes ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("readout", "products"), [("separable", 1), ("separable", 2), ("dense", 2)])
@pytest.mark.parametrize("shared_layers", [1, 5])
@pytest.mark.parametrize(("kept_variance", "min_filters", "max_parameters"), [
    (0.9, 1, 12_500), (0.5, 2, 12_500), (1.0, 1, 1800), (0.9, 3, 3000),
])
def test_a_students_parameters_are_those_that_pruning_counted(
    shared_layers, readout, products, kept_variance, min_filters, max_parameters
):
    bank = bank_of(shared_layers, products=products)
    measured = measure(bank, images())
    chosen = config.Prune(images=50, kept_variance=kept_variance, min_filters=min_filters, max_parameters=max_parameters)
    for unit, student in enumerate(students_of(specialise(bank, images(), MANY, chosen, readout=readout))):
        kept = _specialised(bank, measured, unit, MANY, chosen, readout)
        assert n_parameters(student) == _size(kept, readout, products)
        assert filters(student) == [len(of_layer) for of_layer in kept.filters]


@pytest.mark.parametrize(("shared_layers", "readout", "max_parameters"), [
    (1, "separable", 1500), (1, "separable", 1800), (5, "separable", 2100), (5, "separable", 2300), (1, "dense", 2500), (5, "dense", 2700),
])
def test_no_student_is_larger_than_allowed(shared_layers, readout, max_parameters):
    bank = bank_of(shared_layers, (12, 10, 8, 8, 4))
    changes = {"kept_variance": 0.999, "last_layer_r2": 0.3, "min_filters": 1, "readout": readout}
    unlimited = students_of(specialised(bank, **changes))
    for student, larger in zip(students_of(specialised(bank, **changes, max_parameters=max_parameters)), unlimited, strict=True):
        assert n_parameters(larger) > max_parameters, "or the limit would not be felt"
        assert n_parameters(student) <= max_parameters


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_a_limit_that_is_not_reached_changes_nothing(readout):
    bank = bank_of(5, WIDE)
    free = students_of(specialised(bank, kept_variance=0.95, min_filters=1, readout=readout, max_parameters=1_000_000))
    largest = max(n_parameters(student) for student in free)
    limited = students_of(specialised(bank, kept_variance=0.95, min_filters=1, readout=readout, max_parameters=max(largest, 2 * 784 * 4)))
    for student, other in zip(limited, free, strict=True):
        for name, array in student.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])


def test_a_dense_readout_takes_no_more_than_half_of_the_room():
    bank = bank_of(5, WIDE)
    for room, kept in ((12_500, 4), (2 * 784 * 3, 3), (2 * 784 * 3 - 1, 2), (1000, 1)):
        pruned = specialised(bank, last_layer_r2=1.0, min_filters=1, max_parameters=room, readout="dense")
        assert [filters(student)[-1] for student in students_of(pruned)] == [kept] * N_UNITS


@pytest.mark.parametrize("most", [(8, 8, 4), (3, 8, 4), (8, 2, 4), (8, 8, 1), (2, 3, 2)])
@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_no_layer_keeps_more_than_it_may(most, readout):
    pruned = specialised(bank_of(5, WIDE), most, readout, kept_variance=1.0, last_layer_r2=1.0, min_filters=1)
    assert [filters(student) for student in students_of(pruned)] == [[10, 10, *most]] * N_UNITS
    assert pruned.shape.widths == (10, 10, *most)


@pytest.mark.parametrize("min_filters", [1, 2, 3, 9])
@pytest.mark.parametrize("shared_layers", [1, 2, 5])
def test_every_layer_keeps_the_fewest_that_are_asked_for(shared_layers, min_filters):
    """And no more than it has, and at the lowest criterion no more than that."""
    own, *_, last = 2 * both(bank_of(shared_layers), 1e-6, kept_variance=1e-6, last_layer_r2=1e-6, min_filters=min_filters)
    fewest = [min(min_filters, width) for width in WIDTHS]
    assert [filters(student) for student in students_of(own)] == [[WIDTHS[0] if shared_layers > 1 else fewest[0], *fewest[1:]]] * N_UNITS
    assert [filters(student) for student in students_of(last)] == [fewest] * N_UNITS


def test_a_layer_that_may_keep_fewer_than_the_fewest_keeps_what_it_may():
    pruned = specialised(bank_of(5), (2, 3, 1), kept_variance=1e-6, last_layer_r2=1e-6, min_filters=4)
    assert [filters(student) for student in students_of(pruned)] == [[6, 4, 2, 3, 1]] * N_UNITS


@pytest.mark.parametrize("shared_layers", [1, 5])
@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_a_size_that_cannot_be_reached_ends_at_the_fewest_filters(shared_layers, readout):
    changes = {"kept_variance": 0.99, "last_layer_r2": 1.0, "min_filters": 2, "max_parameters": 1000}
    pruned = specialised(bank_of(shared_layers), (4, 4, 2), readout, **changes)
    for student in students_of(pruned):
        assert filters(student) == [6 if shared_layers == 5 else 2, 2, 2, 2, 2]
        assert n_parameters(student) > 1000


# Banks out of the ordinary --------------------------------------------------------------------------------------------
def broken(measured, how):
    """As if all maps of a layer were what they should not be."""
    inputs = {layer: Inputs(of.mean, np.ones_like(of.covariance) * how) for layer, of in measured.inputs.items()}
    return replace(measured, inputs=inputs)


@pytest.mark.parametrize("how", [np.nan, 0.0, -1e-12, 1e-300, 1e300, 1.0])
def test_pruning_ends_whatever_was_measured(how):
    bank = bank_of(5)
    measured = broken(measure(bank, images()), how)
    chosen = config.Prune(images=50, min_filters=2, max_parameters=1000)
    with np.errstate(all="ignore"):
        kept = _specialised(bank, measured, 0, MANY, chosen, "separable")
    assert [len(of_layer) for of_layer in kept.filters[:4]] == [6, 2, 2, 2]


def test_no_more_than_all_is_kept_of_contributions_that_are_not_numbers():
    bank = bank_of(5)
    measured = measure(bank, images())
    measured = Statistics(measured.inputs, np.full_like(measured.contribution, np.nan))
    kept = _specialised(bank, measured, 0, MANY, config.Prune(images=50), "separable")
    np.testing.assert_array_equal(kept.filters[-1], [0, 1, 2])


@pytest.mark.parametrize("readout", ["separable", "dense"])
@pytest.mark.parametrize("shared_layers", [1, 5])
def test_a_unit_that_never_varies_stays_constant_and_leaves_the_others_alone(shared_layers, readout):
    bank = bank_of(shared_layers)
    with torch.no_grad():
        bank.readout_filter[0] = 0.0
    before = answers(bank)
    for pruned in both(bank, 1.0, kept_variance=1.0, last_layer_r2=1.0, readout=readout):
        assert all(torch.isfinite(value).all() for value in pruned.state_dict().values())
        np.testing.assert_allclose(answers(pruned), before, atol=1e-3 * np.abs(before).max())
        np.testing.assert_array_equal(answers(pruned)[:, 0], before[:, 0])


@pytest.mark.parametrize("layer", [1, 2, 3, 4, 5])
def test_a_layer_that_is_silent_is_pruned_to_the_fewest_filters_and_stays_finite(layer):
    """All covariances of what it gives are 0."""
    bank = bank_of(5)
    with torch.no_grad():
        bank.bias[layer - 1].fill_(-1e4)
    before = answers(bank)
    assert (before.std(axis=0) < 1e-6).all()
    own = specialised(bank, min_filters=2, kept_variance=1.0, last_layer_r2=1.0)
    for pruned in (own, narrowed(own, min_filters=2, kept_first=1.0)):
        assert all(torch.isfinite(value).all() for value in pruned.state_dict().values())
        np.testing.assert_allclose(answers(pruned), before, atol=1e-3 * np.abs(before).max())
    if layer < 5:
        assert {filters(student)[layer - 1] for student in students_of(pruned)} == {2}


@pytest.mark.parametrize("shared_layers", [1, 2, 5])
@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_a_bank_of_one_unit_is_pruned_too(shared_layers, readout):
    bank = bank_of(shared_layers, WIDE, n_units=1)
    before = answers(bank)
    for pruned in both(bank, 0.98, kept_variance=0.98, last_layer_r2=0.97, min_filters=2, readout=readout):
        assert np.corrcoef(answers(pruned)[:, 0], before[:, 0])[0, 1] ** 2 > 0.8
        np.testing.assert_allclose(alone(pruned), answers(pruned), rtol=1e-3, atol=1e-4)


# Afterwards -----------------------------------------------------------------------------------------------------------
def loss_of(bank):
    return (bank(as_tensor(images()[:4], "cpu")) - 1.0).pow(2).mean()


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_a_pruned_bank_shares_two_layers_then_one_and_can_be_trained_on(readout):
    own = specialised(bank_of(5), kept_variance=0.9, readout=readout)
    last = narrowed(own, kept_first=0.9)
    for pruned, shared in ((own, 2), (last, 1)):
        assert pruned.shape.shared_layers == shared
        pruned.train()
        loss_of(pruned).backward()
        assert all(parameter.grad is not None for parameter in pruned.parameters())
        assert all(bool((parameter.grad != 0).any()) for parameter in pruned.parameters())


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_a_pruned_bank_with_fixed_layers_is_trained_on_without_them(readout):
    own = specialised(bank_of(5, WIDE), kept_variance=0.9, min_filters=1, readout=readout)
    for pruned in (own, narrowed(own, kept_first=0.9, min_filters=1)):
        before = {layer: [array.clone() for array in pruned.arrays_of(layer)] for layer in range(1, 6)}
        pruned.fix(2).train()
        optimizer = torch.optim.AdamW(pruned.parameters(), lr=0.01, weight_decay=0.0)
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(pruned).backward()
            optimizer.step()
        for layer, arrays in before.items():
            same = [torch.equal(array, after) for array, after in zip(arrays, pruned.arrays_of(layer), strict=True)]
            assert same == [layer <= 2] * len(arrays)
        np.testing.assert_allclose(alone(pruned), answers(pruned), rtol=1e-3, atol=1e-4)


def test_the_images_decide():
    bank = bank_of(5)
    chosen = config.Prune(kept_variance=0.5)
    rows = (slice(0, 6), slice(0, 6), slice(6, 12))
    first, again, other = (answers(specialise(bank, images()[of], MANY, chosen)) for of in rows)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# A bank that was pruned before -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_where_nothing_may_be_lost_pruning_again_changes_nothing(readout):
    """Units that left out different filters, so that places among their own are not places in the layer."""
    once = specialised(bank_of(5, WIDE), (6, 5, 3), readout, kept_variance=0.85, last_layer_r2=0.9, min_filters=1)
    uses = [once.has(layer).numpy() for layer in (2, 3)]
    assert not np.array_equal(uses[0][0], uses[0][1])
    again = specialised(once, MANY, readout, kept_variance=0.999999, last_layer_r2=1.0, min_filters=1, max_parameters=10**6)
    np.testing.assert_allclose(answers(again), answers(once), atol=2e-3 * float(np.ptp(answers(once))))
    assert [filters(student) for student in students_of(again)] == [filters(student) for student in students_of(once)]


@pytest.mark.parametrize("readout", ["separable", "dense"])
def test_a_pruned_bank_is_pruned_further_and_answers_nearly_as_before(readout):
    once = specialised(bank_of(5, WIDE), MANY, readout, kept_variance=0.97, min_filters=1)
    again = specialised(once, MANY, readout, kept_variance=0.93, min_filters=1)
    before, after = (np.array([filters(student) for student in students_of(bank)]) for bank in (once, again))
    assert (after <= before).all()
    assert (after < before).any(axis=1).all(), "in each unit"
    r = [np.corrcoef(one, other)[0, 1] for one, other in zip(answers(again).T, answers(once).T, strict=True)]
    assert min(r) > 0.8
    np.testing.assert_allclose(alone(again), answers(again), rtol=1e-4, atol=1e-4)
    for student, expected in zip(students_of(narrowed(again)), students_of(again), strict=True):
        assert filters(student)[1:] == filters(expected)[1:]
