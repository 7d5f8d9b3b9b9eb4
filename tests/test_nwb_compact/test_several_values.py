import click
import pytest
from click.testing import CliRunner

from nwb_compact.several_values import SeveralValues


@click.command(cls=SeveralValues)
@click.argument("files", nargs=-1)
@click.option("--train", multiple=True, metavar="FILE ...")
@click.option("--filters", multiple=True, type=int, metavar="K ...")
@click.option("--images", multiple=True, metavar="PLACE")
@click.option("--quiet", is_flag=True)
def told(files, train, filters, images, quiet):
    click.echo((files, train, filters, images, quiet))


def run(*words):
    return CliRunner().invoke(told, words)


@pytest.mark.parametrize(("words", "expected"), [
    (("a", "--filters", "5", "10", "--train", "b", "c", "--quiet"), (("a",), ("b", "c"), (5, 10), (), True)),
    (("a", "--filters", "5", "--quiet", "b", "--filters", "10"), (("a", "b"), (), (5, 10), (), True)),
    (("--images", "x", "a", "--images", "y"), (("a",), (), (), ("x", "y"), False)),  # takes one at a time
    (("--filters=5", "a", "--train", "b", "--", "c"), (("a", "c"), ("b",), (5,), (), False)),
    ((), ((), (), (), (), False)),
])
def test_values_belong_to_their_option_up_to_the_next(words, expected):
    assert run(*words).output == f"{expected}\n"


@pytest.mark.parametrize(("words", "message"), [
    (("a", "--train"), "--train needs at least one FILE"), (("--filters", "--quiet"), "--filters needs at least one K"),
    (("--filters", "5", "a"), "Invalid value for '--filters': 'a' is not a valid integer."),
])
def test_an_option_without_a_value_or_with_a_wrong_one_is_wrong_usage(words, message):
    done = run(*words)
    assert (done.exit_code, done.output.splitlines()[-1]) == (2, f"Error: {message}")
