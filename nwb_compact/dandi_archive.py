"""One dandiset of a DANDI archive, to write into: the only room that speaks to the `dandi` library, which does the sending.

The API key comes from the environment or the keyring and goes to the archive, nowhere else: the library's log is silent here, and an
error whose text holds the key is not shown. Nothing is asked of other servers.
"""

import logging
import os
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from nwb_compact.errors import NwbCompactError, nearest, one_line
from nwb_compact.progress import Advance

CONNECT_S = 30.0
"""How long an archive may take to say that it is there; later requests are repeated by the library, for about a minute."""
DRAFT = "draft"
LOCAL = ("localhost", "127.0.0.1", "::1")
TAXON = "give the species in Latin as DANDI knows it (Macaca mulatta), or as https://purl.obolibrary.org/obo/NCBITaxon_NUMBER"


@contextmanager
def library() -> Iterator[None]:
    """The `dandi` library without its log, its cache, its question for newer versions and its look-up of species on another server.

    Raises
    ------
    NwbCompactError
        If it is not installed.
    """
    with ExitStack() as closes:
        closes.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        closes.enter_context(patch.dict(os.environ, {"DANDI_NO_ET": "1", "DANDI_CACHE": "ignore"}))
        closes.enter_context(_silent(logging.getLogger("dandi")))
        try:
            from dandi.metadata import util
        except ImportError as error:
            raise NwbCompactError("dandi", found="that it is not installed", expected="it, to upload",
                                  next_step='pip install "nwb-compact[dandi]"') from error
        closes.enter_context(patch.object(util, "parse_purlobourl", lambda *_, **__: None))
        yield


class LocalAsset:
    """A file that can become an asset. Made by `asset`."""

    def __init__(self, library_asset: Any):
        self.library = library_asset
        """What the library calls by that name."""
        self.path: str = library_asset.path
        """Its name in the dandiset."""
        self.size: int = library_asset.size
        """Bytes."""

    @cached_property
    def digest(self) -> Any:
        """As DANDI computes it from the bytes, once, since all of the file is read for it."""
        return self.library.get_digest()


def asset(file_path: Path, name: str, where: Path) -> LocalAsset:
    """A file with the name it will have, its metadata read and compared with DANDI's schema; needs no network.

    Raises
    ------
    NwbCompactError
        If DANDI would not take the metadata or the name.
    """
    from dandi.files import NWBAsset
    from dandi.misctypes import DUMMY_DANDI_ETAG
    from dandi.organize import validate_organized_path
    from dandischema.models import BareAsset

    held = NWBAsset(filepath=file_path.absolute(), dandiset_path=file_path.absolute().parent, path=name)
    with _told(where, "metadata that DANDI takes", TAXON):
        BareAsset(**held.get_metadata(digest=DUMMY_DANDI_ETAG, ignore_errors=False).model_dump())
    refused = validate_organized_path(name, held.filepath, held.dandiset_path)
    if refused:
        raise NwbCompactError(where, found=f"the name {name} ({refused[0].message})", expected="one that DANDI takes",
                              next_step="correct subject_id and session_id")
    return LocalAsset(held)


@contextmanager
def opened_dandiset(instance: str, dandiset_id: str) -> Iterator["Dandiset"]:
    """The draft of a dandiset, ready to be written.

    Parameters
    ----------
    instance
        A name that the library knows, or the address of an archive.
    dandiset_id
        Its six digits.

    Raises
    ------
    NwbCompactError
        If the archive cannot be reached, there is no key or it is refused, or there is no such dandiset.
    """
    from dandi.dandiapi import DandiAPIClient
    from dandi.utils import get_instance

    require_names(instance, dandiset_id)
    _require_answer(instance)
    with _told(instance, "an archive that the dandi library can write to", "correct --instance, or pip install --upgrade dandi"):
        archive = get_instance(instance)
        _require_safe(archive.api)
    key = _key(archive.name, instance)
    with ExitStack() as closes:
        with _told(instance, "an archive that the dandi library can write to", "pip install --upgrade dandi", key):
            client = closes.enter_context(DandiAPIClient(dandi_instance=archive))
            client.check_schema_version()
        with _told(instance, "that it takes the API key", f"make a key in your account there and set {_variable(archive.name)}", key):
            client.authenticate(key)
        with _told(f"dandiset {dandiset_id}", f"a dandiset of {instance}", "correct --dandiset, or make one on its web page", key):
            remote = client.get_dandiset(dandiset_id, DRAFT, lazy=False)
        yield Dandiset(dandiset_id, remote, key)


@dataclass(frozen=True)
class Dandiset:
    """The draft of a dandiset."""

    id: str
    remote: Any
    key: str = field(repr=False)

    def held(self, local: LocalAsset) -> tuple[int, bool] | None:
        """Bytes of the asset of that name there, and whether it is the same to the byte; None where there is none."""
        with self._told(local, "a list of what is there"):
            there = self._there(local.path)
            return None if there is None else (there.size, _digest(there) == local.digest.value)

    def address(self, local: LocalAsset) -> str:
        """Where the asset of that name can be downloaded."""
        with self._told(local, "the asset"):
            return self._there(local.path).base_download_url

    def upload(self, local: LocalAsset, advance: Advance) -> None:
        """Send a file, in place of an asset of that name, and compare the digest that the archive then gives; counts megabytes.

        Raises
        ------
        NwbCompactError
            If the archive does not take it, or holds something else afterwards.
        """
        sent_mb = 0
        with self._told(local, "that the archive takes the file"):
            metadata = local.library.get_metadata(digest=local.digest, ignore_errors=False).model_dump(mode="json", exclude_none=True)
            for status in local.library.iter_upload(self.remote, metadata, replacing=self._there(local.path)):
                if "current" in status:
                    done_mb = megabytes(status["current"])
                    advance(done_mb - sent_mb)
                    sent_mb = done_mb
            found = _digest(self._there(local.path))
        if found != local.digest.value:
            raise NwbCompactError(local.path, found=f"the digest {found} in the archive", expected=local.digest.value,
                                  next_step="run it again")
        advance(megabytes(local.size) - sent_mb)

    def _there(self, path: str) -> Any:
        from dandi.exceptions import NotFoundError

        try:
            return self.remote.get_asset_by_path(path)
        except NotFoundError:
            return None

    def _told(self, local: LocalAsset, expected: str) -> Any:
        return _told(local.path, expected, "run the same command again; what is there already is not sent again", self.key)


def megabytes(n_bytes: int) -> int:
    """Whole megabytes, at least one."""
    return max(round(n_bytes / 1e6), 1)


def _digest(there: Any) -> str:
    """The digest of the bytes that the archive holds, as it computed it."""
    return str((there.get_raw_metadata().get("digest") or {}).get("dandi:dandi-etag", "none")) if there is not None else "none"


# The archive and the key ----------------------------------------------------------------------------------------------


def require_names(instance: str, dandiset_id: str) -> None:
    """Stop where either cannot be one; needs no network.

    Raises
    ------
    NwbCompactError
        If the dandiset is not six digits, or the archive neither known nor an address that keeps a key secret.
    """
    from dandi.consts import known_instances

    if not re.fullmatch("[0-9]{6}", dandiset_id):
        raise NwbCompactError("--dandiset", found=f"'{dandiset_id}'", expected="the six digits of a dandiset, such as 000123",
                              next_step="copy them from its web page")
    if "://" in instance:
        _require_safe(instance)
    elif instance not in known_instances:
        raise NwbCompactError("--instance", found=f"'{instance}'", expected="the name of a DANDI archive or its https address",
                              next_step=nearest(instance, list(known_instances)))


def _require_safe(address: str) -> None:
    parts = urlsplit(address)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)):
        raise NwbCompactError("--instance", found=f"the address {address}", expected="https://..., since an API key is sent there",
                              next_step="correct the address")


def _require_answer(instance: str) -> None:
    """Ask once whether anybody is there, since the library asks for a minute."""
    import requests
    from dandi.consts import known_instances

    address = known_instances[instance].api if instance in known_instances else instance
    with _told(instance, "an answer", "check the network, or correct --instance"):
        requests.get(address, timeout=CONNECT_S, allow_redirects=False).close()


def _key(archive: str, asked: str) -> str:
    """From the environment or the keyring; a key is of one archive, so DANDI_API_KEY is sent to no other that has its own variable."""
    import keyring
    from dandi.consts import known_instances

    variable = _variable(archive)
    key = os.environ.get(variable)
    if not key:
        try:
            key = keyring.get_password(f"dandi-api-{archive}", "key")
        except keyring.errors.KeyringError:  # there is none on this machine, or it is locked
            key = None
    key = (key or "").strip()
    if not key:
        next_step = f"make one in your account there and set {variable}"
        raise NwbCompactError(asked, found=f"no API key in {variable} or the keyring", expected="one", next_step=next_step)
    if not re.fullmatch("[!-~]+", key):  # the library would say the key when it says that no header can hold it
        raise NwbCompactError(asked, found="an API key with spaces or other characters that no key has", expected="the key alone",
                              next_step=f"set {variable} again" if archive in known_instances else "set DANDI_API_KEY again")
    return key


def _variable(archive: str) -> str:
    """The library's own name for it; one given by its address has no variable of its own that a shell could set."""
    from dandi.consts import known_instances

    return f"{archive.upper().replace('-', '_')}_API_KEY" if archive in known_instances else "DANDI_API_KEY"


# What goes wrong ------------------------------------------------------------------------------------------------------


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """The library would log what servers answer; its errors are said in a line here."""
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate


@contextmanager
def _told(where: object, expected: str, next_step: str, key: str = "") -> Iterator[None]:
    """Whatever the library raises becomes one line, without the key and without the signatures of addresses to upload to."""
    try:
        yield
    except NwbCompactError:
        raise
    except Exception as error:  # the library raises nearly every type there is, with what a server answered
        shown = "".join(traceback.format_exception(error))
        cause = None if _without(key, shown) != shown else error
        raise NwbCompactError(where, found=_found(error, key), expected=expected, next_step=next_step) from cause


def _found(error: Exception, key: str) -> str:
    import requests

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "an API key that it refuses"
    if status == 403:
        return "that your account may not do this there"
    said = one_line(re.sub(r"\?\S+", "?...", _without(key, str(error))))
    if status is not None:
        return f"an error of the archive ({said})"
    if isinstance(error, requests.Timeout | requests.ConnectionError):
        return "no answer from the network"
    return f"that it failed ({type(error).__name__}: {said})"


def _without(key: str, text: str) -> str:
    """The text without the key; its beginning is enough, since the library cuts what a server says somewhere."""
    return re.sub(re.escape(key[:8]) + r"[!-~]*", "[key]", text) if key else text
