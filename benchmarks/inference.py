"""Images a second of one compact student on the CPU: ours, a plain torch module of the published architecture, and onnxruntime.

    pip install "nwb-compact[onnx]"
    python benchmarks/inference.py --threads 1

Plain is what the architecture says and no more: convolution, BatchNorm and ReLU modules, channels first, 64 images at a time. onnxruntime
gets the exported file. All take turns, so that what else the machine does falls on all of
them; the fastest turn of each counts, since other programs can only slow one down. Rates of matrix products stand beside them: torch's
own, and oneDNN's in a 1 x 1 convolution. Widths are the medians of the study's students, or those of `--widths`. Exit status 1 if answers
differ by more than 1e-5 of their SD or ours is less than `--at-least` times as fast as plain.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import click
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from nwb_compact.onnx_model import onnx_model
from nwb_compact.results import StudentWeights
from nwb_compact.student import N_LAYERS, STRIDES, example_student, flop_an_image, predict, same_padding

MEDIAN_WIDTHS = "47,57,3,7,3"
"""Filters that layers 1 to 5 of the published students answer with, medians over 219."""
EPS = 1e-5


class Plain(nn.Module):
    """The published architecture as one would write it down, with the weights of a student and a BatchNorm that changes them back."""

    def __init__(self, student: StudentWeights, rng: np.random.Generator):
        super().__init__()
        of = {name: torch.from_numpy(value) for name, value in student.arrays.items()}
        self.mean = of["input.mean"][None, :, None, None]
        self.first = _loaded(nn.Conv2d(3, len(of["layer1.kernel"]), 5, padding=2, bias=False), of["layer1.kernel"])
        self.depthwise, self.pointwise, self.norm = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for layer in range(1, N_LAYERS + 1):
            bias = of[f"layer{layer}.bias"]
            gain = torch.from_numpy(rng.uniform(0.5, 2, len(bias)).astype(np.float32))
            norm = nn.BatchNorm2d(len(bias), eps=EPS)
            norm.weight.data, norm.bias.data, norm.running_var = gain, bias, gain**2 - EPS  # together: times 1, plus the bias
            self.norm.append(norm)
            if layer > 1:
                depthwise, pointwise = of[f"layer{layer}.depthwise"][:, None], of[f"layer{layer}.pointwise"][:, :, None, None]
                n = len(depthwise)
                self.depthwise.append(_loaded(nn.Conv2d(n, n, 5, stride=STRIDES[layer - 1], groups=n, bias=False), depthwise))
                self.pointwise.append(_loaded(nn.Conv2d(n, len(pointwise), 1, bias=False), pointwise))
        self.readout, self.bias = of["readout.weight"], of["readout.bias"]

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.norm[0](self.first(images - self.mean)))
        for index, stride in enumerate(STRIDES[1:]):
            x = self.pointwise[index](self.depthwise[index](same_padding(x, stride)))
            x = torch.relu(self.norm[index + 1](x))
        return (x * self.readout).sum(dim=(1, 2, 3)) + self.bias


@click.command()
@click.option("--widths", multiple=True, default=[MEDIAN_WIDTHS, "100,100,100,100,100"], show_default=True)
@click.option("--images", default=64, show_default=True)
@click.option("--turns", default=15, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--at-least", default=10.0, show_default=True, help="For the first of the widths.")
def main(widths: tuple[str, ...], images: int, turns: int, threads: int, at_least: float) -> None:
    """Print one table for each of the widths."""
    torch.set_num_threads(threads)
    pixels = np.random.default_rng(0).integers(0, 256, (images, 112, 112, 3), np.uint8)
    products = {"torch.mm, 1024 x 1024 x 1024": _matrix_product, "oneDNN, 64 to 64 channels at 6272 places": _pointwise}
    peaks = {name: max(make() for _ in range(turns)) for name, make in products.items()}
    print(f"{threads} thread(s), torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {images} images, best of {turns} turns")
    print("; ".join(f"{name}: {rate / 1e9:.0f} GFLOP/s" for name, rate in peaks.items()))
    ratios = [table(tuple(map(int, one.split(","))), pixels, turns, threads, max(peaks.values())) for one in widths]
    sys.exit(0 if ratios[0] >= at_least else 1)


def table(widths: tuple[int, ...], pixels: np.ndarray, turns: int, threads: int, peak: float) -> float:
    """Prints; how many times as fast as plain ours is."""
    student = example_student(widths)
    ways = {"plain torch": plain(student, pixels)}
    ways |= {f"onnxruntime, {batch} at a time": onnx(student, pixels, batch, threads) for batch in (1, 8, 64)}
    ways["ours"] = partial(predict, student, pixels)
    exact, seconds = ways["plain torch"](), {name: np.inf for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            start = time.perf_counter()
            answers = way()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            if np.abs(answers - exact).max() > 1e-5 * exact.std():
                sys.exit(f"{name} answers otherwise: {np.abs(answers - exact).max() / exact.std():.1e} of the SD")
    flop = flop_an_image([student])
    print(f"\nfilters {'-'.join(map(str, widths))}: {flop / 1e6:.0f} million operations an image")
    print(f"{'way':26s} {'images/s':>9s} {'times plain':>12s} {'GFLOP/s':>8s} {'of the product':>15s}")
    for name, second in seconds.items():
        rate = len(pixels) / second
        print(f"{name:26s} {rate:9.0f} {seconds['plain torch'] / second:12.1f} {flop * rate / 1e9:8.0f} {flop * rate / peak:15.0%}")
    return seconds["plain torch"] / seconds["ours"]


def plain(student: StudentWeights, pixels: np.ndarray) -> Callable[[], np.ndarray]:
    module = Plain(student, np.random.default_rng(1)).eval()

    def run() -> np.ndarray:
        with torch.no_grad():
            parts = (torch.from_numpy(pixels[start : start + 64]).permute(0, 3, 1, 2) for start in range(0, len(pixels), 64))
            return np.concatenate([module(part.float().contiguous()).numpy() for part in parts])

    return run


def onnx(student: StudentWeights, pixels: np.ndarray, batch: int, threads: int) -> Callable[[], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx_model(student.arrays, {}), options, providers=["CPUExecutionProvider"])
    parts = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    return lambda: np.concatenate([session.run(None, {"images": part})[0] for part in parts])


def _matrix_product() -> float:
    matrix = torch.randn(1024, 1024)
    return 2 * 1024**3 / _seconds(lambda: matrix @ matrix)


def _pointwise() -> float:
    maps = torch.randn(2, 64, 56, 56).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 1, 1)
    return 2 * maps.numel() * 64 / _seconds(lambda: torch.mkldnn_convolution(maps, weight, None, (0, 0), (1, 1), (1, 1), 1))


def _seconds(work: Callable[[], object]) -> float:
    with torch.inference_mode():
        work()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def _loaded(convolution: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    convolution.weight.data = weight
    return convolution


if __name__ == "__main__":
    main()
