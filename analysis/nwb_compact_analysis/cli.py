"""`nwb-compact report`: what was fitted, as figures and one page."""

from collections.abc import Sequence
from pathlib import Path

import click

from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.results import Results


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the report. [default: FILE_report]")
@click.option("--run", "run_id", metavar="RUN_ID", help="Which fit to report; default: the last one.")
@click.option("--overwrite", is_flag=True, help="Replace the report that is in the folder.")
def report(file: Path, output: Path | None, run_id: str | None, overwrite: bool) -> None:
    """Draw the figures of a fit in FILE and one self-contained HTML page that holds them."""
    from nwb_compact.nwb_results import read_results  # so that `nwb-compact --help` need not load pynwb and matplotlib

    from nwb_compact.nwb_session import open_session
    from nwb_compact_analysis.page import headline
    from nwb_compact_analysis.report import check_folder, write_report

    folder = output if output is not None else file.with_name(f"{file.stem}_report")
    check_folder(folder, overwrite)
    results = choose_run(read_results(file), run_id, file)
    with open_session(file) as session:
        page = write_report(results, session, str(file), folder, overwrite=overwrite)
    click.echo(f"run {results.run_id}. {headline(results)}")
    click.echo(f"report: {page}")


def choose_run(runs: Sequence[Results], run_id: str | None, file: Path) -> Results:
    """The run of that name, or the last one when no name is given.

    Raises
    ------
    NwbCompactError
        If the file holds no run, or none of that name (the nearest is named).

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> choose_run([example_results()], "examples", Path("a.nwb"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: a.nwb: found no run 'examples', expected one of its 1 run. Next: did you mean 'example'?
    """
    if not runs:
        raise NwbCompactError(file, found="no fitted run", expected="at least one", next_step=f"run 'nwb-compact fit {file}' first")
    if run_id is None:
        return runs[-1]
    known = {run.run_id: run for run in runs}
    if run_id not in known:
        expected = f"one of its {len(runs)} run{'s' if len(runs) > 1 else ''}"
        raise NwbCompactError(file, found=f"no run '{run_id}'", expected=expected, next_step=nearest(run_id, list(known)))
    return known[run_id]
