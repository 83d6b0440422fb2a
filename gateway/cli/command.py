"""Commands that teach: each help ends with an example that can be typed. And the options that many share."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from inspect import cleandoc
from typing import Any, Final, NoReturn, TypeVar

import click

from gateway.context import Context

from .errors import EXIT_CODES, ExitCode, explain
from .output import print_json

F = TypeVar("F", bound=Callable[..., Any])


def pass_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command what it works with, as its first argument."""
    return click.make_pass_decorator(Context)(function)


class Command(click.Command):
    """A command whose help ends with `example`, verbatim, and lists its options by section."""

    def __init__(self, *args: Any, example: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.example = example

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options, those of a section together."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for name in sorted(sections, key=lambda name: name == "Options"):
            with formatter.section(name):
                formatter.write_dl(sections[name])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the example."""
        write_example(self.example, formatter)


class Group(click.Group):
    """A noun: its verbs are commands."""

    command_class = Command

    def __init__(self, *args: Any, example: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the example."""
        write_example(self.example, formatter)


Group.group_class = Group


class SectionOption(click.Option):
    """An option that the help lists under a heading of its own."""

    def __init__(self, *args: Any, section: str = "Options", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section


def write_example(example: str, formatter: click.HelpFormatter) -> None:
    """Write an example's lines as they are."""
    if example:
        with formatter.section("Example"):
            for line in cleandoc(example).splitlines():
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


class Root(Group):
    """`pushfan` itself: names its commands by purpose, turns every error into words and an exit code."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, click.Command]], **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.sections = sections
        for commands in sections.values():
            for name, command in commands.items():
                self.add_command(command, name)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  Click's
        """List the commands in the order of their sections."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands by section."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, one.get_short_help_str(limit)) for name, one in commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example and the exit codes."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write(f"{' ' * formatter.current_indent}{EXIT_CODES}\n")

    def main(  # type: ignore[override]  # it always ends the process
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line and end the process with its exit code."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(arguments, prog_name or "pushfan", **extra)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  nobody above could do better
            code = report(error, as_json="--json" in arguments)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)


def report(error: BaseException, *, as_json: bool) -> ExitCode:
    """Tell the user about an error on standard error. Returns the exit code."""
    fault = explain(error)
    if as_json:
        print_json(fault.as_json(), err=True)
    elif isinstance(error, click.UsageError):
        error.show()
    else:
        is_colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        click.echo(click.style(fault.as_text(), fg="red") if is_colored else fault.as_text(), err=True)
    if is_debugging():
        traceback.print_exception(error)
    return fault.exit_code


def is_debugging() -> bool:
    """Tell whether the user asked for tracebacks."""
    return os.environ.get("PUSHFAN_LOG_LEVEL") == "debug"


def app_option(*, required: bool = True) -> Callable[[F], F]:
    """Add `--app`."""
    text = "The app." if required else "Only this app's."
    return click.option("--app", "app", required=required, metavar="NAME", help=text)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


_DURATION: Final = re.compile(r"(\d+d)?(\d+h)?(\d+m)?(\d+s?)?")
_SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """A duration such as `90s`, `15m`, `1h30m`, `2d` or plain seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read a duration, or fail with the forms there are."""
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(value)
        if not value or found is None or len(value) > 18:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 1h30m or 2d", param, ctx)
        parts = [part if part[-1] in _SECONDS else f"{part}s" for part in found.groups() if part]
        try:
            return timedelta(seconds=sum(int(part[:-1]) * _SECONDS[part[-1]] for part in parts))
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)


class Pair(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """`KEY=VALUE`; the value may be empty and may contain `=`."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Part key and value."""
        if isinstance(value, tuple):
            return value
        key, separator, rest = value.partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, rest
