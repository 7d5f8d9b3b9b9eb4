from dataclasses import replace

import numpy as np
import pytest

from nwb_compact import config
from nwb_compact.teacher import PREDICTION_BATCH, TeacherSession, fit_teacher

SETTINGS = config.Teacher(
    backbone="none", members=1, epochs=16, channels=16, core_blocks=1, dropout=0.0, batch_images=32, decay_after=20,
)


def readout_of_maps(n_images=600, n_units=3, seed=0):
    """A session whose units are positive combinations of channels at one place each: what a factorised readout can say."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(n_images, 4, 3, 3)).astype(np.float16)
    weights, places = rng.normal(size=(n_units, 4)), rng.integers(0, 3, (n_units, 2))
    drive = np.stack([maps[:, :, row, column].astype(float) @ weight for weight, (row, column) in zip(weights, places, strict=True)], 1)
    mean = 5 + 2 * drive / drive.std(axis=0)
    return TeacherSession(maps, mean, np.arange(n_images - 200), np.arange(n_images - 200, n_images - 100))


def r2(one, other):
    return np.array([np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(one.T, other.T, strict=True)])


def quick(session_or_sessions, *, seed=0, **changes):
    sessions = session_or_sessions if isinstance(session_or_sessions, list) else [session_or_sessions]
    return fit_teacher(sessions, SETTINGS.model_copy(update={"epochs": 2} | changes), seed=seed)


@pytest.fixture(scope="module")
def recovered():
    session = readout_of_maps()
    return session, fit_teacher([session], SETTINGS, seed=0)


def test_a_linear_readout_is_recovered_on_images_never_seen(recovered):
    session, teacher = recovered
    predicted = teacher.predict(session.inputs, 0)
    assert (r2(predicted[500:], session.mean[500:]) > 0.9).all()
    assert teacher.validation_r2[0] > 0.9


def test_predictions_are_in_counts_and_not_z_scores(recovered):
    session, teacher = recovered
    predicted = teacher.predict(session.inputs, 0)
    np.testing.assert_allclose(predicted.mean(axis=0), session.mean.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(predicted.std(axis=0), session.mean.std(axis=0), rtol=0.25)


def test_an_image_is_answered_alike_alone_and_among_others(recovered):
    session, teacher = recovered
    assert len(session.inputs) > PREDICTION_BATCH
    whole = teacher.predict(session.inputs, 0)
    alone = np.concatenate([teacher.predict(session.inputs[index : index + 1], 0) for index in (0, 130, 599)])
    np.testing.assert_allclose(alone, whole[[0, 130, 599]], rtol=1e-4, atol=1e-4)


def test_holes_in_the_responses_and_a_constant_unit_do_not_break_the_others():
    session = readout_of_maps(n_units=4)
    mean = session.mean.copy()
    mean[::3, 0] = np.nan
    mean[:, 1] = 7.0
    mean[:, 2] = np.nan
    teacher = fit_teacher([replace(session, mean=mean)], SETTINGS, seed=0)
    predicted = teacher.predict(session.inputs, 0)
    assert np.isfinite(predicted).all()
    assert (r2(predicted[500:, [0, 3]], session.mean[500:, [0, 3]]) > 0.85).all()
    assert np.isfinite(teacher.validation_r2).all()
    np.testing.assert_allclose(predicted[:, 1].mean(), 7.0, atol=0.5)


def test_rows_that_neither_fit_nor_validate_are_never_read():
    session = readout_of_maps()
    mean = session.mean.copy()
    mean[500:] = 1e6
    np.testing.assert_array_equal(quick(replace(session, mean=mean)).predict(session.inputs, 0), quick(session).predict(session.inputs, 0))


def test_the_validation_part_is_not_fitted_on():
    """With one epoch there is nothing to choose between, so what the validation part holds cannot matter."""
    session = readout_of_maps()
    mean = session.mean.copy()
    mean[session.validation_images] = mean[session.validation_images][::-1]
    changed = quick(replace(session, mean=mean), epochs=1)
    np.testing.assert_array_equal(changed.predict(session.inputs, 0), quick(session, epochs=1).predict(session.inputs, 0))


def test_the_seed_decides():
    session = readout_of_maps()
    first, again, other = (quick(session, seed=seed, dropout=0.2).predict(session.inputs, 0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_ensemble_is_the_average_of_members_that_differ():
    session = readout_of_maps()
    both, first = quick(session, members=2), quick(session, members=1)
    one, two = (replace(both, members=(member,)).predict(session.inputs, 0) for member in both.members)
    np.testing.assert_array_equal(one, first.predict(session.inputs, 0))
    assert (one != two).any()
    np.testing.assert_allclose(both.predict(session.inputs, 0), (one + two) / 2, rtol=1e-5)
    assert len(both.validation_r2) == 2
    assert both.n_parameters == 2 * first.n_parameters


def test_sessions_keep_their_order_and_have_readouts_of_their_own():
    one, two = readout_of_maps(n_units=3), readout_of_maps(n_units=2, seed=1)
    two = replace(two, mean=two.mean + 100)
    teacher = quick([one, two], epochs=8)
    first, second = teacher.predict(one.inputs, 0), teacher.predict(two.inputs, 1)
    assert (first.shape[1], second.shape[1]) == (3, 2)
    assert np.abs(first.mean() - 5) < 1
    assert np.abs(second.mean() - 105) < 1
    assert (r2(first[500:], one.mean[500:]) > 0.7).all()
    assert (r2(second[500:], two.mean[500:]) > 0.7).all()


def test_the_number_of_parameters_is_that_of_a_count_by_hand():
    session = readout_of_maps(n_images=250, n_units=3)
    channels, inputs, places = 16, 4, 9
    core = inputs * channels + 2 * channels  # pointwise, BatchNorm
    block = channels * 9 + 2 * channels + channels * channels + channels  # depthwise, BatchNorm, pointwise with bias
    readout = 3 * (channels + places + 1)
    assert quick(session, epochs=1).n_parameters == core + block + 2 * channels + readout


def test_the_conv_backbone_is_trained_on_images_themselves():
    rng = np.random.default_rng(0)
    brightness = rng.uniform(40, 200, (160, 1, 1, 1))
    images = np.clip(brightness + rng.normal(0, 20, (160, 32, 32, 3)), 0, 255).astype(np.uint8)
    session = TeacherSession(images, brightness[:, 0, 0] / 20, np.arange(100), np.arange(100, 130))
    teacher = quick(session, epochs=6, trunk_channels=4, core_blocks=0)
    assert r2(teacher.predict(images, 0)[130:], session.mean[130:])[0] > 0.8
    frozen = {id(parameter) for member in teacher.members for parameter in member.parameters() if parameter.requires_grad}
    assert frozen == set(), "a trained ensemble is not trained on by accident"


def test_a_complete_member_is_not_trained_again(tmp_path):
    session = readout_of_maps()
    settings = SETTINGS.model_copy(update={"epochs": 2, "members": 2})
    first = fit_teacher([session], settings, seed=0, checkpoints=tmp_path)
    notes = []
    again = fit_teacher([session], settings, seed=0, checkpoints=tmp_path, advance=lambda n=1, note="": notes.append((n, note)))
    assert [note for note in notes if note[0]] == [(2, "resumed")] * 2
    np.testing.assert_array_equal(again.predict(session.inputs, 0), first.predict(session.inputs, 0))
