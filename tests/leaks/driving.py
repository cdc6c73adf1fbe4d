"""Drives the paths one after the other, with every sink open, and looks at what came of them."""

from __future__ import annotations

import contextlib
import enum
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.canary_check import shows
from tests.leaks import sinks

#: The group of paths that need the servers of backends.
BACKENDS = "backends"


class Kind(enum.Enum):
    """What a path does with secrets, and so what may be seen of them; in the order of driving."""

    #: The project keeps to ``SecretStr``: nothing is seen, whatever masks afterwards.
    KEPT = 1
    #: Others show it by design, and the documentation tells so: it is seen.
    SHOWN = 2
    #: The project makes plain texts of secrets: nothing is seen where our filters look.
    MADE = 3


class Text(NamedTuple):
    """Something that a path made to be seen: where, what, and a word that it must have."""

    where: str
    text: str
    word: str = ""


class Path(NamedTuple):
    drive: Callable[[], Iterable[Text]]
    kind: Kind


PATHS: dict[str, Path] = {}


def path(
    name: str, kind: Kind = Kind.KEPT
) -> Callable[[Callable[[], Iterator[Text]]], Callable[[], Iterator[Text]]]:
    """Register a path; it yields what it made to be seen, besides what arrives in the sinks."""

    def register(drive: Callable[[], Iterator[Text]]) -> Callable[[], Iterator[Text]]:
        PATHS[name] = Path(drive, kind)
        return drive

    return register


def drive(names: Sequence[str] = ()) -> dict[str, list[str]]:
    """Drive these paths (or all but those of backends, or all of these).

    Returns for each where a mark was seen, or a word was missing; nothing means that it is safe, or
    shows by design what it should.
    """
    from tests.leaks import paths, paths_made, paths_shown  # noqa: F401 - they register themselves

    core = list(PATHS)
    if not set(names) <= set(core):
        from tests.leaks import paths_backends  # noqa: F401
    if list(names) == [BACKENDS]:
        names = [name for name in PATHS if name not in core]
    found: dict[str, list[str]] = {}
    for name in sorted(names or core, key=lambda name: PATHS[name].kind.value):
        one = PATHS[name]
        sinks.sentry(masked=one.kind is Kind.MADE)
        sinks.arrived()
        printed = io.StringIO()
        made: list[Text] = []
        raised = []
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                made += one.drive()
            except Exception as error:  # its text may show what it should not
                raised.append(f"raised {type(error).__name__}")
        arrived = {"output": [printed.getvalue()], **sinks.arrived()}
        found[name] = [*raised, *_of_texts(made, one.kind), *_of_sinks(arrived, one.kind)]
    return found


def _of_texts(made: Sequence[Text], kind: Kind) -> Iterator[str]:
    if not made:
        yield "nothing came of it"
    for where, text, word in made:
        if shows(text) is not (kind is Kind.SHOWN):
            yield where
        elif word not in text:
            yield f"{where} (no {word!r})"


def _of_sinks(arrived: Mapping[str, Sequence[str]], kind: Kind) -> Iterator[str]:
    for sink, texts in arrived.items():
        looked_at = kind is Kind.KEPT or (kind is Kind.MADE and sink != "log")
        if looked_at and any(map(shows, texts)):
            yield sink
