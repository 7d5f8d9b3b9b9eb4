"""Names of files that are made of names from elsewhere: of units, kinds of images, animals."""

import re
import unicodedata

MOST_LETTERS = 60
"""Of a name in a file's name: file systems take 255 bytes, older archives 100."""


def safe_name(name: str) -> str:
    """Letters, digits, dots, dashes and underscores that every file system takes, and never a path; accents go, the rest becomes dashes.

    Examples
    --------
    >>> safe_name("../V4 é/unit:1"), safe_name("神経")
    ('V4-e-unit-1', 'unit')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip(".-_ ")[:MOST_LETTERS] or "unit"
