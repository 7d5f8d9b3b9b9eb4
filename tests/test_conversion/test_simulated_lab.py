"""What `simulate --raw` writes is what the conversion reads: the two meet in these files only."""

from collections import namedtuple

import numpy as np
import pytest

from nwb_compact.simulate import simulate_session
from nwb_compact.simulated_lab import lab_folder
from nwb_compact_conversion.clock.alignment import align, pick_events
from nwb_compact_conversion.session_yaml import read_session_yaml
from nwb_compact_conversion.sources.recording import read_recording
from nwb_compact_conversion.stimulus.stimulus_log import read_log

Lab = namedtuple("Lab", "folder session told metadata truth")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Enough presentations that one each is lost."""
    folder = tmp_path_factory.mktemp("simulated") / "lab"
    with lab_folder(simulate_session(n_units=1, n_images=70, n_repeats=5, seed=3), folder, n_channels=1, seed=3) as session:
        pass
    return Lab(folder, session, *read_session_yaml(folder / "session.yaml"), dict(np.load(folder / "truth.npz")))


def test_the_yaml_is_accepted_and_tells_all_that_an_archive_asks(lab):
    assert (lab.told.stimuli.images, lab.told.stimuli.log) == (lab.folder / "images", lab.folder / "log.csv")
    assert lab.told.responses.window_s == (0.05, 0.15)
    for name in ("subject_id", "species", "sex", "age", "description"):
        assert getattr(lab.metadata.subject, name) == getattr(lab.session.subject, name)
    for name in ("session_start_time", "session_id", "session_description", "keywords"):
        assert getattr(lab.metadata.session, name) == getattr(lab.session.about, name)


def test_the_log_and_the_events_align_to_the_true_onsets(lab):
    log = read_log(lab.told.stimuli)
    recorded = read_recording(lab.folder / "recording", events_csv=lab.folder / "events.csv")
    assert set(recorded.events) == {"words", "reward"}
    name, events = pick_events(recorded.events, lab.told.alignment)
    aligned = align(log.onset_s, log.code, events, lab.told.alignment, name)
    shown, unlogged = lab.session.presentations, lab.truth["unlogged_presentation"]
    assert len(log) == len(shown)
    assert np.flatnonzero(np.isnan(aligned.onset_s)).tolist() == unlogged.tolist()
    kept = np.setdiff1d(np.arange(len(log)), unlogged)
    np.testing.assert_allclose(aligned.onset_s[kept], shown.start_time_s[kept], atol=1e-3)
    np.testing.assert_array_equal(log.is_valid[kept], shown.is_valid[kept])
    assert np.flatnonzero(np.isnan(aligned.residual_s)).tolist() == sorted([*unlogged, *lab.truth["unmarked_presentation"]])
