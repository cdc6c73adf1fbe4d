"""The text that names a secret, and its parsed form.

::

    [ref+]scheme://name[?query][#key]        aws://prod/db?region=eu-west-1#password
    name                                     stripe   (an entry of SECRETS)

Parsing is total: any text gives a :class:`SecretRef` or raises :class:`InvalidReference`, and
``SecretRef.parse(str(ref)) == ref``. No message repeats the text, which may be a secret that was
passed by mistake.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Self
from urllib.parse import quote, unquote

from .exceptions import InvalidReference
from .values import SecretBytes, SecretStr

MARK = "ref+"

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")
#: What region, project, version and stage may be: nothing in it can bend a host name or a path.
LOCATOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")

_NAME_LITERALS = "/+=.@-_:!~"
_NAME = re.compile(r"(?:[A-Za-z0-9/+=.@\-_:!~]|%[0-9A-Fa-f]{2})+\Z")
#: Control characters and lone surrogates: no terminal, log or page should have to cope with them.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Compiled when first used: few references need them, and every process starts.
_STRAY_PERCENT = r"%(?![0-9A-Fa-f]{2})"
_SECONDS = r"[0-9]{1,9}(?:\.[0-9]{1,6})?\Z"
_POINTER_ESCAPE = r"~(?![01])"

_LOCATORS = ("region", "project", "version", "stage")
_QUERY = (*_LOCATORS, "ttl", "as", "trim")
AS = ("str", "bytes", "base64")
NO_REGION = "-"


class _Written:
    """Keeps the text of a reference, which every event and error of its secret names."""

    __slots__ = ("_text",)
    _text: str


@dataclasses.dataclass(frozen=True, slots=True)
class SecretRef(_Written):
    """A parsed reference. Immutable and hashable; holds names only, never a value.

    An empty ``scheme`` means that ``name`` is an entry of ``SECRETS``. An empty ``region``,
    ``project``, ``version`` or ``stage`` means "not given"; region ``"-"`` means "no region".
    ``ttl`` is in seconds. ``as_`` is one of ``str``, ``bytes``, ``base64``. ``key`` is what stands
    behind ``#``: one key of a JSON object, or an RFC 6901 pointer when it begins with ``/``.
    """

    scheme: str
    name: str
    region: str = ""
    project: str = ""
    version: str = ""
    stage: str = ""
    ttl: float | None = None
    as_: str = "str"
    trim: bool = False
    key: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``text``, raising :class:`InvalidReference`; ``TypeError`` for what is no text.

        A :class:`SecretStr` is a ``TypeError`` too: a secret's value is no reference, and a value
        that was read twice by mistake must not travel into an error or a log.
        """
        if isinstance(text, SecretStr | SecretBytes):
            raise TypeError(
                "a secret's value was given where a reference is expected; pass the reference,"
                ' such as "aws://prod/db#password", or the name of an entry'
            )
        if not isinstance(text, str):
            raise TypeError(f"a reference is a str, not {type(text).__name__}")
        rest, has_key, key = text.partition("#")
        rest, has_query, query = rest.partition("?")
        if rest.startswith(MARK) and "://" in rest:
            rest = rest[len(MARK) :]
        scheme, has_scheme, name = rest.partition("://")
        if not has_scheme:
            scheme, name = "", rest
        elif not SCHEME.match(scheme):
            raise InvalidReference(
                "the reference's scheme is not the name of a provider",
                hint="Write alias://name, where the alias is one of PROVIDERS.",
            )
        if not scheme and (has_query or has_key):
            raise InvalidReference(
                "a reference without scheme is the name of an entry and takes no query or key",
                hint="Write alias://name?query#key, or put the query and the key in the entry.",
            )
        if has_key and not key:
            raise InvalidReference(
                "the reference ends in '#' without a key",
                hint="Name a key (#password) or a pointer (#/a/b; #/ is the empty key).",
            )
        if _UNPRINTABLE.search(key):
            raise InvalidReference("the reference's key has a control character or is no Unicode")
        if key.startswith("/") and re.search(_POINTER_ESCAPE, key):
            raise InvalidReference(
                "the reference's JSON pointer has a '~' that is neither ~0 nor ~1 (RFC 6901)"
            )
        return cls(
            scheme=scheme,
            name=_parse_name(name),
            key=key if has_key else None,
            **_parse_query(query if has_query else None),  # type: ignore[arg-type]
        )

    def __str__(self) -> str:
        try:
            return self._text
        except AttributeError:
            object.__setattr__(self, "_text", self._write())
        return self._text

    def _write(self) -> str:
        if not self.scheme:  # a "://" in the name of an entry must not read as a scheme
            return quote(self.name, safe=_NAME_LITERALS).replace("://", "%3A//")
        query = [f"{field}={getattr(self, field)}" for field in _LOCATORS if getattr(self, field)]
        if self.ttl is not None:
            query.append(f"ttl={_plain(self.ttl)}")
        if self.as_ != "str":
            query.append(f"as={self.as_}")
        if self.trim:
            query.append("trim=true")
        return "".join(
            (
                f"{self.scheme}://{quote(self.name, safe=_NAME_LITERALS)}",
                f"?{'&'.join(query)}" if query else "",
                "" if self.key is None else f"#{self.key}",
            )
        )

    @property
    def is_entry(self) -> bool:
        """Whether this is the bare name of an entry of ``SECRETS``."""
        return not self.scheme

    def replace(self, **changes: object) -> Self:
        """Return a copy with these fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def payload(self) -> Self:
        """Return the reference of the whole secret: without key, decoding, trimming and TTL."""
        return self.replace(key=None, as_="str", trim=False, ttl=None)


def _plain(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _parse_name(text: str) -> str:
    if not text:
        raise InvalidReference("the reference names no secret", hint="Write alias://name.")
    if "%" in text and re.search(_STRAY_PERCENT, text):
        raise InvalidReference(
            "the reference's name has a '%' that is no percent-encoding", hint="Write %25 for '%'."
        )
    if not _NAME.match(text):
        raise InvalidReference(
            "the reference's name has a character that must be percent-encoded",
            hint=f"Literal are letters, digits and {' '.join(_NAME_LITERALS)}",
        )
    name = unquote(text, errors="surrogateescape")
    # Raised outside any except block: a UnicodeDecodeError would carry the text as its context.
    if _UNPRINTABLE.search(name):
        raise InvalidReference(
            "the reference's name, once decoded, has a control character or is not UTF-8"
        )
    return name


def _parse_query(query: str | None) -> dict[str, object]:
    fields: dict[str, object] = {}
    if query is None:
        return fields
    seen = set()
    for part in query.split("&"):
        field, has_value, value = part.partition("=")
        if field not in _QUERY or not has_value:
            raise InvalidReference(
                "the reference's query has a part that is not known",
                hint=f"Allowed, as name=value joined by '&': {', '.join(_QUERY)}.",
            )
        if field in seen:
            raise InvalidReference(f"the reference's query gives {field!r} twice")
        seen.add(field)
        if field in _LOCATORS:
            fields[field] = _parse_locator(field, value)
        elif field == "ttl":
            fields["ttl"] = _parse_ttl(value)
        elif field == "as":
            fields["as_"] = _one_of("as", value, AS)
        else:
            fields["trim"] = _one_of("trim", value, ("true", "false")) == "true"
    return fields


def _parse_locator(field: str, value: str) -> str:
    if field == "region" and value == NO_REGION:
        return value
    if not LOCATOR.match(value):
        raise InvalidReference(
            f"the reference's {field} is not of the allowed form",
            hint="It begins with a letter or digit; then letters, digits and . _ - may follow.",
        )
    return value


def _parse_ttl(value: str) -> float:
    seconds = float(value) if re.match(_SECONDS, value) else 0.0
    if not seconds > 0:
        raise InvalidReference(
            "the reference's ttl is not a positive number of seconds", hint="Write ttl=300."
        )
    return seconds


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InvalidReference(
            f"the reference's {field} is not known", hint=f"Allowed: {', '.join(allowed)}."
        )
    return value
