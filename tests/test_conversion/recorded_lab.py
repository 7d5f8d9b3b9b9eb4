"""One simulated session as different systems would have recorded it: what the pages in docs/ convert.

Four neurons on four electrodes that share no spikes see 24 images, 95 times in all, in 46 seconds. Every folder gets the images as PNG
and the stimulus computer's log; then comes what the system writes. Voltages are the same throughout.
"""

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from spikeinterface import NumpySorting, load

from nwb_compact.session import Session
from nwb_compact.simulate import simulate_session
from nwb_compact.simulated_lab import lab_folder

RATE_HZ = 30_000
STEP_UV = 0.195
PULSE_S = 0.02
"""A line is up so long after an image onset."""


@dataclass(frozen=True, eq=False)
class Lab:
    """A simulated session and its folder, which `nwb-compact simulate --raw` writes alike."""

    folder: Path
    session: Session
    vendor: ModuleType
    """`vendor_files`."""

    @property
    def samples(self) -> np.ndarray:
        """(sample channel), steps of 0.195 microvolts."""
        return load(self.folder / "recording").get_traces()

    @property
    def onset_s(self) -> np.ndarray:
        return self.session.presentations.start_time_s

    @property
    def number(self) -> np.ndarray:
        """Of the image in each presentation, from 1."""
        return self.session.presentations.image_index.astype(int) + 1

    def is_up(self, rate_hz: float, n: int, onset_s: np.ndarray, length_s: float = PULSE_S) -> np.ndarray:
        """Whether a line is up at each of `n` samples."""
        edges = np.zeros(n + 1, int)
        edges[np.rint(onset_s * rate_hz).astype(int)] += 1
        edges[np.rint((onset_s + length_s) * rate_hz).astype(int)] -= 1
        return np.cumsum(edges[:-1]) > 0


def simulated(folder: Path, vendor: ModuleType) -> Lab:
    """The session and its folder."""
    with lab_folder(simulate_session(n_units=4, n_images=24, n_repeats=4, seed=0), folder, seed=0, n_channels=4, layout="utah") as session:
        pass
    return Lab(folder, session, vendor)


def lay_out(lab: Lab, source: str, folder: Path, raw_data: Path | None = None) -> None:
    """The files of a source in `folder`, as the page convert_SOURCE.md says; `raw_data` holds the examples of SpikeGLX's vendor."""
    shutil.copytree(lab.folder / "images", folder / "images")
    shutil.copy(lab.folder / "log.csv", folder)
    if source == "spikeglx":
        _spikeglx(lab, folder / "run_g0", raw_data / "spikeglx" / "NP2_with_sync")
        return
    {"blackrock": _blackrock, "openephys": _openephys, "intan": _intan, "plexon": _plexon, "recording": _recording, "sorted": _sorted,
     "counts": _counts, "nwb": _nwb}[source](lab, folder)


def _on_one_clock(lab: Lab, folder: Path, log: str = "log.csv", **columns: np.ndarray) -> None:
    """A log on the clock of the recording, in seconds, with columns added."""
    shown = lab.session.presentations
    told = {"image": [f"{lab.session.images.name[index]}.png" for index in shown.image_index], "onset": np.round(lab.onset_s, 4),
            "fixation": shown.is_valid.astype(int)} | columns
    rows = [",".join(str(value) for value in row) for row in zip(*told.values(), strict=True)]
    (folder / log).write_text("\n".join([",".join(told), *rows]) + "\n")


# Systems --------------------------------------------------------------------------------------------------------------


def _blackrock(lab: Lab, folder: Path) -> None:
    """The units of the .nev are the true ones; the words are the images' numbers."""
    electrodes = range(1, 5)
    quarter_uv = np.rint(lab.samples * (STEP_UV / 0.25)).astype(np.int16)
    lab.vendor.write_nsx(folder / "day.ns6", [(0, quarter_uv)], [(number, f"chan{number}", "uV") for number in electrodes])
    packets = [(round(time_s * RATE_HZ), 0, 1, word) for time_s, word in zip(lab.onset_s, lab.number, strict=True)]
    packets += [(round(time_s * RATE_HZ), electrode, 1, 0) for electrode, train in _by_electrode(lab) for time_s in train]
    lab.vendor.write_nev(folder / "day.nev", sorted(packets), list(electrodes))
    places = "".join(f"{k % 2} {k // 2} A {k + 1} chan{k + 1}\n" for k in range(4))
    (folder / "array.cmp").write_text(f"//col row bank elec label\n{places}")
    log = (folder / "log.csv").read_text().splitlines()
    with_words = [f"{log[0]},word", *(f"{row},{word}" for row, word in zip(log[1:], lab.number, strict=True))]
    (folder / "log.csv").write_text("\n".join(with_words) + "\n")


def _spikeglx(lab: Lab, folder: Path, example: Path) -> None:
    """Four channels of a probe, and a NI-DAQ whose clock runs 20 ppm fast; both saw a wave of 1 Hz. A line rises at onsets."""
    write_meta = lab.vendor.write_meta
    probe, board = folder / "run_g0_imec0" / "run_g0_t0.imec0.ap", folder / "run_g0_t0.nidq"
    probe.parent.mkdir(parents=True)
    for path, where in ((probe, "all_chan_g0_imec0/all_chan_g0_t0.imec0.ap.meta"), (board, "all_chan_g0_t0.nidq.meta")):
        Path(f"{path}.meta").write_text((example / where).read_text())
    voltage, board_hz = lab.samples, 25_000 * (1 + 20e-6)
    begun_s, n = 500_141 / RATE_HZ, len(voltage)
    wave = 64 * ((begun_s + np.arange(n) / RATE_HZ) % 1 < 0.5)
    samples = np.hstack([voltage, wave[:, None]]).astype(np.int16)
    samples.tofile(f"{probe}.bin")
    told = {"nSavedChans": 5, "snsApLfSy": "4,0,1", "snsSaveChanSubset": "0:3,384"}
    told["~snsChanMap"] = "(4,0,1)(AP0;0:0)(AP1;1:1)(AP2;2:2)(AP3;3:3)(SY0;384:4)"
    write_meta(Path(f"{probe}.meta"), fileSizeBytes=samples.nbytes, **told)
    n = int(n / RATE_HZ * 25_000)
    board_s = (416_715 + np.arange(n)) / board_hz
    onset = begun_s + lab.onset_s
    last = np.searchsorted(onset, board_s, side="right") - 1
    trial = (last >= 0) & (board_s < onset[last] + PULSE_S)
    lines = np.stack([np.zeros(n), 8 * trial + (board_s % 1 < 0.5)], axis=1).astype(np.int16)
    lines.tofile(f"{board}.bin")
    write_meta(Path(f"{board}.meta"), fileSizeBytes=lines.nbytes)


def _openephys(lab: Lab, folder: Path) -> None:
    stream = lab.vendor.BOARD
    node = folder / "2024-05-15_12-30-45" / "Record Node 101"
    here = node / "experiment1" / "recording1"
    continuous, events = here / "continuous" / stream, here / "events" / stream / "TTL"
    for one in (continuous, events):
        one.mkdir(parents=True)
    (node / "settings.xml").write_text(lab.vendor.SETTINGS)
    channels = [{"channel_name": f"CH{number}", "bit_volts": STEP_UV, "units": "uV"} for number in range(1, 5)]
    told = {"GUI version": "0.6.7", "spikes": [],
            "continuous": [{"folder_name": f"{stream}/", "sample_rate": RATE_HZ, "num_channels": 4, "channels": channels}],
            "events": [{"folder_name": f"{stream}/TTL/", "channel_name": "TTL", "sample_rate": RATE_HZ, "type": "int16"}]}
    (here / "structure.oebin").write_text(json.dumps(told))
    samples = lab.samples
    samples.tofile(continuous / "continuous.dat")
    number = 5000 + np.arange(len(samples))
    edge_s = np.stack([lab.onset_s, lab.onset_s + PULSE_S], axis=1).ravel()
    edge = 5000 + np.rint(edge_s * RATE_HZ).astype(np.int64)
    for where, values in ((continuous, number), (events, edge)):
        np.save(where / "sample_numbers.npy", values)
        np.save(where / "timestamps.npy", values / RATE_HZ)
    np.save(events / "states.npy", np.tile([1, -1], len(lab.onset_s)).astype(np.int16))
    np.save(events / "full_words.npy", np.tile([1, 0], len(lab.onset_s)).astype(np.uint64))


def _intan(lab: Lab, folder: Path) -> None:
    """A photodiode on the analog input ANALOG-IN-1, called diode: light for as long as an image is on, in the noise of a cable."""
    qstring, packed, channel = lab.vendor.qstring, lab.vendor.packed, lab.vendor.intan_channel
    groups = [("Port A", "A", [channel(f"A-{n:03}", n, 0, stim=False) for n in range(4)]),
              ("Board ADC Inputs", "ANALOG-IN", [channel("ANALOG-IN-1", 0, 3, name="diode", stim=False)])]
    head = packed("<u4, <i2, <i2, <f4, <i2, 6<f4, <i2, 2<f4", 0xC6912702, 3, 0, RATE_HZ, 1, np.ones(6), 0, np.ones(2))
    head += 3 * qstring("") + packed("<i2, <i2", 0, 0) + qstring("n/a") + packed("<i2", len(groups))
    for name, prefix, channels in groups:
        head += qstring(name) + qstring(prefix) + packed("<i2, <i2, <i2", 1, len(channels), len(channels)) + b"".join(channels)
    voltage = lab.samples
    n = len(voltage) // 128 * 128
    light = lab.is_up(RATE_HZ, n, lab.onset_s, 0.1)
    diode = 2000 + 4000 * light + np.random.default_rng(0).normal(0, 50, n)
    columns = [np.arange(n).astype("<i4"), *(voltage[:n].astype("<i4") + 32768).T.astype("<u2"), (diode + 32768).astype("<u2")]
    blocks = np.concatenate([np.ascontiguousarray(column).reshape(-1, 128).view("u1") for column in columns], axis=1)
    (folder / "day_240515_123045.rhd").write_bytes(head + blocks.tobytes())


def _plexon(lab: Lab, folder: Path) -> None:
    """Sorted units and strobed words, no voltage: what most labs keep of a .plx."""
    from neo.rawio.plexonrawio import DataBlockHeader, DspChannelHeader, EventChannelHeader, GlobalHeader

    def record(layout: list, **given: object) -> bytes:
        one = np.zeros((), np.dtype(layout))
        for name, value in given.items():
            one[name] = value
        return one.tobytes()

    hz = 40_000
    magic = int.from_bytes(b"PLEX", "little")
    content = record(GlobalHeader, MagicNumber=magic, Version=106, ADFrequency=hz, NumDSPChannels=4, NumEventChannels=1, Year=2024,
                     Month=5, Day=15, Hour=12, Minute=30, Second=45, WaveformFreq=hz, BitsPerSpikeSample=16, SpikeMaxMagnitudeMV=3000,
                     SpikePreAmpGain=1000)
    content += b"".join(record(DspChannelHeader, Name=f"SPK{n:02}".encode(), Channel=n, Gain=1) for n in range(1, 5))
    content += record(EventChannelHeader, Name=b"Strobed", Channel=257)
    blocks = [(round(time_s * hz), 4, 257, word) for time_s, word in zip(lab.onset_s, lab.number, strict=True)]
    blocks += [(round(time_s * hz), 1, channel, 1) for channel, train in _by_electrode(lab) for time_s in train]
    spike = bytes(16)
    for tick, kind, channel, unit in sorted(blocks):
        content += record(DataBlockHeader, Type=kind, TimeStamp=tick, Channel=channel, Unit=unit, NumberOfWaveforms=int(kind == 1),
                          NumberOfWordsInWaveform=8 * (kind == 1)) + (spike if kind == 1 else b"")
    (folder / "day.plx").write_bytes(content)


def _by_electrode(lab: Lab) -> list[tuple[int, np.ndarray]]:
    units = lab.session.units
    return [(int(row) + 1, train) for row, train in zip(units.electrode_index, units.spike_times_s, strict=True)]


# What other programs leave --------------------------------------------------------------------------------------------


def _recording(lab: Lab, folder: Path) -> None:
    shutil.copytree(lab.folder / "recording", folder / "recording")
    shutil.copy(lab.folder / "events.csv", folder)


def _sorted(lab: Lab, folder: Path) -> None:
    """A folder that phy saved, the same units as SpikeInterface saves them, events, and a log on the recording's clock besides."""
    shutil.copy(lab.folder / "events.csv", folder)
    _on_one_clock(lab, folder, "onsets.csv")
    trains = {unit: np.rint(train * RATE_HZ).astype(np.int64) for unit, train in enumerate(lab.session.units.spike_times_s)}
    sample = np.concatenate(list(trains.values()))
    cluster = np.repeat(list(trains), [len(train) for train in trains.values()]).astype(np.int32)
    order = np.argsort(sample, kind="stable")
    phy = folder / "phy"
    phy.mkdir()
    arrays = {"spike_times": sample[order][:, None], "spike_clusters": cluster[order], "spike_templates": cluster[order],
              "channel_map": np.arange(4, dtype=np.int32), "channel_positions": np.array([[0, 0], [0, 20], [0, 40], [0, 60]], float)}
    for name, values in arrays.items():
        np.save(phy / f"{name}.npy", values)
    (phy / "params.py").write_text("dat_path = r'day.bin'\nn_channels_dat = 4\ndtype = 'int16'\noffset = 0\nsample_rate = 30000.0\n")
    rows = [f"{unit}\t{lab.session.units.electrode_index[unit]}\t{group}" for unit, group in enumerate(("good", "good", "mua", "noise"))]
    (phy / "cluster_info.tsv").write_text("\n".join(["cluster_id\tch\tgroup", *rows]) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sorting in memory has no provenance, of which SpikeInterface warns
        NumpySorting.from_unit_dict([{f"unit-{unit}": train for unit, train in trains.items()}], RATE_HZ).save(folder=folder / "sorting")


def _counts(lab: Lab, folder: Path) -> None:
    """counts.npy (presentation unit), the log and the names in it alone; cube.npy (image repeat unit); spikes.npz, an array a unit."""
    _on_one_clock(lab, folder)
    rows = (folder / "log.csv").read_text().splitlines()
    (folder / "names.csv").write_text("\n".join(row.partition(",")[0] for row in rows) + "\n")
    session, count = lab.session, lab.session.counts.count
    np.save(folder / "counts.npy", count)
    shown = session.presentations
    cube = np.full((len(session.images), int(shown.repeat.max()) + 1, count.shape[1]), np.nan)
    cube[shown.image_index, shown.repeat] = count
    np.save(folder / "cube.npy", cube)
    np.savez(folder / "spikes.npz", **dict(zip(session.units.name, session.units.spike_times_s, strict=True)))


def _nwb(lab: Lab, folder: Path) -> None:
    """The session with the names of another program: flashes in `trials`, the images as frames of a series called scenes."""
    shutil.rmtree(folder / "images")
    (folder / "log.csv").unlink()
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.file import Subject
    from pynwb.image import OpticalSeries

    session = lab.session
    nwbfile = NWBFile("flashed scenes", "other-lab-17", session.about.session_start_time, session_id="17", experimenter="Last, First")
    nwbfile.subject = Subject(subject_id="M7", species="Macaca mulatta", sex="F", age="P8Y")
    nwbfile.add_stimulus_template(OpticalSeries(name="scenes", data=np.asarray(session.images.pixels), unit="n.a.", rate=1.0, format="raw",
                                                starting_time=0.0, orientation="row 0 is the top"))
    for name, description in (("frame", "which scene, from 0"), ("fixated", "1 where the animal held fixation")):
        nwbfile.add_trial_column(name, description)
    shown = session.presentations
    for row in zip(shown.start_time_s, shown.stop_time_s, shown.image_index, shown.is_valid, strict=True):
        nwbfile.add_trial(**dict(zip(("start_time", "stop_time", "frame", "fixated"), map(float, row), strict=True)))
    for unit, train in enumerate(session.units.spike_times_s):
        nwbfile.add_unit(id=100 + unit, spike_times=train)
    with NWBHDF5IO(folder / "other.nwb", "w") as io:
        io.write(nwbfile)


