"""A teacher that a file keeps answers as the one that was fitted, and no file can make it anything else."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch

from nwb_compact import config, kept_teacher
from nwb_compact.backbones import frozen_backbone, looked_at
from nwb_compact.errors import NwbCompactError
from nwb_compact.kept_teacher import weights_of
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import write_session
from nwb_compact.results import TeacherWeights, example_results
from nwb_compact.session import example_session
from nwb_compact.teacher import TeacherSession, fit_teacher

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 112, 112, 3), np.uint8)


def small(**changes):
    return config.Teacher(**{"members": 2, "epochs": 1, "least_steps": 1, "channels": 4, "trunk_channels": 5, "core_blocks": 1, **changes})


def fitted(settings):
    """A teacher of two sessions, of 3 and 2 units; the second is the one that is kept."""
    backbone = frozen_backbone(settings.backbone)
    seen, rng = looked_at(backbone, IMAGES), np.random.default_rng(1)
    sessions = [TeacherSession(seen, rng.gamma(2.0, 1.0, (len(IMAGES), n)), np.arange(8), np.arange(8, 12)) for n in (3, 2)]
    return fit_teacher(sessions, settings, seed=0), backbone, seen


def facts(settings, backbone):
    told = {"setting.teacher.backbone": settings.backbone, "setting.teacher.loss": settings.loss}
    return told if backbone is None else told | {"backbone_sha256": backbone.sha256, "layer": backbone.layer}


@pytest.fixture
def results():
    """A run with a teacher."""
    teacher, _, _ = fitted(small())
    return replace(example_results(example_session()), teacher=weights_of(teacher, 1), provenance=facts(small(), None))


@pytest.mark.parametrize("settings", [
    small(), small(readout="gaussian", core_blocks=2), small(loss="poisson", core_blocks=0), small(members=1, backbone="vone"),
])
def test_what_a_file_keeps_answers_as_the_teacher_that_was_fitted(settings, tmp_path):
    teacher, backbone, seen = fitted(settings)
    session, path = example_session(), tmp_path / "a.nwb"
    write_session(session, path)
    write_results(replace(example_results(session), teacher=weights_of(teacher, 1), provenance=facts(settings, backbone)), path)
    assert read_results(path)[0].teacher is None
    (read,) = read_results(path, with_teacher=True)
    assert not [name for name in read.teacher.arrays if name.startswith("readouts.1")]
    answers = kept_teacher.kept_teacher(read).members(IMAGES)
    assert answers.shape == (settings.members, len(IMAGES), 2)
    assert answers.std() > 0
    np.testing.assert_array_equal(answers, teacher.predict_members(seen, 1))


def test_a_run_without_a_teacher_says_so(results):
    with pytest.raises(NwbCompactError, match="run example: found no teacher in the file"):
        kept_teacher.kept_teacher(replace(results, teacher=None))


@pytest.mark.parametrize(("told", "next_step"), [
    ({}, "run 'nwb-compact fit' again to have a teacher that can be asked"),
    ({"teacher_not_kept_mb": "160"}, "fit again with teacher.most_kept_mb = 160 or more"),
    ({"teacher_from_file.0": "run first sha256:ab"}, "interpret run first of the file that taught"),
])
def test_a_run_without_a_teacher_says_how_there_would_be_one(told, next_step, results):
    with pytest.raises(NwbCompactError, match=f"Next: {next_step}"):
        kept_teacher.kept_teacher(replace(results, teacher=None, provenance=told))


@pytest.mark.parametrize("named", ["torch:antigravity:fly_id", "hf:someone/something", "hf:/etc", ""])
def test_a_file_cannot_name_the_program_that_is_run(named, results, monkeypatch):
    monkeypatch.setattr(kept_teacher, "frozen_backbone", lambda *_, **__: pytest.fail("made"))
    hostile = replace(results, provenance={**results.provenance, "setting.teacher.backbone": named})
    with pytest.raises(NwbCompactError, match="expected its name, since it may run any program"):
        kept_teacher.kept_teacher(hostile)


def test_another_backbone_than_that_of_the_fit_is_refused(results):
    with pytest.raises(NwbCompactError, match="--backbone vone: found other weights"):
        kept_teacher.kept_teacher(results, "vone")


def reshaped(name, shape):
    return lambda arrays: arrays | {name: np.zeros(shape, np.float32)}


def without(arrays, part):
    return {name: array for name, array in arrays.items() if part not in name}


def many_blocks():
    return {f"blocks.{n}.gain": np.zeros((0,), np.float32) for n in range(100)}


@pytest.mark.parametrize("change", [
    lambda arrays: {},
    lambda arrays: {name: array for name, array in arrays.items() if "norm" not in name},
    lambda arrays: arrays | {"more": np.zeros(3, np.float32)},
    reshaped("enter.weight", 7),
    reshaped("enter.weight", (2, 2**20, 1, 1, 1)),  # with as many channels in each block it would take terabytes
    reshaped("enter.weight", (2, 4, 2**18, 1, 1)),
    reshaped("readouts.0.spatial", (2, 2**22, 1)),
    reshaped("readouts.0.mixing", (2, 0, 4)),
    reshaped("answer.scale", 5),
    reshaped("answer.offset", ()),
    reshaped("answer.scale", (2, 2)),
    lambda arrays: without(arrays, "pointwise") | {"enter.weight": np.zeros((1, 8192, 1, 1, 1), np.float32)} | many_blocks(),
    lambda arrays: without(arrays, "pointwise") | {f"blocks.{n}.pointwise.weight": np.zeros((2, 65536, 65536, 0, 0), np.float32)
                                                   for n in range(3)} | {"enter.weight": np.zeros((2, 65536, 1, 1, 0), np.float32)},
    lambda arrays: without(arrays, "trunk.second") | {"enter.weight": np.zeros((2, 4, 2**18, 1, 1), np.float32)},
    lambda arrays: arrays | {"enter.weight": np.zeros((2**20, 4, 1, 1, 1), np.float32)},
    lambda arrays: arrays | {"answer.scale": np.array([np.nan, 1], np.float32)},
])
def test_damaged_arrays_are_one_line(change, results, monkeypatch):
    damaged = replace(results, teacher=TeacherWeights(change(dict(results.teacher.arrays))))
    load = torch.nn.Module.load_state_dict

    def takes_no_memory(network, *arrays, **how):
        assert all(parameter.is_meta for parameter in network.parameters())
        return load(network, *arrays, **how)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", takes_no_memory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NwbCompactError, match=r"^run example: found a teacher that cannot be put together"):
        kept_teacher.kept_teacher(damaged)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB that only a larger network can have taken"


@pytest.mark.parametrize(("name", "value"), [("setting.teacher.loss", "huber"), ("setting.teacher.backbone", "vone")])
def test_a_provenance_that_does_not_fit_the_arrays_is_one_line(name, value, results):
    vone = frozen_backbone("vone")
    told = {**results.provenance, name: value, "backbone_sha256": vone.sha256, "layer": ""}
    with pytest.raises(NwbCompactError, match=r"^run example: found a teacher that cannot be put together"):
        kept_teacher.kept_teacher(replace(results, provenance=told))


def test_a_teacher_on_features_is_not_shown_the_images_themselves():
    settings = small(members=1, backbone="vone")
    teacher, backbone, _ = fitted(settings)
    run = replace(example_results(example_session()), teacher=weights_of(teacher, 1), provenance=facts(settings, backbone))
    with pytest.raises(NwbCompactError, match=r"^run example: found a teacher that cannot be put together"):
        kept_teacher.kept_teacher(run, "conv")


def test_no_image_has_no_answers_and_many_are_asked_in_parts(results, monkeypatch):
    kept = kept_teacher.kept_teacher(results)
    assert kept.members(IMAGES[:0]).shape == (2, 0, 2)
    whole = kept.members(IMAGES)
    monkeypatch.setattr(kept_teacher, "SEEN_TOGETHER", 5)
    np.testing.assert_allclose(kept.members(IMAGES), whole, rtol=1e-5, atol=1e-6)
