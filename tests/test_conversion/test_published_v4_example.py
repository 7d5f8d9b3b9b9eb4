from pathlib import Path
from runpy import run_path

import numpy as np

EXAMPLE = Path(__file__).parents[2] / "examples" / "01_published_v4_session.py"


def test_the_example_shows_what_is_in_the_session(published_v4, monkeypatch, capsys):
    monkeypatch.setenv("NWB_COMPACT_TEST_DATA", str(published_v4.parent))
    run_path(str(EXAMPLE))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "50 units of animal PE; 640 images of (112, 112, 3)"
    assert lines[2] == "4840 presentations, 6 to 10 an image; the largest count is 20"
    averages = np.load(published_v4 / "responses_repeat_averaged" / "responses_210325.npy")
    unit, image = np.unravel_index(averages.argmax(), averages.shape)
    assert lines[3] == f"neuron{unit} answers image{image + 1:04d}.jpg most: {averages.max():.1f} spikes in 100 ms"


def test_the_example_says_when_it_has_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NWB_COMPACT_TEST_DATA", str(tmp_path))
    run_path(str(EXAMPLE))
    assert capsys.readouterr().out.startswith(f"Skipped: no published data in {tmp_path / 'v4'}.")
