"""``python -m django_secret_registry explain REF``: what a reference means in this project.

Settings come from ``DJANGO_SETTINGS_MODULE``, as for ``django-admin``. Without ``--fetch`` they are
loaded and Django is not set up: no app is imported, so none can have a secret fetched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import django
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, handle_default_options

from . import __version__, registry
from .conf import load
from .containers import raw
from .discovery import markers, references
from .exceptions import SecretError
from .explaining import PERMITTED, Explained, Explainer
from .lifecycle import CachePolicy, status_of
from .management.output import printable
from .management.selection import FAILED, USAGE, problem_of
from .references import NO_REGION, SecretRef
from .residency import Residency
from .specs import RegistryConfig


class Fetched(NamedTuple):
    """What came of a fetch. ``age`` in seconds, ``expires_at`` in POSIX seconds."""

    outcome: str
    version: str | None = None
    age: float | None = None
    expires_at: float | None = None
    error: str = ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End without repeating what was typed: it may be a secret that was pasted by mistake."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: the arguments are not understood; see --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. 1: refused, or not fetched; 2: wrong usage."""
    options = _parser().parse_args(arguments)
    handle_default_options(options)
    try:
        secrets = _explain(options.reference)
    except CommandError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        return error.returncode
    fetched: Sequence[Fetched | None] = [None] * len(secrets)
    if options.fetch:
        if not apps.ready:
            django.setup()
        fetched = [_fetch(one) for one in secrets]
    answers = list(zip(secrets, fetched, strict=True))
    config = load()
    if options.format == "json":
        print(json.dumps(_document(options.reference, answers, config), indent=2))  # noqa: T201
    else:
        for line in _lines(options.reference, answers, config):
            print(printable(line))  # noqa: T201
    failed = any(_outcome(*answer) not in (PERMITTED, "ok") for answer in answers)
    return FAILED if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m django_secret_registry", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Say what a reference means, and which provider, region and policy would serve it."
    codes = "Exit code 1: it is refused, or could not be fetched; 2: wrong usage."
    explain = actions.add_parser(
        "explain", help=text, description=f"{text} {codes}", allow_abbrev=False
    )
    explain.add_argument(
        "reference", metavar="REF", help="A reference, or the name of an entry of SECRETS."
    )
    explain.add_argument(
        "--fetch",
        action="store_true",
        help="Fetch it too, and show version, age and end; never the value.",
    )
    explain.add_argument("--format", choices=("text", "json"), default="text")
    explain.add_argument("--settings", help="Instead of DJANGO_SETTINGS_MODULE.")
    explain.add_argument("--pythonpath", help="A directory to add to the Python path.")
    return parser


def _explain(text: str) -> list[Explained]:
    """Return what ``text`` leads to; :class:`CommandError` for one that leads nowhere."""
    if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        raise CommandError("set DJANGO_SETTINGS_MODULE, or give --settings", returncode=USAGE)
    missing = ""
    try:
        settings.INSTALLED_APPS  # noqa: B018 - loads them
    except ModuleNotFoundError as exc:
        missing = f"settings cannot be loaded: there is no module {exc.name!r}"
    except (ImproperlyConfigured, SecretError) as exc:
        missing = str(exc)
    if missing:
        raise CommandError(missing, returncode=USAGE)
    config = load()
    problem = problem_of(text, config)
    if problem:
        raise CommandError(problem, returncode=USAGE)
    return Explainer(_without_secrets(config), references()).explain(text)


def _without_secrets(config: RegistryConfig) -> RegistryConfig:
    """Leave out OPTIONS that hold a secret: a backend that looks at one would have it fetched."""
    literal = {
        alias: spec._replace(
            options={name: value for name, value in raw(spec.options).items() if not markers(value)}
        )
        for alias, spec in config.providers.items()
    }
    return config._replace(providers=literal)


def _fetch(one: Explained) -> Fetched:
    if one.outcome != PERMITTED:
        return Fetched(one.outcome, error=one.error)
    try:
        value = registry.fetch(one.ref, region=one.region or NO_REGION)
    except SecretError as error:
        return Fetched(status_of(error), error=str(error))
    age = None if value.fetched_at is None else round(time.time() - value.fetched_at, 3)
    return Fetched("ok", value.version, age, value.expires_at)


def _outcome(one: Explained, fetched: Fetched | None) -> str:
    return one.outcome if fetched is None else fetched.outcome


# -- writing -------------------------------------------------------------------------------------

Answers = Sequence[tuple[Explained, Fetched | None]]


def _parts(ref: SecretRef) -> dict[str, Any]:
    """Return the parts of a reference under the names that they have in its text."""
    return {
        "scheme": ref.scheme,
        "name": ref.name,
        "region": ref.region,
        "project": ref.project,
        "version": ref.version,
        "stage": ref.stage,
        "ttl": ref.ttl,
        "as": ref.as_,
        "trim": ref.trim,
        "key": ref.key,
    }


def _document(text: str, answers: Answers, config: RegistryConfig) -> dict[str, Any]:
    ref = SecretRef.parse(text)
    return {
        "reference": str(ref),
        "entry": ref.name if ref.is_entry else None,
        "offline": config.offline,
        "secrets": [_secret(one, fetched) for one, fetched in answers],
    }


def _secret(one: Explained, fetched: Fetched | None) -> dict[str, Any]:
    return {
        "member": one.member or None,
        "reference": str(one.ref),
        "parts": _parts(one.ref),
        "provider": one.ref.scheme,
        "backend": one.backend,
        "region": one.region,
        "region_from": one.region_from,
        "asked": one.asked,
        "ttl": one.ttl,
        "fences": one.fence._asdict(),
        "residency": [
            {**policy._asdict(), "decision": decision} for policy, decision in one.residencies
        ],
        "handed_on_to": list(one.handed_on_to),
        "named_by": list(one.named_by),
        "outcome": one.outcome,
        "error": one.error,
        "fetched": None if fetched is None else fetched._asdict(),
    }


def _lines(text: str, answers: Answers, config: RegistryConfig) -> Iterator[str]:
    ref = SecretRef.parse(text)
    entry = config.entries.get(ref.name) if ref.is_entry else None
    if entry is not None:
        rendered = "may be rendered in templates" if entry.templates else "not for templates"
        yield f"{ref}: an entry of SECRETS, {rendered}"
    else:
        yield f"{ref}: a reference"
    if config.offline:
        yield "Offline mode is on: nothing is fetched in this process."
    for one, fetched in answers:
        yield ""
        for name, shown in _facts(one, fetched, config.cache).items():
            if shown:
                yield f"  {name:<13} {shown}"


def _facts(one: Explained, fetched: Fetched | None, cache: CachePolicy) -> Mapping[str, str]:
    known = {name: part for name, part in _parts(one.ref).items() if part and name != "scheme"}
    if known["as"] == "str":
        del known["as"]
    facts = {
        "member": one.member,
        "reference": str(one.ref),
        "parts": ", ".join(f"{name} {part}" for name, part in known.items()),
        "provider": f"{one.ref.scheme} ({one.backend})" if one.ref.scheme else "",
        "fences": _fences(one),
        "error": one.error,
        "outcome": one.outcome,
    }
    if one.asked:
        source = f"of {one.region_from}" if one.region_from else "nobody names one"
        facts["region"] = f"{one.region or NO_REGION} ({source})"
        facts["asked for"] = one.asked
        facts["handed on to"] = ", ".join(one.handed_on_to)
        facts["residency"] = "; ".join(_policy(*decided) for decided in one.residencies) or "none"
        facts["TTL"] = _life(one.ttl or cache.ttl, cache)
        facts["named by"] = ", ".join(one.named_by) or "neither settings nor SECRETS"
    if fetched is None and one.outcome == PERMITTED:
        facts["outcome"] += "; nothing was fetched (--fetch does)"
    if fetched is not None:
        facts["error"], facts["outcome"] = fetched.error, fetched.outcome
        if fetched.outcome == "ok":
            facts["version"] = fetched.version or "the backend has none"
            facts["age"] = f"{fetched.age or 0.0:g} s"
            facts["expires at"] = _moment(fetched.expires_at)
    order = (
        "member", "reference", "parts", "provider", "region", "asked for", "handed on to",
        "fences", "residency", "TTL", "named by", "version", "age", "expires at", "outcome",
        "error",
    )  # fmt: skip
    return {name: facts.get(name, "") for name in order}


def _fences(one: Explained) -> str:
    limits = {
        "names": one.fence.allow,
        "regions": one.fence.regions,
        "projects": one.fence.projects,
    }
    told = [
        f"{what} {', '.join(item or NO_REGION for item in limit) or 'none at all'}"
        for what, limit in limits.items()
        if limit is not None
    ]
    return "; ".join(told) or "none"


def _policy(policy: Residency, decision: str) -> str:
    regions = dict.fromkeys((policy.region or NO_REGION, *policy.allowed_regions))
    return f"{policy.policy}, for processes in {', '.join(regions)}: {decision}"


def _life(ttl: float, cache: CachePolicy) -> str:
    return (
        f"{ttl:g} s (±{cache.jitter:.0%}); refreshed in the background from"
        f" {ttl * cache.refresh_ahead:g} s on; served {cache.max_stale:g} s longer in an outage"
    )


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


if __name__ == "__main__":
    sys.exit(main())
