"""AWS Systems Manager Parameter Store, through boto3."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..exceptions import InvalidReference, ProviderError, SecretNotFound
from ..references import SecretRef
from ..values import MAX_VALUE_SIZE, SecretValue
from ._aws_batch import Answers, BatchedAWSProvider

_ARN = re.compile(
    r"arn:aws[a-z-]*:ssm:(?P<region>[^:/]+):(?P<account>[^:/]+):parameter/(?P<name>[^:/][^:]*)\Z"
)
_NAME = re.compile(r"/?[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,18}\Z")


class ParameterStoreProvider(BatchedAWSProvider):
    """Fetches from AWS Systems Manager Parameter Store, decrypted.

    Options ``session``, ``client`` and ``config`` as those of ``SecretsManagerProvider``.

    * name: the parameter's path without its leading slash (``prod/db/password``; a parameter whose
      path has more than one level always has one), or its ARN. The leading slash may be written,
      and has to be for a parameter like ``/db``, which has one level only. ``ALLOW`` sees the path
      without it, of an ARN too;
    * version: a number; stage: a label, or ``current`` and ``previous`` (the version before the
      current one, unless a label has that name); ``pending`` is found only as a label;
    * project: none; the account in an ARN obeys ``PROJECTS``.

    The value is text: of a ``StringList`` all of it, as it is.

    Needs ``ssm:GetParameter``, and ``kms:Decrypt`` on the key of a ``SecureString`` that is not
    AWS's own; batches need ``ssm:GetParameters``, without which parameters are fetched one by one.
    """

    service = "ssm"
    operations = frozenset({"GetParameter", "GetParameters"})
    subject = "the parameter"
    missing = frozenset({"ParameterNotFound", "ParameterVersionNotFound"})
    accepts = frozenset({"version", "stage"})
    batch_size = 10

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        arn = _ARN.match(ref.name)
        if not _NAME.match(arn["name"] if arn else ref.name):
            raise _invalid(
                ref,
                "the name is neither the path nor the ARN of a parameter",
                "A path has letters, digits and . _ - between single slashes; a version and a label"
                " go behind it, as ?version= or ?stage=.",
            )
        if arn:
            named = super().canonical(ref.replace(project=""), options)
            ref = cls._take_locator(named.replace(project=ref.project), "project", arn["account"])
            ref = cls._take_locator(ref, "region", arn["region"])
        else:
            ref = super().canonical(ref, options)
            if ref.name.count("/") > 1:
                ref = ref.replace(name=ref.name.removeprefix("/"))
        if ref.version and (ref.stage or not _NUMBER.match(ref.version)):
            raise _invalid(
                ref,
                "the version is none that Parameter Store could have",
                "Write version= with a number, or stage= with a label, not both.",
            )
        return ref

    @classmethod
    def fenced_name(cls, ref: SecretRef) -> str:
        # AWS has no two parameters that differ by the first slash only.
        arn = _ARN.match(ref.name)
        return (arn["name"] if arn else ref.name).removeprefix("/")

    @classmethod
    def identities(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        # A path does not say its account: it may bind one parameter more, never less.
        name = cls.fenced_name(ref)
        return [(project, name) for project in dict.fromkeys(("", ref.project))]

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        deadline = time.monotonic() + timeout
        try:
            return self._get(ref, ref.version or ref.stage, timeout)
        except SecretNotFound:
            if ref.stage != "previous":
                raise
        # There is no label of that name.
        current = self._get(ref, "", deadline - time.monotonic()).version or ""
        if not _NUMBER.match(current) or current == "1":
            raise self.error(SecretNotFound, "the parameter has no previous version", ref)
        return self._get(ref, str(int(current) - 1), deadline - time.monotonic())

    def _get(self, ref: SecretRef, selector: str, timeout: float) -> SecretValue:
        name = _path(ref) + (f":{selector}" if selector else "")
        answer = self.ask("get_parameter", ref, timeout, Name=name, WithDecryption=True)
        return self._value(answer.get("Parameter"), ref)

    def ask_batch(self, refs: Sequence[SecretRef], timeout: float) -> Any:
        names = list(dict.fromkeys(map(_path, refs)))
        return self.ask("get_parameters", refs[0], timeout, Names=names, WithDecryption=True)

    def read_batch(self, refs: Sequence[SecretRef], answer: Mapping[str, Any]) -> Answers:
        found: dict[str, Mapping[str, Any]] = {}
        for item in answer.get("Parameters", ()):
            found |= {item[field]: item for field in ("Name", "ARN") if field in item}
        missing = frozenset(answer.get("InvalidParameters", ()))
        answers: Answers = {}
        for ref in refs:
            path = _path(ref)
            if path in found:
                try:
                    answers[ref] = self._value(found[path], ref)
                except ProviderError as error:
                    answers[ref] = error
            elif path in missing:
                answers[ref] = self.error(
                    SecretNotFound, "there is no such parameter (GetParameters)", ref
                )
        return answers

    def _value(self, parameter: Any, ref: SecretRef) -> SecretValue:
        value = parameter.get("Value") if isinstance(parameter, Mapping) else None
        if not isinstance(value, str):
            raise self.error(ProviderError, "the answer of AWS holds no value", ref)
        if len(value) > MAX_VALUE_SIZE:
            raise self.error(ProviderError, "the answer of AWS is larger than 1 MiB", ref)
        version = parameter.get("Version")
        return SecretValue(value, version=None if version is None else str(version))


def _path(ref: SecretRef) -> str:
    """Return what AWS calls the parameter."""
    if ref.name.startswith(("/", "arn:")) or "/" not in ref.name:
        return ref.name
    return f"/{ref.name}"


def _invalid(ref: SecretRef, message: str, hint: str) -> InvalidReference:
    return InvalidReference(message, reference=str(ref), provider=ref.scheme, hint=hint)
