"""A session.yaml to begin with: every key with what it means, its unit and its default, all of them switched off."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from nwb_compact.config import Stage
from nwb_compact_conversion.session_yaml import SessionYaml

WIDTH = 100
SECTIONS = {"counts": ("subject", "session", "stimuli", "responses"), "nwb": ("subject", "session", "stimuli", "responses")}
"""Sections that a source has a use for; others have a use for all, but those without voltage none for `sorting`."""
SORTED_SOURCES = ("sorted",)
OWN = ("counts", "nwb", "sorted", "blackrock", "plexon")
"""Sources that some keys are for alone: the docstring of such a key begins with their names and a colon."""
EXAMPLES = {
    "subject_id": "M1", "species": "Macaca mulatta", "sex": "M", "age": "P8Y", "date_of_birth": "2011-04-01", "weight": "9.1 kg",
    "session_start_time": "2019-09-23T10:30:00-04:00", "session_id": "20190923", "experimenter": ["Last, First"],
    "keywords": ["macaque", "V4"], "related_publications": ["doi:10.1038/s41586-026-10150-1"], "images": "images", "log": "log.csv",
    "location": "V4", "geometry": "array.cmp", "offset": "offset", "is_valid": "fixation", "code": "word", "duration_s": 0.1,
    "channel": "digital_input", "blank": ["blank"], "codes": [1], "threshold": 1.5, "common_reference": "median",
    "max_isi_violations_ratio": 0.5, "min_presence_ratio": 0.9, "min_snr": 3.0, "max_amplitude_cutoff": 0.1,
    "axes": ["presentation", "unit"], "holds": "counts", "sampling_frequency_hz": 30000.0, "threshold_uv": 50.0,
}  # fmt: skip
"""Values that show the form of keys that have no default."""


def template(source: str) -> str:
    """The text of a session.yaml for one source.

    Examples
    --------
    >>> print(template("counts").split(". ")[0])
    # session.yaml for nwb-compact convert counts
    >>> "#window_s: [0.05, 0.15]" in template("blackrock")
    True
    """
    head = (f"session.yaml for nwb-compact convert {source}. A line that begins with '#' is off: take the '#' away and put your value. "
            "What the source records needs no key. Paths are relative to the folder of this file.")
    lines = [*_comment(head, "")]
    for name in SECTIONS.get(source, tuple(SessionYaml.model_fields)):
        own_only = name == "sorting" and source in SORTED_SOURCES
        section = list(_section(SessionYaml.model_fields[name].default, "  ", source, own_only=own_only))
        lines += ["", f"{name}:", *section] if section else []
    return "\n".join(lines) + "\n"


def _section(section: Stage, indent: str, source: str, *, own_only: bool) -> Iterator[str]:
    """The keys of a section that the source has a use for; `own_only` leaves out those that are not said to be its own."""
    for name, field in type(section).model_fields.items():
        said, value = field.description or "", getattr(section, name)
        if isinstance(value, Stage):
            inner = list(_section(value, indent + "  ", source, own_only=own_only))
            yield from [*_comment(said, indent), f"{indent}{name}:", *inner] if inner else []
            continue
        owners = _owners(said)
        if source not in owners and (own_only or owners):
            continue
        yield from _comment(said, indent)
        if value is None or value == ():
            yield f"{indent}#{name}: {_one_line(EXAMPLES.get(name, 'text'))}"
        else:
            yield f"{indent}#{name}: {_one_line(value)}"


def _owners(said: str) -> tuple[str, ...]:
    """The sources that a key is for alone; none where it is for all."""
    names = tuple(said.partition(": ")[0].split(", "))
    return names if set(names) <= set(OWN) else ()


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in wrap(" ".join(text.split()), WIDTH - len(indent))]


def _one_line(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
