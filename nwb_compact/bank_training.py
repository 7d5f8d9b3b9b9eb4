"""How any bank is trained, whatever it learns: the rates of its arrays, the smoothing of its kernels, and its answers."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from nwb_compact.bank import Bank, blurred
from nwb_compact.out_of_memory import in_halves
from nwb_compact.streaming import on_device

READOUT_RATE = 0.1
"""Learning rate of weights of places over that of the rest: one for each of 784 places, they are about ten times smaller. With 1
instead, students of simulated neurons reached an r2 of 0.82 with their teacher after 5,000 images, against 0.92 (docs/measured.md)."""
MATRIX_RATE = 2.0
"""Share of its norm by which a step changes a matrix of filters, over the learning rate. At a learning rate of 3e-3, shares of 0.006 and
0.01 learned alike; 0.03 lost all filters (docs/measured.md)."""
WARM_UP_STEPS = 100
"""Steps over which the learning rate rises. Without, a new bank, which no normalisation protects, lost most of its filters at 3e-3: after
8,000 images its r2 with a published teacher was 0.15, and with 50 such steps 0.49 (docs/measured.md)."""
BATCH_PREDICT = 64


def parameter_groups(bank: Bank, sparsity: float = 0.0) -> list[dict[str, Any]]:
    """What learns, as `training.Task` takes it: spatial filters and mixtures of them as matrices, weights of places, and the rest.

    Mixtures (pointwise weights) are brought nearer to 0 by `sparsity`, as `orthogonal_steps` has it: each filter then reads few of the
    layer below, and what several filters need is one filter there.
    """
    matrices = [(parameter, shape) for parameter, shape in bank.matrices() if parameter.requires_grad]
    places, mixing = bank.readout_arrays(), {id(parameter) for parameter in bank.pointwise}
    known = {id(parameter) for parameter in [*places, *(parameter for parameter, _ in matrices)]}
    return [
        {"params": [parameter for parameter in bank.parameters() if parameter.requires_grad and id(parameter) not in known]},
        {"params": places, "learning_rate_factor": READOUT_RATE},
        _of_matrices([matrix for matrix in matrices if id(matrix[0]) not in mixing]),
        _of_matrices([matrix for matrix in matrices if id(matrix[0]) in mixing]) | {"sparsity": sparsity},
    ]


def _of_matrices(matrices: list[tuple[nn.Parameter, tuple[int, int, int]]]) -> dict[str, Any]:
    params, shapes = [parameter for parameter, _ in matrices], [shape for _, shape in matrices]
    return {"params": params, "shapes": shapes, "learning_rate_factor": MATRIX_RATE}


def standardised_answers(
    bank: Bank, images: UInt8[np.ndarray, "image 112 112 3"], device: str = "cpu"
) -> Float32[np.ndarray, "image unit"]:
    """What a bank answers to each image, in the units it was trained on."""
    bank.eval()
    answers = np.empty((len(images), bank.shape.n_units), np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_PREDICT):
            part = slice(start, start + BATCH_PREDICT)
            batch = torch.from_numpy(np.ascontiguousarray(images[part]))
            answers[part] = in_halves(lambda some: bank(on_device(some, device)).float().cpu(), batch, dim=0).numpy()
    return answers


def smooth_kernels(bank: Bank, sigma_px: float) -> None:
    """Convolve each spatial kernel of layers 2 to 5 that still learns with a Gaussian, in place."""
    with torch.no_grad():
        for weight in list(bank.depthwise)[max(bank.fixed_layers - 1, 0) :]:
            weight.copy_(blurred(weight, sigma_px))
