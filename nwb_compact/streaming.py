"""Batches read one ahead of the training step, so that no step waits for a disk; pinned for a GPU, so that their copy does not hold up
the program either.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

Asked = TypeVar("Asked")
Loaded = TypeVar("Loaded")


def one_ahead(asked: Iterable[Asked], load: Callable[[Asked], Loaded]) -> Iterator[Loaded]:
    """What `load` gives for each, in order; the next is loaded by another thread while the present one is used.

    Examples
    --------
    >>> list(one_ahead([1, 2, 3], lambda n: n * n))
    [1, 4, 9]
    """
    with ThreadPoolExecutor(1, "one_ahead") as reader:
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
