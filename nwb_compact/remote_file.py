"""A file at an address, read where it is asked and nowhere else: through remfile, which keeps what was fetched and reads ahead.

remfile waits for ever on a server that says nothing, takes a whole file nine times from one that knows no ranges, and asks on for half a
minute whatever went wrong. So it is given the size beforehand and asks through `_Server`, which bounds all of that.
"""

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from nwb_compact.address import Address
from nwb_compact.errors import Fault, NwbCompactError, counted, one_line

SILENCE_S = 15.0
"""Longest wait for the next bytes of a server; Amazon's answers begin within a tenth of a second."""
PART_S = 300.0
"""Longest time for one part, at most remfile's 100 MiB: a third of a MiB a second."""
WAITS_S = (1.0, 3.0)
"""Between attempts, where another may help. A silent server is so given up after three silences and these: 49 s."""
PASSING = (429, 500, 502, 503, 504)
"""Too many requests, or a server in trouble: answers that may be others a moment later."""
PIECE_BYTES = 2**20
KEPT_BYTES = 2**28
"""Of each file, in memory: tables and the book-keeping of images many times over."""
EXPECTED = "an NWB file that can be read in parts"


class RemoteFile:
    """What h5py opens: `read`, `seek` and `tell` at an address. Made by `remote_file`."""

    def __init__(self, server: "_Server"):
        import remfile

        self._server = server
        self._file = remfile.File(server, _size=server.length, _max_cache_size=KEPT_BYTES)
        self._file.session = server

    def __repr__(self) -> str:
        """h5py takes this for the name of the file."""
        return str(self._server.address)

    def read(self, n_bytes: int) -> bytes:
        """The next bytes.

        Raises
        ------
        NwbCompactError
            If they cannot be had; and from then on, at once, so that one fault is waited for once.
        """
        self._server.require_no_fault()
        try:
            return self._file.read(n_bytes)
        except Exception as error:
            self._server.require_no_fault()
            raise self._server.failed(one_line(error), "run again") from error

    def seek(self, offset: int, whence: int = 0) -> None:
        """Go to a place in the file."""
        self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()

    @property
    def length(self) -> int:
        """Bytes of the whole file."""
        return self._server.length

    def is_still(self, server: "_Server") -> bool:
        """Whether a server says that the file is the one that was opened here, so that what was fetched of it holds."""
        mine = self._server
        return mine.fault is None and bool(mine.validator) and (mine.length, mine.validator) == (server.length, server.validator)


@dataclass
class _Spent:
    n_bytes: int = 0
    n_requests: int = 0


_SPENT: defaultdict[Address, _Spent] = defaultdict(_Spent)
_OPENED: dict[Address, RemoteFile] = {}
"""Files that were opened before: a command opens its file several times, and fetches everything once."""


def remote_file(address: Address) -> RemoteFile:
    """The file at an address, its size known and nothing else fetched yet.

    Raises
    ------
    NwbCompactError
        If remfile is not installed; if the address leads nowhere, to what may not be read, to a web page or to a server that gives whole
        files only; if the server fails or says nothing.
    """
    try:
        import remfile  # noqa: F401
    except ImportError as error:
        raise NwbCompactError(address, found="an address, and that remfile is not installed", expected="it, to read files at addresses",
                              next_step='pip install "nwb-compact[stream]", or download the file') from error
    server, before = _Server(address), _OPENED.get(address)
    if before is None or not before.is_still(server):
        _OPENED[address] = RemoteFile(server)
    return _OPENED[address]


def traffic(address: Address) -> str:
    """What came from an address that was opened, such as '2.1 MB of 370.0 MB, in 24 requests'."""
    spent, length = _SPENT[address], _OPENED[address].length
    return f"{spent.n_bytes / 1e6:.1f} MB of {length / 1e6:.1f} MB, in {counted(spent.n_requests, 'request')}"


@dataclass(frozen=True)
class _Part:
    """An answer as remfile wants it."""

    status_code: int
    reason: str
    content: bytes = b""


class _Server:
    """Asks for parts of one file, for remfile: as its `url` it says where, as its `session` it gets."""

    def __init__(self, address: Address):
        import requests

        self.address = address
        self.fault: Fault | None = None
        self.length, self.validator = 0, ""
        self._session = requests.Session()
        # Else a server may compress a part, and a small answer be a large one.
        self._session.headers["Accept-Encoding"] = "identity"
        self._resolve()

    def get_url(self) -> str:
        """Where redirects ended, so that they are followed once."""
        return self._url

    def get(self, url: str, headers: dict[str, str]) -> _Part:
        """A part of the file; whatever goes wrong is kept as `fault`, and answered as remfile gives up on at once."""
        try:
            return self._part(headers)
        except NwbCompactError as error:
            # Not the error itself: it leads to all that was open when it was raised, h5py's among it, and h5py crashes on what is left
            # open when Python ends.
            self.fault = error.fault
            return _Part(400, "see the fault")

    def require_no_fault(self) -> None:
        """Stop where something went wrong before."""
        if self.fault is not None:
            raise self.failed(self.fault.found, self.fault.next_step)

    def failed(self, found: str, next_step: str) -> NwbCompactError:
        return NwbCompactError(self.address, found=found, expected=EXPECTED, next_step=next_step)

    def _resolve(self) -> None:
        """Where the file lies, and its size."""
        self._url = str(self.address)
        response, _ = self._answer({"Range": "bytes=0-0"}, 1)
        self._url = response.url
        range_, _, length = response.headers.get("Content-Range", "").rpartition("/")
        if not range_ or not length.isdigit():
            raise self.failed("a server that does not say how large the file is", "download the file and name it")
        if not self.length:
            self.length, self.validator = int(length), _validator(response)

    def _part(self, headers: dict[str, str]) -> _Part:
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        n_bytes = int(last) - int(first) + 1
        try:
            response, content = self._answer(headers, n_bytes)
        except _Refused:
            if self._url == self.address:
                raise
            self._resolve()  # DANDI and others redirect to an address that expires
            response, content = self._answer(headers, n_bytes)
        if response.headers.get("Content-Range", "").rpartition("/")[2] != str(self.length) or _validator(response) != self.validator:
            raise self.failed("another file than before", "run again")
        if len(content) != n_bytes:
            raise self.failed(f"{len(content)} bytes where {n_bytes} were asked for", "run again, or download the file and name it")
        return _Part(response.status_code, response.reason, content)

    def _answer(self, headers: dict[str, str], n_bytes: int) -> tuple[Any, bytes]:
        """What the server says, asked again where that may help."""
        for wait_s in WAITS_S:
            try:
                return self._asked(headers, n_bytes)
            except _Passing:
                time.sleep(wait_s)
        return self._asked(headers, n_bytes)

    def _asked(self, headers: dict[str, str], n_bytes: int) -> tuple[Any, bytes]:
        import requests

        spent = _SPENT[self.address]
        spent.n_requests += 1
        try:
            with self._session.get(self._url, headers=headers, timeout=SILENCE_S, stream=True) as response:
                spent.n_requests += len(response.history)
                self._require_part(response)
                return response, self._content(response, n_bytes)
        except requests.TooManyRedirects as error:
            raise self.failed("redirects without end", "correct the address") from error
        except requests.Timeout as error:
            raise self._passing(f"no answer within {SILENCE_S:.0f} s") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise self._passing(f"no connection, or one that broke ({_reason(error)})") from error
        except requests.RequestException as error:
            raise self.failed(f"no address that can be asked ({one_line(error)})", "correct the address") from error

    def _content(self, response: Any, n_bytes: int) -> bytes:
        content, until = bytearray(), time.monotonic() + PART_S
        for piece in response.iter_content(PIECE_BYTES):
            content += piece
            _SPENT[self.address].n_bytes += len(piece)
            if len(content) > n_bytes:
                raise self.failed(f"more than the {n_bytes} bytes that were asked for", "download the file and name it")
            if time.monotonic() > until:
                raise self.failed(f"less than {n_bytes} bytes in {PART_S:.0f} s", "download the file and name it")
        return bytes(content)

    def _require_part(self, response: Any) -> None:
        status, said = response.status_code, f"{response.status_code} {response.reason}"
        if status == 206:
            return
        if status in PASSING:
            raise self._passing(f"a server in trouble ({said})")
        if status in (404, 410):
            raise self.failed(f"no file there ({said})", "correct the address")
        if status in (401, 403):
            raise _Refused(self.address, found=f"a file that is not public, or an address that has expired ({said})", expected=EXPECTED,
                           next_step="get a new address, or download the file and name it")
        if status == 416:
            raise self.failed("an empty file", "correct the address")
        if status != 200:
            raise self.failed(f"an answer that is no file ({said})", "correct the address")
        if "html" in response.headers.get("Content-Type", "").lower():
            raise self.failed("a web page", "take the address of the file itself, under which a browser would save it")
        raise self.failed("a server that gives whole files only (it knows no range requests)", "download the file and name it")

    def _passing(self, found: str) -> NwbCompactError:
        return _Passing(self.address, found=found, expected=EXPECTED, next_step="look at the network and the address, and run again")


class _Passing(NwbCompactError):
    """A fault after which the same request may be answered."""


class _Refused(NwbCompactError):
    """The address may have expired."""


def _validator(response: Any) -> str:
    """What tells a version of the file from another, empty where the server does not say."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _reason(error: Exception) -> str:
    """The innermost of what requests and urllib3 say, one wrapped in the other."""
    inner = getattr(error, "reason", None) or next(iter(getattr(error, "args", ())), None)
    return _reason(inner) if isinstance(inner, Exception) else one_line(error)
