"""An option that takes one value is given once: a second one is an error, where the parser would keep the last."""

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class OnceCommand(TyperCommand):
    """A command that refuses an option given twice, unless the option takes several values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises typer's usage error, which names the option."""
        _check(self, ctx, args)
        return super().parse_args(ctx, args)


class OnceGroup(TyperGroup):
    """A group of commands that does so for its own options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the command's name. Raises typer's usage error, which names the option."""
        _check(self, ctx, args)
        return super().parse_args(ctx, args)


def refuse_repeated_options(app: typer.Typer) -> None:
    """Make every command of the application, and of its groups, a `OnceCommand`."""
    for command in app.registered_commands:
        command.cls = OnceCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            refuse_repeated_options(group.typer_instance)


def _check(command: TyperCommand | TyperGroup, ctx: Any, args: list[str]) -> None:
    if ctx.resilient_parsing:  # the shell completes a line that is not finished
        return
    _, _, order = command.make_parser(ctx).parse_args(args=list(args))
    for option, times in Counter(order).items():
        if times > 1 and option.param_type_name == "option" and not getattr(option, "multiple", False):
            names = "/".join([*option.opts, *option.secondary_opts])
            ctx.fail(f"{names} is given {times} times: give it once")
