"""What was exported is loaded in one line and answers as before; what was not is refused in one line."""

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from safetensors.numpy import save

import nwb_compact
from nwb_compact.errors import NwbCompactError
from nwb_compact.exported import as_npz, as_safetensors, load
from nwb_compact.images import as_rgb
from nwb_compact.onnx_model import onnx_model
from nwb_compact.student import example_student, predict

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 112, 112, 3), np.uint8)
STUDENT = example_student((4, 5, 2, 3, 2))
SAID = {"unit": "unit-ü", "r2": "0.4000"}
CONTENT = {name: write(STUDENT.arrays, SAID) for name, write in (("onnx", onnx_model), ("safetensors", as_safetensors), ("npz", as_npz))}


@pytest.fixture(params=CONTENT)
def path(request, tmp_path):
    path = tmp_path / f"a.{request.param}"
    path.write_bytes(CONTENT[request.param])
    return path


def test_a_loaded_model_answers_and_says_what_it_is(path):
    expected = predict(STUDENT, PIXELS)
    model = nwb_compact.load(path)
    np.testing.assert_allclose(model(PIXELS), expected, rtol=0, atol=1e-5 * expected.std())
    assert model(PIXELS).dtype == np.float32
    assert model.metadata == SAID


def test_no_image_gives_no_answer(path):
    assert load(path)(PIXELS[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(2, 64, 64, 3), (2, 112, 112), (2, 200, 200)])
def test_images_of_other_sizes_and_grey_ones_are_brought_to_112_px(path, shape):
    images = RNG.integers(0, 256, shape, np.uint8)
    np.testing.assert_allclose(load(path)(images), predict(STUDENT, as_rgb(images)), rtol=1e-4)


WANTED = "uint8 (image height width 3), or without the 3 for grey"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PIXELS[0], f"found uint8 (112, 112, 3), expected {WANTED}. Next: give one image as image[None]"),
        (PIXELS[0, :, :, 0], f"found uint8 (112, 112), expected {WANTED}. Next: give one image as image[None]"),
        (PIXELS / 255, f"found float64 (3, 112, 112, 3), expected {WANTED}. Next: convert them, 0 black and 255 white"),
        (PIXELS.transpose(0, 3, 1, 2), f"found uint8 (3, 3, 112, 112), expected {WANTED}. Next: convert them, 0 black and 255 white"),
        (PIXELS[:, :100], "found images of 100 x 112 px, expected square images. Next: crop or pad them before the session is written"),
    ],
    ids=["one", "one grey", "float", "channels first", "not square"],
)
def test_images_of_another_kind_are_refused(path, images, message):
    with pytest.raises(NwbCompactError) as error:
        load(path)(images)
    assert str(error.value) == f"images: {message}"


@pytest.mark.parametrize("kept", [0, 7, 200, 0.5, 0.99])
def test_a_damaged_file_is_said_to_be_one(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(NwbCompactError) as error:
        load(path)
    expected = rf"expected a model exported as {path.suffix[1:]}. Next: export it again: nwb-compact export"
    assert re.fullmatch(rf"{re.escape(str(path))}: found that it cannot be read \(.+\), {expected}", str(error.value))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.onxx", "found a name that ends in '.onxx', expected .onnx or .safetensors or .npz. Next: did you mean '.onnx'?"),
        ("a", "found a name without an ending, expected .onnx or .safetensors or .npz. Next: use one of: .npz, .onnx, .safetensors"),
        ("a.npz", "found no file, expected an exported model. Next: correct the path"),
    ],
)
def test_a_wrong_name_is_corrected(tmp_path, name, message):
    with pytest.raises(NwbCompactError) as error:
        load(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name}: {message}"


def test_files_of_other_programs_are_refused(tmp_path):
    model = onnx.load_from_string(CONTENT["onnx"])
    del model.metadata_props[:]
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "other.npz", a=PIXELS)
    (tmp_path / "other.safetensors").write_bytes(save({"a": PIXELS}))
    np.savez(tmp_path / "pickle.npz", nwb_compact=np.array(json.dumps(SAID)), a=np.array([{}], object))
    for name in ("other.onnx", "other.npz", "other.safetensors", "pickle.npz"):
        why = "Object arrays cannot be loaded when allow_pickle=False" if name == "pickle.npz" else "another program made it"
        with pytest.raises(NwbCompactError, match=rf"found that it cannot be read \({why}\)"):
            load(tmp_path / name)


def test_without_onnxruntime_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_bytes(CONTENT["onnx"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NwbCompactError) as error:
        load(tmp_path / "a.onnx")
    assert str(error.value) == 'ONNX: found no package onnxruntime, expected it installed. Next: pip install "nwb-compact[onnx]"'


def test_onnx_is_answered_without_torch(tmp_path):
    (tmp_path / "a.onnx").write_bytes(CONTENT["onnx"])
    code = (
        "import sys, nwb_compact; assert 'numpy' not in sys.modules\n"
        "import numpy as np; print(nwb_compact.load('a.onnx')(np.zeros((2, 112, 112, 3), np.uint8)).shape)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("(2,)\n", 0), done.stderr


@pytest.mark.parametrize("write", [as_npz, as_safetensors])
def test_the_same_student_gives_the_same_bytes(write):
    assert write(STUDENT.arrays, SAID) == write(STUDENT.arrays, SAID)
