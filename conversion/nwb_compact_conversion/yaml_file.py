"""A YAML file read against a frozen model: every unknown key and every value that will not do, a line each, at once."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from nwb_compact.errors import Fault, NwbCompactError, SeveralFaults, nearest

Model = TypeVar("Model", bound=BaseModel)
NEXT = "correct the file; nwb-compact convert template shows every key"

WORDS = {"timezone_aware": "a time with its time zone, such as 2019-09-23T10:30:00-04:00"}
"""What is expected, where pydantic's own words do not say."""


def read_yaml(file_path: Path, model: type[Model]) -> tuple[Model, str]:
    """The content of a file as `model`, and the file's name and SHA-256 for the record.

    Raises
    ------
    NwbCompactError
        If the file cannot be read, is no YAML or holds no sections.
    SeveralFaults
        If keys are unknown or values will not do; one fault each.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nwb_compact.config import Split
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "split.yaml")
    ...     _ = file.write_text("scored_fraction: 0.3")
    ...     read_yaml(file, Split)[0].scored_fraction
    0.3
    """
    try:
        content = file_path.read_bytes()
        told = yaml.safe_load(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        found = " ".join(str(error).split())
        raise NwbCompactError(file_path, found=found, expected="a readable YAML file", next_step=NEXT) from error
    if not isinstance(told, Mapping):
        expected = f"sections such as {', '.join(repr(name) for name in list(model.model_fields)[:2])}"
        raise NwbCompactError(file_path, found="nothing" if told is None else repr(told), expected=expected, next_step=NEXT)
    try:
        return model.model_validate(_without_empty(told, model)), f"{file_path.name} sha256:{sha256(content).hexdigest()}"
    except ValidationError as error:
        raise SeveralFaults(tuple(_fault(file_path, dict(one), model) for one in error.errors())) from error


def _without_empty(told: Mapping[Any, Any], model: type[BaseModel]) -> dict[Any, Any]:
    """A section whose keys are all off is empty, which YAML reads as null; it means the same as no section."""
    kept: dict[Any, Any] = {}
    for name, value in told.items():
        section = _section(model, [name]) if isinstance(name, str) else model
        if section is model:
            kept[name] = value
        elif value is not None:
            kept[name] = _without_empty(value, section) if isinstance(value, Mapping) else value
    return kept


def _fault(file_path: Path, error: Mapping[str, Any], model: type[BaseModel]) -> Fault:
    where = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        known = list(_section(model, where[:-1]).model_fields)
        return Fault(str(file_path), f"unknown key '{'.'.join(where)}'", f"a known key ({nearest(where[-1], known)})", NEXT)
    said = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("Input should ")
    expected = WORDS.get(error["type"], said)
    # A value that may be of several types is tried as each; the names of those types are no keys of the file.
    keys = [part for depth, part in enumerate(where) if part in _section(model, where[:depth]).model_fields or part.isdecimal()]
    return Fault(str(file_path), f"{'.'.join(keys)} = {' '.join(str(error['input']).split())!r}", expected, NEXT)


def _section(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The model of the section that a path of keys leads to, as far as it leads."""
    for key in path:
        kind = model.model_fields[key].annotation if key in model.model_fields else None
        models = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, BaseModel)]
        if not models:
            return model
        model = models[0]
    return model
