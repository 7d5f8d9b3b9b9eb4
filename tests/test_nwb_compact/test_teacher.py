from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nwb_compact import config, teacher
from nwb_compact.errors import NwbCompactError
from nwb_compact.teacher import PREDICTION_BATCH, TeacherSession, all_epochs, fit_teacher, n_epochs
from nwb_compact.training import cut

SETTINGS = config.Teacher(
    backbone="none", members=1, epochs=16, least_steps=1, channels=16, core_blocks=1, dropout=0.0, batch_images=32, weight_decay=(0.01,),
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
    session, fitted = recovered
    predicted = fitted.predict(session.inputs, 0)
    assert (r2(predicted[500:], session.mean[500:]) > 0.9).all()
    assert fitted.validation_r2[0] > 0.9


def test_predictions_are_in_counts_and_not_z_scores(recovered):
    session, fitted = recovered
    predicted = fitted.predict(session.inputs, 0)
    np.testing.assert_allclose(predicted.mean(axis=0), session.mean.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(predicted.std(axis=0), session.mean.std(axis=0), rtol=0.25)


def test_an_image_is_answered_alike_alone_and_among_others(recovered):
    session, fitted = recovered
    assert len(session.inputs) > PREDICTION_BATCH
    whole = fitted.predict(session.inputs, 0)
    alone = np.concatenate([fitted.predict(session.inputs[index : index + 1], 0) for index in (0, 130, 599)])
    np.testing.assert_allclose(alone, whole[[0, 130, 599]], rtol=1e-4, atol=1e-4)


def test_holes_in_the_responses_and_a_constant_unit_do_not_break_the_others():
    session = readout_of_maps(n_units=4)
    mean = session.mean.copy()
    mean[::3, 0] = np.nan
    mean[:, 1] = 7.0
    mean[:, 2] = np.nan
    fitted = fit_teacher([replace(session, mean=mean)], SETTINGS, seed=0)
    predicted = fitted.predict(session.inputs, 0)
    assert np.isfinite(predicted).all()
    assert (r2(predicted[500:, [0, 3]], session.mean[500:, [0, 3]]) > 0.85).all()
    assert np.isfinite(fitted.validation_r2).all()
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
    one, two = both.predict_members(session.inputs, 0)
    assert (one != two).any()
    np.testing.assert_allclose(both.predict(session.inputs, 0), (one + two) / 2, rtol=1e-5)
    assert len(both.validation_r2) == len(both.member_validation_r2) == 2
    assert both.validation_r2[0] == both.member_validation_r2[0]
    assert both.n_parameters == 2 * first.n_parameters


@pytest.mark.parametrize("readout", ["factorised", "gaussian"])
def test_a_member_does_not_depend_on_who_is_trained_beside_it(readout):
    """What is kept is one epoch for all members, so with one epoch a member alone is the first of three."""
    session = readout_of_maps()
    settings = {"epochs": 1, "dropout": 0.2, "readout": readout}
    alone, three = (quick(session, members=members, **settings).predict_members(session.inputs, 0) for members in (1, 3))
    np.testing.assert_allclose(three[0], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("readout", ["factorised", "gaussian"])
def test_members_together_are_what_they_are_one_after_the_other(readout, monkeypatch):
    session = readout_of_maps()
    settings = {"members": 3, "dropout": 0.2, "readout": readout}
    one_by_one = quick(session, **settings).predict_members(session.inputs, 0)
    for together in (2, 3):
        monkeypatch.setitem(teacher.MEMBERS_TOGETHER, "cpu", together)
        np.testing.assert_allclose(quick(session, **settings).predict_members(session.inputs, 0), one_by_one, rtol=2e-3, atol=2e-3)


def test_a_gaussian_readout_finds_the_place_a_unit_looks_at():
    noise = np.random.default_rng(0).normal(size=(900, 4, 9, 9))
    maps = gaussian_filter(noise, (0, 0, 1.5, 1.5), mode="wrap")  # smooth, as features of pictures are, so that there is a way to the place
    maps = (maps / maps.std()).astype(np.float16)
    places = [(2, 6), (6, 2), (4, 4)]
    mean = np.stack([5 + maps[:, :, row, column].astype(float) @ [1.0, -0.5, 0.7, 0.2] for row, column in places], 1)
    session = TeacherSession(maps, mean, np.arange(700), np.arange(700, 800))
    fitted = quick(session, epochs=20, readout="gaussian", core_blocks=0)
    assert (r2(fitted.predict(maps, 0)[800:], mean[800:]) > 0.8).all()
    found = fitted.network.readouts[0].place[0].numpy()  # (unit, (x, y)) in -1..1, as grid_sample takes them
    np.testing.assert_allclose(found, [((column - 4) / 4, (row - 4) / 4) for row, column in places], atol=0.15)


def test_a_poisson_teacher_predicts_counts_that_are_positive_and_right():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1000, 4, 3, 3)).astype(np.float16)
    rate = np.exp(0.8 * maps[:, :, 1, 1].astype(float) @ np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.3], [0.2, 0.0]]))
    session = TeacherSession(maps, rng.poisson(rate).astype(float), np.arange(800), np.arange(800, 900))
    predicted = quick(session, loss="poisson", epochs=25).predict(maps, 0)
    assert (predicted > 0).all()
    assert (r2(predicted[900:], rate[900:]) > 0.6).all()
    np.testing.assert_allclose(predicted.mean(axis=0), rate.mean(axis=0), rtol=0.2)


def test_images_weigh_by_their_repeats():
    """Half of the images were shown a thousand times as often and say the opposite: they are believed."""
    session = readout_of_maps()
    mean, often = session.mean.copy(), np.arange(600) % 2 == 0
    mean[often] = 10 - mean[often]
    heeded = quick(replace(session, mean=mean, n_repeats=np.where(often, 1000.0, 1.0)), epochs=8).predict(session.inputs, 0)
    r = [np.corrcoef(heeded[500:, unit], session.mean[500:, unit])[0, 1] for unit in range(3)]
    assert max(r) < -0.6


def test_only_the_ratio_of_repeats_matters():
    session = readout_of_maps()
    few, many, unknown = (quick(replace(session, n_repeats=n)).predict(session.inputs, 0)
                          for n in (np.full(600, 2.0), np.full(600, 50.0), None))
    np.testing.assert_array_equal(few, many)
    np.testing.assert_array_equal(few, unknown)


def test_members_heed_lent_sessions_unlike_each_other_and_fitted_ones_alike():
    sessions = [readout_of_maps(n_images=250), *(replace(readout_of_maps(n_images=250, seed=seed), is_lent=True) for seed in (1, 2, 3))]
    training = teacher._Training(tuple(sessions), (), SETTINGS.model_copy(update={"members": 4}), 0, "cpu", None)
    heed = teacher._heed(training)
    assert heed.shape == (4, 4)
    assert (heed[:, 0] == 1).all()
    np.testing.assert_allclose(heed[:, 1:].mean(axis=1), 1, rtol=1e-6)
    assert len(np.unique(heed[:, 1:].round(6))) == 12
    even = replace(training, settings=training.settings.model_copy(update={"resample_sessions": False}))
    assert (teacher._heed(even) == 1).all()


def test_the_weight_decay_that_predicts_validation_images_best_is_taken():
    session = readout_of_maps()
    chosen = quick(session, weight_decay=(0.01, 200.0), pilot_share=1.0, epochs=3)
    assert chosen.weight_decay == 0.01, "a decay of 200 leaves no weight"
    given = quick(session, weight_decay=(0.01,), epochs=3)
    np.testing.assert_array_equal(chosen.predict(session.inputs, 0), given.predict(session.inputs, 0))


def test_few_images_are_passed_over_more_often_than_many():
    session = readout_of_maps()  # 400 images to fit, 12 batches of about 32
    settings = SETTINGS.model_copy(update={"epochs": 5, "least_steps": 100})
    assert n_epochs([session], settings) == (0, 9)
    assert n_epochs([session] * 2, settings) == (0, 5)
    choice = settings.model_copy(update={"weight_decay": (0.1, 1.0, 10.0), "pilot_share": 0.4})
    assert n_epochs([session], choice) == (4, 9)
    assert all_epochs([session], choice) == 3 * 4 + 9
    assert n_epochs([replace(session, fit_images=np.arange(0))], settings) == (0, 100)


def test_every_epoch_is_told():
    told = []
    settings = SETTINGS.model_copy(update={"epochs": 2, "weight_decay": (0.1, 1.0), "pilot_share": 1.0})
    session = readout_of_maps()
    fit_teacher([session], settings, seed=0, advance=lambda n=1, note="": told.append(n))
    assert sum(told) == all_epochs([session], settings) == 6


def test_too_little_memory_cuts_the_batches_of_every_member(monkeypatch):
    session, notes, forward = readout_of_maps(), [], teacher.Ensemble.forward

    def small(self, x, place, members, noise=None):
        if noise is not None and len(x) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, place, members, noise)

    monkeypatch.setattr(teacher.Ensemble, "forward", small)
    settings = SETTINGS.model_copy(update={"members": 2, "epochs": 8})
    fitted = fit_teacher([session], settings, seed=0, advance=lambda n=1, note="": notes.append(note))
    assert all(note.endswith("batches cut in 2 for want of memory") for note in notes)
    assert (r2(fitted.predict(session.inputs, 0)[500:], session.mean[500:]) > 0.8).all()


def test_sessions_keep_their_order_and_have_readouts_of_their_own():
    one, two = readout_of_maps(n_units=3), readout_of_maps(n_units=2, seed=1)
    two = replace(two, mean=two.mean + 100)
    fitted = quick([one, two], epochs=8)
    first, second = fitted.predict(one.inputs, 0), fitted.predict(two.inputs, 1)
    assert (first.shape[1], second.shape[1]) == (3, 2)
    assert np.abs(first.mean() - 5) < 1
    assert np.abs(second.mean() - 105) < 1
    assert (r2(first[500:], one.mean[500:]) > 0.7).all()
    assert (r2(second[500:], two.mean[500:]) > 0.7).all()


def test_the_number_of_parameters_is_that_of_a_count_by_hand():
    session = readout_of_maps(n_images=250, n_units=3)
    channels, inputs, places = 16, 4, 9
    core = inputs * channels + 2 * channels  # pointwise, BatchNorm
    block = channels * 25 + 2 * channels + channels * channels  # depthwise, BatchNorm, pointwise
    readout = 3 * (channels + places + 1)
    assert quick(session, epochs=1).n_parameters == core + block + 2 * channels + readout


def test_the_conv_backbone_is_trained_on_images_themselves():
    rng = np.random.default_rng(0)
    brightness = rng.uniform(40, 200, (160, 1, 1, 1))
    images = np.clip(brightness + rng.normal(0, 20, (160, 32, 32, 3)), 0, 255).astype(np.uint8)
    session = TeacherSession(images, brightness[:, 0, 0] / 20, np.arange(100), np.arange(100, 130))
    fitted = quick(session, epochs=6, trunk_channels=4, core_blocks=0)
    assert r2(fitted.predict(images, 0)[130:], session.mean[130:])[0] > 0.8
    assert not any(parameter.requires_grad for parameter in fitted.network.parameters()), "no training by accident"


def test_a_complete_training_is_not_repeated(tmp_path):
    session = readout_of_maps()
    settings = SETTINGS.model_copy(update={"epochs": 2, "members": 2, "weight_decay": (0.1, 1.0), "pilot_share": 0.5})
    first = fit_teacher([session], settings, seed=0, checkpoints=tmp_path)
    notes = []
    again = fit_teacher([session], settings, seed=0, checkpoints=tmp_path, advance=lambda n=1, note="": notes.append((n, note)))
    assert notes == [(1, "resumed"), (1, "resumed"), (2, "resumed")]
    np.testing.assert_array_equal(again.predict(session.inputs, 0), first.predict(session.inputs, 0))


def test_a_network_that_diverges_is_told_and_not_kept():
    session = readout_of_maps()
    maps = session.inputs.copy()
    maps[300] = np.inf  # one image whose features overflowed, beyond those that standardise
    with pytest.raises(NwbCompactError, match="the training diverged"):
        quick(replace(session, inputs=maps))


def test_the_pieces_of_a_batch_with_holes_add_up_to_it():
    session = readout_of_maps()
    mean = session.mean.copy()
    mean[np.arange(600) % 3 == 0, 0] = np.nan
    known = teacher._standardised(replace(session, mean=mean))
    z, target, weight = torch.randn(2, 3, 12), torch.from_numpy(known.z[:12]), torch.rand(12)
    for loss in ("mse", "poisson"):
        whole = teacher._error(z, target.T, weight, known, loss)
        pieces = cut((np.arange(12), target, weight), 5)
        parts = [share * teacher._error(z[:, :, rows], y.T, w, known, loss) for rows, y, w, share in pieces]
        torch.testing.assert_close(sum(parts), whole)


def test_a_flat_prediction_explains_nothing_in_validation():
    target = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    predicted = target.copy()
    assert teacher._mean_r2(predicted, target) == pytest.approx(1)
    predicted[:, 1] = 3
    assert teacher._mean_r2(predicted, target) == pytest.approx(0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("readout", ["factorised", "gaussian"])
def test_a_gpu_gives_the_scores_of_the_cpu(readout):
    session = readout_of_maps()
    settings = SETTINGS.model_copy(update={"members": 3, "readout": readout})
    scores = [r2(fit_teacher([session], settings, seed=0, device=device).predict(session.inputs, 0)[500:], session.mean[500:]).mean()
              for device in ("cpu", "cuda")]
    assert abs(scores[0] - scores[1]) < 0.01
