"""`pushfan dead-letter`: what will not move by itself any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from gateway.context import Context

from .command import Duration, Group, SectionOption, json_option, pass_context
from .errors import ExitCode
from .output import note, plural, print_json, print_record, print_rows, record_of
from .send import quiet_logs

if TYPE_CHECKING:
    from registry.dead_letters import Letter, Measured, Wanted

F = TypeVar("F", bound=Callable[..., Any])

_KINDS: Final = ("undecodable", "invalid", "conflict", "poison", "exhausted")
_ID: Final = click.IntRange(1, 2**63 - 1)
_LONGEST_SHOWN: Final = 100
_REPLAY_COLUMNS: Final = ("dead_letter", "kind", "status", "notification", "id", "reason")


@click.group("dead-letter", cls=Group, example="pushfan dead-letter list --kind exhausted")
def group() -> None:
    """Dead letters: what needs a person.

    Of what came in: undecodable (a broker message that is not ours), invalid (an event with problems),
    conflict (an id that was taken in before with other content). Of deliveries: poison (it killed its
    workers), exhausted (it spent all its attempts).
    """


def filter_options(function: F) -> F:
    """Add the options that say which dead letters are meant."""
    for option in reversed(
        (
            _filter("--app", "app", metavar="NAME", help="Only this app's."),
            _filter("--kind", "kind", type=click.Choice(_KINDS), help="Only these."),
            _filter(
                "--notification", "notification", metavar="NOTIFICATION|EVENT-ID", help="Only of this one."
            ),
            _filter("--reason", "reason", metavar="TEXT", help="Only those whose error contains this."),
            _filter("--older-than", "older_than", type=Duration(), help="Only these, such as 2d."),
            _filter("--newer-than", "newer_than", type=Duration(), help="Only these, such as 1h30m."),
        )
    ):
        function = option(function)
    return function


def _filter(name: str, variable: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(name, variable, cls=SectionOption, section="Which", **attributes)


@group.command("list", example="pushfan dead-letter list --app shop --kind invalid --newer-than 1h")
@filter_options
@click.option("--unreplayed", is_flag=True, help="Only those that nobody has replayed.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option("--before", type=_ID, metavar="ID", help="Only older than this one.")
@json_option
@pass_context
def list_page(
    context: Context, *, unreplayed: bool, limit: int, before: int | None, as_json: bool, **filters: Any
) -> None:
    """List dead letters, the newest first."""
    from registry import dead_letters

    def work(connection: Any) -> list[Letter]:
        wanted = _wanted(connection, filters, unreplayed=unreplayed)
        return dead_letters.list_page(connection, wanted, before=before, limit=limit)

    found = context.run(work)
    rows = [describe(letter) for letter in found]
    if not as_json:
        rows = [{**row, "error": _in_a_line(row["error"])} for row in rows]
    columns = ["dead_letter", "app", "kind", "notification", "error", "at", "replayed_as"]
    print_rows(rows, columns=columns, as_json=as_json, empty="no dead letters")
    if len(found) == limit and not as_json:
        note(f"Go on with --before {found[-1].id}")


@group.command("show", example="pushfan dead-letter show 17")
@click.argument("letter", type=_ID, metavar="ID")
@json_option
@pass_context
def show(context: Context, letter: int, *, as_json: bool) -> None:
    """Show one dead letter with what came in."""
    from registry import dead_letters

    found = context.run(lambda connection: dead_letters.find(connection, letter))
    print_record({**describe(found), "body": found.body}, as_json=as_json)
    if not as_json and found.replayed_as is None:
        note(f"Try what a replay would do: pushfan dead-letter replay {found.id} --dry-run")


@group.command(
    "replay",
    example="""
    pushfan dead-letter replay 17 --dry-run
    pushfan dead-letter replay --all --kind exhausted --reason ServiceUnavailable --newer-than 6h
    """,
)
@click.argument("letters", type=_ID, nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that were not replayed, or those chosen below.")
@filter_options
@click.option("--new-id", is_flag=True, help="Give events another id, should theirs be taken.")
@click.option("--dry-run", is_flag=True, help="Say what would come of it, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_context
def replay(
    context: Context,
    letters: tuple[int, ...],
    *,
    everything: bool,
    new_id: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> ExitCode:
    """Take dead letters in as new notifications, each once: repeating it changes nothing.

    A letter about what came in (undecodable, invalid, conflict) is read again, for whatever was corrected
    since: an app added, an override allowed. The event keeps its id if that is free, so that a producer who
    repeated it does not push twice; a conflict gets a new one.

    A letter about a delivery (poison, exhausted) is sent to that letter's device alone. A lifetime (ttl) counts
    anew; what was cancelled, has passed its deadline, or whose device has left is refused.

    Exits with 1 if any letter is refused; it stays, and the others are replayed.
    """
    _choose(letters, filters, everything=everything)
    quiet_logs(as_json=as_json)
    chosen, count = _chosen(context, letters, filters)
    if everything and count and not (dry_run or yes):
        click.confirm(
            f"Replay {plural(count, 'dead letter')}? Pushes cannot be called back.", abort=True, err=True
        )
    done = _replay_all(context, chosen, is_rehearsal=dry_run, has_new_id=new_id)
    return _tell(done, everything=everything, as_json=as_json)


@group.command(
    "drop",
    example="""
    pushfan dead-letter drop 17
    pushfan dead-letter drop --all --kind undecodable --older-than 7d --yes
    """,
)
@click.argument("letters", type=_ID, nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them, or those chosen below.")
@filter_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_context
def drop(
    context: Context, letters: tuple[int, ...], *, everything: bool, yes: bool, as_json: bool, **filters: Any
) -> None:
    """Forget dead letters. There is no way back."""
    from registry import dead_letters

    _choose(letters, filters, everything=everything)
    if letters:
        ids = [letter.id for letter in _found(context, letters)]
        _ask_to_drop(len(ids), yes=yes)
        dropped = context.run(lambda connection: dead_letters.drop(connection, ids))
    else:
        wanted, measured = _measured(context, filters, unreplayed=False)
        _ask_to_drop(measured.letters, yes=yes)
        dropped = dead_letters.drop_all(context.database, wanted, newest=measured.newest)
    print_record({"dropped": dropped}, as_json=as_json)


def _ask_to_drop(count: int, *, yes: bool) -> None:
    if count and not yes:
        click.confirm(f"Drop {plural(count, 'dead letter')}? There is no way back.", abort=True, err=True)


def describe(letter: Letter) -> dict[str, Any]:
    """Return what is told about a dead letter in a list."""
    return {
        "dead_letter": letter.id,
        **record_of(letter, "app"),
        "kind": letter.kind.value,
        "notification": None if letter.notification_id is None else str(letter.notification_id),
        "device": letter.device_id,
        **record_of(letter, "error", "at"),
        "replayed_as": None if letter.replayed_as is None else str(letter.replayed_as),
    }


def _wanted(connection: Any, filters: Mapping[str, Any], *, unreplayed: bool) -> Wanted:
    """Read the filters. What they name must be there."""
    from registry import apps, dead_letters, notifications

    app, kind, notification = filters["app"], filters["kind"], filters["notification"]
    if app is not None:
        apps.get(connection, app)
    found = None if notification is None else notifications.find(connection, notification, app=app).id
    ages: dict[str, timedelta | None] = {name: filters[name] for name in ("older_than", "newer_than")}
    return dead_letters.Wanted(
        app=app,
        kind=None if kind is None else dead_letters.Kind(kind),
        notification_id=found,
        reason=filters["reason"],
        unreplayed=unreplayed,
        **ages,
    )


def _choose(letters: Sequence[int], filters: Mapping[str, Any], *, everything: bool) -> None:
    """Refuse a command line that leaves open which letters are meant."""
    if bool(letters) == everything:
        raise click.UsageError("name dead letters by their ids, or give --all")
    if letters and any(value is not None for value in filters.values()):
        raise click.UsageError("filters go with --all: name dead letters by their ids alone")


def _chosen(
    context: Context, letters: Sequence[int], filters: Mapping[str, Any]
) -> tuple[Iterable[Letter], int]:
    """Choose letters to replay: those named, or those that fit and were not replayed. And how many they are."""
    from registry import dead_letters

    if letters:
        found = list(_found(context, letters))
        return found, len(found)
    wanted, measured = _measured(context, filters, unreplayed=True)
    return dead_letters.walk(context.database, wanted, newest=measured.newest), measured.letters


def _found(context: Context, letters: Sequence[int]) -> Iterator[Letter]:
    """Find letters by their ids, all of which must be there."""
    from registry import dead_letters

    for letter in dict.fromkeys(letters):
        yield context.run(lambda connection, letter=letter: dead_letters.find(connection, letter))  # type: ignore[misc]


def _measured(context: Context, filters: Mapping[str, Any], *, unreplayed: bool) -> tuple[Wanted, Measured]:
    from registry import dead_letters

    def work(connection: Any) -> tuple[Wanted, Measured]:
        wanted = _wanted(connection, filters, unreplayed=unreplayed)
        return wanted, dead_letters.measure(connection, wanted)

    return context.run(work)


def _replay_all(
    context: Context, letters: Iterable[Letter], *, is_rehearsal: bool, has_new_id: bool
) -> Iterator[dict[str, Any]]:
    """Replay letters one by one. Yields what became of each."""
    from workers.replay import NotReplayable, replay

    for letter in letters:
        row = {"dead_letter": letter.id, "kind": letter.kind.value}
        try:
            done = replay(context.door, letter, is_rehearsal=is_rehearsal, has_new_id=has_new_id)
        except NotReplayable as error:
            yield {**row, "status": "refused", "notification": None, "id": None, "reason": str(error)}
            continue
        fresh = "would be replayed" if is_rehearsal else "replayed"
        named = [] if is_rehearsal and done.is_new else [str(number) for number in done.notification_ids]
        yield {
            **row,
            "status": fresh if done.is_new else "replayed before",
            "notification": ", ".join(named) or None,
            "id": ", ".join(event.id for event in done.events) or None,
            "reason": None,
        }


def _tell(rows: Iterator[dict[str, Any]], *, everything: bool, as_json: bool) -> ExitCode:
    """Print what became of letters. Of very many a person reads those that were refused, and a count."""
    counts: dict[str, int] = {}
    told = []
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
        if as_json:
            print_json(row)
        elif not everything or row["status"] == "refused":
            told.append(row)
    if not as_json and (told or not counts):
        print_rows(told, columns=_REPLAY_COLUMNS, as_json=False, empty="no dead letters to replay")
    if everything and not as_json and counts:
        click.echo(", ".join(f"{count:,} {status}" for status, count in counts.items()))
    return ExitCode.REFUSED if counts.get("refused") else ExitCode.OK


def _in_a_line(error: str) -> str:
    """Shorten an error for a table; `show` has the whole."""
    line = "; ".join(error.splitlines())
    return line if len(line) <= _LONGEST_SHOWN else f"{line[: _LONGEST_SHOWN - 1]}…"
