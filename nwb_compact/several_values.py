"""Options of the command line that take several values at once."""

import click


class SeveralValues(click.Command):
    """A command some of whose options take one value or more, up to the next option, as `--train a.nwb b.nwb`.

    They are the `multiple` ones with a metavar such as `FILE ...`; values can also be given one by one.

    Examples
    --------
    >>> option = click.Option(["--train"], multiple=True, metavar="FILE ...")
    >>> SeveralValues("fit", params=[option], callback=lambda train: print(train)).main(["--train", "a", "b"], standalone_mode=False)
    ('a', 'b')
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every further value an option of its own.

        Raises
        ------
        click.UsageError
            If such an option has no value.
        """
        metavars = {name: option.metavar or "" for option in self.params for name in option.opts}
        called = {name: metavar.removesuffix(" ...") for name, metavar in metavars.items() if metavar.endswith(" ...")}
        spread: list[str] = []
        listing = ""
        for place, word in enumerate(args):
            if word in called:
                listing = word
                if place + 1 == len(args) or args[place + 1].startswith("-"):
                    raise click.UsageError(f"{word} needs at least one {called[word]}", ctx)
            elif word.startswith("-"):
                listing = ""
                spread.append(word)
            else:
                spread += [listing, word] if listing else [word]
        return super().parse_args(ctx, spread)
