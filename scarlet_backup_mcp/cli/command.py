"""The commands' class: which options it refuses together, and what its help shows."""

from __future__ import annotations

from typing import Any

import click

from ..errors import ConfigurationError
from ..settings import SERVING

NAMED_IN_HELP = ("dir", "container")
"""The settings that the help of every command names; the others are in the list of settings."""


class Command(click.Command):
    """A command with settings: its help shows its own options, and where the settings are listed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as `click.Command` does; refuse flags that contradict each other, of which click takes the last."""
        if not ctx.resilient_parsing:
            for flags in self._flags().values():
                typed = [word for word in dict.fromkeys(args) if word in flags]
                if len({flags[word] for word in typed}) > 1:
                    raise click.UsageError(f"{' and '.join(typed)} can't be combined.", ctx)
        return super().parse_args(ctx, args)

    def _flags(self) -> dict[str, dict[str, object]]:
        """Return the value that each flag gives, by the name of what it sets."""
        found: dict[str, dict[str, object]] = {}
        for option in self.params:
            if isinstance(option, click.Option) and option.is_flag:
                values = found.setdefault(option.name or "", {})
                values |= dict.fromkeys(option.opts, option.flag_value)
                values |= dict.fromkeys(option.secondary_opts, False)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write its own options, and one line about the settings."""
        options = [it for it in self.get_params(ctx) if isinstance(it, click.Option)]
        own = [record for it in options if not is_setting(it) and (record := it.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(own)
        if settings := sum(map(is_setting, options)):
            named = ", ".join(f"--{name}" for name in NAMED_IN_HELP)
            with formatter.section("Settings"):
                formatter.write_text(
                    f"{named} and {settings - len(NAMED_IN_HELP)} more: see `scarlet-backup-mcp settings`."
                )


def is_setting(parameter: click.Parameter) -> bool:
    """Tell whether a parameter is an option that `settings_options` gives to every command."""
    name = parameter.name or ""
    return name.startswith("setting_") and name.removeprefix("setting_") not in SERVING


class Schedulable(Command):
    """A command whose wrong command line sounds the alarm if a scheduler started it: nobody reads its usage there."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context as `Command` does, and sound the alarm if a scheduled command line is wrong."""
        given = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            extra |= {"resilient_parsing": True, "ignore_unknown_options": True, "allow_extra_args": True}
            found = super().make_context(info_name, given, parent, **extra).params
            if found.get("scheduled"):
                wrong = ConfigurationError(
                    f"The command line of the job {found['scheduled']} is wrong: {error.format_message()}",
                    "`scarlet-backup-mcp schedule --install` writes it again.",
                )
                from .runner import Call

                Call("backup", scheduled=True).sound(wrong, found)
            raise
