"""The template is a session.yaml: as it is, and with every line of it switched on."""

import re
from itertools import pairwise

import pytest
import yaml

from nwb_compact.config import flat
from nwb_compact_conversion.session_yaml import SessionYaml, read_session_yaml
from nwb_compact_conversion.template import template

SOURCES = ["blackrock", "sorted", "counts", "nwb"]


def switched_on(text):
    return re.sub(r"^( *)#(?=\w+:)", r"\1", text, flags=re.M)


@pytest.mark.parametrize("source", SOURCES)
def test_as_it_is_it_changes_nothing(tmp_path, source):
    (tmp_path / "session.yaml").write_text(template(source), encoding="utf-8")
    told, metadata = read_session_yaml(tmp_path / "session.yaml")
    assert told == SessionYaml()
    assert metadata.origin.startswith("session.yaml sha256:")


@pytest.mark.parametrize("source", SOURCES)
def test_every_line_can_be_switched_on_and_shows_the_default_where_there_is_one(tmp_path, source):
    (tmp_path / "session.yaml").write_text(switched_on(template(source)), encoding="utf-8")
    told, default = flat(read_session_yaml(tmp_path / "session.yaml")[0]), flat(SessionYaml())
    assert {name for name in told if told[name] != default[name]} <= {name for name in told if default[name] in ("None", "()")}


def test_every_key_of_the_schema_is_in_the_template_with_a_comment():

    def keys(mapping, prefix=""):
        for name, value in mapping.items():
            yield from keys(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [prefix + name]

    texts = {source: template(source) for source in SOURCES}
    assert {key for text in texts.values() for key in keys(yaml.safe_load(switched_on(text)))} == set(flat(SessionYaml()))
    assert "#axes:" in texts["counts"]
    assert "#axes:" not in texts["blackrock"]
    lines = "\n".join(texts.values()).splitlines()
    for above, line in pairwise(lines):
        if re.match(r" +#\w+:", line):
            assert re.match(r" +# .", above), line


def test_sources_that_come_sorted_are_not_asked_how_to_sort():
    assert "sorter" not in template("sorted")
    assert "#exclude_labels" in template("sorted")
    assert "#exclude_labels" not in template("plexon")
    assert "#sorter:" in template("plexon"), "a .plx may hold wideband voltage"
    assert "alignment:" not in template("counts")


def test_sort_codes_are_asked_of_sources_that_have_them():
    sources = ["blackrock", "plexon", "sorted", "openephys", "spikeglx", "intan", "recording", "counts", "nwb"]
    assert [source for source in sources if "#keep_unsorted" in template(source)] == ["blackrock", "plexon", "sorted"]
