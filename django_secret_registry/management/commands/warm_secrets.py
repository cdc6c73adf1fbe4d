"""``manage.py warm_secrets``: can this project read every secret that it names, and how fast?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import registry
from ...fleet.reports import WorkerInfo
from ...fleet.sent import Sent
from ...fleet.worker import Worker
from ...lifecycle import status_of
from ...references import NO_REGION
from ...warming import AT_ONCE, WarmResult
from ..fleet import add_fleet, ask, the_fleet, wait_for_all
from ..output import ProgressBar, add_format, positive, printable, write_json, write_table
from ..selection import FAILED, USAGE, Located, add_selection, check_selection, locate


class Command(BaseCommand):
    help = (
        "Fetches every secret that settings and SECRETS name, or those given, and says how each"
        " went. No value is shown. Exit code 1: one could not be read; 2: wrong usage."
    )
    # The command is for finding out what is wrong: no check stands in its way or reads a secret.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        add_selection(parser)
        add_format(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="Only list what would be fetched."
        )
        parser.add_argument(
            "--jobs",
            type=positive,
            default=AT_ONCE,
            metavar="N",
            help="How many requests run at once, over all providers and regions"
            " (default: %(default)s).",
        )
        parser.add_argument(
            "--fail-fast", action="store_true", help="Begin nothing new after the first failure."
        )

        add_fleet(parser, "Have all running workers do it, by the bus of FLEET, and wait for them.")

    def handle(self, *args: Any, **options: Any) -> None:
        check_selection(options["references"], options["providers"])
        if options["fleet"]:
            self._fleet(options)
            return
        located = locate(options["references"], options["providers"])
        results = [result for one in located for result in _planned(one)]
        broken = [result for result in results if result.error]
        if not options["dry_run"]:
            results = broken
            if not (broken and options["fail_fast"]):
                results = broken + self._warm(located, options)
        if options["format"] == "json":
            self._write_json(results)
        else:
            self._write_table(results)
        failed = len(broken) if options["dry_run"] else sum(r.failed for r in results)
        if failed:
            raise CommandError(f"{failed} of {len(results)} failed.", returncode=FAILED)

    def _fleet(self, options: Mapping[str, Any]) -> None:
        """Have each worker fetch what its own settings name, and say how many it could."""
        fleet, deadline = the_fleet(), time.monotonic() + options["wait"]
        if options["dry_run"]:
            raise CommandError("--dry-run is this process's own: not --fleet's.", returncode=USAGE)
        sent = ask(lambda: [*_tell(fleet, options)])
        acks = wait_for_all(sent, options["wait"], self.stderr)
        nonces = Sent.together(sent).nonces
        while True:
            workers = ask(lambda: fleet.workers(heads=True))
            answered = [one for one in workers if all(nonce in one.answers for nonce in nonces)]
            late = len(workers) - len(answered) - acks.blind
            if late <= 0 or time.monotonic() >= deadline:
                break
            time.sleep(0.2)
        rows = [
            (one, *(sum(column) for column in zip(*map(one.answers.get, nonces), strict=True)))
            for one in answered
        ]
        self._write_workers(rows, len(workers), options)
        failed = sum(row[2] for row in rows)
        if failed or len(rows) < len(workers):
            raise CommandError(
                f"{failed} failed; {len(workers) - len(rows)} of {len(workers)} workers gave no"
                " answer.",
                returncode=FAILED,
            )

    def _write_workers(
        self, rows: Sequence[tuple[WorkerInfo, int, int]], total: int, options: Mapping[str, Any]
    ) -> None:
        if options["format"] == "json":
            workers = [
                {"host": one.host, "pid": one.pid, "ok": ok, "failed": failed}
                for one, ok, failed in rows
            ]
            write_json(self.stdout, {"total": total, "workers": workers})
            return
        write_table(
            self.stdout,
            ("HOST", "PID", "KIND", "OK", "FAILED"),
            ((one.host, str(one.pid), one.kind, str(ok), str(bad)) for one, ok, bad in rows),
        )
        self.stdout.write(f"{len(rows)} of {total} workers answered.")

    def _warm(self, located: Sequence[Located], options: dict[str, Any]) -> list[WarmResult]:
        with ProgressBar(self.stderr, sum(len(one.parts) for one in located)) as bar:
            return registry.warm(
                [one.text for one in located if one.parts],
                max_workers=options["jobs"],
                providers=options["providers"] or None,
                fail_fast=options["fail_fast"],
                on_result=bar.advance,
            )

    def _write_json(self, results: Sequence[WarmResult]) -> None:
        secrets = [
            {
                "reference": result.reference,
                "provider": result.provider,
                "region": result.region,
                "version": result.version,
                "milliseconds": round(result.seconds * 1000, 1),
                "outcome": result.outcome,
                "error": result.error,
            }
            for result in results
        ]
        write_json(self.stdout, {"secrets": secrets})

    def _write_table(self, results: Sequence[WarmResult]) -> None:
        write_table(
            self.stdout,
            ("REFERENCE", "PROVIDER", "REGION", "VERSION", "MS", "OUTCOME"),
            (
                (
                    result.reference,
                    result.provider or "?",
                    result.region or NO_REGION,
                    result.version or "-",
                    f"{result.seconds * 1000:.1f}",
                    result.outcome,
                )
                for result in results
            ),
        )
        for result in results:
            if result.error:
                self.stdout.write(self.style.ERROR(printable(result.error)))


def _tell(fleet: Worker, options: Mapping[str, Any]) -> Iterator[Sent]:
    for reference in options["references"]:
        yield fleet.tell("warm", reference)
    for alias in () if options["references"] else options["providers"]:
        yield fleet.tell("warm", provider=alias)
    if not options["references"] and not options["providers"]:
        yield fleet.tell("warm")


def _planned(one: Located) -> list[WarmResult]:
    """Return what can be said without a fetch: an error, or what would be fetched."""
    if one.error is not None:
        error = one.error
        reference, outcome = error.reference or one.where, status_of(error)
        return [WarmResult(reference, error.provider, error.region, None, 0.0, outcome, str(error))]
    return [
        WarmResult(str(part.ref), part.ask.key.alias, part.ask.key.region, None, 0.0, "planned")
        for part in one.parts
    ]
