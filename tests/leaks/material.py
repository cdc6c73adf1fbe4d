"""The secrets: text, bytes, JSON with nested keys, a URL. Every part of them has the mark."""

from __future__ import annotations

import json
import threading
from typing import Any

from django_secret_registry import BaseProvider, SecretNotFound, SecretRef, SecretValue
from tests.canary import canary

TEXT = canary("text with a % and a 'quote'")
BINARY = b"\xff\x00" + canary("binary").encode()
NESTED = canary("nested")
DOCUMENT = json.dumps({
    "username": "app",
    "login": {"password": NESTED, "codes": [canary("first-code"), canary("second-code")]},
    "number": 12345678,
})  # fmt: skip
URL = f"postgres://app:{canary('url')}@db/app"
#: Of so many words that a printer breaks it into lines, none of which is the whole.
PHRASE = " ".join(canary(f"word{number}") for number in range(12))


class Vault(BaseProvider):
    """Knows the secrets above; ``rotate`` gives all of them another version."""

    accepts = frozenset({"version", "stage"})
    values: dict[str, Any] = {}
    version = 0
    lock = threading.Lock()

    @classmethod
    def rotate(cls) -> None:
        with cls.lock:
            cls.version += 1
            cls.values = {
                "text": TEXT,
                "binary": BINARY,
                "document": DOCUMENT,
                "url": URL,
                "phrase": PHRASE,
                "rotating": canary(f"rotating-{cls.version}"),
            }

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        if ref.name == "broken":
            raise ValueError(f"cannot parse {TEXT}")  # as libraries do
        if ref.name not in self.values:
            raise self.error(SecretNotFound, "no such secret", ref)
        return SecretValue(self.values[ref.name], version=str(self.version))


Vault.rotate()
