"""Tiny networks with random weights, as `save_pretrained` leaves them; nothing is downloaded."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nwb_compact.backbones import features, frozen_backbone
from nwb_compact.errors import NwbCompactError
from nwb_compact.hf_backbone import HfBackbone, Preparation, hf_backbone, preparation
from nwb_compact.natural_images import natural_images

transformers = pytest.importorskip("transformers", reason='needs the extra: pip install "nwb-compact[hf]"')
safetensors = pytest.importorskip("safetensors.torch")

SMALL = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}
IMAGES = natural_images(2, seed=0)
PREPROCESSOR = {"size": {"shortest_edge": 64}, "resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.1]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of each kind."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    networks = {
        "resnet": transformers.ResNetForImageClassification(transformers.ResNetConfig(**SMALL)),  # as microsoft/resnet-50 is stored
        "dinov2": transformers.Dinov2Model(transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)),
        "convnext": transformers.ConvNextForImageClassification(transformers.ConvNextConfig(
            hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_scale_init_value=1.0)),
        "bert": transformers.BertModel(transformers.BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=30)),
    }
    for name, network in networks.items():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # so that a network whose statistics were not read would answer otherwise
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        network.save_pretrained(folder / name)
    return folder


@pytest.fixture
def resnet(saved, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved / "resnet", tmp_path / "resnet")


# What the teacher gets ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "shapes"), [
    ("resnet", {"stem": (8, 56, 56), "stage1": (8, 56, 56), "stage2": (12, 28, 28), "stage3": (16, 14, 14), "stage4": (20, 7, 7)}),
    ("dinov2", {"stem": (16, 16, 16), "stage1": (16, 16, 16), "stage2": (16, 16, 16)}),
    ("convnext", {"stem": (8, 56, 56), "stage1": (8, 56, 56), "stage2": (12, 28, 28), "stage3": (16, 14, 14), "stage4": (20, 7, 7)}),
])
def test_every_stage_is_a_layer_of_the_image_at_224_px(saved, name, shapes):
    backbone = frozen_backbone(f"hf:{saved / name}")
    assert backbone.layers == tuple(shapes)
    assert backbone.layer is None
    for layer, shape in shapes.items():
        found = features(backbone.network, IMAGES, layer=layer)
        assert found.shape == (2, *shape)
        assert found.astype(float).std() > 0


def test_features_are_those_of_the_whole_network_that_was_saved(saved):
    """An independent way to stage 3: the classifier's own hidden states of images that another library resized."""
    network = transformers.ResNetForImageClassification.from_pretrained(saved / "resnet").eval()
    resized = [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR)) for image in IMAGES]
    values = (np.stack(resized) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        expected = network(torch.tensor(values).float().permute(0, 3, 1, 2), output_hidden_states=True).hidden_states[3].numpy()
    found = features(hf_backbone(str(saved / "resnet")), IMAGES, layer="stage3")
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.03 * expected.std()  # pillow rounds to whole grey levels


def test_grey_images_are_answered_as_their_colour_copies(saved):
    grey = np.repeat(IMAGES.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3)
    assert features(hf_backbone(str(saved / "resnet")), grey, layer="stage1").shape == (2, 8, 56, 56)


def test_weights_of_half_precision_are_computed_with_in_full(saved, tmp_path):
    network = transformers.ResNetForImageClassification.from_pretrained(saved / "resnet").to(torch.bfloat16)
    network.save_pretrained(tmp_path / "half")
    assert {value.dtype for value in hf_backbone(str(tmp_path / "half")).parameters()} == {torch.float32}


def test_nothing_is_printed(saved, capfd):
    for name in ("resnet", "convnext"):
        frozen_backbone(f"hf:{saved / name}")
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


# Images as the network takes them -------------------------------------------------------------------------------------
class Echo(nn.Module):
    """Gives back what it was asked."""

    def forward(self, pixel_values):
        return transformers.modeling_outputs.BackboneOutput(feature_maps=(pixel_values,))


@pytest.mark.parametrize(("side", "mode", "pil"), [
    (64, "bilinear", "BILINEAR"), (64, "bicubic", "BICUBIC"), (224, "bilinear", "BILINEAR"), (224, "bicubic", "BICUBIC")])
def test_images_are_resized_and_normalised_as_pillow_would(side, mode, pil):
    wrapped = HfBackbone(Echo(), ("only",), Preparation((side, side), (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), 1 / 255, mode))
    found = wrapped(torch.tensor(IMAGES).permute(0, 3, 1, 2).float())["only"].permute(0, 2, 3, 1).numpy()
    resized = np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling[pil])) for image in IMAGES])
    levels = 255 * np.abs((found * [0.2, 0.3, 0.1] + [0.5, 0.4, 0.3]) - resized / 255)
    assert levels.mean() < 0.5
    assert np.quantile(levels, 0.999) < 1.5  # where it overshoots, pillow clips rows before columns


@pytest.mark.parametrize(("said", "expected"), [
    (PREPROCESSOR, Preparation((64, 64), (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), 1 / 255, "bicubic")),
    ({"size": 96}, Preparation((96, 96))),
    ({"size": {"height": 32, "width": 64}}, Preparation((32, 64))),
    ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}, Preparation((224, 224))),
    ({"size": {"shortest_edge": 256}, "do_center_crop": False, "crop_size": 224}, Preparation((256, 256))),
    ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, Preparation((224, 224))),
    ({"do_resize": False}, Preparation(None)),
    ({"do_normalize": False, "do_rescale": False}, Preparation((224, 224), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0)),
], ids=lambda value: "" if isinstance(value, Preparation) else "+".join(value))
def test_the_preprocessor_of_a_folder_is_understood(tmp_path, said, expected):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert preparation(tmp_path) == expected


@pytest.mark.parametrize(("text", "found"), [
    ("{", "JSONDecodeError"), ("[]", "AttributeError"), ('{"size": {"longest_edge": 9}}', "KeyError: 'shortest_edge'"),
    ('{"image_mean": [0.5]}', "ValueError: 1 values for 3 channels"), ('{"size": 0}', "ValueError: a size of 0 x 0 px"),
])
def test_a_preprocessor_that_cannot_be_used_is_named(tmp_path, text, found):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(NwbCompactError) as caught:
        preparation(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'preprocessor_config.json'}: found what cannot be used ({found}")
    assert str(caught.value).endswith("Next: correct the file, or remove it for 224 px")


def test_another_way_to_prepare_images_is_another_backbone(resnet):
    plain = frozen_backbone(f"hf:{resnet}")
    (resnet / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    prepared = frozen_backbone(f"hf:{resnet}")
    assert prepared.sha256 != plain.sha256
    assert features(prepared.network, IMAGES, layer="stage1").shape == (2, 8, 16, 16)


# Faults ---------------------------------------------------------------------------------------------------------------
def fault_of(place) -> str:
    with pytest.raises(NwbCompactError) as caught:
        frozen_backbone(f"hf:{place}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_patch_that_does_not_divide_the_image_is_told_at_once(saved, tmp_path):
    folder = shutil.copytree(saved / "dinov2", tmp_path / "dinov2")
    (folder / "preprocessor_config.json").write_text('{"size": 100}')
    assert fault_of(folder) == (f"{folder / 'preprocessor_config.json'}: found images of 100 x 100 px, expected sides that the network's "
                                "patches of 14 px divide. Next: give 'size' there a side that the network takes")


def test_an_image_smaller_than_the_stem_is_told_at_once(saved, tmp_path):
    folder = shutil.copytree(saved / "convnext", tmp_path / "convnext")
    (folder / "preprocessor_config.json").write_text('{"size": 4}')
    assert fault_of(folder).startswith(f"{folder / 'preprocessor_config.json'}: found images of 4 x 4 px (")
    assert fault_of(folder).endswith("expected a size that the network takes. Next: give 'size' there a side that the network takes")


def test_a_network_of_grey_images_is_refused(tmp_path):
    transformers.ResNetModel(transformers.ResNetConfig(num_channels=1, **SMALL)).save_pretrained(tmp_path)
    assert fault_of(tmp_path) == (f"{tmp_path / 'config.json'}: found a network for images of 1 channel(s), expected 3: red, green and "
                                  "blue. Next: name another network")


def test_a_network_without_a_backbone_class_is_refused(saved):
    assert fault_of(saved / "bert") == (
        f"--backbone hf:{saved / 'bert'}: found 'bert', which has none, expected an image network with a backbone class, for example "
        "ResNet, DINOv2 or ConvNeXt. Next: name another, or write a factory for torch:MODULE:FACTORY")


def test_a_folder_without_a_config_is_refused(tmp_path):
    assert fault_of(tmp_path) == (f"--backbone hf:{tmp_path}: found no config.json in the folder, expected one, as save_pretrained writes "
                                  "it. Next: name the folder that holds it")


@pytest.mark.parametrize("text", ["{", '{"model_type": "nonsense"}', "{}"])
def test_a_config_that_cannot_be_read_is_refused(resnet, text):
    (resnet / "config.json").write_text(text)
    message = fault_of(resnet)
    assert message.startswith(f"--backbone hf:{resnet}: found a config.json that cannot be read (")
    assert message.endswith("expected one of a model that transformers knows. Next: correct it, or update transformers")


def weights_fault(folder) -> str:
    message = fault_of(folder)
    assert message.startswith(f"--backbone hf:{folder}: found ")
    assert message.endswith("Next: fetch the folder again")
    return message


def test_weights_of_another_shape_are_refused(resnet):
    config = json.loads((resnet / "config.json").read_text())
    (resnet / "config.json").write_text(json.dumps(config | {"hidden_sizes": [8, 12, 16, 24]}))
    assert "expected those of the ResNetBackbone that config.json describes" in weights_fault(resnet)


def test_truncated_weights_are_refused(resnet):
    whole = (resnet / "model.safetensors").read_bytes()
    (resnet / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "weights that cannot be used (" in weights_fault(resnet)


def test_absent_weights_are_refused(resnet):
    (resnet / "model.safetensors").unlink()
    assert "weights that cannot be used (" in weights_fault(resnet)


def test_a_weight_that_would_be_random_is_refused(resnet):
    weights = safetensors.load_file(resnet / "model.safetensors")
    del weights["resnet.embedder.embedder.convolution.weight"]
    safetensors.save_file(weights, resnet / "model.safetensors", metadata={"format": "pt"})
    assert weights_fault(resnet).replace("resnet.embedder", "embedder") == (  # older versions keep the prefix
        f"--backbone hf:{resnet}: found 1 weights missing and 0 of another shape, for example embedder.embedder.convolution.weight, "
        "expected all weights of a ResNetBackbone. Next: fetch the folder again")


# The hub --------------------------------------------------------------------------------------------------------------
def test_a_hub_id_is_fetched_and_read_as_a_folder(resnet, monkeypatch):
    asked = []

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(resnet)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert frozen_backbone("hf:owner/model", "stage3").sha256 == frozen_backbone(f"hf:{resnet}").sha256
    assert asked == [("owner/model", ["*.json", "*.safetensors"])]


def test_a_hub_model_of_the_older_format_is_fetched_in_a_second_step(resnet, monkeypatch):
    weights = safetensors.load_file(resnet / "model.safetensors")
    (resnet / "model.safetensors").unlink()
    asked = []

    def fetch(name, allow_patterns):
        asked.append(allow_patterns)
        if "pytorch_model*.bin" in allow_patterns:
            torch.save(weights, resnet / "pytorch_model.bin")
        return str(resnet)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert frozen_backbone("hf:owner/model").layers[0] == "stem"
    assert asked == [["*.json", "*.safetensors"], ["*.json", "pytorch_model*.bin"]]


def test_without_a_network_one_line_says_how_to_fetch_it_elsewhere(monkeypatch):
    def fetch(name, allow_patterns):
        raise ConnectionError("Name or service not known\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert fault_of("microsoft/resnet-50") == (
        "--backbone hf:microsoft/resnet-50: found no folder of that name, and no answer for it from huggingface.co "
        "(Name or service not known), expected a folder or a hub id that can be reached. Next: where there is a network: "
        "hf download microsoft/resnet-50 --local-dir FOLDER; then --backbone hf:FOLDER")


def test_a_path_that_is_no_hub_id_is_never_asked_for(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    for place in ("./absent", "/absent", "a/b/c", "~/absent", "../absent"):
        assert "found no such folder" in fault_of(place)


def test_without_transformers_one_line_says_how_to_install_it(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert fault_of(saved / "resnet") == (f"--backbone hf:{saved / 'resnet'}: found no transformers package, expected a working one. "
                                          'Next: pip install "nwb-compact[hf]"')
