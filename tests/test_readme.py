"""The README is run as it stands: every `$` line of its console blocks and every Python block, in order, in one empty folder."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TIMEOUT_S = 420


@dataclass(frozen=True)
class Block:
    needs: str | None
    language: str
    code: str

    @property
    def commands(self) -> list[list[str]]:
        if self.language == "python":
            return [[sys.executable, "-c", self.code]]
        return [["bash", "-c", line[2:]] for line in self.code.splitlines() if line.startswith("$ ")]


def blocks(text: str) -> list[Block]:
    pattern = r"(?:<!-- needs (\S+) -->\n)?```(console|python)\n(.*?)```"
    return [Block(needs or None, language, code) for needs, language, code in re.findall(pattern, text, flags=re.DOTALL)]


def run_blocks(chosen: list[Block], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = ""
    for command in (command for block in chosen for command in block.commands):
        done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        said += done.stdout
    return said


def test_the_commands_run_as_written_and_leave_what_the_readme_promises(tmp_path):
    said = run_blocks([block for block in blocks(README) if block.needs is None], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["report", "session.nwb", "unit-001.onnx"]
    assert (tmp_path / "report" / "index.html").is_file()
    assert re.search(r"^unit-\S+: r2 -?\d\.\d\d with [\d,]+ parameters$", said, flags=re.MULTILINE)


def test_the_commands_on_published_data_run_as_written(tmp_path, published_v4):
    (tmp_path / "V4_compact_models").symlink_to(published_v4)
    run_blocks([block for block in blocks(README) if block.needs == "V4_compact_models"], tmp_path)
    assert (tmp_path / "190923.nwb").is_file()


def test_no_command_escapes_this_test():
    """A block marked otherwise would be skipped in silence; the few that are not run are named here."""
    found = blocks(README)
    # What needs day.ns6 is run in test_conversion/test_docs.py, which makes one.
    assert {block.needs for block in found} == {None, "V4_compact_models", "day.ns6"}
    assert README.count("```console") + README.count("```python") == len(found)
    not_run = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    assert [block.split()[:2] for block in not_run] == [["make", "demo"], ["pip", "install"]]


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, flags=re.MULTILINE))
def test_the_make_targets_exist(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


def test_the_map_of_rooms_names_modules_that_exist():
    rooms = README.split("## Which module answers which question")[1].split("\n## ")[0]
    for row in [line for line in rooms.splitlines() if line.startswith("| ") and "`" in line]:
        names = re.findall(r"`([^`]+)`", row.split("|")[2])
        folder = (ROOT / names[0]).parent
        for name in names:
            assert (ROOT / name).exists() or (folder / name).exists(), name


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= 150
