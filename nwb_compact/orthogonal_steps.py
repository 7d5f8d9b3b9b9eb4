"""Steps that turn all directions of a weight matrix alike: momentum made orthogonal (Muon; Jordan et al. 2024), batched.

Adam scales each weight by itself. Gradients of a matrix of filters have a few strong directions, so filters learn what they share and
little else; with all singular values of a step made equal, r2 with the teacher was 0.76 after 24,000 images of V4, with Adam 0.69
(docs/measured.md). torch has this for single matrices; a bank has one for each unit, and filters on pixels, whose weights are small, so a
step here is a share of the matrix's own norm.

Where a group asks for it, a step also brings every weight nearer to 0 and leaves at 0 those that reach it (soft threshold: the proximal
step of a cost on absolute values; Beck & Teboulle 2009). Weights that the gradient does not keep up vanish.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: all singular values end between about 0.7 and 1.2 (Jordan et al. 2024)."""
ITERATIONS = 5
TINY = 1e-12
FADED = 1e-12
"""Share of a matrix's norm below which a number counts as 0. The momentum of a filter that no longer learns fades to subnormal numbers,
which processors multiply many times as slowly as others."""


class OrthogonalMomentum(torch.optim.Optimizer):
    """Each step changes a matrix by the share `lr` of the norm that it had at first."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float):
        """Groups have `params` and `shapes`, of each parameter as what stack of matrices (matrix row column) it is taken.

        `sparsity` of a group (0 where it is not told) is by how much a step brings weights nearer to 0, over the RMS of what it adds to
        the weights of their matrix.
        """
        super().__init__(list(groups), {"lr": lr, "sparsity": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient; those that are 0 stay so."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # matrices are so small that threads would wait for each other ten times as long as they compute
        try:
            for group in self.param_groups:
                for parameter, shape in zip(group["params"], group["shapes"], strict=True):
                    if parameter.grad is not None:
                        change = self._change(parameter, parameter.grad.reshape(shape))
                        parameter.add_(change.reshape(parameter.shape), alpha=-group["lr"])
                        if group["sparsity"]:
                            self._shrink(parameter, shape, group["lr"] * group["sparsity"])
        finally:
            torch.set_num_threads(threads)

    def _change(self, parameter: Tensor, gradient: Float[Tensor, "matrix row column"]) -> Float[Tensor, "matrix row column"]:
        state = self.state[parameter]
        if not state:
            state["norm"] = parameter.detach().reshape(gradient.shape).norm(dim=(1, 2), keepdim=True)
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        turned = orthogonal(gradient.lerp(state["momentum"], MOMENTUM))
        return turned * (state["norm"] / turned.norm(dim=(1, 2), keepdim=True).clamp_min(TINY))

    def _shrink(self, parameter: Tensor, shape: tuple[int, int, int], share: float) -> None:
        weights = parameter.view(shape)
        least = share * self.state[parameter]["norm"] / (shape[1] * shape[2]) ** 0.5
        weights.copy_(weights.sign() * (weights.abs() - least).clamp_min(0))


def orthogonal(matrices: Float[Tensor, "matrix row column"]) -> Float[Tensor, "matrix row column"]:
    """The same singular vectors with singular values that are about 1; rows and columns of zeros stay zeros.

    Examples
    --------
    >>> stretched = torch.diag(torch.tensor([100.0, 1.0]))[None]
    >>> [round(value) for value in torch.linalg.svdvals(orthogonal(stretched))[0].tolist()]
    [1, 1]
    """
    x = functional.hardshrink(matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(TINY), FADED)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    first, second, third = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = first * x + (second * square + third * square @ square) @ x
    return x.mT if tall else x
