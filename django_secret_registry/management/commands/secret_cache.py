"""``manage.py secret_cache list|refresh|evict``: what the admin pages do, in a terminal."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import audit, registry
from ...exceptions import SecretError
from ...fleet import overview
from ...fleet.sent import Sent
from ...lifecycle import Cell, SecretInfo, status_of
from ...references import NO_REGION
from ..fleet import add_fleet, ask, complete, the_fleet, wait_for_all
from ..output import ProgressBar, add_format, printable, write_json, write_table
from ..selection import FAILED, USAGE, Located, add_selection, check_selection, locate

STATES = ("absent", "loading", "fresh", "due", "stale", "expired", "refused")

#: Who evicted, in the words of the list.
BY = "manage.py secret_cache"


class Done(NamedTuple):
    """What an action did with one secret; ``error`` is empty unless it failed."""

    info: SecretInfo
    outcome: str
    error: str = ""


class Command(BaseCommand):
    help = (
        "Lists, refreshes or evicts cached secrets. A command has a process and so a cache of its"
        " own: without --fleet this shows and changes nothing in running workers."
    )
    # An operator needs it most where checks fail; and none may read a secret before it.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for action, text in (
            ("list", "Show what is held, and what settings and SECRETS name; never a value."),
            ("refresh", "Fetch now; a held value stays until the new one is there."),
            ("evict", "Forget now; the next reader fetches."),
        ):
            sub = actions.add_parser(action, help=text, description=f"{text} {self.help}")
            add_selection(sub)
            sub.add_argument("--region", default="", help="Only this region's; '-': those of none.")
            sub.add_argument(
                "--state",
                action="append",
                default=[],
                choices=STATES,
                dest="states",
                help="Only those in this state; may be given several times.",
            )
            add_format(sub)
            add_fleet(sub, "Of all running workers, by the bus of FLEET.")
            if action != "list":
                sub.add_argument("--all", action="store_true", help=f"{action.title()} everything.")
            if action == "evict":
                sub.add_argument(
                    "--no-input",
                    "--noinput",
                    action="store_false",
                    dest="interactive",
                    help="Do not ask before everything is evicted.",
                )

    def handle(self, *args: Any, **options: Any) -> None:
        action, references, providers = (
            options[name] for name in ("action", "references", "providers")
        )
        check_selection(references, providers)
        if options["fleet"]:
            the_fleet()
            if options["states"]:
                raise CommandError(
                    "--state is this process's own: not --fleet's.", returncode=USAGE
                )
        narrowed = bool(references or providers or options["region"] or options["states"])
        if action != "list" and narrowed == options["all"]:
            raise CommandError(
                f"Say what to {action}: references, --provider, --region or --state; or --all.",
                returncode=USAGE,
            )
        located = locate(references, providers)
        infos = [info for info in _find(located, references) if _chosen(info, options)]
        # A reference that leads nowhere has no region and no state.
        broken = (
            [] if options["region"] or options["states"] else [one for one in located if one.error]
        )
        if options["fleet"]:
            self._fleet(action, infos, options)
            return
        if action == "list":
            self._write_list(infos, broken, options)
            return
        done = self._refresh(infos) if action == "refresh" else self._evict(infos, options)
        self._write_done(done, broken if action == "refresh" else [], options)

    def _refresh(self, infos: Sequence[SecretInfo]) -> list[Done]:
        done = []
        with ProgressBar(self.stderr, len(infos)) as bar:
            for info in infos:
                try:
                    registry.refresh(info.reference)
                except SecretError as error:
                    done.append(Done(info, status_of(error), str(error)))
                else:
                    done.append(Done(info, "ok"))
                _audit("refresh", info.reference, done[-1].outcome)
                bar.advance()
        return done

    def _evict(self, infos: Sequence[SecretInfo], options: Mapping[str, Any]) -> list[Done]:
        if options["all"]:
            self._confirm(options)
            registry.evict(all=True, by=BY)
            _audit("evict", "*")
        elif options["references"] or options["states"] or not options["providers"]:
            for info in infos:
                registry.evict(info.reference, by=BY)
        else:  # whole aliases: their clients go too
            for alias in options["providers"]:
                registry.evict(provider=alias, region=options["region"] or None, by=BY)
                _audit("evict", f"{alias}@{options['region'] or '*'}")
        for info in infos:
            _audit("evict", info.reference)
        return [Done(info, "absent" if info.state == "absent" else "evicted") for info in infos]

    def _fleet(self, action: str, infos: Sequence[SecretInfo], options: Mapping[str, Any]) -> None:
        if action == "list":
            chosen = None if _is_all(options) else {info.reference for info in infos}
            self._write_fleet(chosen, options)
            return
        if options["all"] and action == "evict":
            self._confirm(options)
        sent = ask(lambda: [*self._tell(action, infos, options)])
        for info in infos:
            _audit(action, info.reference, outcome="sent")
        if not sent:
            raise CommandError("There is nothing to tell the fleet of.", returncode=FAILED)
        acks = wait_for_all(sent, options["wait"], self.stderr)
        if options["format"] == "json":
            secrets = [info.reference for info in infos]
            write_json(self.stdout, {"secrets": secrets, "fleet": acks._asdict()})
        else:
            self.stdout.write(f"{action}: {acks}.")
        complete(acks)

    def _tell(
        self, action: str, infos: Sequence[SecretInfo], options: Mapping[str, Any]
    ) -> Iterator[Sent]:
        fleet, whole = the_fleet(), action == "evict" and not options["references"]
        if whole and options["all"]:
            yield fleet.tell("evict")
        elif whole and options["providers"]:
            for alias in options["providers"]:
                yield fleet.tell("evict", provider=alias, region=options["region"] or None)
        else:
            for info in infos:
                yield fleet.tell(action, info.reference)

    def _write_fleet(self, chosen: Container[str] | None, options: Mapping[str, Any]) -> None:
        workers = ask(the_fleet().workers)
        found = overview.secrets(workers, time.time())
        shown = [one for one in found.values() if chosen is None or one.reference in chosen]
        if options["format"] == "json":
            secrets = [
                {
                    **one._asdict(),
                    "versions": [
                        {"version": version, "workers": count}
                        for version, count in one.versions.items()
                    ],
                    "differs": one.differs,
                }
                for one in shown
            ]
            blind = sum(worker.blind for worker in workers)
            write_json(self.stdout, {"workers": len(workers), "blind": blind, "secrets": secrets})
            return
        write_table(
            self.stdout,
            ("REFERENCE", "HELD BY", "VERSIONS", "STALE", "BLIND"),
            (
                (
                    one.reference,
                    f"{one.held} of {one.of}",
                    f"{one}{' (they differ)' if one.differs else ''}",
                    str(one.stale),
                    str(one.blind),
                )
                for one in shown
            ),
        )
        blind = sum(worker.blind for worker in workers)
        self.stdout.write(f"{len(workers)} workers, {blind} blind.")

    def _confirm(self, options: Mapping[str, Any]) -> None:
        if not options["interactive"]:
            return
        # Asked on standard error: standard output is for what --format says.
        self.stderr.write("Evict every secret and every client? [y/N] ", str, ending="")
        self.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was evicted. Use --no-input where nobody can answer.")

    def _write_list(
        self, infos: Sequence[SecretInfo], broken: Sequence[Located], options: Mapping[str, Any]
    ) -> None:
        if options["format"] == "json":
            self._write_json([_document(info) for info in infos], broken)
            return
        write_table(
            self.stdout,
            ("REFERENCE", "PROVIDER", "REGION", "VERSION", "STATE", "AGE", "DUE IN", "HITS"),
            (
                (
                    info.reference,
                    info.provider,
                    info.region or NO_REGION,
                    info.version or "-",
                    info.state,
                    _seconds(info.age),
                    _seconds(info.due_in),
                    str(info.hits),
                )
                for info in infos
            ),
        )
        self._write_errors([info.last_error for info in infos], broken)

    def _write_done(
        self, done: Sequence[Done], broken: Sequence[Located], options: Mapping[str, Any]
    ) -> None:
        if options["format"] == "json":
            secrets = [
                {
                    "reference": info.reference,
                    "provider": info.provider,
                    "region": info.region,
                    "outcome": outcome,
                    "error": error,
                }
                for info, outcome, error in done
            ]
            self._write_json(secrets, broken)
        else:
            write_table(
                self.stdout,
                ("REFERENCE", "PROVIDER", "REGION", "OUTCOME"),
                (
                    (info.reference, info.provider, info.region or NO_REGION, outcome)
                    for info, outcome, _ in done
                ),
            )
            self._write_errors([one.error for one in done], broken)
            self.stdout.write(f"Only in process {os.getpid()} on {socket.gethostname()}.")
        failed = sum(bool(one.error) for one in done) + len(broken)
        if failed:
            raise CommandError(f"{failed} of {len(done) + len(broken)} failed.", returncode=FAILED)

    def _write_json(self, secrets: list[dict[str, Any]], broken: Sequence[Located]) -> None:
        document = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "secrets": secrets,
            "broken": [{"where": one.where, "error": str(one.error)} for one in broken],
        }
        write_json(self.stdout, document)

    def _write_errors(self, errors: Sequence[str], broken: Sequence[Located]) -> None:
        for error in [*errors, *(f"{one.where}: {one.error}" for one in broken)]:
            if error:
                self.stdout.write(self.style.ERROR(printable(error)))


def _find(located: Sequence[Located], references: Sequence[str]) -> list[SecretInfo]:
    """Return what is held or named by settings and ``SECRETS``; or only what ``references`` name.

    As in an eviction, a reference without version or stage names all of them.
    """
    known = registry.snapshot().secrets
    if not references:
        return list(known)
    asks = {part.ask.key: part.ask for one in located for part in one.parts}
    new = asks.keys() - {info.key for info in known}
    return [
        *(info for info in known if any(map(info.key.within, asks))),
        *(Cell(key, asks[key].ref, jitter=1.0).info(0.0, 0.0) for key in sorted(new)),
    ]


def _chosen(info: SecretInfo, options: Mapping[str, Any]) -> bool:
    return (
        (not options["providers"] or info.provider in options["providers"])
        and options["region"] in ("", info.region or NO_REGION)
        and (not options["states"] or info.state in options["states"])
    )


def _is_all(options: Mapping[str, Any]) -> bool:
    return not (options["references"] or options["providers"] or options["region"])


def _audit(action: str, reference: str, outcome: str = "ok") -> None:
    """Write a line of the audit log; the user is the one whose process this is."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name  # unlike $LOGNAME nobody can choose it
    except KeyError:  # as in many a container
        user = str(uid)
    audit.record(user=user, action=action, reference=reference, outcome=outcome)


def _seconds(span: float | None) -> str:
    return "-" if span is None else f"{span:.0f} s"


def _document(info: SecretInfo) -> dict[str, Any]:
    facts = {
        name: getattr(info, name)
        for name in (
            "reference", "provider", "region", "version", "state", "age", "ttl", "due_in",
            "ends_in", "stale_for", "fetched_at", "expires_at", "retry_in", "hits", "attempts",
            "last_status", "last_error", "evicted_at", "evicted_by", "used_by",
        )
    }  # fmt: skip
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in facts.items()
    }
