import pytest
import torch

from nwb_compact.out_of_memory import in_halves, is_out_of_memory

TOO_LITTLE = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError(), RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8000000000000 bytes."),
)


@pytest.mark.parametrize("error", TOO_LITTLE)
def test_what_is_said_of_too_little_memory_is_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), OSError(12)])
def test_other_faults_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("room", [1, 2, 3, 7, 100])
def test_rows_are_answered_in_order_in_pieces_that_fit(room):
    sizes = []

    def compute(x):
        sizes.append(len(x))
        if len(x) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.stack([x, 2 * x])

    x = torch.arange(11)
    assert torch.equal(in_halves(compute, x, dim=1), torch.stack([x, 2 * x]))
    assert sum(size for size in sizes if size <= room) == 11


def test_a_row_that_does_not_fit_and_another_fault_are_raised():
    def fails(x):
        raise MemoryError

    with pytest.raises(MemoryError):
        in_halves(fails, torch.arange(4), dim=0)
    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(lambda x: torch.ones(2, 2) @ torch.ones(3, 3), torch.arange(4), dim=0)
