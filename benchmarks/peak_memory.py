"""The most memory a measured process held; imports only what every python has, so that peers' environments can use it."""

import re
from pathlib import Path


def peak_mib() -> float:
    """MiB at the process's own high-water mark, which Linux keeps.

    Not `getrusage`, nor what `wait4` gives: both count what the process that started this one held before exec, too.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit("no VmHWM in /proc/self/status: memory is measured on Linux only")
    return int(found[1]) / 1024
