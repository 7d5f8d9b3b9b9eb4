import numpy as np
import pytest

from nwb_compact.interpretation import natural_extremes as room
from nwb_compact.interpretation.natural_extremes import natural_extremes
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student, predict_all

STUDENTS = [example_student(seed=seed) for seed in range(2)]
POOL = np.random.default_rng(0).integers(0, 256, (12, 112, 112, 3), np.uint8)


class Pool:
    """Tells how many images were asked for at once."""

    def __init__(self, images):
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        self.asked.append(len(rows))
        return self.images[rows]


def changed(student, **arrays):
    return StudentWeights(student.arrays | {name.replace("_", "."): values for name, values in arrays.items()})


def rows(extremes, unit, kind):
    found = (extremes["unit"] == unit) & (extremes["kind"] == f"natural-{kind}")
    assert extremes["rank"][found].tolist() == list(range(found.sum()))
    return extremes["row"][found].tolist(), extremes["answer"][found]


@pytest.mark.parametrize("n", [1, 6, 400])
@pytest.mark.parametrize("together", [1, 5, 1000])
def test_streamed_extremes_are_those_of_the_whole_pool_and_equal_ones_stay_in_order(monkeypatch, n, together):
    """Answers are few whole numbers, so that most images have equals in other parts of the pool."""
    answers = np.random.default_rng(1).integers(0, 9, (57, 2))
    images = np.zeros((57, 112, 112, 3), np.uint8)
    images[:, 0, 0, :2] = answers
    monkeypatch.setattr(room, "READ_TOGETHER", together)
    monkeypatch.setattr(room, "predict_all", lambda students, pixels: pixels[:, 0, 0, : len(students)].astype(np.float32))
    pool, told = Pool(images), []
    extremes, moments = natural_extremes(STUDENTS, pool, n, lambda n=1, note="": told.append(n))
    assert max(pool.asked) == min(together, 57)
    assert sum(pool.asked) == sum(told) == 57
    for unit in range(2):
        for kind, sign in (("strongest", -1), ("weakest", 1)):
            expected = sorted(range(57), key=lambda row: (sign * answers[row, unit], row))[:n]
            found, at = rows(extremes, unit, kind)
            assert found == expected
            np.testing.assert_array_equal(at, answers[expected, unit])
    np.testing.assert_allclose(moments["mean_answer"], answers.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments["sd_answer"], answers.std(axis=0), rtol=1e-12)
    assert moments["n_images"].tolist() == [57, 57]


def test_answers_are_those_of_the_students():
    extremes, _ = natural_extremes(STUDENTS, Pool(POOL), 2)
    answers = predict_all(STUDENTS, POOL)
    for unit in range(2):
        np.testing.assert_allclose(rows(extremes, unit, "strongest")[1], np.sort(answers[:, unit])[:-3:-1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rows(extremes, unit, "weakest")[1], np.sort(answers[:, unit])[:2], rtol=1e-5, atol=1e-5)


def test_small_differences_of_large_answers_keep_their_sd(monkeypatch):
    """A sum of squares would have lost it."""
    answers = np.float32(2.0**23) + np.arange(12, dtype=np.float32)
    monkeypatch.setattr(room, "READ_TOGETHER", 5)
    monkeypatch.setattr(room, "predict_all", lambda students, pixels: answers[pixels[:, 0, 0, :1]])
    numbered = np.zeros((12, 112, 112, 3), np.uint8)
    numbered[:, 0, 0] = np.arange(12)[:, None]
    moments = natural_extremes(STUDENTS[:1], Pool(numbered), 1)[1]
    np.testing.assert_allclose(moments["sd_answer"], np.arange(12).std(), rtol=1e-12)


def test_students_without_extremes_have_none_and_leave_the_others_alone():
    weight = STUDENTS[0].arrays["readout.weight"]
    constant, broken = (changed(STUDENTS[0], readout_weight=weight * np.float32(by)) for by in (0.0, np.nan))
    extremes, moments = natural_extremes([constant, STUDENTS[1], broken], Pool(POOL[:4]), 2)
    alone, _ = natural_extremes([STUDENTS[1]], Pool(POOL[:4]), 2)
    for unit in (0, 2):
        for kind in ("strongest", "weakest"):
            found, answers = rows(extremes, unit, kind)
            assert found == [-1, -1]
            assert np.isnan(answers).all()
    assert rows(extremes, 1, "weakest")[0] == rows(alone, 0, "weakest")[0]
    assert moments["sd_answer"][0] == pytest.approx(0, abs=1e-9)
    assert np.isfinite(moments["mean_answer"]).tolist() == [True, True, False]
