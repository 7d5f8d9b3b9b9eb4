import platform
import subprocess
import sys

import pytest

from nwb_compact.memory import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from nwb_compact.memory import keep_freed_memory
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_it_says_whether_it_was_told():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_memory_that_was_freed_is_used_again_without_new_pages():
    runs = [subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True) for how in ("keep", "not")]
    kept, given_back = (int(run.stdout) for run in runs)
    assert kept < given_back / 3
