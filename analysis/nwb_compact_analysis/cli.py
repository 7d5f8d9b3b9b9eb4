"""`nwb-compact report`: what was fitted, as figures and one page."""

from pathlib import Path

import click

from nwb_compact.address import FILE_OR_ADDRESS, Address
from nwb_compact.errors import NwbCompactError


@click.command()
@click.argument("file", type=FILE_OR_ADDRESS)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the report. [default: FILE_report]")
@click.option("--run", "run_id", metavar="RUN_ID", help="Which fit to report; default: the last one.")
@click.option("--overwrite", is_flag=True, help="Replace the report that is in the folder.")
def report(file: Path | Address, output: Path | None, run_id: str | None, overwrite: bool) -> None:
    """Draw the figures of a fit in FILE and one self-contained HTML page that holds them."""
    from nwb_compact.nwb_interpretation import read_interpretation
    from nwb_compact.nwb_results import read_results  # pynwb and matplotlib take seconds to import; --help should not
    from nwb_compact.nwb_session import open_session
    from nwb_compact.progress import stage
    from nwb_compact_analysis.page import headline
    from nwb_compact_analysis.report import check_folder, interpreted, write_report

    here, source = (Path(file.name), file.shown) if isinstance(file, Address) else (file, str(file))
    folder = output if output is not None else here.with_name(f"{here.stem}_report")
    check_folder(folder, overwrite)
    runs = read_results(file)
    if not runs:
        next_step = f"run 'nwb-compact fit {file}' first"
        raise NwbCompactError(file, found="no fitted run", expected="at least one", next_step=next_step)
    wanted = runs[-1].run_id if run_id is None else run_id
    (results,) = [run for run in runs if run.run_id == wanted] or read_results(file, wanted)  # which says what runs there are
    others = [run for run in runs if run.run_id != results.run_id]
    tables = read_interpretation(file, results.run_id)
    units = interpreted(tables)
    with open_session(file) as session, stage("pages", 1 + len(units), quiet=not units) as advance:
        page = write_report(results, session, source, folder, others=others, tables=tables, overwrite=overwrite, advance=advance)
    click.echo(f"run {results.run_id}: {headline(results)}")
    click.echo(f"report: {page}")
