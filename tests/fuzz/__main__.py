"""Feeds what mutates under coverage to the parsers: ``tox run -e fuzz -- event -runs=1000000``.

tests/test_fuzz.py and its neighbours say the same of examples that hypothesis draws; atheris looks
for the branches that those never reach. Needs its wheel (Linux, CPython 3.11 to 3.13), so no other
test does.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["django_secret_registry"]):
    from django_secret_registry.exceptions import InvalidReference, SecretError
    from django_secret_registry.extract import extract
    from django_secret_registry.fleet.bus import Report, decode
    from django_secret_registry.fleet.reports import read
    from django_secret_registry.providers import env
    from django_secret_registry.references import SecretRef
    from django_secret_registry.values import SecretBytes


def reference(data: bytes) -> None:
    """A reference parses to one that is written the same, or is refused."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(InvalidReference):
        ref = SecretRef.parse(text)
        if SecretRef.parse(str(ref)) != ref:
            raise RuntimeError("it is read as another one")


def payload(data: bytes) -> None:
    """A key and a payload give a value, or an error of ours."""
    key, _, rest = data.partition(b"\0")
    with contextlib.suppress(SecretError):
        extract(SecretBytes(rest), SecretRef("a", "b", key=key.decode("utf-8", "replace") or None))


def event(data: bytes) -> None:
    """A message of the bus is an event, or none."""
    found = decode(data)
    if found is not None and found.kind and decode(found.encode()) != found:
        raise RuntimeError("it is read as another one")


def report(data: bytes) -> None:
    """A report of a worker is read, or left out."""
    head, _, rest = data.decode("utf-8", "replace").partition("\0")
    read([Report("web:1", 0.0, {"": head, "aws://db": rest})])


def dotenv(data: bytes) -> None:
    """A file of variables is parsed, whatever stands in it."""
    env._parse("fuzzed", data.decode("utf-8", "replace"), parse_comments=True)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (reference, payload, event, report, dotenv)
}


def main() -> None:
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"Which one? {', '.join(TARGETS)}")
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
