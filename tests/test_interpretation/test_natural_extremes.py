import numpy as np
import pytest

from nwb_compact.interpretation import natural_extremes as room
from nwb_compact.interpretation.natural_extremes import natural_extremes
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student, predict_all

STUDENTS = [example_student(seed=seed) for seed in range(2)]
POOL = np.random.default_rng(0).integers(0, 256, (23, 112, 112, 3), np.uint8)
POOL[[4, 9, 22]] = POOL[17]


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


@pytest.mark.parametrize("n", [1, 6, 40])
def test_streamed_extremes_are_those_of_the_whole_pool(monkeypatch, n):
    monkeypatch.setattr(room, "READ_TOGETHER", 5)
    pool, told = Pool(POOL), []
    extremes, moments = natural_extremes(STUDENTS, pool, n, lambda n=1, note="": told.append(n))
    assert max(pool.asked) == 5
    assert sum(pool.asked) == sum(told) == len(POOL)
    answers = predict_all(STUDENTS, POOL)
    for unit in range(2):
        for kind, sign in (("strongest", -1), ("weakest", 1)):
            expected = sorted(range(len(POOL)), key=lambda row: (sign * answers[row, unit], row))[:n]  # noqa: B023
            found, at = rows(extremes, unit, kind)
            assert found == expected
            np.testing.assert_array_equal(at, answers[expected, unit])
    np.testing.assert_allclose(moments["mean_answer"], answers.mean(axis=0, dtype=float), rtol=1e-9)
    np.testing.assert_allclose(moments["sd_answer"], answers.std(axis=0, dtype=float), rtol=1e-9)
    assert moments["n_images"].tolist() == [23, 23]


def test_equal_images_come_in_the_order_of_the_pool(monkeypatch):
    monkeypatch.setattr(room, "READ_TOGETHER", 8)
    pool = Pool(POOL[[0, 17, 0, 17, 17, 0, 0, 17, 17, 0, 17]])
    extremes, _ = natural_extremes(STUDENTS[:1], pool, 3)
    both = {tuple(rows(extremes, 0, kind)[0]) for kind in ("strongest", "weakest")}
    assert both == {(0, 2, 5), (1, 3, 4)}


def test_small_differences_of_large_answers_keep_their_sd():
    """Sums of squares in float64 would lose it; float32 answers are what they are, so the offset is one they can hold."""
    loud = changed(STUDENTS[0], readout_bias=np.array([2.0**14], np.float32))
    moments = natural_extremes([loud], Pool(POOL), 1)[1]
    np.testing.assert_allclose(moments["sd_answer"], predict_all([loud], POOL).astype(float).std(axis=0), rtol=1e-9)


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
