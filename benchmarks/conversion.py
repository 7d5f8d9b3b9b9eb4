"""How fast a recording becomes a session file, against copying the same bytes through h5py with the same compression.

    python benchmarks/conversion.py [--minutes 10] [--channels 96] [--rounds 3]

A round converts a recording that SpikeInterface saved (`nwb-compact convert recording`, sorting: none) and then copies its samples
into an HDF5 file with the chunks and filters that the session file has. Both read the same file. The ratio is seconds of the copy over
seconds of the conversion: 1 would mean that everything but the compression was free. Memory is the largest resident size of the
converting process. Needs about three times the recording's room in the temporary folder.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from PIL import Image
from spikeinterface import load
from spikeinterface.core import BinaryRecordingExtractor

RATE_HZ, NOISE_SD, BLOCK_S = 30_000.0, 12.0, 10
SETTINGS = """
subject: {subject_id: benchmark, species: Macaca mulatta, sex: U, age: P8Y}
session: {session_start_time: 2020-01-01T00:00:00+00:00}
stimuli: {images: images, log: log.csv, duration_s: 0.1}
alignment: {method: none}
sorting: {sorter: none}
"""


def main() -> None:
    """Measure, and print one line a round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="conversion-") as name:
        folder = Path(name)
        make_source(folder, asked.minutes, asked.channels)
        rounds = [one_round(folder) for _ in range(asked.rounds)]
    n_bytes = round(asked.minutes * 60 * RATE_HZ) * asked.channels * 2
    for convert_s, copy_s, peak in rounds:
        print(f"convert {convert_s:.1f} s, copy {copy_s:.1f} s, ratio {copy_s / convert_s:.2f}, peak memory {peak / 2**20:.0f} MiB")
    ratio = statistics.median(copy_s / convert_s for convert_s, copy_s, _ in rounds)
    speed = n_bytes / 2**20 / statistics.median(convert_s for convert_s, _, _ in rounds)
    print(f"{n_bytes / 2**30:.2f} GiB of {asked.channels} channels: median ratio {ratio:.2f}, {speed:.0f} MiB/s converted")


def make_source(folder: Path, minutes: float, channels: int) -> None:
    """Noise as an amplifier gives it, ten seconds repeated; images and a log that is on the recording's clock."""
    rng = np.random.default_rng(0)
    block = rng.normal(0, NOISE_SD, (int(BLOCK_S * RATE_HZ), channels)).astype(np.int16)
    with (folder / "samples.raw").open("wb") as file:
        for _ in range(round(minutes * 60 / BLOCK_S)):
            file.write(block.tobytes())
    recording = BinaryRecordingExtractor(
        folder / "samples.raw", RATE_HZ, "int16", num_channels=channels, gain_to_uV=0.25, offset_to_uV=0.0
    )
    recording.dump_to_json(folder / "recording.json", relative_to=folder)
    (folder / "images").mkdir()
    for number in range(30):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "images" / f"{number + 1}.png")
    with (folder / "log.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "onset"])
        rows.writerows([shown % 30 + 1, 0.5 + 0.2 * shown] for shown in range(int(minutes * 60 / 0.2) - 10))
    (folder / "session.yaml").write_text(SETTINGS)


def one_round(folder: Path) -> tuple[float, float, int]:
    """Seconds of a conversion and of a copy, and the converter's largest memory in bytes."""
    output = folder / "session.nwb"
    command = [sys.executable, "-m", "nwb_compact.cli", "convert", "recording", str(folder / "recording.json"),
               "--yaml", str(folder / "session.yaml"), "-o", str(output), "--overwrite"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    convert_s = time.perf_counter() - started
    if status:
        raise SystemExit((process.stderr.read() if process.stderr else b"").decode())
    copy_s = copied_s(load(folder / "recording.json", base_folder=folder), output, folder / "copy.h5")
    return convert_s, copy_s, usage.ru_maxrss * 1024


def copied_s(recording: BinaryRecordingExtractor, session: Path, copy: Path) -> float:
    """Seconds to copy the samples, a chunk's height at a time, with the layout they have in the session file; on the disk at the end."""
    with h5py.File(session) as file:
        there = file["acquisition/ElectricalSeries/data"]
        layout = {"shape": there.shape, "dtype": there.dtype, "chunks": there.chunks, "compression": there.compression,
                  "compression_opts": there.compression_opts, "shuffle": there.shuffle}
    started = time.perf_counter()
    with h5py.File(copy, "w") as file:
        data = file.create_dataset("data", **layout)
        for start in range(0, data.shape[0], data.chunks[0]):
            data[start : start + data.chunks[0]] = recording.get_traces(start_frame=start, end_frame=min(start + data.chunks[0], len(data)))
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
