"""What the commands share where they speak to the whole fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper

from .. import registry
from ..exceptions import SecretError
from ..fleet.reports import Acks
from ..fleet.sent import Sent
from ..fleet.worker import Worker
from .selection import FAILED, USAGE


def add_fleet(parser: CommandParser, text: str) -> None:
    """Add ``--fleet`` and ``--wait``."""
    parser.add_argument("--fleet", action="store_true", help=text)
    parser.add_argument(
        "--wait",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="With --fleet: how long to wait for the workers (default: %(default)g).",
    )


def the_fleet() -> Worker:
    """Return this process's way to the fleet, or raise :class:`CommandError`."""
    if registry.fleet is None:
        raise CommandError(
            'There is no fleet: write "FLEET" into SECRET_REGISTRY, and see that offline mode is'
            " off.",
            returncode=USAGE,
        )
    return registry.fleet


def ask(call: Callable[[], Any]) -> Any:
    """Return what ``call`` gets from the bus; a bus that cannot answer ends the command."""
    try:
        return call()
    except SecretError as error:
        failure = str(error)
    raise CommandError(failure, returncode=FAILED)


def wait_for_all(sent: Iterable[Sent], seconds: float, err: OutputWrapper) -> Acks:
    """Wait until all workers have applied what was sent; show the count on a terminal."""
    together = Sent.together(sent)
    shown = err.isatty()

    def show(acks: Acks) -> None:
        if shown:
            err.write(f"\r\x1b[K{acks}", style_func=str, ending="")
            err.flush()

    acks: Acks = ask(lambda: together.wait(seconds, on_change=show))
    if shown:
        err.write("\r\x1b[K", style_func=str, ending="")
    return acks


def complete(acks: Acks) -> None:
    """Raise :class:`CommandError` unless every worker has applied it."""
    if acks.applied < acks.total:
        raise CommandError(f"{acks}, {acks.waiting} without an answer.", returncode=FAILED)
