"""Files on a network: an address where a command that reads takes a path, and one line where it can only be a path.

Nothing here reads; `remote_file` does.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import click

from nwb_compact.errors import NwbCompactError

SCHEMES = ("http", "https", "s3")
UPLOAD = "name a file on this machine, and upload it afterwards"
FETCH = "download it; or let 'nwb-compact fit ADDRESS --output FILE' write a file of its own"


class Address(str):
    """Where a file lies on a network, https://... or http://...; a string like any other to whoever prints it."""

    @property
    def shown(self) -> str:
        """The address without what is asked of the server, which may be a key: for what is written down or shared.

        Examples
        --------
        >>> Address("https://example.org/a.nwb?X-Amz-Signature=abc").shown
        'https://example.org/a.nwb'
        """
        return urlsplit(self)._replace(query="", fragment="").geturl()

    @property
    def name(self) -> str:
        """What the file is called.

        Examples
        --------
        >>> Address("https://example.org/data/session%201.nwb?X-Amz-Signature=abc").name
        'session 1.nwb'
        """
        parts = urlsplit(self)
        return PurePosixPath(unquote(parts.path)).name or parts.netloc

    @property
    def stem(self) -> str:
        """The same without its ending."""
        return PurePosixPath(self.name).stem


def located(place: str | Path) -> Path | Address:
    """A path, or an address if that is what it looks like.

    `s3://BUCKET/KEY` becomes the address at which Amazon shows what is public, as DANDI's files are.

    Examples
    --------
    >>> located("s3://dandiarchive/blobs/d86/a file")
    'https://dandiarchive.s3.amazonaws.com/blobs/d86/a%20file'
    >>> located("https://example.org/session.nwb"), located("session.nwb").name
    ('https://example.org/session.nwb', 'session.nwb')
    """
    if isinstance(place, Address):
        return place
    text = str(place)
    if not is_address(text):
        return Path(place)
    scheme, _, rest = text.partition("://")
    if scheme.lower() != "s3":
        return Address(text)
    bucket, _, key = rest.partition("/")
    return Address(f"https://{bucket}.s3.amazonaws.com/{quote(key)}")


def is_address(place: str | Path) -> bool:
    """Whether it is meant as an address; a `Path` made of one, in which the slashes are no longer two, counts.

    Examples
    --------
    >>> is_address("https://example.org/a.nwb"), is_address(Path("https://example.org/a.nwb")), is_address("https.nwb")
    (True, True, False)
    """
    return re.match(rf"({'|'.join(SCHEMES)}):/{'/' if isinstance(place, str) else ''}", str(place), re.IGNORECASE) is not None


def require_path(place: str | Path, *, next_step: str = UPLOAD) -> Path:
    """A place that is written to, or beside which something is.

    Raises
    ------
    NwbCompactError
        If it is an address.

    Examples
    --------
    >>> require_path("https://example.org/a.nwb", next_step="download it")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: https://example.org/a.nwb: found an address, which can only be read, expected a file on this
    machine. Next: download it
    """
    if is_address(place):
        expected = "a file on this machine"
        place = re.sub(":/+", "://", str(place), count=1)
        raise NwbCompactError(place, found="an address, which can only be read", expected=expected, next_step=next_step)
    return Path(place)


class FileOrAddress(click.ParamType):
    """What commands that read take: the path of a file, or an address."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Address:
        """See `located`."""
        return located(value)


FILE_OR_ADDRESS = FileOrAddress()
