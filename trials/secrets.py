"""The secrets of a project: JSON in Secrets Manager, which moto plays."""

from __future__ import annotations

import json

from tests.servers.aws import AWSServer


class Secrets:
    """What an operator keeps in Secrets Manager, by name: an object with text fields each."""

    def __init__(self, server: AWSServer) -> None:
        self._server = server
        self._current: dict[str, tuple[str, dict[str, str]]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which boto3 finds this Secrets Manager, and no other AWS."""
        return {
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": self._server.url,
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "machine",
            "AWS_SECRET_ACCESS_KEY": "machine",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create(self, name: str, **fields: str) -> None:
        self._current[name] = self._server.create(name, json.dumps(fields))["VersionId"], fields

    def field(self, name: str, field: str) -> str:
        """Return what the current version says."""
        return self._current[name][1][field]

    def rotate(self, name: str, **fields: str) -> None:
        """Have another current version, in which these fields are others."""
        self.promote(name, self.prepare(name, **fields))

    def prepare(self, name: str, **fields: str) -> str:
        """Add a pending version; return its id."""
        merged = {**self._current[name][1], **fields}
        return self._server.put(name, json.dumps(merged), "AWSPENDING")

    def promote(self, name: str, version: str) -> None:
        """Make a pending version the current one, as rotation functions do."""
        self._server.promote(name, version, self._current[name][0])
        with self._server.client() as client:
            text = client.get_secret_value(SecretId=name, VersionId=version)["SecretString"]
        self._current[name] = version, json.loads(text)
