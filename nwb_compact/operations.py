"""Floating-point operations that torch does: two for each multiply-add of convolutions and matrix products, nothing for the rest.

What code of ours computes in torch's place, it tells itself (`beside_torch`).

torch's counter (`torch.utils.flop_counter`) looks at every operation as it runs, which makes a training step of a bank 4 to 10 % slower.
So of work that is repeated it sees the first piece of each kind, and the others are taken to be the same (`alike`).
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


class Count:
    """How many operations were done so far."""

    def __init__(self) -> None:
        """Begin at 0, without looking."""
        self._before, self._counter, self._open = 0, _counter(), ExitStack()

    @property
    def flop(self) -> int:
        """Operations; may be read by another thread."""
        return self._before + self._counter.get_total_flops()

    def add(self, flop: int) -> None:
        """Count what was not looked at."""
        self._before += flop

    @contextmanager
    def looking(self, look: bool) -> Iterator[None]:
        """Whether torch's counter sees what is done inside; afterwards it is as before."""
        before = self._counter.mode is not None
        self._look(look)
        try:
            yield
        finally:
            self._look(before)

    def _look(self, look: bool) -> None:
        if look and self._counter.mode is None:
            counter = _counter()
            self._before, self._counter = self.flop, counter
            self._open.enter_context(_uncompiled())
            self._open.enter_context(counter)
        elif not look:
            self._open.close()


_counting: ContextVar[Count | None] = ContextVar("counting", default=None)


@contextmanager
def counted() -> Iterator[Count]:
    """Count the operations of this thread that are done inside.

    Nothing of numpy's is counted, nor what other threads of the program ask torch for. Code of ours that leaves torch tells what it does
    (`beside_torch`).

    Examples
    --------
    >>> with counted() as count:
    ...     product = torch.zeros(2, 3) @ torch.zeros(3, 4)
    >>> count.flop == 2 * 2 * 3 * 4
    True
    """
    count = Count()
    with _set(count), count.looking(True):
        yield count


@contextmanager
def alike(known: dict[Any, int], *kind: Hashable) -> Iterator[None]:
    """A piece of work that is done again and again: the first of its kind is counted, the others cost as much and run at full speed.

    Does nothing where nobody counts.

    Parameters
    ----------
    known
        Operations of each kind that was seen; the first piece of a kind is added to it.
    kind
        What decides how many operations the piece needs, for example the shapes of its inputs.

    Examples
    --------
    >>> known = {}
    >>> with counted() as count:
    ...     for n in (2, 2, 5):
    ...         with alike(known, n):
    ...             product = torch.zeros(n, 3) @ torch.zeros(3, 4)
    >>> known, count.flop == (2 + 2 + 5) * 2 * 3 * 4
    ({(2,): 48, (5,): 120}, True)
    """
    count = _counting.get()
    if count is None:
        yield
    elif kind in known:
        with costing(known[kind]):
            yield
    else:
        before = count.flop
        yield
        known[kind] = count.flop - before


@contextmanager
def costing(flop: int) -> Iterator[None]:
    """Work whose operations are known; nothing inside is looked at.

    Examples
    --------
    >>> with counted() as count, costing(7):
    ...     product = torch.zeros(2, 3) @ torch.zeros(3, 4)
    >>> count.flop
    7
    """
    count = _counting.get()
    if count is None:
        yield
        return
    with _set(None), count.looking(False):
        yield
    count.add(flop)


def beside_torch(flop: int) -> None:
    """Count operations that are done in torch's place, where somebody counts and this piece of work is looked at.

    Parameters
    ----------
    flop
        How many.

    Examples
    --------
    >>> with counted() as count:
    ...     beside_torch(7)
    >>> count.flop
    7
    """
    count = _counting.get()
    if count is not None:
        count.add(flop)


def shapes(held: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    """Shapes of the arrays and tensors among some values: the kind of a batch, for `alike`.

    Examples
    --------
    >>> shapes((7, torch.zeros(2, 3), torch.zeros(4)))
    ((2, 3), (4,))
    """
    return tuple(tuple(map(int, one.shape)) for one in held if hasattr(one, "shape"))


# What torch's counter is told otherwise ---------------------------------------------------------------------------------


def _convolution_backward(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], _bias: Any, _stride: Any, _padding: Any, _dilation: Any,
    transposed: bool, _output_padding: Any, _groups: int, wanted: Sequence[bool], **_: Any,
) -> int:
    """Each gradient costs as much as the convolution.

    torch (2.13; https://github.com/pytorch/pytorch/pull/183405) counts that of the weights as if there were no groups, so for a depthwise
    convolution it is too high by the number of channels.
    """
    return 2 * prod(x if transposed else grad) * prod(weight[1:]) * sum(wanted[:2])


def _matrix_vector(matrix: Sequence[int], _vector: Any, **_: Any) -> int:
    return 2 * prod(matrix)


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_args: Any, **_: Any) -> int:
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_OTHERWISE = {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten.mv: _matrix_vector,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}
"""By operation, from shapes; torch counts the last two as nothing."""


class _NoModules:
    """In place of torch's tracker of modules: its hooks fail in inference mode, and nobody asks which module it was."""

    parents = ("Global",)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _counter() -> FlopCounterMode:
    counter = FlopCounterMode(display=False, custom_mapping=_OTHERWISE)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


def _uncompiled() -> Any:
    """Compiled code hides its operations from the counter."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6 and later; earlier ones compile nothing while a counter looks
    return set_stance("force_eager") if set_stance else nullcontext()


@contextmanager
def _set(count: Count | None) -> Iterator[None]:
    token = _counting.set(count)
    try:
        yield
    finally:
        _counting.reset(token)
