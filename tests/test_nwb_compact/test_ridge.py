import time
import warnings

import numpy as np
import pytest

from nwb_compact.ridge import PENALTIES, ridge_predictions

N, FIT, HELD = 80, np.arange(50), np.arange(50, 65)
BOTH = np.arange(65)


def world(n_features, *, noise=1.0, n_units=4, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(N, n_features)) * rng.uniform(0.1, 30, n_features) + rng.normal(size=n_features)).astype(dtype)
    z = (features - features[FIT].mean(0)) / features[FIT].std(0)
    mean = z[:, :5].astype(float) @ rng.normal(size=(5, n_units)) + noise * rng.normal(size=(N, n_units)) + 4
    return features, mean


def by_normal_equations(features, y, rows, penalty):
    """Ridge from the textbook: features standardised by FIT, an intercept that is not penalised."""
    z = (features - features[FIT].mean(0)) / features[FIT].std(0)
    x = z - z[rows].mean(0)
    scale = (x[rows] ** 2).sum() / len(rows)
    weight = np.linalg.solve(x[rows].T @ x[rows] + penalty * scale * np.eye(x.shape[1]), x[rows].T @ (y[rows] - y[rows].mean()))
    return x @ weight + y[rows].mean()


def by_trying_all(features, y, fit=FIT, held=HELD):
    errors = [((by_normal_equations(features, y, fit, p)[held] - y[held]) ** 2).sum() for p in PENALTIES]
    best = PENALTIES[int(np.argmin(errors))]
    r = np.corrcoef(by_normal_equations(features, y, fit, best)[held], y[held])[0, 1]
    return by_normal_equations(features, y, np.concatenate([fit, held]), best), best, max(r, 0) ** 2


@pytest.mark.parametrize("n_features", [12, 65, 66, 300], ids=["few", "as many as images", "one more", "many"])
def test_it_is_ridge_regression_with_the_best_penalty_of_each_unit(n_features):
    features, mean = world(n_features)
    found = ridge_predictions(features, mean, FIT, HELD)
    for unit in range(mean.shape[1]):
        prediction, penalty, r2 = by_trying_all(features, mean[:, unit])
        assert found.penalty[unit] == penalty
        np.testing.assert_allclose(found.prediction[:, unit], prediction, rtol=1e-3, atol=2e-3)
        assert found.validation_r2[unit] == pytest.approx(r2, abs=1e-4)


@pytest.mark.parametrize("n_features", [20, 200])
def test_missing_answers_are_left_out_for_their_unit_alone(n_features):
    features, mean = world(n_features)
    whole = ridge_predictions(features, mean, FIT, HELD)
    holed = mean.copy()
    holed[[3, 7, 52], 1] = np.nan
    found = ridge_predictions(features, holed, FIT, HELD)
    np.testing.assert_allclose(found.prediction[:, [0, 2, 3]], whole.prediction[:, [0, 2, 3]], atol=1e-6)
    y = mean[:, 1]
    prediction, penalty, r2 = by_trying_all(features, y, np.setdiff1d(FIT, [3, 7]), np.setdiff1d(HELD, [52]))
    assert found.penalty[1] == penalty
    np.testing.assert_allclose(found.prediction[:, 1], prediction, rtol=1e-3, atol=2e-3)
    assert found.validation_r2[1] == pytest.approx(r2, abs=1e-4)


def test_answers_to_scored_images_are_never_read():
    features, mean = world(200)
    lies = mean.copy()
    lies[65:] = 1e9
    same, found = (ridge_predictions(features, what, FIT, HELD) for what in (mean, lies))
    np.testing.assert_array_equal(same.prediction, found.prediction)


def test_units_that_cannot_be_fitted_get_their_mean_and_no_score():
    features, mean = world(30, n_units=6)
    mean[:, 0] = 2.5                              # constant
    mean[:, 1] = np.nan                           # no answers
    mean[HELD, 2] = np.nan                        # none on the validation side
    mean[FIT, 3] = 0.0                            # silent while fitting
    mean[HELD, 4] = 1.0                           # constant on the validation side alone: it is fitted, but there is no correlation
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ridge_predictions(features, mean, FIT, HELD)
    np.testing.assert_array_equal(found.prediction[:, 0], 2.5)
    np.testing.assert_array_equal(found.prediction[:, 1], 0.0)
    np.testing.assert_allclose(found.prediction[:, 2], mean[FIT, 2].mean())
    np.testing.assert_allclose(found.prediction[:, 3], mean[BOTH, 3].mean())
    assert np.isnan(found.validation_r2).tolist() == [True, True, True, True, True, False]
    assert np.isnan(found.penalty).tolist() == [True, True, True, True, False, False]
    assert np.isfinite(found.prediction).all()


def test_nothing_to_fit_at_all():
    features, mean = world(30)
    found = ridge_predictions(features, np.full_like(mean, np.nan), FIT, HELD)
    np.testing.assert_array_equal(found.prediction, 0.0)
    found = ridge_predictions(features, mean, FIT, HELD[:0])
    np.testing.assert_allclose(found.prediction[0], mean[FIT].mean(axis=0))


@pytest.mark.parametrize("n_features", [30, 200])
def test_constant_features_change_nothing(n_features):
    features, mean = world(n_features)
    padded = np.concatenate([np.full((N, 3), 7.1), features, np.zeros((N, 2))], axis=1)
    np.testing.assert_allclose(ridge_predictions(padded, mean, FIT, HELD).prediction,
                               ridge_predictions(features, mean, FIT, HELD).prediction, atol=1e-4)
    only = ridge_predictions(np.full((N, n_features), 3.0), mean, FIT, HELD)
    np.testing.assert_allclose(only.prediction, np.tile(mean[BOTH].mean(axis=0), (N, 1)), atol=0.2)


def test_pure_noise_is_predicted_by_little_more_than_the_mean():
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(N, 40)) + 3
    found = ridge_predictions(rng.normal(size=(N, 500)), mean, FIT, HELD)
    assert np.median(found.prediction[65:].std(axis=0)) < 0.3


def test_a_hundred_thousand_features_take_seconds():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(150, 100_000)).astype(np.float16)
    started = time.process_time()
    found = ridge_predictions(features, rng.normal(size=(150, 50)), np.arange(80), np.arange(80, 100))
    assert time.process_time() - started < 8
    assert found.prediction.shape == (150, 50)
