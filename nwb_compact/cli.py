"""The command line: one group, its commands loaded only when they are used, and one line for whatever goes wrong.

Exit status: 0 done; 1 the work failed and one line says why; 2 wrong usage; 130 interrupted.
"""

import errno
import traceback
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import click

from nwb_compact import __version__
from nwb_compact.errors import NwbCompactError

PLUGINS = "nwb_compact.commands"
"""Entry-point group by which other packages add commands."""


class Place(NamedTuple):
    """Where a command is, and what the list of commands says about it without loading it."""

    target: str
    help: str


BUILT_IN = {
    "simulate": Place("nwb_compact.simulate:command", "Make a session from neurons whose wiring is known."),
    "open": Place("nwb_compact.overview:command", "Say what is in a session file, here or at an address."),
    "check": Place("nwb_compact.check:command", "List every fault of a session file, before a long run."),
    "fit": Place("nwb_compact.fit:command", "Fit a teacher and compact students to every unit."),
    "interpret": Place("nwb_compact.interpret:command", "Find out what each fitted neuron computes."),
    "show": Place("nwb_compact.show:command", "Print what was fitted and how well."),
    "validate": Place("nwb_compact.validate:command", "Say whether an archive would take a file."),
    "share": Place("nwb_compact.share:command", "Upload files to a dandiset."),
    "export": Place("nwb_compact.export:command", "Write the compact model of one neuron to a file of its own."),
}
KNOWN_PLUGINS = {
    "convert": "Turn recordings or published data into a session file.",
    "report": "Draw figures and one page from the results in a file.",
}
ORDER = ("simulate", "convert", "open", "check", "fit", "interpret", "show", "report", "validate", "share", "export")
"""Along the path of the data; commands of other packages follow."""


class Commands(click.Group):
    """A group that imports a command when it is called, so that `--help` is quick and a broken command breaks no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the work."""
        return sorted(_places(), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, loaded now."""
        place = _places().get(cmd_name)
        return None if place is None else _loaded(cmd_name, place)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading any."""
        places = _places()
        with formatter.section("Commands"):
            formatter.write_dl([(name, places[name].help) for name in self.list_commands(ctx)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take --debug anywhere on the line, since it is added behind a command that just failed."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta["debug"] = "--debug" in args[:end]
        return super().parse_args(ctx, [arg for arg in args[:end] if arg != "--debug"] + args[end:])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever goes wrong becomes one line and an exit status."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe left; click ends quietly
            if ctx.meta["debug"]:
                traceback.print_exc()
            for line in _lines(error):
                click.echo(line, err=True)
            ctx.exit(130 if isinstance(error, KeyboardInterrupt) else 1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nwb-compact")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Accurate and compact models of every recorded visual neuron, from NWB and back into NWB."""


def _places() -> dict[str, Place]:
    plugins = {
        entry.name: Place(entry.value, KNOWN_PLUGINS.get(entry.name, f"Added by {entry.module.split('.')[0]}."))
        for entry in entry_points(group=PLUGINS)
    }
    return plugins | BUILT_IN


def _loaded(name: str, place: Place) -> click.Command:
    module, _, attribute = place.target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        found = f"that it cannot be loaded ({' '.join(str(error).split())})"
        next_step = "install nwb-compact again with all it depends on"
        raise NwbCompactError(f"command {name}", found=found, expected=place.target, next_step=next_step) from error


def _lines(error: BaseException) -> list[str]:
    if isinstance(error, NwbCompactError):
        return [" ".join(str(fault).split()) for fault in error.faults]
    if isinstance(error, KeyboardInterrupt):
        return ["interrupted"]
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return [f"{said}; this is a defect; run again with --debug and report it"]


if __name__ == "__main__":
    main()
