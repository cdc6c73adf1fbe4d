"""Kubernetes: secrets from its API, as the service account of this pod."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..exceptions import AccessDenied, InvalidProvider, InvalidReference, ProviderError
from ..references import SecretRef
from ..values import MAX_VALUE_SIZE, SecretValue
from ._deadline import within
from ._errors import Sorted
from ._kubernetes import Api, Failure, read_text
from .base import BaseProvider, Problem, quote_path
from .file import path_problems

#: What every pod with a service account has: ``token``, ``ca.crt`` and ``namespace``.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# RFC 1123, as the API has it: the name of a Secret is that of a host, a namespace's is one label.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_NAMESPACE = re.compile(rf"{_LABEL}\Z")
_URL = re.compile(
    r"https://(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?\Z"
)


class SecretProvider(BaseProvider):
    """Fetches Secrets from the API of a Kubernetes cluster.

    Options, each with the default of a pod: ``url`` of the API, ``https`` and without a path (from
    the variables ``KUBERNETES_SERVICE_HOST`` and ``_PORT``); ``namespace`` (the pod's);
    ``token_file`` and ``ca_file`` (those of its service account). The token is read at every fetch
    and the CA when its file has changed, since both are rotated in place.

    * name: that of the Secret. The payload is a JSON object of its data keys: ``db#password``. A
      key that is no UTF-8 is refused as text; ``?as=bytes`` gives the exact bytes of any key;
    * project: the namespace;
    * region: a mere label: an alias is one cluster;
    * version: none can be asked for, since the API keeps none; the one that is told is the
      ``resourceVersion``, which a change of labels changes too. Stage: none.

    No redirect is followed and no proxy of the environment is used: the token is for the API alone.

    Needs a Role with the verb ``get`` on ``secrets``, best with ``resourceNames``, bound to the
    service account.
    """

    requires = ("urllib3",)
    accepts = frozenset({"project"})

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        url: str = "",
        namespace: str = "",
        token_file: str | os.PathLike[str] = SERVICE_ACCOUNT / "token",
        ca_file: str | os.PathLike[str] = SERVICE_ACCOUNT / "ca.crt",
    ) -> None:
        super().__init__(alias=alias, region=region)
        import urllib3  # noqa: F401 - a missing extra is told at the build

        found = _URL.match(url or _in_cluster(os.environ))
        if not found:
            raise InvalidProvider(
                "the address of the Kubernetes API is not known",
                provider=alias,
                region=region,
                hint='Run in a pod, or write "OPTIONS": {"url": "https://..."}.',
            )
        self._namespace = namespace
        self._namespace_file = Path(token_file).with_name("namespace")
        self._api = Api(
            found["host"],
            int(found["port"] or 443),
            token_file=Path(token_file),
            ca_file=Path(ca_file),
        )

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        url, namespace = options.get("url", ""), options.get("namespace", "")
        if url and not (isinstance(url, str) and _URL.match(url)):
            hint = 'Write "url": "https://HOST:PORT".'
            problems.append(Problem("option 'url' is no https URL, or has a path", hint))
        if namespace and not (isinstance(namespace, str) and _NAMESPACE.match(namespace)):
            hint = 'Write "namespace": "shop".'
            problems.append(Problem("option 'namespace' is not the name of one", hint))
        for name in ("token_file", "ca_file"):
            problems += path_problems(name, [options[name]] if name in options else [])
        return problems

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        ref = super().canonical(ref, options)
        if not _NAME.match(ref.name) or not (not ref.project or _NAMESPACE.match(ref.project)):
            raise InvalidReference(
                "the name is not that of a Secret, or the project not that of a namespace",
                reference=str(ref),
                provider=ref.scheme,
                hint="Names have lower case letters, digits, - and, of Secrets, dots. A key of the"
                " data stands behind '#'.",
            )
        return ref.replace(project="") if ref.project == options.get("namespace") else ref

    @classmethod
    def identities(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        # Without a namespace it is the pod's, which only the pod knows: a policy for the name alone
        # binds it in each namespace. That may be one secret more, never less.
        return dict.fromkeys([("", ref.name), (ref.project, ref.name)])

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        ref = self.canonical(ref, {"namespace": self._namespace})
        namespace = ref.project or self._namespace or self._own_namespace(ref)
        path = f"/api/v1/namespaces/{quote_path(namespace)}/secrets/{quote_path(ref.name)}"
        with within(timeout):
            answer = self._api.get(path)
        if isinstance(answer, Failure):
            raise self._refusal(answer, ref)
        payload = _payload(answer)
        metadata = answer.get("metadata")
        if payload is None or not isinstance(metadata, dict):
            raise self.error(ProviderError, "the answer of the API is no Secret", ref)
        if len(payload) > MAX_VALUE_SIZE:
            hint = "What is no UTF-8 takes up to six times its size."
            raise self.error(ProviderError, "the Secret has over 1 MiB, as JSON", ref, hint=hint)
        version = metadata.get("resourceVersion")
        return SecretValue(payload, version=version if isinstance(version, str) else None)

    def close(self) -> None:
        self._api.close()

    def _own_namespace(self, ref: SecretRef) -> str:
        text = read_text(self._namespace_file)
        if isinstance(text, str) and not _NAMESPACE.match(text.strip()):
            text = Failure(Sorted(AccessDenied, "the file of the namespace names none"))
        if isinstance(text, Failure):
            hint = 'Write ?project=..., or "OPTIONS": {"namespace": ...}.'
            raise self._refusal(Failure(text.result._replace(hint=hint), text.cause), ref)
        return text.strip()

    def _refusal(self, failure: Failure, ref: SecretRef) -> Exception:
        kind, message, hint, _ = failure.result
        error = self.error(kind, message, ref, hint=hint)
        error.__cause__ = failure.cause
        return error


def _in_cluster(environ: Mapping[str, str]) -> str:
    """Return the URL that every pod is given in its environment, or ``""``."""
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    if ":" in host:
        host = f"[{host}]"
    return f"https://{host}:{port}" if host else ""


def _payload(secret: Mapping[str, Any]) -> str | None:
    """Return the data of a Secret as JSON; ``None`` for what is none.

    Bytes that are no UTF-8 become half surrogate pairs (PEP 383), from which ``?as=bytes`` makes
    the bytes again; JSON writes them as escapes, so that the payload is text for everyone.
    """
    data = secret.get("data") or {}
    if secret.get("kind") != "Secret" or not isinstance(data, dict):
        return None
    texts = {}
    for key, encoded in data.items():
        try:
            content = base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError):
            return None
        texts[key] = content.decode(errors="surrogateescape")
    return json.dumps(texts)
