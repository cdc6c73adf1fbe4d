"""A provider of this project."""

from __future__ import annotations

from django_secret_registry import BaseProvider, SecretRef, SecretValue


class AbsentProvider(BaseProvider):
    """Needs a library that is not installed."""

    def __init__(self, *, alias: str, region: str) -> None:
        import a_library_that_nobody_has

        super().__init__(alias=alias, region=region)
        self.client = a_library_that_nobody_has.Client()

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        return SecretValue(self.client.fetch(ref.name))
