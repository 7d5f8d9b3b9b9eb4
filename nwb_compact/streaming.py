"""From arrays to the device: batches of the teacher, and of whatever a GPU trains, read one ahead of the step, so that none waits for a
disk; pinned for a GPU, so that their copy does not hold up the program either; channels last in memory, as networks are.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

Asked = TypeVar("Asked")
Loaded = TypeVar("Loaded")
Network = TypeVar("Network", bound=nn.Module)
READERS_SHARE = 4
"""One in so many threads is the reader's. With as many as the step has, both sets of threads wait for each other on every core: on two
cores with other work beside it, 101 images/s against 119."""


def one_ahead(asked: Iterable[Asked], load: Callable[[Asked], Loaded]) -> Iterator[Loaded]:
    """What `load` gives for each, in order; the next is loaded by another thread while the present one is used.

    Examples
    --------
    >>> list(one_ahead([1, 2, 3], lambda n: n * n))
    [1, 4, 9]
    """
    threads = max(1, torch.get_num_threads() // READERS_SHARE)
    with ThreadPoolExecutor(1, "one_ahead", initializer=lambda: threadpool_limits(threads, user_api="openmp")) as reader:
        waiting = None
        for one in asked:
            coming = reader.submit(load, one)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def read_rows(inputs: np.ndarray, rows: Shaped[np.ndarray, "batch"], device: str) -> Tensor:
    """Rows of an array that may lie on a disk; for a GPU in memory that is pinned, from which copies need not be waited for."""
    read = torch.from_numpy(np.ascontiguousarray(inputs[rows]))
    return read.pin_memory() if device == "cuda" else read


def on_device(read: Tensor, device: str) -> Tensor:
    """Maps or images as float (batch channel row column), channels last in memory."""
    moved = read.to(device, non_blocking=True)
    if moved.dtype == torch.uint8:  # images, which files keep with their colours last
        moved = moved.permute(0, 3, 1, 2)
    return moved.float().contiguous(memory_format=torch.channels_last)


def as_tensor(images: UInt8[np.ndarray, "image height width 3"], device: str) -> Tensor:
    """uint8 images as float (image 3 height width) in 0..255, channels last in memory, which is what the CPU convolves fastest."""
    return on_device(torch.from_numpy(np.ascontiguousarray(images)), device)


def to_device(network: Network, device: str) -> Network:
    """The network on a device, channels last in memory, as its inputs are."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
