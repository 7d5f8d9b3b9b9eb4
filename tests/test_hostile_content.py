"""Nothing that a file holds is run, and a small file cannot fill the memory: what docs/files.md promises."""

import ast
import zlib
from pathlib import Path
from struct import pack
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from click.testing import CliRunner

from nwb_compact import image_files
from nwb_compact.cli import main
from nwb_compact.errors import NwbCompactError
from nwb_compact.image_files import UnusableImage, decoded
from nwb_compact.image_files import image_files as images_of
from nwb_compact.nwb_session import write_session
from nwb_compact.session import example_session

ROOT = Path(__file__).parents[1]
FOLDERS = ("nwb_compact", "conversion", "analysis", "examples", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LOADERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
"""Modules that run what a file says."""
INERT = {"conversion/nwb_compact_conversion/sources/keras_files.py"}
"""Reads pickles by a reader of its own that knows three harmless names; `test_cowley_v4_networks` hands it harmful ones."""
PERMITTED = {"np.load": ("allow_pickle", (None, False)), "torch.load": ("weights_only", (True,))}
"""What an option may be; None where it is not given, as numpy does not unpickle unasked."""
NEVER = ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec")
NEVER_OF_ANY = ("read_pickle", "extractall", "extract", "unpack_archive")
"""Of whatever object or module."""


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def unsafe(tree: ast.AST) -> list[str]:
    """Calls that read a file in a way that can run code, or write where an archive says."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import {name}" for name in modules if name.split(".")[0] in LOADERS]
        elif isinstance(node, ast.Call):
            name = called(node)
            options = {one.arg: getattr(one.value, "value", "computed") for one in node.keywords}
            option, permitted = PERMITTED.get(name, ("", (None,)))
            if name in NEVER or name.rpartition(".")[2] in NEVER_OF_ANY or options.get(option) not in permitted:
                found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("source", ["import pickle", "from joblib import load", "np.load(path, allow_pickle=True)",
                                    "np.load(path, allow_pickle=may)", "torch.load(path)", "torch.load(path, weights_only=False)",
                                    "archive.extractall(folder)",
                                    "yaml.load(text)", "pd.read_pickle(path)", "eval(text)"])
def test_what_is_looked_for_is_found(source):
    assert unsafe(ast.parse(source))


def test_nothing_in_the_source_unpickles_runs_or_unpacks():
    assert len(SOURCES) > 150
    found = {path.relative_to(ROOT).as_posix(): unsafe(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {name for name, calls in found.items() if calls} <= INERT, {name: calls for name, calls in found.items() if calls}


# Images -----------------------------------------------------------------------------------------------------------------


def bomb(side_px: int = 20_000) -> bytes:
    """A PNG of a few hundred kB that says it has 400 million pixels, and has."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(kind + content))

    rows = zlib.compressobj(9)
    row = b"\0" * (side_px // 8 + 1)
    pixels = b"".join(rows.compress(row) for _ in range(side_px)) + rows.flush()
    header = pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side_px", [10_000, 20_000])
def test_a_small_file_that_is_a_huge_image_is_a_line(side_px):
    content = bomb(side_px)
    assert len(content) < 300_000
    with pytest.raises(UnusableImage, match=r"a.png: found DecompressionBomb\w+: .*, expected a readable image"):
        decoded(image_files.ImageFile("a.png", "a.png", content))


@pytest.mark.parametrize("place", ["images", "images.zip"])
def test_bombs_among_further_images_stop_a_fit_in_a_line(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if place == "images":
        Path(place).mkdir()
        Path(place, "a.png").write_bytes(bomb())
    else:
        with ZipFile(place, "w", ZIP_DEFLATED) as zipped:
            zipped.writestr("a.png", bomb())
    write_session(example_session(n_images=40, height_px=112), "a.nwb")
    done = CliRunner().invoke(main, ["fit", "a.nwb", "--images", place, "--quiet", "--preset", "quick", "--output", "b.nwb"])
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert "1 broken" in line
    assert "Next: " in line


def test_a_zip_cannot_have_more_unpacked_than_it_says(tmp_path):
    """Its table of contents may lie about the size; no more than that is unpacked."""
    with ZipFile(tmp_path / "a.zip", "w", ZIP_DEFLATED) as zipped:
        zipped.writestr("a.png", b"\0" * 10_000_000)
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(pack("<I", 10_000_000), pack("<I", 100)))
    with pytest.raises(NwbCompactError, match="expected a folder or a zip of images"):
        list(images_of(tmp_path / "a.zip", next_step="make it again"))
