"""What the commands work on: the references of the command line, or those of the project."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from django.core.management.base import CommandError, CommandParser

from .. import registry
from ..exceptions import InvalidReference, SecretError
from ..planning import Part, Planner
from ..provider_cache import ProviderCache
from ..references import SecretRef
from ..specs import RegistryConfig

#: Exit codes: something failed; the command line makes no sense.
FAILED, USAGE = 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Located:
    """Which secrets a text leads to: one, those of a MAP, or none and the ``error`` that says why.

    ``where`` says where the text stands. Show it, not the text, where there is an error: a text
    that leads nowhere may be a secret that was written in the place of a reference.
    """

    text: str
    where: str
    parts: tuple[Part, ...] = ()
    error: SecretError | None = None


def add_selection(parser: CommandParser) -> None:
    """Add what both commands select by: references and aliases."""
    parser.add_argument(
        "references", nargs="*", metavar="REF", help="References, or names of entries of SECRETS."
    )
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="ALIAS",
        dest="providers",
        help="Only secrets of this alias; may be given several times.",
    )


def check_selection(references: Sequence[str], providers: Sequence[str]) -> None:
    """Raise :class:`CommandError` for a reference or an alias that means nothing here.

    The text is not repeated: it may be a secret that was pasted by mistake.
    """
    config = registry.config
    if not set(providers) <= set(config.providers):
        raise CommandError(f"--provider names no alias. {_aliases(config)}", returncode=USAGE)
    for number, text in enumerate(references, 1):
        problem = problem_of(text, config)
        if problem:
            raise CommandError(f"Reference {number}: {problem}", returncode=USAGE)


def problem_of(text: str, config: RegistryConfig) -> str:
    """Return why a text leads nowhere, or ``""``; it is not repeated."""
    try:
        ref = SecretRef.parse(text)
    except InvalidReference as error:
        return str(error)
    if ref.is_entry and ref.name not in config.entries:
        entries = ", ".join(sorted(config.entries)) or "no entries"
        return f"it is neither alias://name nor an entry. SECRETS has: {entries}."
    if not ref.is_entry and ref.scheme not in config.providers:
        return f"its alias is not configured. {_aliases(config)}"
    return ""


def _aliases(config: RegistryConfig) -> str:
    return f"PROVIDERS has: {', '.join(sorted(config.providers)) or 'none'}."


def locate(references: Sequence[str], providers: Sequence[str] = ()) -> list[Located]:
    """Return where ``references`` lead, or else all of settings and ``SECRETS``; no I/O.

    With ``providers``, only what belongs to these aliases.
    """
    config = registry.config
    planner = Planner(config, ProviderCache(config.providers))
    places: Mapping[str, str] = {text: text for text in references} or _places()
    located = []
    for text, where in places.items():
        try:
            parts = planner.plan(text).parts
        except SecretError as error:
            if not providers or error.provider in providers:
                located.append(Located(text, where, error=error.copy()))
            continue
        wanted = tuple(part for part in parts if not providers or part.ask.key.alias in providers)
        if wanted:
            located.append(Located(text, where, wanted))
    return located


def _places() -> dict[str, str]:
    """Return every known text and where it stands first."""
    places: dict[str, str] = {}
    for where, text in registry.references().items():
        places.setdefault(text, where)
    return places
