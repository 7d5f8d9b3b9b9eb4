"""Session files into a dandiset: named, validated, uploaded, and compared with what the archive then holds.

docs/share.md says what is sent and what is not.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from nwb_compact import dandi_archive
from nwb_compact.asset_name import asset_name
from nwb_compact.dandi_archive import Dandiset, LocalAsset
from nwb_compact.errors import Fault, NwbCompactError, SeveralFaults, counted
from nwb_compact.nwb_io import opened
from nwb_compact.nwb_results import latest_run_id
from nwb_compact.nwb_strip import write_stripped
from nwb_compact.progress import stage
from nwb_compact.safe_write import changed_copy
from nwb_compact.validate import SUBJECT_NEXT, findings

STRIP = ("raw", "images")


@dataclass(frozen=True)
class Planned:
    """One file that will be an asset."""

    file: Path
    """What the user named."""
    local: LocalAsset
    """What is sent: the file, or a stripped copy of it."""
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        without = f", without {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.file} -> {self.local.path}, {self.local.size / 1e6:,.1f} MB{without}"


@click.command("share")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dandiset", "dandiset_id", required=True, metavar="ID", help="Six digits; you must be an owner of it.")
@click.option("--instance", default="dandi", show_default=True, metavar="NAME|URL", help="dandi, dandi-sandbox (to try it), or an address.")
@click.option("--strip", multiple=True, type=click.Choice(STRIP),
              help="Leave out the raw voltage, or the pixels of the images (their hashes stay). May be given twice.")
@click.option("--dry-run", is_flag=True, help="Say what would be uploaded, without a network.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(files: tuple[Path, ...], dandiset_id: str, instance: str, strip: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Upload session FILES to the draft of a dandiset of the DANDI archive.

    The API key is read from DANDI_API_KEY (of the sandbox: DANDI_SANDBOX_API_KEY) or the keyring.
    """
    with dandi_archive.library(), ExitStack() as copies:
        dandi_archive.require_names(instance, dandiset_id)
        names = _names(files)
        planned = [_planned(file, name, strip, copies) for file, name in zip(files, names, strict=True)]
        if dry_run:
            for one in planned:
                click.echo(str(one))
            click.echo(f"dry run: {_total(planned)} would go to dandiset {dandiset_id} of {instance}; nothing was sent")
            return
        with dandi_archive.opened_dandiset(instance, dandiset_id) as dandiset:
            share(planned, dandiset, ask=not yes, of=instance)


def share(planned: Sequence[Planned], dandiset: Dandiset, *, ask: bool, of: str) -> None:
    """Upload what is not there already, and say where each file is.

    Raises
    ------
    NwbCompactError
        If one could not be uploaded; those before it are.
    """
    new = list(_shown(planned, dandiset))
    if new and ask:
        click.confirm(f"Upload {_total(new)} to dandiset {dandiset.id} of {of}?", abort=True)
    for number, one in enumerate(planned):
        if one in new:
            try:
                with stage(f"uploading {one.file.name}, MB", dandi_archive.megabytes(one.local.size)) as advance:
                    dandiset.upload(one.local, advance)
            except NwbCompactError as error:
                fault, before = error.fault, f"uploaded before: {number} of {counted(len(planned), 'file')}"
                raise NwbCompactError(f"{one.file}: {fault.where}", found=fault.found, expected=fault.expected,
                                      next_step=f"{fault.next_step} ({before})") from error
        click.echo(f"{one.file}: {dandiset.address(one.local)}")


def _shown(planned: Sequence[Planned], dandiset: Dandiset) -> Iterator[Planned]:
    """Say what will happen to each file; those that are not there yet."""
    for one in planned:
        held = dandiset.held(one.local)
        if held is not None and held[1]:
            click.echo(f"{one}; there already")
            continue
        click.echo(f"{one}" if held is None else f"{one}; replaces an asset of {held[0] / 1e6:,.1f} MB")
        yield one


def _total(planned: Sequence[Planned]) -> str:
    return f"{counted(len(planned), 'file')} ({sum(one.local.size for one in planned) / 1e6:,.1f} MB)"


def _names(files: Sequence[Path]) -> list[str]:
    names = [_name(file) for file in files]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        of_one = ", ".join(str(file) for file, name in zip(files, names, strict=True) if name == twice[0])
        raise NwbCompactError(of_one, found=f"one name for all of them, {twice[0]}", expected="a name each",
                              next_step="give each its own session_id in the YAML of nwb-compact convert, or leave one out")
    return names


def _name(file: Path) -> str:
    with opened(file) as held:
        subject, session_id = held.nwbfile.subject, held.nwbfile.session_id
        if subject is None or not subject.subject_id:
            raise NwbCompactError(file, found="no subject_id", expected="one, by which DANDI names files", next_step=SUBJECT_NEXT)
        return asset_name(subject.subject_id, session_id, latest_run_id(held.nwbfile, file))


def _planned(file: Path, name: str, strip: Sequence[str], copies: ExitStack) -> Planned:
    left_out: list[str] = []

    def write(copy: Path) -> None:
        left_out.extend(write_stripped(file, copy, raw="raw" in strip, images="images" in strip))

    shared = copies.enter_context(changed_copy(file, write) if strip else nullcontext(file))
    _require_valid(shared, file)
    return Planned(file, dandi_archive.asset(shared, name, file), tuple(left_out))


def _require_valid(shared: Path, file: Path) -> None:
    blocking = [one for one in findings(shared) if one.blocks]
    if blocking:
        raise SeveralFaults(tuple(
            Fault(f"{file}: {one.where.removeprefix(f'{shared}: ')}", f"{one.severity} {one.check} ({one.says})",
                  "a file that nwb-compact validate passes", one.next_step) for one in blocking))
