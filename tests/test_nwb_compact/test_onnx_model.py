"""The graph, run by onnxruntime, answers as the student does."""

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession

from nwb_compact.onnx_model import ANSWER, IMAGES, onnx_model
from nwb_compact.results import StudentWeights
from nwb_compact.student import example_student, predict

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
STUDENT = example_student((4, 5, 2, 3, 2))


def product_readout():
    """The same student, its readout a weight a filter times a weight a place."""
    without = {name: value for name, value in STUDENT.arrays.items() if name != "readout.weight"}
    space = np.random.default_rng(1).normal(size=(28, 28)).astype(np.float32)
    return StudentWeights(without | {"readout.filter": np.array([0.3, -0.1], np.float32), "readout.space": space})


def readout_of_three_products():
    rng, without = np.random.default_rng(2), {name: value for name, value in STUDENT.arrays.items() if name != "readout.weight"}
    space = rng.normal(size=(3, 28, 28)).astype(np.float32)
    return StudentWeights(without | {"readout.filter": rng.normal(size=(2, 3)).astype(np.float32), "readout.space": space})


def answers(content, images=PIXELS):
    return InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {IMAGES: images})[0]


@pytest.mark.parametrize("student", [STUDENT, product_readout(), readout_of_three_products()], ids=["dense", "product", "products"])
def test_onnxruntime_answers_as_the_student_does(student):
    expected = predict(student, PIXELS)
    found = answers(onnx_model(student.arrays, {}))
    assert found.shape == (5,)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.std())


def test_any_number_of_images_is_taken():
    content = onnx_model(STUDENT.arrays, {})
    np.testing.assert_allclose(answers(content, PIXELS[3:4]), answers(content)[3:4], rtol=1e-4)


def test_half_precision_is_that_of_the_weights_alone():
    halved = {name: value.astype(np.float16) for name, value in STUDENT.arrays.items()}
    rounded = StudentWeights({name: value.astype(np.float32) for name, value in halved.items()})
    content, expected = onnx_model(halved, {}), predict(rounded, PIXELS)
    np.testing.assert_allclose(answers(content), expected, rtol=0, atol=1e-5 * expected.std())
    assert len(content) < 0.7 * len(onnx_model(STUDENT.arrays, {}))


def test_the_file_says_what_it_takes_and_is_readable_by_older_runtimes():
    model = onnx.load_from_string(onnx_model(STUDENT.arrays, {"unit": "unit-1", "r2": "0.4000"}))
    assert {one.key: one.value for one in model.metadata_props} == {"unit": "unit-1", "r2": "0.4000"}
    assert [one.version for one in model.opset_import] == [17]
    assert model.ir_version == 8
    assert [one.name for one in (*model.graph.input, *model.graph.output)] == [IMAGES, ANSWER]
    assert {one.name for one in model.graph.initializer} == set(STUDENT.arrays)


def test_the_same_student_gives_the_same_bytes():
    assert onnx_model(STUDENT.arrays, {"unit": "a", "run": "b"}) == onnx_model(STUDENT.arrays, {"unit": "a", "run": "b"})
