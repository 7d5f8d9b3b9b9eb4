"""The part of a DANDI archive that an upload meets, on this machine: it keeps what it receives and refuses what the archive would refuse.

Written from the archive's REST API (dandi-archive, dandiapi/api/views) and its storage, S3. Digests are of the bytes that really arrived.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from dandischema.consts import DANDI_SCHEMA_VERSION
from dandischema.models import BareAsset

DANDISET = "000123"
TIMES = dict.fromkeys(("created", "modified"), "2024-01-01T00:00:00Z")
PATH = re.compile(r"([A-z0-9(),&\s#+~_=-]?/?\.?[A-z0-9(),&\s#+~_=-])+")
"""Of an asset, as the archive has it."""


@dataclass
class Archive:
    """What the server knows and what it was asked; tests set the fields of the second part to make it fail."""

    key: str
    address: str = ""
    blobs: dict[str, dict] = field(default_factory=dict)
    """By digest."""
    assets: dict[str, dict] = field(default_factory=dict)
    """By path."""
    uploads: dict[str, dict] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What no archive would have liked about the requests."""

    part_bytes: int = 64 * 2**20
    fail: dict[str, int] = field(default_factory=dict)
    """How often requests still get a 503, whose method and path, `GET /api/info/`, hold this text."""
    refuse: dict[str, int] = field(default_factory=dict)
    """Statuses of requests, likewise."""
    loses_a_byte: bool = False
    """Of every part, unnoticed, as a broken disk does: the part is acknowledged as it was sent."""
    swaps_blobs: bool = False
    """Gives every asset the digest of something else."""
    echoes: bool = False
    """Says in every error what the request's headers were, as a server in debug mode does."""

    close: Callable[[], None] = lambda: None
    """Stop answering."""

    def sent(self, method: str, text: str) -> list[str]:
        return [path for did, path in self.requests if did == method and text in path]


@contextmanager
def archive(key: str) -> Iterator[Archive]:
    """A running server."""
    state = Archive(key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"state": state}))
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    state.close = close
    try:
        yield state
    finally:
        if thread.is_alive():
            close()


class Answer(Exception):
    def __init__(self, status: int, body: object = None, **headers: str):
        self.status, self.body, self.headers = status, body, headers


class Handler(BaseHTTPRequestHandler):
    state: Archive
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answered()

    do_POST = do_PUT = do_GET

    def answered(self) -> None:
        state, self.received = self.state, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state.requests.append((self.command, self.path))
        try:
            for text, left in state.fail.items():
                if text in f"{self.command} {self.path}" and left > 0:
                    state.fail[text] -= 1
                    raise Answer(503, "busy")
            for text, status in state.refuse.items():
                if text in f"{self.command} {self.path}":
                    raise Answer(status, "no")
            self.route()
            raise Answer(404, {"detail": "Not found."})
        except Answer as answer:
            body = answer.body
            if answer.status >= 400 and state.echoes:
                body = {"you sent": self.headers.get("Authorization"), "said": body, "headers": dict(self.headers)}
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    def route(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        asked = f"{self.command} {url.path}"
        for pattern, answer in ROUTES.items():
            match = re.fullmatch(pattern, asked)
            if match:
                answer(self, *match.groups())

    def told(self) -> dict:
        return json.loads(self.received)

    def require_key(self) -> None:
        if self.headers.get("Authorization") != f"token {self.state.key}":
            raise Answer(401, {"detail": "Invalid token."})

    # The API -----------------------------------------------------------------------------------------------------------

    def info(self) -> None:
        services = {"api": {"url": f"{self.state.address}/api"}, "webui": {"url": self.state.address}}
        raise Answer(200, {"version": "0", "schema_version": DANDI_SCHEMA_VERSION, "allowed_schema_versions": [DANDI_SCHEMA_VERSION],
                           "cli-minimal-version": "0.60.0", "cli-bad-versions": [], "services": services})

    def token(self) -> None:
        self.require_key()
        raise Answer(200, {"token": self.state.key})

    def dandiset(self, identifier: str) -> None:
        if identifier != DANDISET:
            return
        draft = {"version": "draft", "name": "a dandiset", "asset_count": 0, "size": 0, **TIMES, "status": "Pending"}
        raise Answer(200, {"identifier": identifier, **TIMES, "contact_person": "X", "embargo_status": "OPEN",
                           "most_recent_published_version": None, "draft_version": draft})

    def list_assets(self, identifier: str) -> None:
        found = [{k: v for k, v in one.items() if k != "metadata"} for path, one in self.state.assets.items()
                 if path.startswith(self.query.get("path", ""))]
        raise Answer(200, {"count": len(found), "next": None, "previous": None, "results": found})

    def asset_metadata(self, identifier: str, asset_id: str) -> None:
        (one,) = (one for one in self.state.assets.values() if one["asset_id"] == asset_id)
        digest = {"dandi:dandi-etag": "0" * 32 + "-1" if self.state.swaps_blobs else self.of_blob(one["blob"])["etag"]}
        raise Answer(200, {**one["metadata"], "path": one["path"], "contentSize": one["size"], "digest": digest})

    def initialize(self) -> None:
        self.require_key()
        told = self.told()
        assert told["digest"]["algorithm"] == "dandi:dandi-etag"
        assert told["dandiset"] == DANDISET
        etag, size = told["digest"]["value"], told["contentSize"]
        if etag in self.state.blobs:
            raise Answer(409, "Blob already exists.", Location=self.state.blobs[etag]["blob_id"])
        upload_id, step = str(uuid4()), self.state.part_bytes
        self.state.uploads[upload_id] = {"etag": etag, "size": size, "parts": {}, "complete": None}
        parts = [{"part_number": n + 1, "size": min(step, size - start),
                  "upload_url": f"{self.state.address}/storage/{upload_id}/{n + 1}?X-Amz-Signature=0123456789abcdef"}
                 for n, start in enumerate(range(0, size, step))]
        raise Answer(200, {"upload_id": upload_id, "parts": parts})

    def complete(self, upload_id: str) -> None:
        self.require_key()
        kept = self.state.uploads[upload_id]["parts"]
        for part in self.told()["parts"]:
            if (part["size"], part["etag"]) != (len(kept[part["part_number"]][0]), kept[part["part_number"]][1]):
                raise Answer(400, "parts differ")
        raise Answer(200, {"complete_url": f"{self.state.address}/storage/{upload_id}?uploadId=x", "body": "<CompleteMultipartUpload/>"})

    def validate(self, upload_id: str) -> None:
        self.require_key()
        upload = self.state.uploads.pop(upload_id)
        if (upload["etag"], upload["size"]) != (etag_of(upload["complete"], self.state.part_bytes), len(upload["complete"])):
            raise Answer(400, "ETag does not match.")
        blob = {"blob_id": str(uuid4()), "etag": upload["etag"], "size": upload["size"], "bytes": upload["complete"]}
        self.state.blobs[upload["etag"]] = blob
        raise Answer(200, {key: value for key, value in blob.items() if key != "bytes"})

    def make_asset(self, identifier: str, replaced: str | None = None) -> None:
        self.require_key()
        told = self.told()
        metadata, blob = told["metadata"], self.of_blob(told["blob_id"])
        path = metadata["path"]
        BareAsset(**{**metadata, "schemaKey": "BareAsset"})
        if metadata["schemaKey"] != "Asset" or not PATH.fullmatch(path) or metadata["contentSize"] != blob["size"]:
            raise Answer(400, "metadata")
        if replaced is None and path in self.state.assets:
            raise Answer(409, "An asset with that path already exists")
        if replaced is not None and self.state.assets[path]["asset_id"] != replaced:
            raise Answer(404, "no such asset")
        one = {"asset_id": str(uuid4()), "blob": blob["blob_id"], "zarr": None, "path": path, "size": blob["size"], **TIMES,
               "metadata": metadata}
        self.state.assets[path] = one
        raise Answer(200, one)

    def of_blob(self, blob_id: str) -> dict:
        (blob,) = (blob for blob in self.state.blobs.values() if blob["blob_id"] == blob_id)
        return blob

    # Its storage -------------------------------------------------------------------------------------------------------

    def put_part(self, upload_id: str, number: str) -> None:
        if "Authorization" in self.headers:
            self.state.faults.append("the key was sent to the storage, whose addresses are signed")
        digest = md5(self.received).hexdigest()
        self.state.uploads[upload_id]["parts"][int(number)] = (self.received[:-1] if self.state.loses_a_byte else self.received, digest)
        raise Answer(200, "", ETag=f'"{digest}"')

    def join_parts(self, upload_id: str) -> None:
        parts = self.state.uploads[upload_id]["parts"]
        whole = b"".join(parts[number][0] for number in sorted(parts))
        self.state.uploads[upload_id]["complete"] = whole
        etag = etag_of(whole, self.state.part_bytes)
        raise Answer(200, f'<Result xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ETag>"{etag}"</ETag></Result>')


def etag_of(content: bytes, part_bytes: int) -> str:
    """What S3 calls a file of several parts: the MD5 of the MD5s of its parts, and their number."""
    parts = [md5(content[start : start + part_bytes]).digest() for start in range(0, len(content), part_bytes)]
    return f"{md5(b''.join(parts)).hexdigest()}-{len(parts)}"


DRAFT = r"/api/dandisets/(\d{6})/versions/draft/assets/"
ROUTES = {
    "GET /api/info/?": Handler.info,
    "GET /api/auth/token/?": Handler.token,
    r"GET /api/dandisets/(\d{6})/": Handler.dandiset,
    f"GET {DRAFT}": Handler.list_assets,
    f"GET {DRAFT}([0-9a-f-]+)/": Handler.asset_metadata,
    f"POST {DRAFT}": Handler.make_asset,
    f"PUT {DRAFT}([0-9a-f-]+)/": Handler.make_asset,
    "POST /api/uploads/initialize/": Handler.initialize,
    "POST /api/uploads/([0-9a-f-]+)/complete/": Handler.complete,
    "POST /api/uploads/([0-9a-f-]+)/validate/": Handler.validate,
    "PUT /storage/([0-9a-f-]+)/([0-9]+)": Handler.put_part,
    "POST /storage/([0-9a-f-]+)": Handler.join_parts,
}
