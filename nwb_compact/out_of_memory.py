"""Too little memory for a batch: how to know it, and how to go on with half of it."""

from collections.abc import Callable

import torch
from torch import Tensor

WORDS = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")
"""In lower case, what CUDA, cuBLAS, cuDNN and the allocators of Linux and Windows say; torch gives most of them as plain RuntimeErrors."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory was too small.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA error: out of memory")), is_out_of_memory(RuntimeError("size mismatch"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


def free_what_is_kept() -> None:
    """Give back what torch keeps of a GPU's memory for later; call it outside an `except`, which holds on to what failed."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_halves(compute: Callable[[Tensor], Tensor], x: Tensor, *, dim: int) -> Tensor:
    """`compute(x)`, or of both halves of x joined along `dim`, and so on, where memory is too small for the whole.

    Parameters
    ----------
    compute
        From some rows of x to their answers along axis `dim`; the answer to a row must not depend on the others.
    x
        Rows along the first axis.
    dim
        Axis of the answers.

    Examples
    --------
    >>> in_halves(lambda some: some.T * 2, torch.arange(4).reshape(4, 1), dim=1)
    tensor([[0, 2, 4, 6]])
    """
    try:
        return compute(x)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(x) < 2:
            raise
    free_what_is_kept()
    half = len(x) // 2
    return torch.cat([in_halves(compute, part, dim=dim) for part in (x[:half], x[half:])], dim=dim)
