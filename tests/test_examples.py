"""The example that a lab starts from runs as it stands, and what it writes is what was recorded."""

import runpy
from pathlib import Path

import numpy as np

from nwb_compact.check import check
from nwb_compact.nwb_session import read_session
from nwb_compact.validate import findings

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_your_own_recordings_become_a_sound_session_with_the_right_counts(capsys):
    made = runpy.run_path(str(EXAMPLES / "03_your_own_recordings.py"))
    assert check(made["file_path"]) == ()
    assert [one for one in findings(made["file_path"]) if one.blocks] == []
    assert capsys.readouterr().out.endswith(
        "all is well; 3 units, 40 images (40 different, 0 without a response), 160 presentations, single-trial counts\n"
    )
    session = read_session(made["file_path"])
    shown, counts, units = session.presentations, session.counts, session.units
    assert (shown.is_valid == ~made["failed"]).all()
    assert 0 < made["failed"].sum() < len(shown)
    for row, presentation in enumerate(counts.presentation_index):
        since = [spikes - shown.start_time_s[presentation] for spikes in units.spike_times_s]
        assert counts.count[row].tolist() == [int(((one >= 0.05) & (one < 0.15)).sum()) for one in since]
    for image in range(40):
        assert shown.repeat[shown.image_index == image].tolist() == [0, 1, 2, 3]
    assert np.array_equal(session.images.pixels[shown.image_index[7]], made["pixels"][made["shown"][7]])


def test_the_published_session_becomes_a_file_that_can_be_shared(published_v4, tmp_path, monkeypatch):
    monkeypatch.setenv("NWB_COMPACT_TEST_DATA", str(published_v4.parent))
    made = runpy.run_path(str(EXAMPLES / "01_published_v4_session.py"))
    made["convert_and_look"](tmp_path / "210325.nwb")
    assert [one for one in findings(tmp_path / "210325.nwb") if one.blocks] == []
