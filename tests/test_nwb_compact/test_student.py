from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from nwb_compact import student
from nwb_compact.operations import counted
from nwb_compact.results import StudentWeights, readout_weight
from nwb_compact.student import (
    INPUT_MEAN,
    PREDICTION_BATCH,
    STRIDES,
    example_student,
    filters_per_layer,
    flop_an_image,
    n_parameters,
    predict,
    predict_all,
    same_padding,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (PREDICTION_BATCH + 6, 112, 112, 3), np.uint8)


def uneven_student(widths=(4, 3, 2, 3, 2), seed=0):
    """A student whose layers have different widths, as pruned ones do."""
    rng = np.random.default_rng(seed)
    arrays = {"input.mean": np.array(INPUT_MEAN)}
    arrays |= {"layer1.kernel": rng.normal(size=(widths[0], 3, 5, 5)) / 600, "layer1.bias": rng.normal(size=widths[0])}
    for layer, (below, above) in enumerate(pairwise(widths), start=2):
        arrays |= {f"layer{layer}.depthwise": rng.normal(size=(below, 5, 5)) / 5, f"layer{layer}.bias": rng.normal(size=above)}
        arrays[f"layer{layer}.pointwise"] = rng.normal(size=(above, below))
    arrays |= {"readout.weight": rng.normal(size=(widths[-1], 28, 28)), "readout.bias": rng.normal(size=1)}
    return StudentWeights({name: value.astype(np.float32) for name, value in arrays.items()})


def numpy_student(arrays, image):
    """The network written out with loops, padded as TensorFlow pads 'same': the odd row and column below and right."""
    x = image.astype(float).transpose(2, 0, 1) - arrays["input.mean"].astype(float)[:, None, None]
    x = np.maximum(np.stack([sum(convolved(x[c], kernel[c], 1) for c in range(3)) for kernel in arrays["layer1.kernel"]])
                   + arrays["layer1.bias"][:, None, None], 0)
    for layer in range(2, 6):
        mixed = np.stack([convolved(x[c], kernel, STRIDES[layer - 1]) for c, kernel in enumerate(arrays[f"layer{layer}.depthwise"])])
        x = np.maximum(np.tensordot(arrays[f"layer{layer}.pointwise"], mixed, 1) + arrays[f"layer{layer}.bias"][:, None, None], 0)
    return float((x * arrays["readout.weight"]).sum() + arrays["readout.bias"][0])


def convolved(plane, kernel, stride):
    size = -(-plane.shape[0] // stride)
    total = max((size - 1) * stride + 5 - plane.shape[0], 0)
    padded = np.pad(plane, (total // 2, total - total // 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))[::stride, ::stride]
    return np.einsum("rcij,ij->rc", windows, kernel)


def test_a_student_is_what_numpy_makes_of_its_arrays():
    student = uneven_student()
    expected = [numpy_student(student.arrays, image) for image in IMAGES[:3]]
    np.testing.assert_allclose(predict(student, IMAGES[:3]), expected, rtol=0, atol=1e-5 * np.std(expected))


def test_a_readout_may_be_a_weight_a_filter_times_a_weight_a_place():
    rng, student = np.random.default_rng(1), uneven_student()
    filters, space = rng.normal(size=2).astype(np.float32), rng.normal(size=(28, 28)).astype(np.float32)
    without = {name: value for name, value in student.arrays.items() if name != "readout.weight"}
    factorised = StudentWeights(without | {"readout.filter": filters, "readout.space": space})
    dense = StudentWeights(without | {"readout.weight": filters[:, None, None] * space})
    np.testing.assert_allclose(predict(factorised, IMAGES[:2]), predict(dense, IMAGES[:2]), rtol=1e-5)
    assert n_parameters(dense) - n_parameters(factorised) == 2 * 784 - 2 - 784


def test_a_readout_may_be_a_sum_of_such_products():
    rng, student = np.random.default_rng(1), uneven_student()
    filters, space = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(3, 28, 28)).astype(np.float32)
    without = {name: value for name, value in student.arrays.items() if name != "readout.weight"}
    three = StudentWeights(without | {"readout.filter": filters, "readout.space": space})
    one = StudentWeights(without | {"readout.filter": filters[:, 1], "readout.space": space[1]})
    dense = StudentWeights(without | {"readout.weight": np.einsum("fp,pyx->fyx", filters, space)})
    np.testing.assert_allclose(readout_weight(three), dense.arrays["readout.weight"], rtol=1e-5, atol=1e-5)
    together, expected = predict_all((one, three, dense), IMAGES[:2]), predict(dense, IMAGES[:2])
    np.testing.assert_allclose(together[:, 1:], np.stack([expected, expected], axis=1), rtol=1e-4)
    np.testing.assert_allclose(together[:, 0], predict(one, IMAGES[:2]), rtol=1e-5)
    assert n_parameters(three) - n_parameters(one) == 2 * (2 + 784)


def test_students_that_share_layers_answer_as_each_does_alone():
    """Shared up to layer 3, up to layer 5, and a unit of its own."""
    first, other, alone = uneven_student(), uneven_student(seed=1), uneven_student((5, 2, 3, 2, 4), seed=2)
    sixth = {name: other.arrays[name] for name in ("readout.weight", "readout.bias")}
    fourth = sixth | {name: value for name, value in other.arrays.items() if name[:6] in ("layer4", "layer5")}
    students = [first, StudentWeights(first.arrays | fourth), alone, StudentWeights(first.arrays | sixth)]
    found = predict_all(students, IMAGES[:3])
    np.testing.assert_allclose(found, np.stack([predict(student, IMAGES[:3]) for student in students], axis=1), rtol=1e-5)
    assert len({tuple(column) for column in found.T}) == len(students)


def test_layers_held_by_many_are_computed_once(monkeypatch):
    first, ran, step = uneven_student(), [], student._step
    monkeypatch.setattr(student, "_step", lambda arrays, names: lambda maps: (ran.append(names), step(arrays, names)(maps))[1])
    predict_all([StudentWeights(first.arrays | {"readout.bias": np.full(1, unit, np.float32)}) for unit in range(20)], IMAGES[:2])
    assert ran == list(student.STEPS)  # PREDICTION_BATCH images go through them at once
    assert PREDICTION_BATCH == 2


@pytest.mark.parametrize("n_images", [31, 33])
def test_threads_change_no_answer_and_are_given_back(n_images):
    """Just below and above where images are spread over threads."""
    images, before = np.random.default_rng(2).integers(0, 256, (n_images, 112, 112, 3), np.uint8), torch.get_num_threads()
    answers = {}
    for threads in (1, 3):
        torch.set_num_threads(threads)
        answers[threads] = predict(uneven_student(), images)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    np.testing.assert_allclose(answers[1], answers[3], rtol=0, atol=1e-5 * answers[1].std())


def test_what_goes_wrong_in_a_thread_is_raised():
    images, before = np.zeros((40, 112, 112, 3), np.uint8), torch.get_num_threads()
    shapes = StudentWeights(uneven_student().arrays | {"readout.weight": np.zeros((2, 27, 28), np.float32)})
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError):
        predict(shapes, images)
    torch.set_num_threads(before)


def test_arrays_that_may_not_be_written_are_read():
    images, student = IMAGES[:3].copy(), uneven_student()
    locked = StudentWeights({name: value.copy() for name, value in student.arrays.items()})
    for array in (images, *locked.arrays.values()):
        array.flags.writeable = False
    np.testing.assert_array_equal(predict(locked, images), predict(student, IMAGES[:3]))


def test_no_student_and_no_image_give_no_answer():
    assert predict_all([], IMAGES[:3]).shape == (3, 0)
    assert predict(uneven_student(), IMAGES[:0]).shape == (0,)


def test_an_image_is_answered_alike_alone_and_among_others():
    student = uneven_student()
    whole = predict(student, IMAGES)
    assert whole.shape == (len(IMAGES),)
    assert whole.dtype == np.float32
    for index in (0, PREDICTION_BATCH - 1, PREDICTION_BATCH, len(IMAGES) - 1):
        np.testing.assert_allclose(predict(student, IMAGES[index : index + 1]), whole[index : index + 1], rtol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [(112, 1), (112, 2), (56, 2), (28, 1)])
def test_padding_is_that_of_tensorflow_same(size, stride):
    """Row r of the answer looks at rows r * stride - before and the four after it; before is half of the padding, rounded down."""
    rng = np.random.default_rng(0)
    plane, kernel = rng.normal(size=(size, size)), rng.normal(size=(5, 5))
    padded = same_padding(torch.from_numpy(plane)[None, None], stride)
    found = functional.conv2d(padded, torch.from_numpy(kernel)[None, None], stride=stride)[0, 0].numpy()
    assert found.shape == (size // stride, size // stride)
    before = ((size // stride - 1) * stride + 5 - size) // 2
    for row, column in ((0, 0), (0, 7), (5, size // stride - 1), (size // stride - 1, size // stride - 1), (3, 4)):
        expected = 0.0
        for i in range(5):
            for j in range(5):
                r, c = row * stride - before + i, column * stride - before + j
                if 0 <= r < size and 0 <= c < size:
                    expected += plane[r, c] * kernel[i, j]
        assert found[row, column] == pytest.approx(expected)


def test_parameters_are_counted_by_hand():
    """Widths 4 3 2 3 2: first kernels and biases, then kernels, weights and biases of each layer, then the readout."""
    first = 4 * (3 * 25 + 1)
    separable = (4 * 25 + 4 * 3 + 3) + (3 * 25 + 3 * 2 + 2) + (2 * 25 + 2 * 3 + 3) + (3 * 25 + 3 * 2 + 2)
    assert n_parameters(uneven_student()) == first + separable + 2 * 28 * 28 + 1


def test_filters_are_counted_by_the_kernels_of_each_layer():
    """Layer 1 has its own kernels; every later layer has one 5 x 5 kernel for each filter of the layer before."""
    np.testing.assert_array_equal(filters_per_layer(uneven_student()), [4, 4, 3, 2, 3])


def test_the_mean_image_of_the_study_is_a_blank():
    """With no bias, an image of the mean colour drives nothing but the last bias."""
    student = uneven_student()
    biases = {name: np.zeros_like(student.arrays[name]) for name in (f"layer{layer}.bias" for layer in range(1, 6))}
    colour = np.round(INPUT_MEAN).astype(np.uint8)
    arrays = StudentWeights({**student.arrays, **biases, "input.mean": colour.astype(np.float32)})
    np.testing.assert_allclose(predict(arrays, np.tile(colour, (1, 112, 112, 1))), student.arrays["readout.bias"])


def test_the_example_depends_on_its_seed():
    same, other = example_student(seed=0), example_student(seed=1)
    np.testing.assert_array_equal(predict(example_student(), IMAGES[:2]), predict(same, IMAGES[:2]))
    assert (predict(other, IMAGES[:2]) != predict(same, IMAGES[:2])).all()


def test_operations_are_told_of_answers_in_many_threads_and_of_what_is_shared_once():
    """Of a whole network those of its convolutions as torch counts them; of two networks with all but the readout in common little more."""
    first = example_student((8, 16, 8, 8, 8))
    other = StudentWeights(first.arrays | {name: 2 * array for name, array in first.arrays.items() if name.startswith("readout")})
    images = np.zeros((40, 112, 112, 3), np.uint8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # threads of which torch's counter sees nothing
        with counted() as count:
            predict(first, images)
    finally:
        torch.set_num_threads(before)
    layers = [(112, 8 * 75), (56, 8 * 25 + 16 * 8), (28, 16 * 25 + 8 * 16), (28, 8 * 25 + 64), (28, 8 * 25 + 64)]
    one = 2 * (sum(side**2 * each for side, each in layers) + 8 * 28**2)
    assert count.flop == 40 * one == 40 * flop_an_image([first])
    assert flop_an_image([first, other]) == one + 2 * 8 * 28**2
    assert flop_an_image([first, example_student((8, 16, 8, 8, 8), seed=1)]) == 2 * one


def test_images_that_are_mirrored_in_memory_are_answered_too():
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    student = example_student()
    np.testing.assert_array_equal(predict(student, images[..., ::-1]), predict(student, np.ascontiguousarray(images[..., ::-1])))
