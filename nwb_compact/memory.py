"""Keep freed memory for the next training step instead of giving it back to the system.

A step of a bank frees and asks for maps of tens of megabytes. The C library of Linux maps and unmaps each of them, so the system clears
every page anew: up to two fifths of the time of a step were spent there (docs/measured.md).
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Numbers of the parameters, from glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep large freed blocks; does nothing elsewhere.

    Returns
    -------
    Whether it was told.

    Examples
    --------
    >>> keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    told = (mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_TOP_PAD, 2**28))
    return all(told)
