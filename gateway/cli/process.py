"""Commands that run something for long: thin, since what they run is a room of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from gateway.context import Context

from .command import Command, json_option, pass_context
from .output import note

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True)
_LANES: Final = ("urgent", "normal", "bulk")
# What follows the first word belongs to another program, its --help too.
_VERBATIM: Final = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("up", cls=Command, example="pushfan up --simulate")
@click.option(
    "--persist", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Keep the data here."
)
@click.option("--simulate", is_flag=True, help="Start simulators of the providers, too.")
def up(*, persist: Path | None, simulate: bool) -> int:
    """Run everything here, until Ctrl-C.

    That is a database, a broker, workers, the HTTP API and Flower.

    PUSHFAN_DATABASE_URL and PUSHFAN_BROKER_URL put servers of yours in the place of the built-in ones.
    """
    from gateway import up as stack
    from workers.settings import load_settings

    # The environment's alone: the context's may be those of a stack that runs already.
    return stack.run(load_settings(), persist=persist, simulate=simulate)


@click.command("worker", cls=Command, example="pushfan worker --lane normal --lane bulk --processes 2")
@click.option(
    "--lane",
    "lanes",
    multiple=True,
    type=click.Choice(_LANES),
    help="Can be repeated; all without it. Workers for urgent also take events in from the broker.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 512),
    help="How many. Without it six for each CPU up to twelve, at least three: a channel may hold a third.",
)
@click.option("--name", help="What Flower and `pushfan doctor` call it; its lanes without it.")
@click.option(
    "--pool", type=click.Choice(("prefork", "threads", "solo")), default="prefork", show_default=True
)
@pass_context
def worker(
    context: Context, *, lanes: tuple[str, ...], processes: int | None, name: str | None, pool: str
) -> int:
    """Run one worker, which delivers, until SIGTERM. Give urgent a worker of its own."""
    from gateway import worker as one

    return one.run(context.settings, lanes=lanes or _LANES, processes=processes, name=name, pool=pool)


@click.command(
    "api",
    cls=Command,
    example="pushfan api --host 0.0.0.0 --port 8443 --tls-certificate chain.pem --tls-key key.pem",
)
@click.option("--host", metavar="ADDRESS", help="Where to listen; PUSHFAN_API_HOST without it.")
@click.option("--port", type=click.IntRange(1, 65_535), help="PUSHFAN_API_PORT, or 8480, without it.")
@click.option("--tls-certificate", type=_FILE, metavar="PEM", help="The server's certificate and its chain.")
@click.option("--tls-key", type=_FILE, metavar="PEM", help="Its private key.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="How many.")
@pass_context
def api(
    context: Context,
    *,
    host: str | None,
    port: int | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    processes: int,
) -> int:
    """Serve the HTTP API until SIGTERM. Make a key with `pushfan key create`."""
    from gateway.http import server

    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key belong together")
    settings = context.settings
    listening = server.Listening(
        host=host or settings.api_host,
        port=port or settings.api_port or server.PORT,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        processes=processes,
    )
    return server.run(settings, listening)


@click.command("demo", cls=Command, example="pushfan demo --users 20000 --calm")
@click.option("--users", type=click.IntRange(1), help="How many users; each has 1 to 4 devices.")
@click.option(
    "--chunk-size",
    type=click.IntRange(1, 10_000),
    help="Deliveries in a Celery task; 1 is a task for each device.",
)
@click.option("--calm", is_flag=True, help="Leave the attacks out.")
@click.option("--keep", is_flag=True, help="Go on running afterwards, to look around.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides who fails, and how.")
@json_option
def demo(
    *, users: int | None, chunk_size: int | None, calm: bool, keep: bool, seed: int, as_json: bool
) -> int:
    """Fan out to simulated devices, attack it, account for each.

    Registers users with devices over all three providers, publishes every kind of event, lets providers fail as the
    seed says. Then a worker is killed, the broker emptied and the APNs credential revoked, all in mid-broadcast. At
    the end what was recorded is compared with what the simulators received. It fails if a promise was broken.
    """
    from gateway import demo as show

    return show.run(users=users, chunk_size=chunk_size, calm=calm, keep=keep, as_json=as_json, seed=seed)


@click.command(
    "simulate",
    cls=Command,
    context_settings=_VERBATIM,
    example="pushfan simulate fcm --port 9443 --latency-ms 30 --state-dir /tmp/fcm",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="fcm|apns|jpush [OPTIONS]")
@pass_context
def simulate(context: Context, arguments: tuple[str, ...]) -> int:
    """Run a simulator of a provider until Ctrl-C.

    It checks what the provider checks, and misbehaves when told to.

    Without --state-dir its credentials, certificates and receipts go to simulators/ in PUSHFAN_HOME. For all
    options: pushfan simulate fcm --help
    """
    from providers.simulators.process import main

    given = list(arguments)
    if not any(argument.startswith(("--state-dir", "-h", "--help")) for argument in given):
        given += ["--state-dir", str(context.settings.home / "simulators")]
    return main(given)


@click.command("celery", cls=Command, context_settings=_VERBATIM, example="pushfan celery inspect active")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [OPTIONS]")
@pass_context
def celery(context: Context, arguments: tuple[str, ...]) -> None:
    """Run a command of Celery; without any, list them.

    It works on Pushfan's application and broker.

    Start workers with `pushfan worker`: `pushfan celery worker` does not know the lanes.
    """
    from celery.bin.celery import celery as command

    from workers.app import create_app

    app = create_app(context.settings)
    app.set_default()
    app.set_current()
    if arguments[:1] == ("worker",):
        note("`pushfan worker` chooses queues and pool; this is plain Celery")
    command.main(list(arguments), prog_name="pushfan celery", auto_envvar_prefix="CELERY")
