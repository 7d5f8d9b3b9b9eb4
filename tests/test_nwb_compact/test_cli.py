"""Whatever goes wrong becomes one line and an exit status; commands are loaded only when they are used."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from nwb_compact import __version__, cli
from nwb_compact.cli import main
from nwb_compact.errors import Fault, NwbCompactError, SeveralFaults


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Runs the command line with one more command, `try`, that raises what it is given."""

    def with_error(error: BaseException, *options: str) -> Result:
        @click.command("try")
        @click.argument("words", nargs=-1)
        def command(words: tuple[str, ...]) -> None:
            click.echo(f"words {words}")
            if words != ("--debug",):
                raise error

        monkeypatch.setattr(cli, "BUILT_IN", {**cli.BUILT_IN, "try": cli.Place("trying:command", "Try.")})
        monkeypatch.setitem(sys.modules, "trying", SimpleNamespace(command=command))
        return CliRunner().invoke(main, options or ("try",))

    return with_error


def test_a_named_error_is_one_line_and_exit_1(run) -> None:
    done = run(NwbCompactError("a.nwb", found="a\nb", expected="c", next_step="d"))
    assert (done.exit_code, done.stderr) == (1, "a.nwb: found a b, expected c. Next: d\n")


def test_several_faults_are_a_line_each(run) -> None:
    done = run(SeveralFaults((Fault("a", "1", "2", "x"), Fault("b", "3", "4", "y"))))
    assert (done.exit_code, done.stderr) == (1, "a: found 1, expected 2. Next: x\nb: found 3, expected 4. Next: y\n")


def test_a_defect_of_ours_is_called_one(run) -> None:
    done = run(KeyError("x\ny"))
    assert done.exit_code == 1
    assert done.stderr == "KeyError: 'x\\ny'; this is a defect; run again with --debug and report it\n"


def test_an_interrupt_is_130(run) -> None:
    done = run(KeyboardInterrupt())
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("options", [("--debug", "try"), ("try", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(run, options: tuple[str, ...]) -> None:
    done = run(ValueError("x"), *options)
    assert done.exit_code == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stdout == "words ()\n"


def test_what_follows_two_dashes_belongs_to_the_command(run) -> None:
    assert run(ValueError("x"), "try", "--", "--debug").stdout == "words ('--debug',)\n"


def test_usage_errors_are_2_and_help_is_0() -> None:
    for wrong in (["bogus"], ["check"], ["check", "--bogus", "x"], ["--bogus"]):
        assert CliRunner().invoke(main, wrong).exit_code == 2
    assert CliRunner().invoke(main, ["-h"]).exit_code == 0


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"nwb-compact, version {__version__}\n"


def test_help_lists_every_command_in_the_order_of_the_work_and_loads_none() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from nwb_compact.cli import main;"
        "print(CliRunner().invoke(main, ['--help']).output);"
        "print([name for name in ('torch', 'numpy', 'pynwb', 'nwb_compact_conversion') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    commands = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines() if line.startswith("  ")]
    assert commands[:11] == [
        "simulate", "convert", "open", "check", "fit", "interpret", "show", "report", "validate", "share", "export",
    ]
    assert done.stdout.strip().endswith("[]")


def test_check_and_show_do_not_load_torch() -> None:
    program = "import sys, nwb_compact.check, nwb_compact.show; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_command_that_cannot_be_loaded_breaks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "BUILT_IN", {**cli.BUILT_IN, "fit": cli.Place("nwb_compact.no_such_module:command", "Fit.")})
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    assert CliRunner().invoke(main, ["check", "--help"]).exit_code == 0
    done = CliRunner().invoke(main, ["fit", "x"])
    assert done.exit_code == 1
    assert done.stderr.startswith("command fit: found that it cannot be loaded (No module named 'nwb_compact.no_such_module')")


def test_every_command_can_be_loaded() -> None:
    for name in cli._places():
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0, name


def test_the_installed_program_fails_in_one_line(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("nwb-compact")
    done = subprocess.run([program, "show", tmp_path / "x.nwb"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/x.nwb: found no file, expected an NWB file. Next: correct the path\n"
