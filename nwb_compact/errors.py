"""What a user is told when something is wrong: what was found, what was expected, what to do next.

Every fault this program can name is an `NwbCompactError`. The command line prints it as one line and exits with 1;
anything else that escapes is a defect of ours and is reported as such.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

COPY_AGAIN = "copy the file again from where it came"
"""What to do with a damaged file."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, said so that a person can act on it."""

    where: str
    """File, table, column or option that is at fault."""
    found: str
    expected: str
    next_step: str
    stops_only_fits: bool = False
    """Whether a file with this fault is whole all the same: it can be shared and read, only not fitted."""

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}, expected {self.expected}. Next: {self.next_step}"


class NwbCompactError(Exception):
    """The work failed for a reason we can name.

    Examples
    --------
    >>> raise NwbCompactError("a.nwb", found="no image", expected="at least one", next_step="convert it again")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: a.nwb: found no image, expected at least one. Next: convert it again
    """

    def __init__(self, where: object, *, found: str, expected: str, next_step: str):
        self.fault = Fault(str(where), found, expected, next_step)
        self.faults: tuple[Fault, ...] = (self.fault,)
        super().__init__(str(self.fault))


class SeveralFaults(NwbCompactError):
    """More than one thing is wrong, and all of it is told at once; one line a fault.

    Examples
    --------
    >>> print(SeveralFaults((Fault("a", "1", "2", "x"), Fault("b", "3", "4", "y"))))
    a: found 1, expected 2. Next: x
    b: found 3, expected 4. Next: y
    """

    def __init__(self, faults: tuple[Fault, ...]):
        self.fault, self.faults = faults[0], faults
        Exception.__init__(self, "\n".join(str(fault) for fault in faults))


def nearest(name: str, known: list[str]) -> str:
    """A hint that ends an error about an unknown name, empty when nothing is near.

    Examples
    --------
    >>> nearest("membres", ["members", "epochs"])
    "did you mean 'members'?"
    """
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"use one of: {', '.join(sorted(known))}"


def counted(number: int, noun: str) -> str:
    """A number of things, of which one is called by its own name.

    Examples
    --------
    >>> counted(1, "row"), counted(0, "row"), counted(1200, "image")
    ('1 row', '0 rows', '1,200 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_line(error: object) -> str:
    """What another library's exception says, on one line of a readable length.

    Examples
    --------
    >>> one_line(ValueError("first\\n  second")), one_line(EOFError())
    ('first second', 'EOFError')
    """
    # PIL names the buffer's address, which differs between runs and tells a reader nothing.
    text = re.sub(r" <_io\.BytesIO[^>]*>", "", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


@contextmanager
def told_as_damage(where: object, expected: str, *, found: str = "damage", next_step: str = COPY_AGAIN) -> Iterator[None]:
    """Whatever else goes wrong while a part of an open file is read becomes one line: pynwb and h5py raise nearly every type there is."""
    try:
        yield
    except NwbCompactError:
        raise
    except Exception as error:
        found = f"{found} ({type(error).__name__}: {one_line(error)})"
        raise NwbCompactError(where, found=found, expected=expected, next_step=next_step) from error
