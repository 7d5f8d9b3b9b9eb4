"""Would an archive take this file, and can this package read it? Schema, NWB Inspector with DANDI's settings, our own contract, in a table.

DANDI refuses what is CRITICAL here. A VIOLATION it lets pass, but we do not, unless `ALLOWED` says why it may. A SUGGESTION is just that.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from nwb_compact.address import FILE_OR_ADDRESS, Address, located
from nwb_compact.check import check
from nwb_compact.errors import NwbCompactError, counted, one_line
from nwb_compact.nwb_io import open_hdf5, opened
from nwb_compact.safe_write import schema_faults

SEVERITIES = {
    "ERROR": "CRITICAL", "PYNWB_VALIDATION": "CRITICAL", "CRITICAL": "CRITICAL", "BEST_PRACTICE_VIOLATION": "VIOLATION",
    "BEST_PRACTICE_SUGGESTION": "SUGGESTION",
}
"""What NWB Inspector calls them, and what we do, worst first."""
ALLOWED: Mapping[str, str] = {
    "check_regular_timestamps": "times of events are regular where a display kept its pace; they are measured all the same",
}
"""Violations that are none, and why."""
ALLOWED_UNFIT = "it stops a fit only; the file can be shared and read"
"""Likewise of our own contract."""
NEXT: Mapping[str, str] = {
    "CRITICAL": "DANDI refuses the file until this is mended",
    "VIOLATION": "mend it, or convert the recording again",
    "SUGGESTION": "optional",
    "check_units_resolution_is_set": "give responses.sampling_frequency_hz in the YAML of nwb-compact convert and convert again",
}
"""What to do: by the name of the check, else by its severity."""
SUBJECT_NEXT = "give what is missing of the animal in the YAML of nwb-compact convert (--yaml or --metadata) and convert again"


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    severity: str
    """CRITICAL, VIOLATION or SUGGESTION."""
    check: str
    """Name of the check; `contract` for ours."""
    where: str
    says: str
    next_step: str
    allowed: str = ""
    """Why it may be, if it may."""

    @property
    def blocks(self) -> bool:
        """Whether the file must not be shared as it is."""
        return self.severity != "SUGGESTION" and not self.allowed


def findings(file_path: str | Path) -> tuple[Finding, ...]:
    """All that is to be said against a file, worst first.

    Raises
    ------
    NwbCompactError
        If it is no file that can be opened, or NWB Inspector is not installed.
    """
    file_path = located(file_path)
    with open_hdf5(file_path):
        pass
    contract = [
        Finding("VIOLATION", "contract", fault.where, f"found {fault.found}, expected {fault.expected}", fault.next_step,
                ALLOWED_UNFIT if fault.stops_only_fits else "")
        for fault in check(file_path)
    ]
    worst_first = list(dict.fromkeys(SEVERITIES.values()))
    return tuple(sorted([*_inspected(file_path), *contract], key=lambda one: (worst_first.index(one.severity), one.check, one.where)))


def _inspected(place: Path | Address) -> Iterator[Finding]:
    try:
        from nwbinspector import inspect_nwbfile, inspect_nwbfile_object, load_config
    except ImportError as error:
        raise NwbCompactError("NWB Inspector", found="that it is not installed", expected="it, to validate as DANDI does",
                              next_step='pip install "nwb-compact[dandi]"') from error
    config = load_config("dandi")
    if isinstance(place, Path):
        yield from map(_finding, inspect_nwbfile(nwbfile_path=place, config=config))
        return
    yield from (Finding("CRITICAL", "schema", "the file", fault, NEXT["CRITICAL"]) for fault in sorted(schema_faults(place)))
    with opened(place) as file:
        yield from map(_finding, inspect_nwbfile_object(nwbfile_object=file.nwbfile, config=config))


def _finding(message: Any) -> Finding:
    """What the inspector says, in our words."""
    severity, name, says = SEVERITIES[message.importance.name], message.check_function_name, message.message
    if message.importance.name == "ERROR":  # whose name is a paragraph and whose text a traceback
        name, says = "unreadable", says.strip().splitlines()[-1]
    where = message.location or message.object_name or "the file"
    next_step = SUBJECT_NEXT if name.startswith("check_subject") and severity != "SUGGESTION" else NEXT.get(name, NEXT[severity])
    return Finding(severity, name, where, one_line(says), next_step, ALLOWED.get(name, "") if severity == "VIOLATION" else "")


def table(found: Sequence[Finding]) -> list[str]:
    """Lines for a person: what blocks and what is allowed one by one, suggestions counted by kind.

    Examples
    --------
    >>> print(*table([Finding("CRITICAL", "check_subject_sex", "/general/subject", "no sex", "give it")]), sep="\\n")
    CRITICAL    /general/subject: no sex (check_subject_sex)
                next: give it
    """
    lines = []
    for one in found:
        if one.severity != "SUGGESTION":
            lines.append(f"{one.severity:10s}  {one.where}: {one.says} ({one.check})")
            lines.append(f"{'':12s}{f'allowed: {one.allowed}' if one.allowed else f'next: {one.next_step}'}")
    suggested = [one for one in found if one.severity == "SUGGESTION"]
    for name in dict.fromkeys(one.check for one in suggested):
        of_kind = [one for one in suggested if one.check == name]
        more = f", and {len(of_kind) - 1} more" if len(of_kind) > 1 else ""
        lines.append(f"{'SUGGESTION':10s}  {of_kind[0].where}: {of_kind[0].says} ({name}{more})")
    return lines


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=FILE_OR_ADDRESS)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file, a line each.")
def command(files: tuple[Path | Address, ...], as_json: bool) -> None:
    """Say whether an archive would take each of FILES and this package can use it; exit 1 if not."""
    blocked = False
    for file in files:
        found = findings(file)
        n = sum(one.blocks for one in found)
        blocked |= n > 0
        if as_json:
            click.echo(json.dumps({"file": str(file), "valid": n == 0, "findings": [asdict(one) for one in found]}))
            continue
        for line in table(found):
            click.echo(line)
        suggestions = sum(one.severity == "SUGGESTION" for one in found)
        click.echo(f"{file}: {f'{n} to mend before it is shared' if n else 'valid'}; {counted(suggestions, 'suggestion')}")
    if blocked:
        raise SystemExit(1)
