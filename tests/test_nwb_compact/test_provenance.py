from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from nwb_compact import __version__, provenance
from nwb_compact.config import configure, flat
from nwb_compact.provenance import command_line, input_hash, record
from nwb_compact.responses import responses_of
from nwb_compact.session import example_session


def test_a_record_holds_the_world_the_facts_and_every_setting():
    config = configure("quick", changes={"seed": 7})
    found = record(config, "nwb-compact fit a.nwb", {"device": "cpu", "teacher_parameters": "12"})
    assert (found["program"], found["version"], found["command"]) == ("nwb-compact", __version__, "nwb-compact fit a.nwb")
    assert (found["preset"], found["seed"], found["device"], found["teacher_parameters"]) == ("quick", "7", "cpu", "12")
    assert {name.removeprefix("setting."): value for name, value in found.items() if name.startswith("setting.")} == flat(config)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found["date"])).total_seconds() < 60
    assert all(isinstance(value, str) and value for value in found.values())


def test_versions_are_those_of_the_packages():
    assert record(configure(), "", {})["version.numpy"] == np.__version__


def test_what_is_not_known_is_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "nwb_compact" / "provenance.py"))  # an installed wheel: no checkout above it
    found = record(configure(), "", {})
    assert {"commit", "working_tree", "version.no-such-package"} & set(found) == set()


def test_a_broken_checkout_is_no_reason_to_fail(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "nwb_compact" / "provenance.py"))
    assert "commit" not in record(configure(), "", {})


def test_a_checkout_gives_its_commit_and_whether_it_was_changed(monkeypatch, tmp_path):
    answers = {"rev-parse": "abc123\n", "status": " M fit.py\n"}
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "nwb_compact" / "provenance.py"))

    def git(command, **_):
        return provenance.subprocess.CompletedProcess(command, 0, stdout=answers[command[3]])

    monkeypatch.setattr(provenance.subprocess, "run", git)
    found = record(configure(), "", {})
    assert (found["commit"], found["working_tree"]) == ("abc123", "modified")
    answers["status"] = ""
    assert record(configure(), "", {})["working_tree"] == "clean"


@pytest.mark.parametrize("change", ["unit_name", "image_sha256", "mean", "n_repeats", "count", "image_of_count"])
def test_the_input_hash_changes_with_what_is_fitted(change):
    responses = responses_of(example_session())
    other = {
        "unit_name": ("unit-1", "unit-3"), "image_sha256": responses.image_sha256[::-1], "mean": responses.mean + np.eye(24, 2),
        "n_repeats": responses.n_repeats + 1, "count": responses.count[::-1], "image_of_count": responses.image_of_count[::-1],
    }
    assert input_hash(replace(responses, **{change: other[change]})) != input_hash(responses)


def test_the_input_hash_is_the_same_for_the_same_responses():
    responses = responses_of(example_session())
    holes = responses.mean.copy()
    holes[2, 0] = np.nan
    assert input_hash(responses) == input_hash(responses_of(example_session()))
    assert input_hash(replace(responses, mean=holes)) == input_hash(replace(responses, mean=np.asfortranarray(holes)))


@pytest.mark.parametrize(("given", "kept"), [
    ("/home/lab/day 1.nwb", "'day 1.nwb'"), ("results/", "results"), ("/", "/"), ("day.nwb", "day.nwb"),
    ("--config=/home/lab/x=y.toml", "--config=x=y.toml"), ("--seed=3", "--seed=3"),
    ("hf:facebook/dinov2-small", "hf:facebook/dinov2-small"), ("--backbone=hf:owner/model", "--backbone=hf:owner/model"),
    ("torch:a/b:factory", "torch:a/b:factory"), ("https://example.org/a.nwb?key=secret", "https://example.org/a.nwb"),
])
def test_a_command_keeps_what_it_means_and_no_folder_or_key(given, kept, monkeypatch):
    monkeypatch.setattr(provenance.sys, "argv", ["nwb-compact", "fit", given, "--resume"])
    assert command_line("fit") == f"nwb-compact fit {kept}"
