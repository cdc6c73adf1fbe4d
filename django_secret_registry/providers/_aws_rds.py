"""Tokens that log in to Amazon RDS and Aurora in place of a password, through boto3."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from ..exceptions import InvalidReference, ProviderError
from ..references import SecretRef
from ..values import SecretValue
from ._aws import AWSProvider

_NAME = re.compile(
    r"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+@-]*)@(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)"
    r":(?P<port>[1-9][0-9]{0,4})\Z"
)
#: Seconds that credentials may have left; a token needs no more than the first.
_STEPS = (900, 600, 300, 60)
#: The hosts of RDS, which say their region.
_HOST = re.compile(r".+\.(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9])\.rds\.amazonaws\.com(?:\.cn)?\Z")


class RDSAuthTokenProvider(AWSProvider):
    """Signs tokens for IAM database authentication; nobody is asked, so none is "not found".

    Options ``session``, ``client`` and ``config`` as those of ``SecretsManagerProvider``.

    * name: ``user@host:port``, all three as the database's client has them (of a tunnel the
      database's own host and port);
    * region: that of the database. A host of RDS (``….eu-central-1.rds.amazonaws.com``) says its
      own, and contradicting it is an error; any other host is in the region of the reference;
    * no project, no versions, no stages. ``ALLOW`` sees the whole name.

    A token opens connections for 15 minutes, or for as long as the credentials that signed it,
    whichever ends first; connections that are open stay. Needs ``rds-db:connect`` for that user,
    which the database itself looks at: a token is signed without it too, and then refused.
    """

    service = "rds"
    operations = frozenset()

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        named = _NAME.match(ref.name)
        if not named or int(named["port"]) > 65_535:
            raise InvalidReference(
                "the name is not of the form user@host:port",
                reference=str(ref),
                provider=ref.scheme,
                hint="Write app@db.abc123.eu-central-1.rds.amazonaws.com:5432.",
            )
        ref = super().canonical(ref, options)
        host = _HOST.match(named["host"].lower())
        return cls._take_locator(ref, "region", host["region"]) if host else ref

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        user, _, address = self.canonical(ref, {}).name.rpartition("@")
        host, _, port = address.rpartition(":")
        region = {"Region": self.region} if self.region else {}
        token = self.ask(
            "generate_db_auth_token",
            ref,
            timeout,
            DBHostname=host,
            Port=int(port),
            DBUsername=user,
            **region,
        )
        signed, lifetime = _signed(token)
        if not signed:
            raise self.error(ProviderError, "boto3 made a token that does not say its end", ref)
        return SecretValue(token, expires_at=signed + min(lifetime, self._left()))

    def _left(self) -> float:
        """Return for how many seconds at least the credentials stay valid.

        Those that boto3 renews tell only whether they end within a given time.
        """
        ends_within = getattr(self.credentials, "refresh_needed", None)
        if ends_within is None:  # they do not expire, or boto3 does not know when
            return math.inf
        return next((step for step in _STEPS if not ends_within(step)), 0)


def _signed(token: str) -> tuple[float, float]:
    """Return when a token was made (POSIX seconds) and for how long it is valid; 0: unknown."""
    query = parse_qs(token.partition("?")[2])
    try:
        made = dt.datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%S%z")
        return made.timestamp(), float(query["X-Amz-Expires"][0])
    except (LookupError, ValueError):
        return 0.0, 0.0
