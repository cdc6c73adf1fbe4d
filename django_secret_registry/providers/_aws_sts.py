"""Temporary credentials of an AWS role, from the Security Token Service, through boto3."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..exceptions import AccessDenied, InvalidReference, ProviderError, SecretNotFound
from ..references import SecretRef
from ..values import MAX_VALUE_SIZE, SecretValue
from ._aws import AWSProvider
from .base import Problem

_ROLE = re.compile(
    r"arn:aws[a-z-]*:iam::(?P<account>[0-9]{12}):role"
    r"/(?P<name>(?:(?!\.+/)[\w+=,.@-]+/)*(?!\.+\Z)[\w+=,.@-]+)\Z",
    re.ASCII,
)
_SESSION = re.compile(r"[\w+=,.@-]{2,64}\Z", re.ASCII)
#: What STS accepts as a duration, in seconds.
_SHORTEST, _LONGEST = 900, 43_200

#: The keys of the value, and what STS calls them.
FIELDS = {
    "access_key_id": "AccessKeyId",
    "secret_access_key": "SecretAccessKey",
    "session_token": "SessionToken",
}


class AssumeRoleProvider(AWSProvider):
    """Assumes a role; the value is a JSON object of its temporary credentials.

    Its keys are ``access_key_id``, ``secret_access_key`` and ``session_token``; a MAP whose members
    are ``...#access_key_id`` and so on takes all of them from one session. They expire when STS
    says so, and are fetched anew before.

    Options, besides ``session``, ``client`` and ``config`` of the other AWS providers: ``roles``
    (names for ARNs of roles), ``session_name`` (shown in CloudTrail), ``duration`` (seconds, 900 to
    43,200; STS's default is an hour), ``external_id``, ``policy`` (a dict or JSON: what the session
    may do at most), and ``web_identity_token_file``: the file with the token of an OIDC provider
    (Kubernetes', say), which is read at each fetch and then stands for credentials of AWS.

    * name: the ARN of a role, or a name in ``roles``, which is short for it. ``ALLOW`` sees the
      name of the role with its path, as in ``app/deploy``;
    * region: that of STS; the credentials themselves work in all regions;
    * project: none; the account in the ARN obeys ``PROJECTS``. No versions, no stages.

    Needs ``sts:AssumeRole`` (``sts:AssumeRoleWithWebIdentity``), and the trust of the role.
    """

    service = "sts"
    operations = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity"})
    subject = "the role and in its trust policy"
    hints: ClassVar[Mapping[str, str]] = {
        "MalformedPolicyDocument": 'Look at the option "policy".',
        "PackedPolicyTooLarge": 'Shorten the option "policy".',
        "RegionDisabled": "Activate STS for this region in the account.",
        "ValidationError": 'Look at "duration" and at the maximum session duration of the role.',
    }

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        session: Mapping[str, Any] | None = None,
        client: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        roles: Mapping[str, str] | None = None,
        session_name: str = "django-secret-registry",
        duration: int | None = None,
        external_id: str = "",
        policy: str | Mapping[str, Any] | None = None,
        web_identity_token_file: str = "",
    ) -> None:
        if web_identity_token_file:
            # Nobody's credentials are needed, nor looked for: the token is what STS trusts.
            from botocore import UNSIGNED

            config = {**(config or {}), "signature_version": UNSIGNED}
        super().__init__(alias=alias, region=region, session=session, client=client, config=config)
        self._token_file = web_identity_token_file
        self._request: dict[str, Any] = {"RoleSessionName": session_name}
        if duration:
            self._request["DurationSeconds"] = duration
        if external_id and not web_identity_token_file:
            self._request["ExternalId"] = external_id
        if policy:
            self._request["Policy"] = policy if isinstance(policy, str) else json.dumps(policy)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        roles = options.get("roles") or {}
        if not isinstance(roles, Mapping) or not all(
            isinstance(name, str) and isinstance(arn, str) and _ROLE.match(arn)
            for name, arn in roles.items()
        ):
            hint = 'Write "roles": {"deploy": "arn:aws:iam::123456789012:role/deploy"}.'
            problems.append(Problem("option 'roles' does not map names to ARNs of roles", hint))
        duration = options.get("duration")
        if duration is not None and not (
            type(duration) is int and _SHORTEST <= duration <= _LONGEST
        ):
            hint = f"STS takes {_SHORTEST} to {_LONGEST} seconds, and the role may allow less."
            problems.append(Problem("option 'duration' is none that STS takes", hint))
        name = options.get("session_name", "django-secret-registry")
        if not (isinstance(name, str) and _SESSION.match(name)):
            hint = "Use 2 to 64 letters, digits and _ + = , . @ -"
            problems.append(Problem("option 'session_name' is none that STS takes", hint))
        if options.get("external_id") and options.get("web_identity_token_file"):
            hint = "Remove one: AssumeRoleWithWebIdentity has no external id."
            problems.append(Problem("option 'external_id' is of no use with a web identity", hint))
        return problems

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        arn = (options.get("roles") or {}).get(ref.name, ref.name)
        role = _ROLE.match(arn)
        if arn.startswith("arn:") and not role:
            raise InvalidReference(
                "the ARN is not that of a role",
                reference=str(ref),
                provider=ref.scheme,
                hint="Write arn:aws:iam::ACCOUNT:role/NAME.",
            )
        if not role:  # fetch() says that there is none
            return super().canonical(ref, options)
        named = super().canonical(ref.replace(name=arn, project=""), options)
        return cls._take_locator(named.replace(project=ref.project), "project", role["account"])

    @classmethod
    def fenced_name(cls, ref: SecretRef) -> str:
        role = _ROLE.match(ref.name)
        return role["name"] if role else ref.name

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        if not _ROLE.match(ref.name):
            raise self.error(
                SecretNotFound,
                "the name is neither the ARN of a role nor one of the option 'roles'",
                ref,
                hint='Write arn:aws:iam::ACCOUNT:role/NAME, or add the name to "roles".',
            )
        request = {**self._request, "RoleArn": ref.name}
        method = "assume_role"
        if self._token_file:
            method = "assume_role_with_web_identity"
            request["WebIdentityToken"] = self._token(ref)
        answer = self.ask(method, ref, timeout, **request).get("Credentials") or {}
        value = {key: answer.get(field) for key, field in FIELDS.items()}
        ends: Any = answer.get("Expiration")
        if not all(value.values()) or not isinstance(ends, dt.datetime):
            raise self.error(ProviderError, "the answer of STS holds no credentials", ref)
        text = json.dumps(value)
        if len(text) > MAX_VALUE_SIZE:
            raise self.error(ProviderError, "the answer of STS is larger than 1 MiB", ref)
        return SecretValue(text, expires_at=ends.timestamp())

    def _token(self, ref: SecretRef) -> str:
        try:
            return Path(self._token_file).read_text(encoding="ascii").strip()
        except OSError as exc:
            cause: OSError | None = exc
        except UnicodeDecodeError:  # not chained: it holds the token
            cause = None
        try:
            raise self.error(
                AccessDenied,
                "the web identity token cannot be read from its file",
                ref,
                hint='Look at "web_identity_token_file", and at the rights of that file.',
            ) from cause
        finally:
            del cause  # its traceback holds this frame
