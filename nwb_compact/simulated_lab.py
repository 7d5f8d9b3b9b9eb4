"""What a lab would bring for a simulated session: voltage, digital events, the stimulus computer's log, images and a session.yaml.

The folder holds

    recording/     voltage, as SpikeInterface saves it
    events.csv     digital events on the recording's clock: time_s, code, channel
    log.csv        the stimulus computer's log on its own clock: image, onset (ms), fixation (1 held, 0 broken)
    images/        PNG
    session.yaml   tells `nwb-compact convert recording` what the columns mean
    truth.npz      what no lab has: the neurons' places and spikes' shapes, the clock, and what was lost
"""

import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float, Integer
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Presentations, Session
from nwb_compact.simulate import SAMPLING_HZ
from nwb_compact.simulated_recording import SimulatedRecording, recorded_samples, simulated_recording
from nwb_compact.simulated_voltage import Layout
from nwb_compact.unfinished import written_whole

OFFSET_S = (3600.0, 72_000.0)
"""The stimulus computer was switched on hours before the recording."""
DRIFT_PPM = (20.0, 60.0)
"""How much faster or slower its clock runs: of the order of what two crystals differ by."""
JITTER_MS, MOST_JITTER_MS = 0.2, 0.8
"""SD and limit of the time between the word and the entry in the log."""
LOST_SHARE = 0.003
"""Share of the presentations without a mark, of those without an onset in the log, and of marks that belong to none. Together they stay
below the 1 % that an alignment may not pair by default; sessions of fewer than 334 presentations have none."""
SPURIOUS_AFTER_S = (0.03, 0.17)
"""A mark that belongs to no presentation comes so long after the onset of one, and before the next."""
REWARD_AFTER_S, REWARD_S = 0.15, 0.1
"""After the last image of a completed trial has gone, the reward valve opens: a second line, which marks no image."""
PAUSE_BETWEEN_TRIALS_S = 0.5
WORDS, REWARD = "words", "reward"
RATE = 1.5e7
"""Values of voltage written in a second on one core; for the announcement only."""
SPARE_BYTES = 64 * 2**20
OURS = ("truth.npz", "session.yaml")
"""Files by which a folder is known as one of ours, so that --overwrite deletes nothing else."""


@dataclass(frozen=True)
class StimulusClock:
    """The stimulus computer's clock: its time is `offset_s + (1 + drift_ppm / 1e6) * recording time`."""

    offset_s: float
    drift_ppm: float

    def at(self, time_s: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
        """What it shows at a time of the recording, seconds."""
        return self.offset_s + (1 + 1e-6 * self.drift_ppm) * time_s


@dataclass(frozen=True, eq=False)
class Losses:
    """Presentations, by row, that a source does not tell completely, and marks that mean nothing."""

    unmarked: Integer[np.ndarray, "unmarked"]
    """No word was recorded."""
    unlogged: Integer[np.ndarray, "unlogged"]
    """The log has no onset."""
    spurious_s: Float[np.ndarray, "spurious"]
    """Words without a presentation."""


@contextmanager
def lab_folder(session: Session, folder: Path, *, seed: int, n_channels: int = 16, layout: Layout = "probe", drift_um: float = 0.0,
               report: Callable[[str], None] = lambda line: None) -> Iterator[Session]:
    """Write the folder; it appears when the block ends well, in place of one of ours.

    Parameters
    ----------
    session
        From `nwb_compact.simulate.simulate_session`.
    folder
        See the top of this module. Its parent must exist; ask `require_lab_folder` first.
    seed, n_channels, layout, drift_um
        As in `nwb_compact.simulated_recording.simulated_recording`.
    report
        Called with a line before the work.

    Yields
    ------
    Session
        The truth: the session with the spikes that are in the voltage.

    Raises
    ------
    NwbCompactError
        If the disk is too full, or the electrodes have no room for the units. No folder is left behind.
    """
    simulated = simulated_recording(session, seed=seed, n_channels=n_channels, layout=layout, drift_um=drift_um)
    n_bytes = 2 * n_channels * recorded_samples(session)
    duration_s = recorded_samples(session) / SAMPLING_HZ
    report(f"recording {duration_s / 60:.1f} min of {n_channels} channels: {n_bytes / 1e6:.0f} MB, about {n_bytes / 2 / RATE:.0f} s")
    _require_space(folder, n_bytes)
    rng = np.random.default_rng([seed, 20])
    clock, losses = _clock(rng), _losses(session, rng)
    with written_whole(folder) as temporary:
        (temporary / "images").mkdir(parents=True)
        _write_voltage(simulated, temporary / "recording")
        _write_images(session, temporary / "images")
        (temporary / "events.csv").write_text(_events(session, losses, rng), encoding="utf-8")
        (temporary / "log.csv").write_text(_log(session, clock, losses, rng), encoding="utf-8")
        (temporary / "session.yaml").write_text(_yaml(simulated.session, layout), encoding="utf-8")
        np.savez(temporary / "truth.npz", **_truth(simulated, clock, losses))  # type: ignore[arg-type]
        yield _named(simulated.session, f"{layout}{n_channels}-drift{drift_um:g}")
        if folder.exists():
            shutil.rmtree(folder)


def require_lab_folder(folder: Path, session_file: Path, *, overwrite: bool) -> None:
    """Ask before the work whether the folder may be written beside the file with the truth.

    Raises
    ------
    NwbCompactError
        If something is there and may not be replaced, the folder it would lie in does not exist, or the file would lie in it.
    """
    if folder.resolve() in session_file.resolve().parents:
        raise NwbCompactError(session_file, found=f"a file in {folder}", expected="a file outside",
                              next_step="choose another folder for --raw")
    if not folder.absolute().parent.is_dir():
        raise NwbCompactError(folder, found=f"no folder {folder.parent}", expected="an existing folder",
                              next_step=f"mkdir -p {folder.parent}")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise NwbCompactError(folder, found="something of this name", expected="none", next_step="choose another name or add --overwrite")
    if not all((folder / name).is_file() for name in OURS):
        raise NwbCompactError(folder, found="something that this program did not write", expected="a folder of an earlier simulation",
                              next_step="choose another name, or delete it yourself")


def _require_space(folder: Path, n_bytes: int) -> None:
    free, needed = shutil.disk_usage(folder.absolute().parent).free, n_bytes + SPARE_BYTES
    if free < needed:
        raise NwbCompactError(folder, found=f"{free / 1e6:.0f} MB free on its disk", expected=f"at least {needed / 1e6:.0f} MB",
                              next_step="free some space, or ask for fewer images, repeats or channels")


# What happened -----------------------------------------------------------------------------------------------------


def _clock(rng: np.random.Generator) -> StimulusClock:
    return StimulusClock(float(rng.uniform(*OFFSET_S)), float(rng.choice([-1, 1]) * rng.uniform(*DRIFT_PPM)))


def _losses(session: Session, rng: np.random.Generator) -> Losses:
    onsets_s = _onsets_s(session)
    n = int(LOST_SHARE * len(onsets_s))
    unmarked, unlogged, before_spurious = np.sort(rng.permutation(len(onsets_s))[:3 * n].reshape(3, n), axis=1)
    return Losses(unmarked, unlogged, onsets_s[before_spurious] + rng.uniform(*SPURIOUS_AFTER_S, n))


def _events(session: Session, losses: Losses, rng: np.random.Generator) -> str:
    """The word at an onset is the image's number, counted from 1."""
    onsets_s, presentations = _onsets_s(session), _presentations(session)
    marked = np.setdiff1d(np.arange(len(onsets_s)), losses.unmarked)
    rows = [(time_s, int(image) + 1, WORDS) for time_s, image in zip(onsets_s[marked], presentations.image_index[marked], strict=True)]
    rows += [(time_s, int(rng.integers(len(session.images))) + 1, WORDS) for time_s in losses.spurious_s]
    last_of_trial = np.append(np.diff(onsets_s) > PAUSE_BETWEEN_TRIALS_S, True)
    for time_s in _stops_s(session)[last_of_trial & presentations.is_valid] + REWARD_AFTER_S:
        rows += [(time_s, 1, REWARD), (time_s + REWARD_S, 0, REWARD)]
    on_samples = sorted((round(time_s * SAMPLING_HZ) / SAMPLING_HZ, code, channel) for time_s, code, channel in rows)
    return _csv("time_s,code,channel", (f"{time_s:.6f},{code},{channel}" for time_s, code, channel in on_samples))


def _log(session: Session, clock: StimulusClock, losses: Losses, rng: np.random.Generator) -> str:
    presentations = _presentations(session)
    jitter_ms = np.clip(rng.normal(0, JITTER_MS, len(presentations)), -MOST_JITTER_MS, MOST_JITTER_MS)
    onset = [f"{onset_ms:.3f}" for onset_ms in 1e3 * clock.at(_onsets_s(session)) + jitter_ms]
    for row in losses.unlogged:
        onset[row] = ""
    names = (_file_name(session.images.name[index]) for index in presentations.image_index)
    rows = zip(names, onset, presentations.is_valid, strict=True)
    return _csv("image,onset,fixation", (f"{name},{when},{int(held)}" for name, when, held in rows))


def _yaml(session: Session, layout: Layout) -> str:
    assert session.subject is not None
    assert session.device is not None
    about, subject, device, windows = session.about, session.subject, session.device, session.response_units
    assert windows.window_start_s is not None
    assert windows.window_stop_s is not None
    told = {
        "subject": {name: getattr(subject, name) for name in ("subject_id", "species", "sex", "age", "description")},
        "session": {"session_start_time": about.session_start_time.isoformat(), "session_id": about.session_id,
                    "session_description": about.session_description, "keywords": list(about.keywords or ())},
        "device": {"name": device.name, "description": device.description, "location": "V4"},
        "stimuli": {"images": "images", "log": "log.csv", "columns": {"image": "image", "onset": "onset", "is_valid": "fixation"},
                    "onset_unit": "ms", "duration_s": round(float((_stops_s(session) - _onsets_s(session))[0]), 6),
                    "source": "nwb-compact simulate", "licence": "CC0-1.0"},
        "alignment": {"method": "events", "channel": WORDS},
        "sorting": {"sorter": "threshold" if layout == "utah" else "spykingcircus2"},
        "responses": {"window_s": [float(windows.window_start_s[0]), float(windows.window_stop_s[0])]},
    }
    command = "nwb-compact convert recording recording --events events.csv --yaml session.yaml -o converted.nwb"
    return f"# In this folder: {command}\n{yaml.safe_dump(told, sort_keys=False, width=140)}"


def _truth(simulated: SimulatedRecording, clock: StimulusClock, losses: Losses) -> dict[str, np.ndarray]:
    units = simulated.session.units
    assert units.electrode_index is not None
    return {
        "unit": np.array(units.name),
        "best_channel": units.electrode_index,
        **units.properties,
        "templates_uv": simulated.templates_uv,
        "noise_uv": simulated.noise_uv,
        "similarity": simulated.similarity,
        "clock_offset_s": np.array(clock.offset_s),
        "clock_drift_ppm": np.array(clock.drift_ppm),
        "unmarked_presentation": losses.unmarked,
        "unlogged_presentation": losses.unlogged,
        "spurious_s": losses.spurious_s,
    }


def _named(session: Session, recorded: str) -> Session:
    """The spikes differ from those of the session without a recording, so its name must."""
    about = session.about
    named = replace(about, identifier=f"{about.identifier}-{recorded}", source_script=f"{about.source_script}-{recorded}")
    return replace(session, about=named)


# Files -------------------------------------------------------------------------------------------------------------


def _write_voltage(simulated: SimulatedRecording, folder: Path) -> None:
    with warnings.catch_warnings():
        # Its history is spikes and waveforms in memory, which have no file to name; what matters of it is in truth.npz.
        warnings.filterwarnings("ignore", "The extractor is not serializable", UserWarning)
        # SpikeInterface 0.105 leaves closing the file that it wrote to Python.
        warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)
        simulated.recording.save(folder=folder, n_jobs=1, chunk_duration="5s", progress_bar=sys.stderr.isatty(), verbose=False)


def _write_images(session: Session, folder: Path) -> None:
    assert session.images.pixels is not None
    for row, name in enumerate(session.images.name):
        Image.fromarray(session.images.pixels[row]).save(folder / _file_name(name))


def _file_name(image: str) -> str:
    return f"{image}.png"


def _csv(header: str, rows: Iterator[str]) -> str:
    return "\n".join([header, *rows]) + "\n"


def _presentations(session: Session) -> Presentations:
    if session.presentations is None:
        raise ValueError("a simulated session has presentations")
    return session.presentations


def _onsets_s(session: Session) -> Float[np.ndarray, "presentation"]:
    onsets_s = _presentations(session).start_time_s
    if onsets_s is None:
        raise ValueError("simulated presentations have times")
    return onsets_s


def _stops_s(session: Session) -> Float[np.ndarray, "presentation"]:
    stops_s = _presentations(session).stop_time_s
    if stops_s is None:
        raise ValueError("simulated presentations have times")
    return stops_s
