"""The smallest valid recordings of each system, written byte by byte from the vendors' descriptions of their formats.

Every writer returns what a reader must find. Voltages are whole steps of the converter.
"""

import json
import warnings
from pathlib import Path

import numpy as np


def words(n_samples: int, n_channels: int) -> np.ndarray:
    return np.random.default_rng(5).integers(-3000, 3000, (n_samples, n_channels), dtype=np.int16)


# Blackrock ------------------------------------------------------------------------------------------------------------


def packed(layout: str, *values: object) -> bytes:
    """Values in the byte layout of a numpy dtype string."""
    return np.array([tuple(values)], np.dtype(layout)).tobytes()


TIME = np.array([2024, 5, 3, 15, 12, 30, 45, 250], np.uint16)
"""Wednesday, 15 May 2024, 12:30:45.250, as Windows writes it."""


def write_nsx(
    path: Path, blocks: list[tuple[int, np.ndarray]], channels: list[tuple[int, str, str]], *, period: int = 1, stamp_each: bool = False,
    spec: tuple[int, int] = (2, 3),
) -> Path:
    """Blocks of (timestamp, samples x channels); channels are (electrode, label, unit).

    With `stamp_each` (specification 3.0) a block is one sample and its timestamp is in nanoseconds.
    """
    extended = b"".join(
        packed("S2, <u2, S16, u1, u1, <i2, <i2, <i2, <i2, S16, <u4, <u4, <u2, <u4, <u4, <u2",
               b"CC", electrode, label.encode(), 1, 1, -32764, 32764, -8191, 8191, unit.encode(), 300, 1, 1, 7500000, 3, 1)
        for electrode, label, unit in channels
    )
    header_bytes = 8 + 2 + 4 + 16 + 256 + 4 + 4 + 16 + 4 + len(extended)
    ticks = 1_000_000_000 if stamp_each else 30_000
    basic = packed("S8, 2u1, <u4, S16, S256, <u4, <u4, (8,)<u2, <u4", b"NEURALCD" if spec[0] < 3 else b"BRSMPGRP", spec, header_bytes,
                   b"30 kS/s", b"", period, ticks, TIME, len(channels))
    stamp = "<u4" if spec[0] < 3 else "<u8"
    data = b"".join(packed(f"u1, {stamp}, <u4", 1, at, len(samples)) + samples.astype("<i2").tobytes() for at, samples in blocks)
    path.write_bytes(basic + extended + data)
    return path


def write_stamped(path: Path, stamps: np.ndarray, samples: np.ndarray, channels: list[tuple[int, str, str]], *, period: int = 1) -> Path:
    """As `write_nsx` with `stamp_each`, of many samples: the precision time protocol of specification 3.0."""
    write_nsx(path, [], channels, period=period, stamp_each=True, spec=(3, 0))
    packet = np.zeros(len(stamps), np.dtype([("flag", "u1"), ("stamp", "<u8"), ("n", "<u4"), ("samples", "<i2", samples.shape[1])]))
    packet["flag"], packet["stamp"], packet["n"], packet["samples"] = 1, stamps, 1, samples
    with path.open("ab") as file:
        file.write(packet.tobytes())
    return path


def write_nev(path: Path, packets: list[tuple[int, int, int, int]], electrodes: list[int], *, stamped: bool = False) -> Path:
    """Packets of (tick, electrode or 0 for a digital word, sort code or reason of insertion, word); with `stamped` (specification
    3.0) ticks are nanoseconds.
    """
    packet_bytes = 104
    waveform = "S8, <u2, u1, u1, <u2, <u2, <i2, <i2, u1, u1, <u2, S8"
    extended = b"".join(packed(waveform, b"NEUEVWAV", electrode, 1, electrode, 250, 0, 0, -255, 0, 2, 48, b"") for electrode in electrodes)
    extended += b"".join(packed("S8, <u2, S16, S6", b"NEUEVLBL", electrode, f"chan{electrode}".encode(), b"") for electrode in electrodes)
    n_extended = 2 * len(electrodes)
    basic = packed("S8, 2u1, <u2, <u4, <u4, <u4, <u4, (8,)<u2, S32, S256, <u4", b"BREVENTS" if stamped else b"NEURALEV",
                   (3, 0) if stamped else (2, 3), 1, 336 + len(extended), packet_bytes, 1_000_000_000 if stamped else 30_000, 30_000, TIME,
                   b"written by a test", b"", n_extended)
    data = b""
    for tick, electrode, code, word in packets:
        body = packed("<u8, <u2, u1, u1, <u2" if stamped else "<u4, <u2, u1, u1, <u2", tick, electrode, code, 0, word)
        data += body + bytes(packet_bytes - len(body))
    path.write_bytes(basic + extended + data)
    return path


NEURAL = [(1, "chan1", "uV"), (2, "chan2", "uV")]
DIODE = (129, "ainp1", "mV")


def write_blackrock(folder: Path, *, first_tick: int = 600) -> dict[str, object]:
    """A .ns6 of two electrodes and a photodiode, 0.1 s from `first_tick` on, and its .nev."""
    samples = words(3000, 3)
    recording = write_nsx(folder / "day.ns6", [(first_tick, samples)], [*NEURAL, DIODE])
    packets = [(630, 0, 1, 7), (660, 1, 0, 0), (690, 1, 2, 0), (900, 2, 255, 0), (930, 0, 129, 65), (1200, 1, 2, 0), (1500, 0, 1, 0)]
    write_nev(folder / "day.nev", packets, [1, 2])
    return {"path": recording, "samples": samples[:, :2], "analog": {"ainp1": samples[:, 2:]}}


# Plexon ---------------------------------------------------------------------------------------------------------------


def write_plx(path: Path, *, magic: bytes = b"PLEX", gap_ticks: int = 0) -> dict[str, object]:
    """Two wideband channels at 20 kHz on a 40 kHz clock from tick 4000 on in blocks of unequal length, an auxiliary input, two units,
    words and a line; before the last block the recording paused for `gap_ticks`.
    """
    from neo.rawio.plexonrawio import DataBlockHeader, DspChannelHeader, EventChannelHeader, GlobalHeader, SlowChannelHeader

    def header(layout: list, **fields: object) -> bytes:
        one = np.zeros((), np.dtype(layout))
        for name, value in fields.items():
            one[name] = value
        return one.tobytes()

    def block(kind: int, tick: int, channel: int, unit: int = 0, samples: np.ndarray | None = None) -> bytes:
        stored = b"" if samples is None else samples.astype("<i2").tobytes()
        return header(DataBlockHeader, Type=kind, TimeStamp=tick, Channel=channel, Unit=unit, NumberOfWaveforms=int(samples is not None),
                      NumberOfWordsInWaveform=0 if samples is None else len(samples)) + stored

    samples = words(400, 3)
    pieces = [(0, 150), (150, 300), (300, 400)]
    content = header(GlobalHeader, MagicNumber=int.from_bytes(magic, "little"), Version=106, ADFrequency=40_000, NumDSPChannels=2,
                     NumEventChannels=3, NumSlowChannels=3, Year=2024, Month=5, Day=15, Hour=12, Minute=30, Second=45,
                     WaveformFreq=40_000, BitsPerSpikeSample=16, BitsPerSlowSample=16, SpikeMaxMagnitudeMV=3000, SlowMaxMagnitudeMV=5000,
                     SpikePreAmpGain=1000)
    content += b"".join(header(DspChannelHeader, Name=f"SPK{n:02}".encode(), Channel=n, Gain=1) for n in (1, 2))
    content += b"".join(header(EventChannelHeader, Name=name, Channel=n) for name, n in ((b"EVT03", 3), (b"Strobed", 257), (b"Start", 258)))
    for n, name in enumerate((b"WB01", b"WB02", b"AI01")):
        content += header(SlowChannelHeader, Name=name, Channel=n, ADFreq=20_000, Gain=1, Enabled=1, PreampGain=1000)
    content += block(4, 4000, 258)
    for first, last in pieces:
        tick = 4000 + 2 * first + (gap_ticks if first == 300 else 0)
        content += b"".join(block(5, tick, n, samples=samples[first:last, n]) for n in range(3))
    spike = np.arange(8, dtype=np.int16)
    content += b"".join(block(1, tick, channel, unit, spike) for tick, channel, unit in ((4040, 2, 1), (4080, 1, 0), (4400, 2, 1)))
    content += b"".join(block(4, tick, channel, word) for tick, channel, word in ((4100, 257, 513), (4120, 3, 0), (4300, 257, 7)))
    path.write_bytes(content)
    return {"path": path, "samples": samples[:, :2], "analog": {"AI01": samples[:, 2:]}}


# SpikeGLX -------------------------------------------------------------------------------------------------------------


def write_meta(path: Path, **changed: object) -> None:
    """A .meta beside a .bin, from one of the vendor, with some keys changed."""
    known = dict(line.split("=", 1) for line in path.read_text().splitlines() if line)
    path.write_text("".join(f"{key}={value}\n" for key, value in (known | {key: str(value) for key, value in changed.items()}).items()))


def write_spikeglx(folder: Path, example: Path, *, rate: float = 1.0001, analog_wave: bool = False) -> dict[str, object]:
    """A run of half a second of a probe and a NI-DAQ that both saw a wave of 20 Hz; NI-DAQ time runs `rate` times too fast.

    `example` is the vendor's NP2_with_sync, for its .meta files. A trial line (XD3) rose at 0.1 and 0.35 s and fell 10 ms later,
    seconds of the probe from its first sample, and XA0 is a photodiode unless it carries the wave.
    """
    folder.mkdir()
    names = ("all_chan_g0_t0.imec0.ap", "all_chan_g0_t0.nidq")
    for name, where in zip(names, (example / "all_chan_g0_imec0", example), strict=True):
        (folder / f"{name}.meta").write_text((where / f"{name}.meta").read_text())
    begun_s = 500_141 / 30_000
    # The wave rises at every 50 ms of the probe's clock and is up for 25 ms.
    probe_s = begun_s + np.arange(15_000) / 30_000
    samples = np.zeros((15_000, 385), np.int16)
    samples[:, :4] = words(15_000, 4)
    samples[:, 384] = 64 * (probe_s % 0.05 < 0.025)
    samples.tofile(folder / f"{names[0]}.bin")
    write_meta(folder / f"{names[0]}.meta", fileSizeBytes=samples.nbytes, syncSourcePeriod=0.05)
    board_s = (416_715 + np.arange(14_000)) / 25_000 / rate
    wave = board_s % 0.05 < 0.025
    from_first_s = board_s - begun_s
    trial = ((from_first_s >= 0.1) & (from_first_s < 0.11)) | ((from_first_s >= 0.35) & (from_first_s < 0.36))
    board = np.zeros((14_000, 2), np.int16)
    board[:, 0] = np.where(wave, 12_000, 0) if analog_wave else words(14_000, 1)[:, 0]
    board[:, 1] = 8 * trial + (0 if analog_wave else wave)
    board.tofile(folder / f"{names[1]}.bin")
    write_meta(folder / f"{names[1]}.meta", fileSizeBytes=board.nbytes, syncSourcePeriod=0.05, syncNiChanType=int(analog_wave))
    return {"path": folder, "samples": samples[:, :384], "analog": {"XA0": board[:, :1]}, "trial_s": [0.1, 0.11, 0.35, 0.36]}


# Intan ----------------------------------------------------------------------------------------------------------------


def qstring(text: str) -> bytes:
    return packed("<u4", 2 * len(text)) + text.encode("utf-16-le")


def intan_channel(native: str, order: int, kind: int, *, name: str | None = None, stim: bool) -> bytes:
    numbers = [order, order, kind, 1, order, *([0, 0] if stim else [0]), 1, 0, 0, 0]
    return qstring(native) + qstring(name or native) + np.array(numbers, "<i2").tobytes() + packed("<f4, <f4", 0.0, 0.0)


def intan_header(*, stim: bool = False) -> bytes:
    """Version 3.0 of either system: amplifier channels A-000 and A-001, one analog input, digital inputs 1 and 2."""
    digital, analog = (5, 3) if stim else (4, 3)
    groups = [
        ("Port A", "A", [intan_channel(f"A-{n:03}", n, 0, stim=stim) for n in range(2)]),
        ("Board ADC Inputs", "ANALOG-IN", [intan_channel("ANALOG-IN-1", 0, analog, name="diode", stim=stim)]),
        ("Board Digital Inputs", "DIGITAL-IN", [intan_channel(f"DIGITAL-IN-{n}", n, digital, stim=stim) for n in (1, 2)]),
    ]
    if stim:
        head = packed("<u4, <i2, <i2, <f4, <i2, 8<f4, <i2, 2<f4, <i2, <i2, 3<f4", 0xD69127AC, 3, 0, 20_000.0, 1, np.ones(8), 0, np.ones(2),
                      0, 0, np.ones(3))
        head += 3 * qstring("") + packed("<i2, <i2", 0, 0) + qstring("n/a")
    else:
        head = packed("<u4, <i2, <i2, <f4, <i2, 6<f4, <i2, 2<f4", 0xC6912702, 3, 0, 20_000.0, 1, np.ones(6), 0, np.ones(2))
        head += 3 * qstring("") + packed("<i2, <i2", 0, 0) + qstring("n/a")
    return head + packed("<i2", len(groups)) + b"".join(
        qstring(name) + qstring(prefix) + packed("<i2, <i2, <i2", 1, len(channels), len(channels)) + b"".join(channels)
        for name, prefix, channels in groups
    )


def write_intan(
    path: Path, *, stim: bool = False, numbers: np.ndarray | None = None, part: slice = slice(None), n: int = 1280
) -> dict[str, object]:
    """Ten blocks of 128 samples at 20 kHz, header and data in one file. Input 1 was up for samples 100 to 199, input 2 from 640 on."""
    numbers = np.arange(n) if numbers is None else numbers
    voltage, diode = words(n, 2), words(n, 3)[:, 2]
    word = 2 * ((np.arange(n) >= 100) & (np.arange(n) < 200)) + 4 * (np.arange(n) >= 640)
    columns = [numbers.astype("<i4"), *(voltage.astype("<i4") + 32768).astype("<u2").T]
    columns += [np.full(n, 256, "<u2") for _ in range(2)] if stim else []
    columns += [(diode.astype("<i4") + 32768).astype("<u2"), word.astype("<u2")]
    blocks = [b"".join(column[first : first + 128].tobytes() for column in columns) for first in range(0, n, 128)]
    path.write_bytes(intan_header(stim=stim) + b"".join(blocks[part]))
    return {"path": path, "samples": voltage, "analog": {"diode": diode[:, None].astype(int) + 32768}}


def write_intan_folder(folder: Path) -> dict[str, object]:
    """The same recording with a .dat file for each kind of signal."""
    folder.mkdir()
    n = 1280
    voltage, diode = words(n, 2), words(n, 3)[:, 2]
    word = 2 * ((np.arange(n) >= 100) & (np.arange(n) < 200)) + 4 * (np.arange(n) >= 640)
    (folder / "info.rhd").write_bytes(intan_header())
    for name, values in (("time", np.arange(n, dtype="<i4")), ("amplifier", voltage.astype("<i2")),
                         ("analogin", (diode.astype("<i4") + 32768).astype("<u2")), ("digitalin", word.astype("<u2"))):
        values.tofile(folder / f"{name}.dat")
    return {"path": folder / "info.rhd", "samples": voltage, "analog": {"diode": diode[:, None].astype(int) + 32768}}


# Open Ephys -----------------------------------------------------------------------------------------------------------

SETTINGS = "<SETTINGS><INFO><VERSION>0.6.7</VERSION><DATE>15 May 2024 12:30:45</DATE></INFO></SETTINGS>"
BOARD, DAQ = "Acquisition_Board-100.acquisition_board", "NI-DAQmx-102.PXIe-6341"


def write_openephys(folder: Path, *, version: tuple[int, int] = (0, 6), first: int = 5000, numbers: np.ndarray | None = None,
                    n_recordings: int = 1, of_another: bool = False) -> dict[str, object]:
    """The binary format at 20 kHz: two electrodes and an ADC channel, 1000 samples a recording, and TTL lines 1 and 3.

    Line 1 is up from sample 100 to 200 of each recording, line 3 from 400 on. With `of_another` a NI-DAQ, whose clock runs at half
    the nominal rate of its own numbers, has them instead; the shared time stamps say when.
    """
    node = folder / "Record Node 101"
    (node / "experiment1").mkdir(parents=True)
    (node / "settings.xml").write_text(SETTINGS)
    new = version >= (0, 6)
    samples = words(1000 * n_recordings, 3)
    channels = [{"channel_name": name, "bit_volts": scale, "units": unit} for name, scale, unit in
                (("CH1", 0.195, "uV"), ("CH2", 0.195, "uV"), ("ADC1", 0.00015, "V"))]
    for k in range(n_recordings):
        here = node / "experiment1" / f"recording{k + 1}"
        source = DAQ if of_another else BOARD
        continuous, events = here / "continuous" / BOARD, here / "events" / source / ("TTL" if new else "TTL_1")
        continuous.mkdir(parents=True)
        events.mkdir(parents=True)
        told = {"GUI version": f"{version[0]}.{version[1]}.0",
                "continuous": [{"folder_name": f"{BOARD}/", "sample_rate": 20_000, "num_channels": 3, "channels": channels}],
                "events": [{"folder_name": f"{source}/{events.name}/", "channel_name": "TTL", "sample_rate": 20_000, "type": "int16"}],
                "spikes": []}
        (here / "structure.oebin").write_text(json.dumps(told))
        samples[1000 * k : 1000 * (k + 1)].tofile(continuous / "continuous.dat")
        number = (first + 4000 * k + np.arange(1000)) if numbers is None else numbers
        edges, states = number[[100, 200, 400]], np.array([1, -1, 3], np.int16)
        # The program's common clock began 7 s before the numbers of samples.
        stamps = {"continuous": 7 + number / 20_000, "events": 7 + edges / 20_000}
        for where, values in ((continuous, number), (events, 2 * edges if of_another else edges)):
            kind = "continuous" if where is continuous else "events"
            np.save(where / ("sample_numbers.npy" if new else "timestamps.npy"), values.astype(np.int64))
            if new:
                np.save(where / "timestamps.npy", stamps[kind])
        np.save(events / ("states.npy" if new else "channel_states.npy"), states)
        np.save(events / "full_words.npy", np.array([1, 0, 4], np.uint64))
        if not new:
            np.save(events / "channels.npy", np.abs(states).astype(np.uint16))
    return {"path": folder, "samples": samples[:, :2], "analog": {"ADC1": samples[:, 2:]}}


def write_openephys_legacy(folder: Path, *, first: int = 5000, gap: int = 0) -> dict[str, object]:
    """The legacy format at 20 kHz: two electrodes and an ADC channel in four records, the last one after `gap` lost samples."""
    folder.mkdir()
    samples = words(4096, 3)
    starts = first + 1024 * np.arange(4) + np.array([0, 0, 0, gap])
    header = ("header.format = 'Open Ephys Data Format';\nheader.version = 0.4;\nheader.header_bytes = 1024;\n"
              "header.date_created = '15-May-2024 123045';\nheader.channel = '{}';\nheader.channelType = 'Continuous';\n"
              "header.sampleRate = 20000;\nheader.blockLength = 1024;\nheader.bufferSize = 1024;\nheader.bitVolts = {};\n")
    for column, (name, scale) in enumerate((("CH1", 0.195), ("CH2", 0.195), ("ADC1", 0.00015))):
        records = [packed("<i8, <u2, <u2, (1024,)>i2, (10,)u1", start, 1024, 0, samples[1024 * k : 1024 * (k + 1), column],
                          [0, 1, 2, 3, 4, 5, 6, 7, 8, 255]) for k, start in enumerate(starts)]
        (folder / f"100_{name}.continuous").write_bytes(header.format(name, scale).encode().ljust(1024) + b"".join(records))
    edges = [(first + 100, 3, 1, 0), (first + 150, 5, 1, 0), (first + 200, 3, 0, 0), (first + 400, 3, 1, 2)]
    events = [packed("<i8, <i2, u1, u1, u1, u1, <u2", sample, 0, kind, 100, up, line, 0) for sample, kind, up, line in edges]
    (folder / "all_channels.events").write_bytes(header.format("Events", 1).encode().ljust(1024) + b"".join(events))
    (folder / "messages.events").write_text("0 a message")
    (folder / "settings.xml").write_text(SETTINGS)
    return {"path": folder, "samples": samples[:, :2], "analog": {"ADC1": samples[:, 2:]}}


# SpikeInterface -------------------------------------------------------------------------------------------------------


def write_saved(path: Path) -> dict[str, object]:
    """What SpikeInterface saves of two segments at 20 kHz that begin at 2.5 and 3.5 s."""
    from spikeinterface import NumpyRecording

    samples = words(1000, 2)
    recording = NumpyRecording([samples[:600], samples[600:]], 20_000.0, channel_ids=["e1", "e2"], t_starts=[2.5, 3.5])
    recording.set_channel_gains(0.195)
    recording.set_channel_offsets(0.0)
    recording.set_property("group_name", np.array(["A", "B"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a recording in memory has no provenance, of which SpikeInterface warns
        recording.save(folder=path, format="zarr" if path.suffix == ".zarr" else "binary", verbose=False, progress_bar=False)
    return {"path": path, "samples": samples}


def write_events(path: Path) -> Path:
    """Two words and a reward on the clock of `write_saved`."""
    path.write_text("time_s,code,channel\n2.505,513,words\n2.6,1,reward\n3.51,7,words\n")
    return path
