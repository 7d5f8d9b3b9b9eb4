"""Files at addresses: little is fetched, and whatever is wrong with network or server is said in a line, in bounded time."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nwb_compact import remote_file
from nwb_compact.address import Address
from nwb_compact.check import check
from nwb_compact.cli import main
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_results import read_results, write_results
from nwb_compact.nwb_session import open_session, read_session, write_session
from nwb_compact.results import example_results
from nwb_compact.session import Images, MeanResponses, example_session, image_sha256
from nwb_compact.student import example_student
from tests.shortest_fit import SHORTEST_FIT

pytest.importorskip("remfile")


class Handler(BaseHTTPRequestHandler):
    """Gives parts of one file; at other paths it fails, each in its own way."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        way = getattr(self, "_" + self.path.partition("?")[0].strip("/").removesuffix(".nwb"), self._none)
        way()

    def log_message(self, *_):
        pass

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.server.n_bytes += len(content)

    def _file(self) -> None:
        content = self.server.content
        first, last = (int(place) for place in re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        part = content[first : last + 1]
        told = {"Content_Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}", "ETag": self.server.etag}
        self._answer(206, part, **told) if len(part) else self._answer(416)

    def _none(self) -> None:
        self._answer(404)

    def _closed(self) -> None:
        self._answer(403)

    def _page(self) -> None:
        self._answer(200, b"<html></html>", Content_Type="text/html; charset=utf-8")

    def _whole(self) -> None:
        self._answer(200, self.server.content)

    def _circle(self) -> None:
        self._answer(302, Location="/circle.nwb")

    def _elsewhere(self) -> None:
        self._answer(302, Location="ftp://localhost/a.nwb")

    def _moved(self) -> None:
        self.server.key += 1
        self._answer(302, Location=f"/key.nwb?key={self.server.key}")

    def _key(self) -> None:
        """An address that expires after eight requests."""
        self.server.used += 1
        is_good = self.path.endswith(f"={self.server.key}") and self.server.used % 8
        self._file() if is_good else self._answer(403)

    def _silent(self) -> None:
        self.server.over.wait(20)

    def _trouble(self) -> None:
        self._file() if len(self.server.asked) % 3 == 0 else self._answer(503)

    def _lost(self) -> None:
        """Goes away after ten requests, in the middle of an answer."""
        if len(self.server.asked) <= self.server.lasting:
            return self._file()
        self.send_response(206)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"some")
        self.close_connection = True

    def _text(self) -> None:
        self._answer(206, b"t" * 100 if "-0" not in self.headers["Range"] else b"t", Content_Range="bytes 0-0/100")

    def _long(self) -> None:
        self._answer(206, b"x" * 10_000_000, Content_Range="bytes 0-0/100")


class Server(ThreadingHTTPServer):
    content, etag, lasting = b"", '"1"', 10
    n_bytes = key = used = 0

    def handle_error(self, request, client_address):
        """Who asked may go away; that is no fault here."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Waits and silences are short, as the tests are."""
    monkeypatch.setattr(remote_file, "SILENCE_S", 0.5)
    monkeypatch.setattr(remote_file, "WAITS_S", (0.01, 0.02))
    monkeypatch.setattr(remote_file, "_OPENED", {})
    remote_file._SPENT.clear()
    server = Server(("127.0.0.1", 0), Handler)
    server.asked, server.over = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that can be fitted, with a run."""
    path, session = tmp_path_factory.mktemp("local") / "a.nwb", example_session(n_images=40, height_px=112)
    write_session(session, path)
    write_results(replace(example_results(session), students=(example_student(2), example_student(3))), path)
    return path


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_a_session_at_an_address_is_the_one_on_disk(server, local, assert_same):
    server.content = local.read_bytes()
    address = f"{server.address}/file.nwb"
    assert_same(read_session(address), read_session(local))
    assert_same(read_results(address), read_results(local))
    assert check(address) == check(local) == ()


@pytest.mark.parametrize("command", [["check"], ["show", "--json"], ["validate", "--json"]])
def test_commands_that_read_take_an_address_where_they_take_a_path(command, server, local):
    server.content = local.read_bytes()
    address = f"{server.address}/file.nwb"
    there, here = (run(command[0], place, *command[1:]) for place in (address, local))
    assert there.exit_code == here.exit_code == 0, there.output
    assert sorted(there.stdout.replace(address, str(local)).split("}, {")) == sorted(here.stdout.split("}, {"))


def test_a_report_and_a_model_are_made_of_a_file_at_an_address_without_its_key(server, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.content = local.read_bytes()
    address = f"{server.address}/file.nwb?signature=secret"
    for command in (["export", "--unit", "unit-1", "-o", "unit.npz"], ["report"]):
        done = run(command[0], address, *command[1:])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "unit.npz").stat().st_size
    page = (tmp_path / "file_report" / "index.html").read_text(encoding="utf-8")
    assert f"{server.address}/file.nwb" in page
    assert "secret" not in page


def test_open_says_what_is_there_and_what_was_fetched(server, local):
    server.content = local.read_bytes()
    address = f"{server.address}/file.nwb"
    done = run("open", address)
    assert done.exit_code == 0, done.output
    *page, fetched = done.output.splitlines()
    assert page == run("open", local).output.splitlines()
    n_bytes, n_requests = re.fullmatch(r"fetched +([\d.]+) MB of [\d.]+ MB, in (\d+) requests", fetched).groups()
    assert float(n_bytes) == pytest.approx(server.n_bytes / 1e6, abs=0.05)
    assert int(n_requests) == len(server.asked)


def test_ten_thousand_images_are_opened_with_under_five_megabytes(server, tmp_path):
    rng, n = np.random.default_rng(0), 10_000
    pixels = rng.integers(0, 256, (n, 28, 28, 3), np.uint8)  # noise, which does not compress
    images = Images(tuple(f"image {row}.png" for row in range(n)), tuple(map(image_sha256, pixels)), pixels)
    session = replace(example_session(), images=images, presentations=None, counts=None, mean_responses=MeanResponses(rng.random((n, 2))))
    write_session(session, tmp_path / "a.nwb")
    server.content = (tmp_path / "a.nwb").read_bytes()
    assert len(server.content) > 20e6
    with open_session(f"{server.address}/file.nwb") as there:
        assert there.images.sha256 == images.sha256
        assert server.n_bytes < 5e6
        assert len(server.asked) < 40
        assert (there.images.pixels[7777] == pixels[7777]).all()
    run("open", f"{server.address}/file.nwb")
    assert server.n_bytes < 7e6, "what was fetched before is fetched again"


def test_a_fit_reads_an_address_and_writes_a_file(server, local, tmp_path):
    server.content = local.read_bytes()
    address = f"{server.address}/file.nwb"
    config = tmp_path / "small.toml"
    config.write_text(SHORTEST_FIT)
    done = run("fit", address, "--output", tmp_path / "new.nwb", "--preset", "quick", "--config", config, "--quiet", "--run-id", "far")
    assert done.exit_code == 0, done.output
    assert {one.run_id for one in read_results(tmp_path / "new.nwb")} == {"example", "far"}
    assert read_results(tmp_path / "new.nwb", "far")[0].provenance["fitted.0"].startswith("file.nwb ")


@pytest.mark.parametrize("command", [["fit", "{}"], ["interpret", "{}"], ["simulate", "{}"], ["fit", "a.nwb", "--output", "{}"],
                                     ["convert", "counts", "a.npy", "-o", "{}"], ["report", "a.nwb", "-o", "{}"]])
def test_nothing_is_written_to_an_address(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*(word.format("https://example.org/b.nwb") for word in command))
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith("https://example.org/b.nwb: found an address, which can only be read, expected a file on this machine. Next: ")
    assert not list(tmp_path.iterdir())


FAULTS = {
    "none": r"no file there \(404 Not Found\)",
    "closed": r"a file that is not public, or an address that has expired \(403 Forbidden\)",
    "page": "a web page",
    "whole": r"a server that gives whole files only \(it knows no range requests\)",
    "circle": "redirects without end",
    "elsewhere": r"no address that can be asked \(.*ftp:.*\)",
    "silent": "no answer within 0 s",
    "lost": r"no connection, or one that broke \(.*\)",
    "text": r"a file that is damaged or not HDF5 \(.*\)",
    "long": "more than the 1 bytes that were asked for",
}


@pytest.mark.parametrize("path", FAULTS)
def test_every_fault_of_a_server_is_one_line_soon(path, server, local):
    server.content = local.read_bytes()
    began = time.monotonic()
    for command in ("open", "check", "show"):
        server.asked.clear()
        done = run(command, f"{server.address}/{path}.nwb")
        assert done.exit_code == 1, done.output
        (line,) = done.output.splitlines()
        assert re.match(f"{server.address}/{path}.nwb: found {FAULTS[path]}, expected an NWB file.* Next: ", line), line
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("lasting", [1, 3, 6, 12])
def test_a_server_that_is_lost_at_any_moment_is_one_line(lasting, server, local):
    server.content, server.lasting = local.read_bytes(), lasting
    for command in ("check", "show", "validate"):
        server.asked.clear()
        done = run(command, f"{server.address}/lost.nwb?{command}")
        assert (done.exit_code, len(done.output.splitlines())) == (1, 1), done.output
        assert "no connection, or one that broke" in done.output


def test_a_program_whose_server_is_lost_ends_by_itself(server, local):
    """In a process of its own: h5py crashes as Python ends if an error that is kept leads to what was open."""
    server.content, server.lasting = local.read_bytes(), 1
    done = subprocess.run([sys.executable, "-m", "nwb_compact.cli", "show", f"{server.address}/lost.nwb"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{server.address}/lost.nwb: found no connection, or one that broke")


def test_no_network_is_one_line(monkeypatch):
    monkeypatch.setattr(remote_file, "WAITS_S", (0.01,))
    for address in ("http://127.0.0.1:9/a.nwb", "https://no-such-host.invalid/a.nwb", "s3://no-such-bucket.invalid/a.nwb", "https:///"):
        done = run("open", address)
        assert (done.exit_code, len(done.output.splitlines())) == (1, 1), done.output
        assert "found no connection" in done.output or "no address that can be asked" in done.output


def test_a_server_in_trouble_is_asked_again(server, local):
    server.content = local.read_bytes()
    assert run("check", f"{server.address}/trouble.nwb").exit_code == 0


def test_an_address_that_expires_is_asked_for_anew(server, local):
    """As DANDI's do, which redirect to signed ones."""
    server.content = local.read_bytes()
    assert read_session(f"{server.address}/moved.nwb").about.session_id == "example"
    assert server.key > 1


@pytest.mark.parametrize("change", ["content", "etag"])
def test_a_file_that_changes_is_not_read_as_one(change, server, tmp_path):
    write_session(example_session(n_images=80, height_px=112), tmp_path / "a.nwb", objects_limit=10)
    server.content = (tmp_path / "a.nwb").read_bytes()
    address = f"{server.address}/file.nwb"
    with open_session(address) as session:
        if change == "content":
            server.content += b"more"
        else:
            server.etag = '"2"'
        with pytest.raises(NwbCompactError, match="found another file than before"):
            session.images.pixels[:]
    assert read_session(address).images.pixels.shape == (80, 112, 112, 3)


def test_without_remfile_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "remfile", None)
    done = run("open", "https://example.org/a.nwb")
    assert done.exit_code == 1
    assert done.output == ("https://example.org/a.nwb: found an address, and that remfile is not installed, expected it, to read files at "
                           "addresses. Next: pip install \"nwb-compact[stream]\", or download the file\n")


def test_keys_of_addresses_are_not_written_down(monkeypatch):
    from nwb_compact.provenance import command_line

    monkeypatch.setattr(sys, "argv", ["nwb-compact", "fit", "https://example.org/a.nwb?X-Amz-Signature=abc", "--output", "b.nwb"])
    assert command_line("fit") == "nwb-compact fit https://example.org/a.nwb --output b.nwb"
    assert Address("https://example.org/a.nwb?X-Amz-Signature=abc").stem == "a"
