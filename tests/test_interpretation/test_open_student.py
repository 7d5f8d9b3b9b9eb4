import numpy as np
import pytest
import torch

from nwb_compact.interpretation.open_student import open_student
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student, predict

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), np.uint8)


def separable(student, seed=1):
    rng = np.random.default_rng(seed)
    kept = {name: array for name, array in student.arrays.items() if name != "readout.weight"}
    n = len(student.arrays["readout.weight"])
    return StudentWeights(kept | {"readout.filter": rng.normal(size=n).astype(np.float32),
                                  "readout.space": rng.normal(size=(28, 28)).astype(np.float32)})


@pytest.mark.parametrize("student", [example_student((7, 5, 6, 4, 3)), separable(example_student((7, 5, 6, 4, 3)))])
def test_it_answers_as_the_student_does(student):
    answer = open_student(student).answer(torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float())
    expected = predict(student, IMAGES)
    assert expected.std() > 0
    np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-4, atol=1e-4 * expected.std())


def test_it_keeps_copies():
    """A silenced filter must not silence the student it was taken from."""
    student = example_student()
    opened = open_student(student)
    opened.arrays["layer1.bias"].zero_()
    assert (student.arrays["layer1.bias"] != 0).any()
