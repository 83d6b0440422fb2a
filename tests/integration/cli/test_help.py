from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields

import click
import pytest

from events import Message
from gateway.cli import cli
from gateway.cli.command import Command, Group
from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import Terminal

HEAVY = ("celery", "kombu", "psycopg", "pydantic", "pycurl", "rich", "httpx", "redis")


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its path, groups included."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))


COMMANDS = dict(walk(cli))
IDS = [" ".join(path) for path in COMMANDS]


@pytest.fixture
def terminal() -> Terminal:
    """Give a terminal without any configuration."""
    return Terminal({})


@pytest.mark.parametrize("path", COMMANDS, ids=IDS)
def test_every_command_teaches_by_an_example_that_fits_it(path: tuple[str, ...]) -> None:
    """An example begins with its own command somewhere, and names only commands and options that there are."""
    command = COMMANDS[path]
    assert isinstance(command, (Command, Group))
    text = command.example.replace("\\\n", " ")
    lines = [shlex.split(re.sub(r"^\S+=\S+ ", "", line.strip())) for line in text.strip().splitlines()]
    assert any(line[1 : len(path) + 1] == list(path) for line in lines)
    for line in lines:
        assert line[0] == "pushfan"
        found = next(COMMANDS[tuple(line[1:end])] for end in (3, 2) if tuple(line[1:end]) in COMMANDS)
        known = {option for parameter in found.params for option in parameter.opts}
        if not found.context_settings.get("ignore_unknown_options"):
            assert {word for word in line if word.startswith("--")} <= known


@pytest.mark.parametrize("path", COMMANDS, ids=IDS)
def test_every_command_has_help_without_configuration(terminal: Terminal, path: tuple[str, ...]) -> None:
    """`--help` says what a command is for and shows its example, and works where nothing is set up."""
    ended = terminal.ok(*path, "--help")
    assert "Example:" in ended.out
    assert COMMANDS[path].help


def test_help_loads_nothing_heavy() -> None:
    """Help is quick because it imports neither Celery nor a database driver."""
    code = (
        "import json, sys\nfrom gateway.cli import cli\n"
        "try: cli.main(['app', 'list', '--help'])\n"
        f"except SystemExit: print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    ended = Terminal({}).process(code=code)
    assert json.loads(ended.out.splitlines()[-1]) == []


def test_command_without_broker_does_not_load_celery(pushfan: Terminal) -> None:
    """A command that only asks the database does not pay for Celery."""
    code = (
        "import json, sys\nfrom gateway.cli import cli\n"
        "try: cli.main(['app', 'list', '--json'])\n"
        "except SystemExit as end: print(json.dumps([end.code, 'celery' in sys.modules]))"
    )
    assert json.loads(pushfan.process(code=code).out.splitlines()[-1]) == [0, False]


def test_exit_codes_are_documented(terminal: Terminal) -> None:
    """The help of `pushfan` names every exit code that a command ends with by itself."""
    told = terminal.ok("--help").out.partition("Exit codes:")[2]
    for code in (code for code in ExitCode if code is not ExitCode.INTERRUPTED):
        assert re.search(rf"\b{int(code)} \w", told)


def test_every_field_of_a_message_has_an_option() -> None:
    """What a backend can say, the command line can say."""
    send = COMMANDS["send",]
    options = {option for parameter in send.params for option in parameter.opts}
    plural = {
        "title_loc_args": "title_loc_arg",
        "body_loc_args": "body_loc_arg",
        "translations": "translation",
    }
    names = {plural.get(field.name, field.name) for field in fields(Message)}
    assert {f"--{name.replace('_', '-')}" for name in names} <= options


def test_unknown_command_and_option_are_usage_errors(terminal: Terminal) -> None:
    """A mistyped command or option ends with 2, and says so in JSON where that was asked for."""
    assert terminal("devices").code == ExitCode.USAGE
    ended = terminal("app", "list", "--bogus", "--json")
    assert (ended.code, ended.error["code"]) == (ExitCode.USAGE, "usage")


def test_version_is_told(terminal: Terminal) -> None:
    """`--version` names program and version."""
    assert re.fullmatch(r"pushfan \d+\.\d+\.\d+\n", terminal.ok("--version").out)
