"""The page of all settings, docs/configuration.md, written from `config` itself so that the two cannot disagree.

`python -m nwb_compact.settings_page > docs/configuration.md` renews it; a test compares.
"""

from collections.abc import Iterator

from nwb_compact.config import PRESETS, Fit, Interpret, Stage, configure, flat

_HEAD = """# Settings

Written by `python -m nwb_compact.settings_page > docs/configuration.md` from `nwb_compact/config.py`; change that file, not this one.

A fit starts from a preset (`--preset`). {presets} `--config FILE.toml` changes any setting by the names below:

```toml
seed = 3

[teacher]
members = 8
```

An unknown name stops the fit and names the nearest known one. All settings of a run are stored with its results.
"""


def settings_page() -> str:
    """All settings as Markdown: a table a stage, with the value in each preset, what it means and where it comes from.

    Examples
    --------
    >>> print([line for line in settings_page().splitlines() if line.startswith("| `members`")][0][:29])
    | `members` | 2 | 5 | 25 | Ne
    """
    head = _HEAD.format(presets=_one_line(Fit.model_fields["preset"].description))
    return "\n".join([head, *_tables("", Fit), *_interpretation()]) + "\n"


def _tables(prefix: str, stage: type[Stage]) -> Iterator[str]:
    inner = {name: field.annotation for name, field in stage.model_fields.items()}
    inner_stages = {name: kind for name, kind in inner.items() if isinstance(kind, type) and issubclass(kind, Stage)}
    own = [name for name in inner if name not in inner_stages and name != "preset"]
    yield f"## {f'[{prefix}]' if prefix else 'Top level'}\n\n{_one_line(stage.__doc__)}\n"
    yield f"| setting | {' | '.join(PRESETS)} | meaning and source |"
    yield "|---" * (len(PRESETS) + 2) + "|"
    yield from (_row(prefix, name, stage) for name in own)
    yield ""
    for name, kind in inner_stages.items():
        yield from _tables(f"{prefix}.{name}" if prefix else name, kind)


def _interpretation() -> Iterator[str]:
    yield f"## Interpretation\n\n{_one_line(Interpret.__doc__)} `nwb-compact interpret --config FILE.toml` changes these.\n"
    yield "| setting | value | meaning and source |\n|---|---|---|"
    yield from (f"| `{name}` | {value} | {_one_line(Interpret.model_fields[name].description)} |" for name, value in Interpret())
    yield ""


def _row(prefix: str, name: str, stage: type[Stage]) -> str:
    dotted = f"{prefix}.{name}" if prefix else name
    values = " | ".join(flat(configure(preset))[dotted] for preset in PRESETS)
    return f"| `{name}` | {values} | {_one_line(stage.model_fields[name].description)} |"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(settings_page(), end="")
