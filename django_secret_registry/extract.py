"""From a payload to what the reference asks for: a key of it, decoded, trimmed.

No error here has a cause or a context: the exceptions of ``json``, ``base64`` and the codecs hold
the whole text that they could not read. They are raised after the ``except`` block has ended.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from typing import Any

from .exceptions import ProviderError, SecretError, SecretNotFound
from .references import SecretRef
from .values import SecretBytes, SecretStr

_MISSING: Any = object()
#: How many of the existing keys an error names, and how much of each.
_SHOWN_KEYS, _SHOWN_CHARS = 20, 64
#: Bytes that are no UTF-8, as ``surrogateescape`` writes them (PEP 383): a provider of JSON has no
#: other place for them, and no text has them.
_ESCAPED = re.compile("[\udc80-\udcff]")


def extract(
    payload: SecretStr | SecretBytes, ref: SecretRef, *, region: str = ""
) -> SecretStr | SecretBytes:
    """Return the part of ``payload`` that ``ref`` names by its key, ``as`` and ``trim``.

    Raises :class:`SecretNotFound` for a key that does not exist or is ``null``, and
    :class:`ProviderError` for a payload that is not of the form that ``ref`` expects.
    """
    try:
        value = payload if ref.key is None else SecretStr(pick(_text(payload), ref.key))
        if ref.trim:
            value = _trim(value)
        if ref.as_ == "str":
            text = _text(value)
            return text if isinstance(text, SecretStr) else SecretStr(text)
        return SecretBytes(_base64(value) if ref.as_ == "base64" else _bytes(value))
    except SecretError as error:
        failure = error.copy(reference=str(ref), provider=ref.scheme, region=region)
    raise failure


def _text(value: SecretStr | SecretBytes) -> str:
    if isinstance(value, str):
        if value.isascii() or not _ESCAPED.search(value):
            return value
    else:
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    raise ProviderError("the secret is binary", hint="Ask for bytes: ?as=bytes.")


def _bytes(value: SecretStr | SecretBytes) -> bytes:
    if isinstance(value, bytes):
        return value
    with contextlib.suppress(UnicodeEncodeError):
        return value.encode(errors="surrogateescape")
    raise ProviderError("the secret has half a surrogate pair, which no encoding can hold")


def _trim(value: SecretStr | SecretBytes) -> SecretStr | SecretBytes:
    """Strip one newline, in either convention, from the end."""
    if isinstance(value, str):
        return SecretStr(re.sub(r"\r?\n\Z", "", value))
    return SecretBytes(re.sub(rb"\r?\n\Z", b"", value))


def _base64(value: SecretStr | SecretBytes) -> bytes:
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(b"".join(_bytes(value).split()), validate=True)
    raise ProviderError(
        "the secret is no base64 text", hint="Ask for it as it is: ?as=bytes or ?as=str."
    )


class _Number(str):
    """A number of a document, as it is written there: no digit is lost, however many there are."""

    __slots__ = ()


def pick(text: str, key: str) -> str:
    """Return the value of a key, or of a JSON pointer, in a document; errors name no reference."""
    document = _MISSING
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    if document is _MISSING:
        raise ProviderError(
            "the secret is no JSON, or JSON that is nested too deeply",
            hint="Remove the #key, or store a JSON object.",
        )
    pointer = key.startswith("/")
    if not isinstance(document, dict) and not (pointer and isinstance(document, list)):
        raise ProviderError(
            "the secret is JSON, and no object that could have a key",
            hint="Remove the #key, or store a JSON object.",
        )
    found, parent = _follow(document, key) if pointer else (_member(document, key), document)
    if found is _MISSING or found is None:
        what = "is null" if found is None else "does not exist"
        raise SecretNotFound(
            f"the key {key[:_SHOWN_CHARS]!r} {what} in the secret",
            hint=f"It has: {_names(parent)}.",
        )
    if isinstance(found, str):
        return found
    packed = None
    with contextlib.suppress(RecursionError):
        packed = _pack(found)
    if packed is None:
        raise ProviderError("the value of the key is JSON that is nested too deeply")
    return packed


def _follow(document: object, pointer: str) -> tuple[Any, object]:
    """Evaluate an RFC 6901 pointer; return what it leads to and the last parent that exists."""
    parent = found = document
    for token in pointer[1:].split("/"):
        parent, found = found, _member(found, token.replace("~1", "/").replace("~0", "~"))
        if found is _MISSING:
            break
    return found, parent


def _member(parent: object, token: str) -> Any:
    if isinstance(parent, dict):
        return parent.get(token, _MISSING)
    if isinstance(parent, list) and token.isascii() and token.isdigit() and len(token) < 10:
        index = int(token)
        # RFC 6901, section 4: an index has no leading zero.
        if index < len(parent) and str(index) == token:
            return parent[index]
    return _MISSING


def _names(parent: object) -> str:
    if isinstance(parent, dict):
        names = [repr(str(name)[:_SHOWN_CHARS]) for name in list(parent)[:_SHOWN_KEYS]]
        more = len(parent) - len(names)
        return (", ".join(names) or "no keys") + (f" and {more} more" if more else "")
    return f"a list of {len(parent)}" if isinstance(parent, list) else "no keys: it is no object"


def _pack(value: Any) -> str:
    """Return ``value`` as compact JSON, with numbers as they were written."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_pack(name)}:{_pack(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_pack, value)) + "]"
    return value if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)
