"""The pages on `nwb-compact convert` are run as they stand: every yaml block is a session.yaml, every `$` line is typed, and what the
page shows below it is what the program says. The data are one simulated session as each system would have recorded it.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nwb_compact.check import check
from nwb_compact.cli import main
from nwb_compact_conversion.cli import SOURCES
from nwb_compact_conversion.session_yaml import SessionYaml, read_session_yaml

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = "cowley-v4-models"
PAGES = {
    "convert.md": "blackrock",
    "convert_blackrock.md": "blackrock",
    "convert_spikeglx.md": "spikeglx",
    "convert_openephys.md": "openephys",
    "convert_intan.md": "intan",
    "convert_plexon.md": "plexon",
    "convert_recording.md": None,
    "convert_sorted.md": "sorted",
    "convert_counts.md": "counts",
    "convert_nwb.md": "nwb",
    "convert_cowley_v4_models.md": PUBLISHED,
}
"""Each page and the source whose files it finds; None where its first command makes them."""


@dataclass(frozen=True)
class Typed:
    """A command of a page, and what the page says that it prints; None where the page shows nothing."""

    words: tuple[str, ...]
    shown: str | None


def blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(console: str) -> list[Typed]:
    parts = re.split(r"^\$ ", console, flags=re.MULTILINE)
    assert parts[0] == "", "a console block begins with a command"
    typed = []
    for part in parts[1:]:
        command, _, shown = part.partition("\n")
        while command.endswith("\\"):
            more, _, shown = shown.partition("\n")
            command = f"{command[:-1]} {more}"
        typed.append(Typed(tuple(shlex.split(command)), shown or None))
    return typed


def run(typed: Typed, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """In this process, since a new one for every command would take most of the time."""
    words = list(typed.words)
    output = words[words.index(">") + 1] if ">" in words else None
    words = words[: words.index(">")] if output else words
    patch.setattr(sys, "argv", words)
    assert words[0] == "nwb-compact"
    result = CliRunner().invoke(main, words[1:])
    said = result.output
    if output:
        (folder / output).write_text(said)
        said = ""
    refused = typed.shown is not None and ": found " in typed.shown
    assert result.exit_code == (1 if refused else 0), said
    assert typed.shown in (None, said)


def loaded(name: str):
    spec = spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their own module there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded_lab():
    return loaded("recorded_lab")


@pytest.fixture(scope="module")
def lab(recorded_lab, vendor, tmp_path_factory):
    return recorded_lab.simulated(tmp_path_factory.mktemp("simulated") / "lab", vendor)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_it_stands(page, lab, recorded_lab, made, tmp_path, monkeypatch, request):
    source = PAGES[page]
    if source == PUBLISHED:  # a clone would be large and its models many
        made.save_published(tmp_path / "V4_compact_models", n_images=40)
    elif source is not None:
        raw_data = request.getfixturevalue("raw_data") if source == "spikeglx" else None
        recorded_lab.lay_out(lab, source, tmp_path, raw_data)
    monkeypatch.chdir(tmp_path)
    n_commands = 0
    for language, content in blocks((DOCS / page).read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(content, page, "exec"), {})
        elif language == "yaml":
            (tmp_path / "session.yaml").write_text(content)
            read_session_yaml(Path("session.yaml"))
        elif language == "console":
            for typed in commands(content):
                run(typed, tmp_path, monkeypatch)
                n_commands += 1
    assert n_commands
    assert list(tmp_path.glob("*.nwb"))


def test_every_source_has_a_page_that_the_overview_links():
    overview = (DOCS / "convert.md").read_text(encoding="utf-8")
    for name in (*SOURCES, "cowley-v4", PUBLISHED):
        page = f"convert_{name.replace('-', '_')}.md"
        assert f"| [{name}]({page}) |" in overview
        assert (DOCS / page).is_file()
        assert page in PAGES or name == "cowley-v4", "a page that no test runs"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere_and_every_key_named_is_one(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCS / link).exists(), link
    for name, key in re.findall(r"`(device|stimuli|alignment|sorting|responses|subject|session)\.(\w+)\b(?!\()", text):
        if f"{name}.{key}" not in ("session.yaml", "session.nwb"):
            assert key in type(getattr(SessionYaml(), name)).model_fields, f"{name}.{key}"
    for snippet in re.findall(r"`(\w+: \{[^`]*\})`", text):
        SessionYaml.model_validate(yaml.safe_load(snippet))


def test_the_three_commands_of_the_readme(lab, recorded_lab, tmp_path, monkeypatch):
    """But for the fit, which takes minutes and is run with these options in test_readme."""
    recorded_lab.lay_out(lab, "blackrock", tmp_path)
    monkeypatch.chdir(tmp_path)
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    template, convert, fit = commands(re.search(r"<!-- needs day.ns6 -->\n```console\n(.*?)```", readme, flags=re.DOTALL)[1])
    run(template, tmp_path, monkeypatch)
    printed = (tmp_path / "session.yaml").read_text()
    assert "#subject_id: M1\n" in printed
    page = (DOCS / "convert_blackrock.md").read_text(encoding="utf-8")
    (tmp_path / "session.yaml").write_text(next(content for language, content in blocks(page) if language == "yaml"))
    run(convert, tmp_path, monkeypatch)
    assert fit.words[:3] == ("nwb-compact", "fit", "day.nwb")
    assert shlex.join(("nwb-compact", "fit", "session.nwb", *fit.words[3:])) in readme
    assert check("day.nwb") == ()
