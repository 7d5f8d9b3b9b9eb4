import torch
from torch.overrides import TorchFunctionMode

from nwb_compact.first_calls import COMPUTED_BY_MKL, settle_first_calls


class Calls(TorchFunctionMode):
    """Which function was called with how much of what."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in COMPUTED_BY_MKL:
            self.seen.add((function, args[0].dtype, args[0].numel()))
        return function(*args, **(kwargs or {}))


def test_each_function_is_called_in_both_precisions_with_too_little_for_two_threads():
    with Calls() as calls:
        settle_first_calls()
    assert calls.seen == {(function, dtype, 1) for function in COMPUTED_BY_MKL for dtype in (torch.float32, torch.float64)}
    assert {torch.sqrt, torch.exp, torch.log} <= set(COMPUTED_BY_MKL)
