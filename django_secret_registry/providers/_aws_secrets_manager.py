"""AWS Secrets Manager, through boto3."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..exceptions import (
    InvalidReference,
    ProviderError,
    SecretError,
    SecretNotFound,
)
from ..references import SecretRef
from ..values import MAX_VALUE_SIZE, SecretValue
from ._aws_batch import Answers, BatchedAWSProvider

_ARN = re.compile(
    r"arn:aws[a-z-]*:secretsmanager:(?P<region>[^:]+):(?P<account>[^:]+):secret:(?P<name>[^:]+)\Z"
)
#: What AWS puts behind a secret's name in its ARN.
_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}\Z")


class SecretsManagerProvider(BatchedAWSProvider):
    """Fetches from AWS Secrets Manager.

    Options ``session``, ``client`` and ``config``: what boto3's session, its client and botocore's
    ``Config`` take, such as ``{"session": {"profile_name": "prod"}}``. Timeouts and retries have
    short defaults, see ``DEFAULT_CONFIG``.

    * name: the secret's name, or its ARN, whole or without the suffix of six characters. ``ALLOW``
      sees the name in an ARN **with** its suffix: ``-backup`` at the end may be one, and may as
      well belong to the name of another secret;
    * version: a version's id; stage: a staging label, or ``current``, ``previous``, ``pending``;
    * project: none; the account in an ARN obeys ``PROJECTS``.

    Needs ``secretsmanager:GetSecretValue``, and ``kms:Decrypt`` on a key of one's own; batches need
    ``secretsmanager:BatchGetSecretValue``, without which secrets are fetched one by one.
    """

    service = "secretsmanager"
    operations = frozenset({"GetSecretValue", "BatchGetSecretValue"})
    accepts = frozenset({"version", "stage"})
    stages: ClassVar[Mapping[str, str]] = {
        "current": "AWSCURRENT",
        "previous": "AWSPREVIOUS",
        "pending": "AWSPENDING",
    }
    batch_size = 20

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        if not ref.name.startswith("arn:"):
            return super().canonical(ref, options)
        arn = _ARN.match(ref.name)
        if arn is None:
            raise InvalidReference(
                "the ARN is not that of a secret in Secrets Manager",
                reference=str(ref),
                provider=ref.scheme,
                hint="Write arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME; a key, a stage and a"
                " version go behind it, as ?stage=...#key.",
            )
        named = super().canonical(ref.replace(project=""), options).replace(project=ref.project)
        named = cls._take_locator(named, "project", arn["account"])
        return cls._take_locator(named, "region", arn["region"])

    @classmethod
    def fenced_name(cls, ref: SecretRef) -> str:
        arn = _ARN.match(ref.name)
        return arn["name"] if arn else ref.name

    @classmethod
    def identities(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        # The short name and every form of the ARN are one secret. A short name does not say its
        # account, and a suffix may be part of the name: each may bind one secret more, never less.
        arn = _ARN.match(ref.name)
        if arn is None:
            return super().identities(ref)
        names = {arn["name"], _SUFFIX.sub("", arn["name"])}
        return [(project, name) for project in ("", ref.project) for name in sorted(names)]

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        which = {"SecretId": ref.name}
        if ref.version:
            if not 32 <= len(ref.version) <= 64:
                raise self.error(
                    SecretNotFound,
                    "there is no such version: its id has 32 to 64 characters",
                    ref,
                    hint="A staging label is asked for as stage=.",
                )
            which["VersionId"] = ref.version
        if ref.stage or not ref.version:
            which["VersionStage"] = self.stages.get(ref.stage or "current", ref.stage)
        return self._value(self.ask("get_secret_value", ref, timeout, **which), ref)

    def ask_batch(self, refs: Sequence[SecretRef], timeout: float) -> Any:
        names = list(dict.fromkeys(ref.name for ref in refs))
        return self.ask("batch_get_secret_value", refs[0], timeout, SecretIdList=names)

    def read_batch(self, refs: Sequence[SecretRef], answer: Mapping[str, Any]) -> Answers:
        found: dict[str, Mapping[str, Any]] = {}
        for item in (*answer.get("Errors", ()), *answer.get("SecretValues", ())):
            found |= {item[field]: item for field in ("SecretId", "Name", "ARN") if field in item}
            if "ARN" in item:
                found.setdefault(item["ARN"][:-7], item)  # asked for without the suffix
        answers: Answers = {}
        for ref in refs:
            item = found.get(ref.name, {})
            if "ErrorCode" in item:
                answers[ref] = self._refusal(ref, item)
            elif self.stages["current"] in item.get("VersionStages", ()):
                try:
                    answers[ref] = self._value(item, ref)
                except SecretError as error:
                    answers[ref] = error
        return answers

    def _refusal(self, ref: SecretRef, item: Mapping[str, Any]) -> SecretError:
        code = str(item["ErrorCode"]).removesuffix("Exception")
        text = str(item.get("Message", ""))
        result = self.sort_code(code, text, status=400, operation="GetSecretValue")
        return self.error(result.kind, result.message, ref, hint=result.hint)

    def _value(self, answer: Mapping[str, Any], ref: SecretRef) -> SecretValue:
        value = answer.get("SecretString")
        if value is None:
            value = answer.get("SecretBinary")
        if not isinstance(value, str | bytes):
            raise self.error(ProviderError, "the answer of AWS holds no value", ref)
        if len(value) > MAX_VALUE_SIZE:
            raise self.error(ProviderError, "the answer of AWS is larger than 1 MiB", ref)
        return SecretValue(value, version=answer.get("VersionId"))
