"""The command on a small scale; the whole fit is walked in test_end_to_end.py."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nwb_compact.config import configure
from nwb_compact.errors import NwbCompactError
from nwb_compact.fit import command
from nwb_compact.fit_data import read_sessions
from nwb_compact.natural_images import natural_images
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import write_session
from nwb_compact.session import image_sha256
from nwb_compact.simulate import simulate_session

SETTINGS = configure("quick")
LAYERS = '''
from torch import nn
class Layers(nn.Module):
    asked = []
    def forward(self, images):
        Layers.asked.append(images.clone())
        assert images.shape[1] == 3
        return {"colour": nn.functional.avg_pool2d(images, 8), "flat": images.mean((1, 2, 3), keepdim=True)}
def layers(): return Layers()
'''
TINY = {
    "teacher": {"members": 1, "epochs": 1, "least_steps": 1, "channels": 4}, "distill": {"images_seen": 100, "views": 2},
    "prune": {"images_seen": 100, "images": 50}, "student": {"early_filters": (4, 4), "late_filters": (3, 3, 3)}, "bootstraps": 10,
}


@pytest.fixture(scope="module")
def session():
    return simulate_session(n_units=3, n_images=40, n_repeats=2, seed=0)


def with_pixels(session, pixels):
    return replace(session, images=replace(session.images, pixels=pixels, sha256=tuple(image_sha256(image) for image in pixels)))


def toml(settings) -> str:
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    lines = [f"{name} = {value}" for name, value in settings.items() if name not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {list(value) if isinstance(value, tuple) else value}" for key, value in table.items())]
    return "\n".join(lines)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with a network of two layers, a tiny configuration and nothing else."""
    (tmp_path / "lab_layers.py").write_text(LAYERS)
    (tmp_path / "tiny.toml").write_text(toml(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("lab_layers", None)


def run(lab, *words):
    arguments = ["session.nwb", "--preset", "quick", "--config", "tiny.toml", "--device", "cpu", "--cache-dir", "cache"]
    return CliRunner().invoke(command, [*arguments, "--backbone", "torch:lab_layers:layers", *words], catch_exceptions=False)


def test_a_grey_session_is_fitted_in_the_layer_chosen_without_its_scored_images(session, lab, monkeypatch):
    """The whole path: grey images become colour, the layer is chosen on the fitting side, features are made once for two fits."""
    grey = session.images.pixels[..., 1] if session.images.pixels.ndim == 4 else session.images.pixels
    write_session(with_pixels(session, np.ascontiguousarray(grey)), lab / "session.nwb")
    first = run(lab, "--run-id", "first")
    assert first.exit_code == 0, first.output
    assert "layer " in first.stderr
    asked = sys.modules["lab_layers"].Layers.asked
    images = np.concatenate([batch.permute(0, 2, 3, 1).numpy() for batch in asked])
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    (fitted,) = read_sessions([lab / "session.nwb"], [], SETTINGS)
    chosen_on = images[1:21].astype(np.uint8)  # after the blank image; 20 images are the fitting side
    fitting_side = fitted.images[fitted.rows("fit", "validation")]
    assert {image_sha256(image) for image in chosen_on} == {image_sha256(image) for image in fitting_side}
    facts = read_results(lab / "session.nwb", "first")[0].provenance
    scores = {name: float(facts[f"layer_validation_r2.{name}"]) for name in ("colour", "flat")}
    assert facts["layer"] == max(scores, key=scores.get)
    n_files, n_asked = len(list((lab / "cache").iterdir())), len(asked)
    monkeypatch.setattr("nwb_compact.fit._students", lambda *_: 1 / 0)  # all features have been asked for by then
    with pytest.raises(ZeroDivisionError):
        run(lab, "--run-id", "second")
    assert len(list((lab / "cache").iterdir())) == n_files == 4  # the session, two views, and the layers' scores
    assert sum(len(batch) for batch in asked[n_asked:]) == 1 + 3  # the blank image, and one image a file


def test_a_named_layer_is_taken_and_another_layer_is_another_fit(session, lab, monkeypatch):
    write_session(session, lab / "session.nwb")
    named = []
    monkeypatch.setattr("nwb_compact.fit.work_folder", lambda beside, decisive, resume: named.append(decisive) or 1 / 0)
    for layer in ("flat", "colour"):
        with pytest.raises(ZeroDivisionError):
            run(lab, "--layer", layer, "--quiet")
    assert [decisive[0]["layer"] for decisive in named] == ["flat", "colour"]
    with pytest.raises(NwbCompactError, match=r"^--layer flatt: found no such layer, .* Next: did you mean 'flat'\?$"):
        run(lab, "--layer", "flatt")


def test_further_images_are_learned_from_counted_and_their_listing_is_gone_at_the_end(session, lab):
    write_session(session, lab / "session.nwb")
    (lab / "more").mkdir()
    for number, image in enumerate((*session.images.pixels, *natural_images(12, seed=9))):  # half of the session is scored, half is there
        Image.fromarray(image).save(lab / "more" / f"{number}.png")
    (lab / "more" / "cut.png").write_bytes(b"no image")
    assert run(lab, "--images", "more", "--run-id", "first", "--layer", "flat", "--quiet").exit_code == 0
    facts = read_results(lab / "session.nwb", "first")[0].provenance
    assert facts["lesson_images"].startswith("32 sha256:")
    assert {name: facts[name] for name in facts if name.startswith("lesson_images_left_out")} == {
        "lesson_images_left_out.broken": "1", "lesson_images_left_out.duplicate": "20", "lesson_images_left_out.scored": "20",
    }
    assert not (lab / ".session.nwb-compact").exists()
