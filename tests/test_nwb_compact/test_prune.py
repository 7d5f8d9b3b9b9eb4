import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nwb_compact import config
from nwb_compact.backbones import as_tensor
from nwb_compact.bank import Bank, BankShape
from nwb_compact.distill import Lessons, answers_of
from nwb_compact.prune import _prune_unit, _size, measure, prune, refitted, smallest_sufficient
from nwb_compact.student import filters_per_layer, n_parameters, predict

WIDTHS, N_UNITS = (6, 5, 4, 4, 3), 2


def bank_of(shared_layers, widths=WIDTHS, seed=0):
    """A bank whose filters all do something, on normalisations that fit the images."""
    torch.manual_seed(seed)
    bank = Bank(BankShape(N_UNITS, widths, shared_layers))
    with torch.no_grad():
        for norm in bank.norm:
            norm.bias.normal_(0.3, 0.3)
            norm.weight.uniform_(0.5, 1.5)
            norm.momentum = 1.0
        bank.train()
        bank(as_tensor(images(), "cpu"))
    return bank.eval()


def images(n=40):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (n, 14, 14, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(8, axis=1).repeat(8, axis=2))


def taught_by(bank):
    """Lessons whose teacher is the bank itself."""
    nothing = Lessons(images(), np.zeros((40, N_UNITS), np.float32), np.zeros(N_UNITS, np.float32), np.ones(N_UNITS, np.float32))
    return Lessons(nothing.images, answers_of(bank, nothing, nothing.images), nothing.offset, nothing.scale)


def pruned_students(bank, **changes):
    taught = taught_by(bank)
    pruned = prune(bank, taught, config.Prune(images=50, **changes), seed=0)
    return pruned, pruned.cut(taught.scale, taught.offset), taught


def prefixes_oracle(covariance, weights, kept_variance, min_filters):
    """Try the ranked inputs one after another; the share of variance is that of a least-squares fit."""
    n = len(covariance)
    order = sorted(range(n), key=lambda i: -covariance[i, i] * np.sum(weights[:, i] ** 2))
    total = np.trace(weights @ covariance @ weights.T)
    for count in range(min(min_filters, n), n):
        kept = order[:count]
        cross = covariance[kept] @ weights.T
        explained = np.trace(cross.T @ np.linalg.pinv(covariance[np.ix_(kept, kept)]) @ cross)
        if explained >= kept_variance * total:
            return sorted(kept)
    return list(range(n))


# The criterion --------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), n_filters=st.integers(1, 4), kept_variance=st.floats(0.05, 0.99),
       min_filters=st.integers(1, 5))
def test_the_smallest_sufficient_set_is_the_first_prefix_that_suffices(seed, n, n_filters, kept_variance, min_filters):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n, n)) * rng.gamma(1.0, 1.0, (n, 1))
    covariance, weights = mixing @ mixing.T + 1e-3 * np.eye(n), rng.normal(size=(n_filters, n))
    found = smallest_sufficient(covariance, weights, kept_variance, min_filters)
    np.testing.assert_array_equal(found, prefixes_oracle(covariance, weights, kept_variance, min_filters))


def test_silent_inputs_are_not_needed():
    covariance = np.diag([0.0, 3.0, 0.0, 2.0])
    np.testing.assert_array_equal(smallest_sufficient(covariance, np.ones((2, 4)), 0.999, 1), [1, 3])


def test_of_twins_one_is_enough():
    x = np.random.default_rng(0).normal(size=(200, 2))
    covariance = np.cov(np.column_stack([x[:, 0], x[:, 0], x[:, 1]]), rowvar=False)
    found = smallest_sufficient(covariance, np.array([[1.0, 1.0, 0.1]]), 0.9, 1)
    assert len(found) == 1


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


# What is measured -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shared_layers", [1, 2])
def test_measured_covariances_are_those_of_the_maps(shared_layers):
    bank = bank_of(shared_layers)
    measured = measure(bank, images())
    with torch.inference_mode():
        x = torch.relu(bank.norm[0](bank.first(as_tensor(images(), "cpu") - bank.mean)))
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


def test_measured_contributions_sum_to_the_answer():
    bank = bank_of(2)
    with torch.inference_mode():
        answer = bank(as_tensor(images(), "cpu")).numpy()
    summed = measure(bank, images()).contribution.sum(axis=2) + bank.bias.detach().numpy()
    np.testing.assert_allclose(summed, answer, rtol=1e-3, atol=1e-4)


# Pruning --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shared_layers", [1, 2])
def test_where_nothing_may_be_lost_nothing_changes(shared_layers):
    bank = bank_of(shared_layers)
    pruned, students, taught = pruned_students(bank, kept_variance=1.0, last_layer_r2=1.0)
    for student in students:
        np.testing.assert_array_equal(filters_per_layer(student), [6, 6, 5, 4, 4])
    expected = taught.answer
    tolerance = 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(answers_of(pruned, taught, taught.images), expected, atol=tolerance)
    np.testing.assert_allclose(np.stack([predict(student, taught.images) for student in students], axis=1), expected, atol=tolerance)


def make_twins(bank, unit):
    """Two filters of layer 2 answer the same, and the next layer looks at them alike but listens less to the second."""
    one, other = bank.channels(unit, 2)[:2]
    for values in (bank.pointwise[0].weight, bank.norm[1].weight, bank.norm[1].bias, bank.norm[1].running_mean, bank.norm[1].running_var,
                   bank.depthwise[1].weight):
        values[other] = values[one]
    bank.pointwise[1].weight[bank.channels(unit, 3), 1] *= 0.3


def make_constant(bank, unit):
    """A filter of layer 2 answers 2 everywhere, and the next layer's kernel, one pixel wide, leaves it so at the borders, too."""
    channel = bank.channels(unit, 2)[1]
    bank.norm[1].weight[channel], bank.norm[1].bias[channel] = 0.0, 2.0
    bank.depthwise[1].weight[channel] = 0.0
    bank.depthwise[1].weight[channel, 0, 2, 2] = 1.0


@pytest.mark.parametrize("change", [make_twins, make_constant])
def test_a_filter_that_adds_nothing_new_goes_and_the_others_stand_in_for_it(change):
    """Refitted weights for a twin, a moved mean for a constant: the answers stay, without any retraining."""
    bank = bank_of(1)
    with torch.no_grad():
        change(bank, 0)
    pruned, students, taught = pruned_students(bank, kept_variance=0.9999, last_layer_r2=1.0, min_filters=1)
    assert [filters_per_layer(student)[2] for student in students] == [4, 5], "the kernels of layer 3 are as many as the filters of layer 2"
    moved = np.abs(answers_of(pruned, taught, taught.images) - taught.answer).max(axis=0)
    assert (moved < 0.01 * taught.answer.std(axis=0)).all()


def test_how_loud_a_filter_is_before_it_is_normalised_does_not_decide():
    """Larger weights with a normalisation that takes them back are the same network, so the same filters are kept."""
    bank, louder = bank_of(1, widths=(10, 10, 8, 8, 4)), bank_of(1, widths=(10, 10, 8, 8, 4))
    with torch.no_grad():
        for layer in range(2, 6):
            louder.pointwise[layer - 2].weight[::3] *= 100.0
            louder.norm[layer - 1].running_mean[::3] *= 100.0
            louder.norm[layer - 1].running_var[::3] *= 100.0**2
    (_, found, _), (_, expected, _) = (pruned_students(of, kept_variance=0.8, min_filters=1) for of in (louder, bank))
    for student, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(student.arrays["layer1.kernel"], other.arrays["layer1.kernel"], rtol=1e-5)
        np.testing.assert_array_equal(filters_per_layer(student), filters_per_layer(other))


@pytest.mark.parametrize("shared_layers", [1, 2])
def test_students_shrink_and_answer_nearly_as_before(shared_layers):
    bank = bank_of(shared_layers, widths=(10, 10, 8, 8, 4))
    pruned, students, taught = pruned_students(bank, kept_variance=0.98, last_layer_r2=0.97, min_filters=2)
    found = answers_of(pruned, taught, taught.images)
    for unit, student in enumerate(students):
        assert filters_per_layer(student).sum() < 10 + 10 + 10 + 8 + 8
        assert np.corrcoef(found[:, unit], taught.answer[:, unit])[0, 1] ** 2 > 0.8
        np.testing.assert_allclose(predict(student, taught.images), found[:, unit], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kept_variance", "min_filters", "max_parameters"), [
    (0.9, 1, 12_500), (0.5, 2, 12_500), (1.0, 1, 3000), (0.9, 3, 3000),
])
def test_a_students_parameters_are_those_that_pruning_counted(kept_variance, min_filters, max_parameters):
    bank = bank_of(1)
    chosen = config.Prune(images=50, kept_variance=kept_variance, min_filters=min_filters, max_parameters=max_parameters)
    taught = taught_by(bank)
    students = prune(bank, taught, chosen, seed=0).cut(taught.scale, taught.offset)
    order = np.random.default_rng(0).permutation(40)
    measured = measure(bank, taught.images[order])
    for unit, student in enumerate(students):
        kept = _prune_unit(bank, measured, taught.answer[order, unit], unit, chosen)
        assert n_parameters(student) == _size(kept)
        assert (filters_per_layer(student) == [len(filters) for filters in (kept.filters[0], *kept.filters[:4])]).all()


@pytest.mark.parametrize("max_parameters", [1500, 3000, 3400])
def test_no_student_is_larger_than_allowed(max_parameters):
    bank = bank_of(1, widths=(12, 10, 8, 8, 4))
    _, students, _ = pruned_students(bank, kept_variance=0.999, last_layer_r2=0.3, min_filters=1, max_parameters=max_parameters)
    _, unlimited, _ = pruned_students(bank, kept_variance=0.999, last_layer_r2=0.3, min_filters=1)
    for student, larger in zip(students, unlimited, strict=True):
        assert n_parameters(student) <= max_parameters
        assert n_parameters(larger) > max_parameters or n_parameters(larger) == n_parameters(student)


@pytest.mark.parametrize("min_filters", [1, 2, 3, 9])
def test_every_layer_keeps_the_fewest_that_are_asked_for(min_filters):
    """And no more than it has, and at the lowest criterion no more than that."""
    _, students, _ = pruned_students(bank_of(1), kept_variance=1e-6, last_layer_r2=1e-6, min_filters=min_filters)
    for student in students:
        kept = [*filters_per_layer(student)[1:], len(student.arrays["readout.weight"])]
        assert kept == [min(min_filters, width) for width in WIDTHS]


def test_a_size_that_cannot_be_reached_ends_at_the_fewest_filters():
    _, students, _ = pruned_students(bank_of(1), kept_variance=0.99, last_layer_r2=1.0, min_filters=2, max_parameters=1000)
    for student in students:
        assert list(filters_per_layer(student)) == [2, 2, 2, 2, 2]
        assert n_parameters(student) > 1000


def test_a_pruned_bank_shares_only_its_first_layer_and_can_be_trained_on():
    pruned, _, taught = pruned_students(bank_of(2), kept_variance=0.9)
    assert pruned.shape.shared_layers == 1
    pruned.train()
    loss = (pruned(as_tensor(taught.images[:4], "cpu")) - torch.from_numpy(taught.answer[:4])).pow(2).mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters())


def test_the_seed_decides_which_images_are_measured():
    bank = bank_of(1)
    taught = taught_by(bank)
    chosen = config.Prune(kept_variance=0.5).model_copy(update={"images": 6})
    first, again, other = (answers_of(prune(bank, taught, chosen, seed=seed), taught, taught.images) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
