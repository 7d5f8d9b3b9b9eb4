"""A session from neurons whose wiring is known: natural images flashed in short trials, Poisson spikes, unequal repeats.

What a model finds in such a session can be compared with the truth: `neurons_from_wiring(session.wiring)` are the true
neurons, and `expected_counts` asks them about any image.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

from nwb_compact import __version__
from nwb_compact.address import require_path
from nwb_compact.counting import count_spikes
from nwb_compact.errors import NwbCompactError
from nwb_compact.natural_images import natural_image_kind, natural_images
from nwb_compact.session import (
    About,
    Images,
    Presentations,
    ResponseUnits,
    Session,
    SpikeCounts,
    Subject,
    Units,
    counted_repeats,
    image_sha256,
)
from nwb_compact.simulated_neurons import Neuron, expected_counts, neurons_from_wiring, simulated_neurons, wiring_rows

__all__ = ["command", "expected_counts", "natural_images", "neurons_from_wiring", "simulate_session"]

FEWEST_IMAGES = 20
IMAGE_ON_S, IMAGE_OFF_S = 0.1, 0.1
"""100 ms bins as in the study (see docs/methods.md), and as long a pause, so that windows of neighbouring images never overlap."""
WINDOW_S = (0.05, 0.15)
"""Counting window after image onset: V4 answers after about 50 ms."""
IMAGES_PER_TRIAL = 5
FIXATION_S = 0.3
"""Between the start of a trial and its first image."""
PAUSE_S = (0.8, 1.2)
"""Between trials, drawn uniformly."""
SAMPLING_HZ = 30_000.0
"""Of the recording; spikes are told to one sample."""
BROKEN_TRIALS = 0.05
"""Share of trials in which the animal looks away."""


def simulate_session(*, n_units: int = 16, n_images: int = 2000, n_repeats: int = 8, seed: int = 0,
                     report: Callable[[str], None] = lambda line: None) -> Session:
    """Record from simulated neurons.

    Parameters
    ----------
    n_units
        Neurons, see `nwb_compact.simulated_neurons.simulated_neurons`.
    n_images
        Images, see `nwb_compact.natural_images.natural_images`.
    n_repeats
        Mean number of valid repeats of an image; they vary by up to 3 and are at least 2, unless 1 is asked for.
    seed
        Same arguments, same session.
    report
        Called with a line before each step that takes a while.

    Returns
    -------
    Session
        With pixels, spike times, presentations (also those with broken fixation, `is_valid` False), counts and the
        complete wiring. Counts of valid presentations are Poisson with the mean that `expected_counts` gives.

    Raises
    ------
    NwbCompactError
        If a number is too small to simulate.

    Examples
    --------
    >>> session = simulate_session(n_units=2, n_images=20, n_repeats=2)
    >>> len(session.images), session.units.name, session.counts.count.dtype.name
    (20, ('unit-001', 'unit-002'), 'uint16')
    """
    _require(n_units=(n_units, 1), n_images=(n_images, FEWEST_IMAGES), n_repeats=(n_repeats, 1), seed=(seed, 0))
    report(f"making {n_images} images")
    pixels = natural_images(n_images, seed=seed)
    report(f"asking {n_units} neurons about them")
    neurons = simulated_neurons(n_units, seed=seed)
    expected = expected_counts(neurons, pixels)
    report("drawing spikes")
    presentations = _presentations(_valid_repeats(n_images, n_repeats, seed), np.random.default_rng([seed, 3]))
    shown = _seen_images(presentations, n_images, np.random.default_rng([seed, 4]))
    spikes = [_Spikes(neuron, expected[:, column], np.random.default_rng([seed, 5, column])) for column, neuron in enumerate(neurons)]
    return _session(f"units{n_units}-images{n_images}-repeats{n_repeats}-seed{seed}", pixels, neurons, presentations,
                    tuple(unit.times_s(presentations, shown) for unit in spikes))


@click.command("simulate")
@click.argument("file_path", metavar="OUT.nwb", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--units", default=16, show_default=True, type=click.IntRange(min=1), help="Neurons.")
@click.option("--images", default=2000, show_default=True, type=click.IntRange(min=FEWEST_IMAGES), help="Images.")
@click.option("--repeats", default=8, show_default=True, type=click.IntRange(min=1), help="Mean number of repeats of an image.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Same arguments, same session.")
@click.option("--raw", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="Also write what a lab would bring: voltage, events, log, images, session.yaml.")
@click.option("--channels", default=16, show_default=True, type=click.IntRange(4, 384), help="With --raw: electrodes.")
@click.option("--layout", default="probe", show_default=True, type=click.Choice(["probe", "utah"]),
              help="With --raw: sites that share units, or an array with one unit each.")
@click.option("--drift", "drift_um", default=0.0, show_default=True, type=click.FloatRange(0, 100),
              help="With --raw: how far the tissue moves along the probe, micrometres.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.nwb, and DIR of an earlier simulation, where they exist.")
def command(file_path: Path, units: int, images: int, repeats: int, seed: int, raw: Path | None, channels: int,
            layout: Literal["probe", "utah"], drift_um: float, overwrite: bool) -> None:
    """Write a session from neurons whose wiring is known.

    The first four are a dot detector, an edge-only, a colour and a curvature neuron; the wiring is stored in the file. With --raw the
    file is the truth about the recording in DIR, with exactly the spikes that are in the voltage.
    """
    from nwb_compact.nwb_session import write_session  # pynwb takes a second to import; --help should not

    _refuse_existing(file_path, overwrite)
    if raw is not None:
        from nwb_compact.simulated_lab import lab_folder, require_lab_folder

        require_lab_folder(raw, file_path, overwrite=overwrite)
    session = simulate_session(n_units=units, n_images=images, n_repeats=repeats, seed=seed, report=click.echo)
    with nullcontext(session) if raw is None else lab_folder(
            session, raw, seed=seed, n_channels=channels, layout=layout, drift_um=drift_um, report=click.echo) as truth:
        click.echo(f"writing {file_path}")
        write_session(truth, file_path, overwrite=overwrite)
    click.echo(f"wrote {file_path}: {units} units, {images} images, {len(session.presentations or ())} presentations. "
               f"Next: nwb-compact fit {file_path}")
    if raw is not None:
        click.echo(f"wrote {raw}. Next: nwb-compact convert recording {raw / 'recording'} --events {raw / 'events.csv'} "
                   f"--yaml {raw / 'session.yaml'} -o converted.nwb")


def _refuse_existing(file_path: Path, overwrite: bool) -> None:
    """Before the work, not after it."""
    require_path(file_path)
    if file_path.exists() and not overwrite:
        raise NwbCompactError(file_path, found="a file of this name", expected="none", next_step="choose another name or add --overwrite")
    if not file_path.absolute().parent.is_dir():
        raise NwbCompactError(file_path, found=f"no folder {file_path.parent}", expected="an existing folder",
                              next_step=f"mkdir -p {file_path.parent}")


def _require(**numbers: tuple[int, int]) -> None:
    for name, (value, smallest) in numbers.items():
        if value < smallest:
            raise NwbCompactError(name, found=str(value), expected=f"at least {smallest}", next_step="ask for more")


# The experiment ----------------------------------------------------------------------------------------------------


def _valid_repeats(n_images: int, n_repeats: int, seed: int) -> Integer[np.ndarray, "image"]:
    """As many images with a repeat more as with a repeat less, so that the mean stays what was asked for."""
    spread = min(3, max(0, n_repeats - 2))
    balanced = np.resize(np.arange(n_repeats - spread, n_repeats + spread + 1), n_images)
    return np.random.default_rng([seed, 6]).permutation(balanced)


def _presentations(valid_repeats: Integer[np.ndarray, "image"], rng: np.random.Generator) -> Presentations:
    """Random order in short trials. What a broken trial did not show is shown again at the end."""
    queue = deque(rng.permutation(np.repeat(np.arange(len(valid_repeats)), valid_repeats)).tolist())
    shown: list[int] = []
    is_valid: list[bool] = []
    start_times_s: list[float] = []
    time_s = 1.0
    while queue:
        trial = [queue.popleft() for _ in range(min(IMAGES_PER_TRIAL, len(queue)))]
        n_good = int(rng.integers(len(trial))) if rng.random() < BROKEN_TRIALS else len(trial)
        queue.extend(trial[n_good:])
        n_shown = min(n_good + 1, len(trial))
        shown += trial[:n_shown]
        is_valid += [position < n_good for position in range(n_shown)]
        start_times_s += [time_s + FIXATION_S + position * (IMAGE_ON_S + IMAGE_OFF_S) for position in range(n_shown)]
        time_s = start_times_s[-1] + IMAGE_ON_S + IMAGE_OFF_S + rng.uniform(*PAUSE_S)
    start = np.array(start_times_s)
    image_index = np.array(shown, np.uint32)
    return Presentations(image_index, counted_repeats(image_index), np.array(is_valid), start, start + IMAGE_ON_S)


def _seen_images(presentations: Presentations, n_images: int, rng: np.random.Generator) -> Int[np.ndarray, "presentation"]:
    """The image in the receptive field: when the eye has moved away it is any other, so using such a row costs accuracy."""
    elsewhere = rng.integers(n_images, size=len(presentations))
    return np.where(presentations.is_valid, presentations.image_index.astype(np.int64), elsewhere)


@dataclass(frozen=True, eq=False)
class _Spikes:
    """The spikes of one neuron: Poisson with its rate in the response windows and with its baseline between them."""

    neuron: Neuron
    expected: Float[np.ndarray, "image"]
    rng: np.random.Generator

    def times_s(self, presentations: Presentations, shown: Int[np.ndarray, "presentation"]) -> Float[np.ndarray, "spike"]:
        opens_s = _onsets_s(presentations) + WINDOW_S[0]
        length_s = WINDOW_S[1] - WINDOW_S[0]
        n_spikes = self.rng.poisson(self.expected[shown])
        answers = np.repeat(opens_s, n_spikes) + self.rng.uniform(0, length_s, n_spikes.sum())
        end_s = _end_s(presentations)
        idle = self.rng.uniform(0, end_s, self.rng.poisson(self.neuron.baseline / length_s * end_s))
        times_s = np.concatenate([answers, idle[~_is_in_window(idle, opens_s, length_s)]])
        return np.unique(np.ceil(times_s * SAMPLING_HZ)) / SAMPLING_HZ


def _is_in_window(times_s: Float[np.ndarray, "spike"], opens_s: Float[np.ndarray, "presentation"],
                  length_s: float) -> Bool[np.ndarray, "spike"]:
    last = np.searchsorted(opens_s, times_s, side="right") - 1
    return (last >= 0) & (times_s < opens_s[np.maximum(last, 0)] + length_s)


def _onsets_s(presentations: Presentations) -> Float[np.ndarray, "presentation"]:
    if presentations.start_time_s is None:
        raise ValueError("simulated presentations have times")
    return presentations.start_time_s


def _end_s(presentations: Presentations) -> float:
    return float(_onsets_s(presentations)[-1] + 1.0)


# The session -------------------------------------------------------------------------------------------------------


def _session(arguments: str, pixels: UInt8[np.ndarray, "image height width 3"], neurons: Sequence[Neuron],
             presentations: Presentations, spike_times_s: tuple[Float[np.ndarray, "_"], ...]) -> Session:
    n_images, n_units = len(pixels), len(neurons)
    images = Images(
        name=tuple(f"simulated-{index:05d}" for index in range(n_images)),
        sha256=tuple(image_sha256(image) for image in pixels),
        pixels=pixels,
        kind=tuple(natural_image_kind(index) for index in range(n_images)),
        source=("nwb-compact simulate",) * n_images,
        licence=("CC0-1.0",) * n_images,
    )
    return Session(
        about=_about(arguments),
        subject=Subject(subject_id="simulated", species="Macaca mulatta", sex="U", age="P0D",
                        description="Simulated, no animal: species and age are stated only because archives require them."),
        images=images,
        presentations=presentations,
        units=Units(tuple(neuron.name for neuron in neurons), spike_times_s, obs_intervals_s=np.array([[0.0, _end_s(presentations)]]),
                    resolution_s=1 / SAMPLING_HZ),
        response_units=ResponseUnits(np.arange(n_units, dtype=np.uint32), np.full(n_units, WINDOW_S[0]), np.full(n_units, WINDOW_S[1])),
        counts=_counts(presentations, spike_times_s),
        mean_responses=None,
        wiring=wiring_rows(neurons),
    )


def _counts(presentations: Presentations, spike_times_s: tuple[Float[np.ndarray, "_"], ...]) -> SpikeCounts:
    opens_s, closes_s = (_onsets_s(presentations) + edge for edge in WINDOW_S)
    return SpikeCounts(np.arange(len(presentations), dtype=np.uint32), count_spikes(spike_times_s, opens_s, closes_s),
                       "simulated spikes from 50 ms to 150 ms after image onset")


def _about(arguments: str) -> About:
    return About(
        identifier=f"nwb-compact-simulated-{arguments}",
        session_description="Simulated: neurons of known wiring (in scratch) answer flashed images with Poisson spikes.",
        session_start_time=datetime(2020, 1, 1, tzinfo=UTC),  # fixed: the same arguments make the same file
        session_id=f"simulated-{arguments}",
        keywords=("simulation", "visual cortex", "natural images"),
        source_script=f"program: nwb-compact simulate\nversion: {__version__}\narguments: {arguments}",
    )
