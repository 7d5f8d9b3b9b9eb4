"""Call torch's mathematical functions once from one thread, so that none of them ever answers with too few digits.

torch lets MKL compute them on a CPU. MKL chooses the code of each at its first call; where two threads make that call at the same moment,
one of them gets, this once, a code that is right to 12 bits instead of 24 (pytorch issue 188792; MKL before 2025, Intel CPUs). The first
call is Adam's square root in the first step of a training: 4 of 100 trainings of a teacher ended in other bits (docs/measured.md).
"""

import torch

COMPUTED_BY_MKL = (
    torch.acos, torch.asin, torch.atan, torch.cos, torch.erf, torch.erfc, torch.erfinv, torch.exp, torch.log, torch.log10, torch.log2,
    torch.sin, torch.sqrt, torch.tan, torch.tanh,
)


def settle_first_calls() -> None:
    """Make the first call of each function, in single and double precision; a number is too little for two threads.

    Examples
    --------
    >>> settle_first_calls()
    """
    for dtype in (torch.float32, torch.float64):
        half = torch.full((1,), 0.5, dtype=dtype)
        for function in COMPUTED_BY_MKL:
            function(half)
