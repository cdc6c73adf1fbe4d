"""Which texts hold a secret: an index of held values, by which they are found in any other text.

It is made when somebody first asks for it, and changed with what the cache holds: what is evicted
is not kept for its sake. Nothing in here leaves the process but text in which values are masked.
"""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import binascii
import bisect
import contextlib
import html
import itertools
import json
import re
import urllib.parse
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from .lifecycle import Cell, Held, Slot
from .values import MASK, SecretBytes, SecretStr, SecretValue

#: Characters. A shorter value is masked only where it is all of a text: "dev" is in many words.
SHORTEST = 8
#: Characters that a line of a value of several lines has at least to be looked for by itself:
#: printers and logs break such a value apart.
SHORTEST_LINE = 16
#: Characters. Each form of a value takes as much memory as the value.
LONGEST_ESCAPED_TWICE = 256
#: Strings in one JSON document that are looked for by themselves; the others are found as a part of
#: the whole document only.
MOST_LEAVES = 1000

# Of each needle four pieces are known, that begin one after the other; of a text every fourth piece
# is looked up. So whoever holds a needle is found by one piece, whatever it begins with, and texts
# are read once however many values are held.
_PIECE, _STRIDE = 5, 4

#: What documents of connections hold besides their password, in words that stand in many texts:
#: "postgres" in the path of an engine, the name of a host in every error of a connect.
_PLAIN = frozenset({
    "database", "dbclusteridentifier", "dbinstanceidentifier", "dbname", "engine", "host",
    "hostname", "masterarn", "port", "region", "user", "username",
})  # fmt: skip

_PLUS = "+"
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
# What may be base64: 11 characters hold the 8 of the shortest needle.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{11,}={0,2}")
_URLSAFE = str.maketrans("-_", "+/")


class Needles:
    """Texts that are found in other texts, from when an owner puts them until it drops them.

    ``put`` and ``drop`` are called under a lock of the caller's; ``redact`` needs none: in CPython
    with a GIL each look at the index is one step.
    """

    def __init__(self) -> None:
        self._owned: dict[Hashable, tuple[str, ...]] = {}
        self._owners: dict[str, int] = {}
        self._pieces: dict[str, dict[str, None]] = {}

    def put_cell(self, cell: Cell) -> None:
        """Find what a cell holds now, and nothing that it held before."""
        self.put(cell.key, texts_of(cell.held))

    def put_slot(self, text: Hashable, slot: Slot) -> None:
        """Find the finished value that readers of ``text`` get."""
        answers = [cell.held.answer for cell, _ in slot.sources if cell.held is not None]
        self.put(text, handed_out(slot.value, answers))

    def put(self, owner: Hashable, texts: Iterable[str]) -> None:
        """Find ``texts``, and what they become when they are written down, in place of before.

        What is the same as before is found all the while.
        """
        before = self._owned.pop(owner, ())
        needles = tuple({form for text in texts for form in _forms(text)})
        if needles:
            self._owned[owner] = needles
        for needle in needles:
            self._owners[needle] = self._owners.get(needle, 0) + 1
            for piece in _pieces_of(needle):
                self._pieces.setdefault(piece, {})[needle] = None
        for needle in before:
            self._release(needle)

    def drop(self, owner: Hashable) -> None:
        """Forget what ``owner`` has put, unless another one has put it too."""
        for needle in self._owned.pop(owner, ()):
            self._release(needle)

    def _release(self, needle: str) -> None:
        self._owners[needle] -= 1
        if self._owners[needle]:
            return
        del self._owners[needle]
        for piece in _pieces_of(needle):
            known = self._pieces[piece]
            del known[needle]
            if not known:
                del self._pieces[piece]

    def redact(self, text: str) -> str:
        """Return ``text`` with every needle in it masked, in percent-encoding and base64 too."""
        if not self._owners:
            return text
        if text in self._owners:
            return MASK
        if not self._pieces:
            return text
        for needle in self._found(text):
            text = text.replace(needle, MASK)
        if "%" in text or "+" in text:
            for plus, decode in enumerate((urllib.parse.unquote, urllib.parse.unquote_plus)):
                for needle in self._found(decode(text, errors="surrogateescape")):
                    text = _mask_encoded(text, needle, plus=bool(plus))
        return _BASE64.sub(self._in_base64, text)

    def _found(self, text: str) -> list[str]:
        """Return the needles that are in ``text``, the longest first."""
        pieces = {text[at : at + _PIECE] for at in range(0, len(text) - _PIECE + 1, _STRIDE)}
        near = {
            needle
            for piece in self._pieces.keys() & pieces
            for needle in tuple(self._pieces.get(piece, ()))
        }
        return sorted((needle for needle in near if needle in text), key=len, reverse=True)

    def _in_base64(self, match: re.Match[str]) -> str:
        word = match[0]
        digits = word.rstrip("=").translate(_URLSAFE)
        # Slashes and dashes may join it to something else: its groups begin anywhere.
        for begin in range(4):
            groups = digits[begin:]
            groups = groups[: len(groups) - (len(groups) % 4 == 1)]  # one digit alone is no byte
            if self._found(_as_text(binascii.a2b_base64(groups + "=" * (-len(groups) % 4)))):
                return MASK
        return word


def texts_of(held: Held | None) -> set[str]:
    """Return the texts by which what a cell holds is found.

    The value, the strings in its JSON, and what functions have made of it.
    """
    if held is None or not isinstance(held.answer, SecretValue):
        return set()
    whole = _as_text(held.answer.value).strip()
    secret, _ = _leaves(whole)
    made = (handed_out(making.value, (held.answer,)) for making in list(held.made.values()))
    return {whole, *secret}.union(*made)


def handed_out(value: Any, answers: Iterable[object]) -> set[str]:
    """Return the texts by which a finished ``value`` is found, made of these answers.

    No default, which is a literal of the settings; nor what a document of a connection holds
    besides its password.
    """
    members: Iterable[Any] = value.values() if isinstance(value, dict) else (value,)
    texts = {_as_text(one).strip() for one in members if isinstance(one, SecretStr | SecretBytes)}
    for answer in answers:
        if texts and isinstance(answer, SecretValue):
            secret, plain = _leaves(_as_text(answer.value).strip())
            texts -= plain - secret
    return texts


def _as_text(value: str | bytes) -> str:
    """Return a plain ``str``; of bytes that are no UTF-8, one that keeps each of them."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _leaves(text: str) -> tuple[set[str], set[str]]:
    """Return the long strings in a JSON document: secret ones, and those of a connection."""
    secret: set[str] = set()
    plain: set[str] = set()
    if text[:1] not in ("{", "["):
        return secret, plain
    todo: list[tuple[str, Any]] = []
    with contextlib.suppress(ValueError, RecursionError):
        todo.append(("", json.loads(text, parse_int=str, parse_float=str)))
    while todo and len(secret) + len(plain) < MOST_LEAVES:
        name, one = todo.pop()
        if isinstance(one, dict):
            todo += one.items()
        elif isinstance(one, list):
            todo += ((name, item) for item in one)
        elif isinstance(one, str) and len(one) >= SHORTEST:
            (plain if name.lower() in _PLAIN else secret).add(one.strip())
    return secret, plain


def _mask_encoded(text: str, needle: str, *, plus: bool) -> str:
    """Mask ``needle`` where ``text`` has it with characters percent-encoded.

    By hand: ``re`` would remember a pattern that is made of a secret.
    """
    tokens = _ENCODED.findall(text)
    parts = [_percent_decoded(token, plus=plus) for token in tokens]
    data, wanted = b"".join(parts), _as_bytes(needle)
    begins = [0, *itertools.accumulate(map(len, parts))]
    masked: list[str] = []
    done, at = 0, data.find(wanted)
    while at >= 0:
        masked += (*tokens[done : bisect.bisect_right(begins, at) - 1], MASK)
        done = bisect.bisect_left(begins, at + len(wanted))
        at = data.find(wanted, begins[done])
    return "".join((*masked, *tokens[done:]))


def _percent_decoded(token: str, *, plus: bool) -> bytes:
    if len(token) == 3:
        return bytes.fromhex(token[1:])
    return b" " if plus and token == _PLUS else _as_bytes(token)


def _as_bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")  # bytes that were no UTF-8
    except UnicodeEncodeError:  # JSON may have half a surrogate pair, which nothing encodes
        return text.encode(errors="surrogatepass")


def _forms(text: str) -> Iterator[str]:
    """Yield a value as it stands in other texts.

    That is raw, and escaped; of one that is no document or key, twice too, as in the ``repr`` of an
    error whose message has a ``repr``. (Of those there are their strings and lines.)
    """
    if not text:
        return
    yield text
    if len(text) < SHORTEST:
        return
    once = {text, *_escaped(text)}
    if not text.isascii():
        once.add(repr(_as_bytes(text))[2:-1])
    yield from once
    if len(text) <= LONGEST_ESCAPED_TWICE:
        yield from {form for one in once for form in _escaped(one)}
    lines = text.split("\n")
    if len(lines) > 1:
        for line in map(str.strip, lines):
            # The first and the last line of a PEM file are in every PEM file.
            if len(line) >= SHORTEST_LINE and not line.startswith("-----"):
                yield line


def _escaped(text: str) -> set[str]:
    """Return ``text`` as ``repr``, JSON and HTML write it."""
    in_both_quotes = repr("\"'" + text)[4:-1]
    return {repr(text)[1:-1], in_both_quotes, json.dumps(text)[1:-1], html.escape(text)}


def _pieces_of(needle: str) -> set[str]:
    """Return the pieces by which ``needle`` is found: of its end, as secrets begin alike."""
    if len(needle) < SHORTEST:
        return set()
    end = needle[-SHORTEST:]
    return {end[at : at + _PIECE] for at in range(_STRIDE)}
