"""Kubernetes: its API over HTTPS, as a pod sees it, and failing ones."""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.conf import load
from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    ResidencyViolation,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.extract import extract
from django_secret_registry.probing import within
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers._kubernetes import ATTEMPTS, MAX_ANSWER
from django_secret_registry.providers.base import BaseProvider, Fence
from django_secret_registry.providers.kubernetes import SERVICE_ACCOUNT, SecretProvider, _payload
from django_secret_registry.references import SecretRef
from django_secret_registry.residency import Residency
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import EntrySpec, RegistryConfig
from django_secret_registry.values import MAX_VALUE_SIZE, SecretStr, SecretValue
from tests.canary import canary
from tests.documents import settings_of
from tests.fixtures import kubernetes
from tests.servers.https import Answer, certificates
from tests.servers.kubernetes import NAMESPACE, KubernetesServer, status

pytestmark = pytest.mark.sdk

kubernetes_session = kubernetes.kubernetes_session
kubernetes_server = kubernetes.kubernetes_server


@pytest.fixture
def mount(kubernetes_server: KubernetesServer, tmp_path: Path) -> dict[str, Any]:
    """OPTIONS that lead to the server with the files of a pod."""
    return kubernetes_server.mount(tmp_path / "serviceaccount")


@pytest.fixture
def provider(mount: dict[str, Any]) -> SecretProvider:
    return build(mount)


def build(options: dict[str, Any], region: str = "", **further: Any) -> SecretProvider:
    return SecretProvider(alias="k8s", region=region, **options, **further)


def reference(text: str, **options: Any) -> SecretRef:
    ref = SecretRef.parse(f"k8s://{text}").payload()
    return SecretProvider.canonical(ref, options)


def fetch(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def refusal(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def through_registry(options: dict[str, Any], **config: Any) -> SecretRegistry:
    backend = "django_secret_registry.providers.kubernetes.SecretProvider"
    fence = config.pop("fence", Fence())
    registry = SecretRegistry()
    spec = ProviderSpec("k8s", backend, options=options, fence=fence)
    registry.configure(RegistryConfig(providers={"k8s": spec}, **config))
    return registry


class TestConformance(ProviderConformance):
    """Kubernetes behaves as every provider must."""

    provider_class = SecretProvider
    alias = "k8s"
    lacks = {
        "binary": "the payload is a JSON object; the bytes of a key are asked for by ?as=bytes#key",
        "version": "the API keeps the last version only",
        "stage": "the API keeps the last version only",
        "regions": "an alias is one cluster",
    }
    existing, value = "db", json.dumps({"password": canary("db")})
    missing, denied = "none", "denied"
    credentials = (canary("token"),)
    outages = ("refused", "cut", "page", "throttled", "untrusted")

    @pytest.fixture(autouse=True)
    def server(self, kubernetes_server: KubernetesServer, tmp_path: Path) -> None:
        self.api = kubernetes_server
        self.options = kubernetes_server.mount(tmp_path / "serviceaccount")
        self.other_ca = tmp_path / "other.crt"
        self.other_ca.write_bytes(certificates.__wrapped__()[0])
        self.api.put("db", password=canary("db"))
        self.api.put("denied", password=canary("denied"))
        self.api.deny("denied")

    def rotate(self) -> str:
        self.api.put("db", password=canary("rotated"))
        return json.dumps({"password": canary("rotated")})

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        options = dict(self.options)
        if kind == "refused":
            options["url"] = f"https://127.0.0.1:{closed_port()}"
        elif kind == "untrusted":
            options["ca_file"] = self.other_ca
        elif kind == "cut":
            self.api.cut()
        else:
            code = {"page": 502, "throttled": 429}[kind]
            self.api.answer(Answer(code, canary("page").encode()))
        yield self.provider_class(alias=self.alias, region="", **options)
        self.api.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.api.hang()
        yield self.provider()
        self.api.heal()


# -- names --


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db", "k8s://db"),
        ("db.example.com", "k8s://db.example.com"),
        ("0-a", "k8s://0-a"),
        ("db?project=shop", "k8s://db"),
        ("db?project=other", "k8s://db?project=other"),
    ],
)
def test_one_spelling(text: str, expected: str) -> None:
    """The namespace of the alias need not be written, and makes no second secret."""
    assert str(reference(text, namespace=NAMESPACE)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a/b",
        "DB",
        "-a",
        "a-",
        ".a",
        "a..b",
        "a_b",
        "a." * 127 + "a",
        "b" * 64,
        "db?project=A",
        "db?project=a.b",
        "db?project=a_b",
        "db?version=1000",
        "db?stage=current",
        "db?stage=previous",
    ],
)
def test_bad_name(text: str) -> None:
    """What cannot be the name of a Secret or a namespace is refused, as are version and stage."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint


@given(st.text(st.sampled_from("ab0-./%@#?A\\ü"), min_size=1))
def test_names_are_safe_in_a_path(name: str) -> None:
    """Whatever the name, what is left of it needs no quoting and has no dots that lead away."""
    try:
        ref = SecretProvider.canonical(SecretRef(scheme="k8s", name=name), {})
    except InvalidReference:
        return
    assert all(label.replace("-", "a").isalnum() for label in ref.name.split("."))
    assert SecretProvider.canonical(ref, {}) == ref


def test_namespace(kubernetes_server: KubernetesServer, mount: dict[str, Any]) -> None:
    """The project of a reference is its namespace; else that of OPTIONS, else the pod's."""
    for namespace in (NAMESPACE, "billing", "ops"):
        kubernetes_server.put("db", password=canary(namespace), namespace=namespace)
    assert canary("ops") in fetch(build(mount), "db?project=ops").value
    assert canary("billing") in fetch(build(mount, namespace="billing")).value
    assert canary(NAMESPACE) in fetch(build(mount)).value


@pytest.mark.parametrize("content", ["", "a/b", None])
def test_no_namespace(mount: dict[str, Any], content: str | None) -> None:
    """A pod whose namespace is not known is told to name one."""
    file = Path(mount["token_file"]).with_name("namespace")
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    error = refusal(build(mount))
    assert type(error) is AccessDenied
    assert "project=" in error.hint


# -- payloads --


def test_keys(kubernetes_server: KubernetesServer, mount: dict[str, Any]) -> None:
    """The data keys of a Secret are read by name, all of them with one request."""
    kubernetes_server.put_data("db", {"password": canary("pw"), "tls.key": canary("ü\n")})
    registry = through_registry(mount)
    assert registry.get("k8s://db#password") == canary("pw")
    assert registry.get("k8s://db?trim=true#tls.key") == canary("ü")
    with pytest.raises(SecretNotFound, match="tls.key"):
        registry.get("k8s://db#nothing")
    assert kubernetes_server.calls == {"get": 1}


def test_binary_keys(kubernetes_server: KubernetesServer, mount: dict[str, Any]) -> None:
    """Any key gives its exact bytes; one that is no UTF-8 is refused as text, and spoils none."""
    binary = canary().encode() + bytes(range(256)) + b"\xed\xb2\x80\xf0\x9f"
    kubernetes_server.put("db", keystore=binary, password=canary("pw"))
    registry = through_registry(mount)
    assert registry.get("k8s://db?as=bytes#keystore") == binary
    assert registry.get("k8s://db?as=bytes#/keystore") == binary
    assert registry.get("k8s://db?as=bytes#password") == canary("pw").encode()
    assert registry.get("k8s://db#password") == canary("pw")
    with pytest.raises(ProviderError, match="as=bytes"):
        registry.get("k8s://db#keystore")


@given(st.dictionaries(st.sampled_from(["a", ".b", "c-d_e"]), st.binary()))
def test_every_content_survives(data: dict[str, bytes]) -> None:
    """Whatever bytes a Secret has, each key gives them back, and the payload is ASCII."""
    encoded = {key: base64.b64encode(content).decode() for key, content in data.items()}
    payload = _payload({"kind": "Secret", "data": encoded})
    assert payload is not None
    assert payload.isascii()
    for key, content in data.items():
        ref = SecretRef(scheme="k8s", name="x", key=key, as_="bytes")
        assert extract(SecretStr(payload), ref) == content


def test_base64_within_a_key(kubernetes_server: KubernetesServer, mount: dict[str, Any]) -> None:
    """``?as=base64`` decodes what was base64 before Kubernetes encoded it."""
    kubernetes_server.put("db", keystore=base64.b64encode(b"\xff\x00" + canary().encode()))
    registry = through_registry(mount)
    assert registry.get("k8s://db?as=base64#keystore") == b"\xff\x00" + canary().encode()


@pytest.mark.parametrize("data", [None, {}])
def test_empty_secret(
    kubernetes_server: KubernetesServer, provider: SecretProvider, data: dict[str, str] | None
) -> None:
    """A Secret without data is an empty object."""
    secret = {"kind": "Secret", "metadata": {"resourceVersion": "7"}, "data": data}
    kubernetes_server.answer(Answer.json(200, secret))
    answer = fetch(provider)
    assert (answer.value, answer.version) == ("{}", "7")


def test_version(kubernetes_server: KubernetesServer, provider: SecretProvider) -> None:
    """The version is the resourceVersion."""
    version = kubernetes_server.put("db", password=canary())
    assert fetch(provider).version == version
    assert kubernetes_server.put("db", password=canary()) != version
    assert fetch(provider).version != version


def test_size(kubernetes_server: KubernetesServer, provider: SecretProvider) -> None:
    """A payload over 1 MiB is ProviderError, and so is an answer that is larger than a Secret."""
    room = MAX_VALUE_SIZE - len('{"a": ""}')
    kubernetes_server.put("db", a=canary().ljust(room, "x"))
    assert len(fetch(provider).value) == MAX_VALUE_SIZE
    kubernetes_server.put("db", a=canary().ljust(room + 1, "x"))
    assert type(refusal(provider)) is ProviderError
    kubernetes_server.answer(Answer(200, b" " * (MAX_ANSWER + 1)))
    error = refusal(provider)
    assert type(error) is ProviderError
    assert "4 MiB" in error.message


# -- errors --


@pytest.mark.parametrize(
    ("answer", "kind", "hint"),
    [
        (status(400, "BadRequest"), ProviderError, ""),
        (status(401, "Unauthorized"), AccessDenied, "expired"),
        (status(403, "Forbidden"), AccessDenied, "RoleBinding"),
        (status(404, "NotFound"), SecretNotFound, ""),
        (status(404, "NotFound", kind="namespaces"), ProviderError, ""),
        (status(405, "MethodNotAllowed"), ProviderError, ""),
        (status(429, "TooManyRequests"), ProviderUnavailable, ""),
        (status(500, "InternalError"), ProviderUnavailable, ""),
        (status(503, "ServiceUnavailable"), ProviderUnavailable, ""),
        (status(504, "Timeout"), ProviderUnavailable, ""),
    ],
)
def test_error_of_the_api(
    kubernetes_server: KubernetesServer,
    mount: dict[str, Any],
    answer: Answer,
    kind: type[SecretError],
    hint: str,
) -> None:
    """Each error is sorted, says what to do, and is retried only where that can help."""
    kubernetes_server.answer(answer)
    error = refusal(build(mount, "here"))
    assert type(error) is kind
    assert hint in error.hint
    assert json.loads(answer.body)["reason"] in error.message
    assert (error.reference, error.provider, error.region) == ("k8s://db", "k8s", "here")
    assert kubernetes_server.calls["get"] == (ATTEMPTS if kind is ProviderUnavailable else 1)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, AccessDenied),
        (403, ProviderError),
        (404, ProviderError),
        (500, ProviderUnavailable),
        (502, ProviderUnavailable),
    ],
)
@pytest.mark.parametrize("body", [canary(), "{}", f'["{canary()}"]', f'{{"kind": "{canary()}"}}'])
def test_page_of_a_proxy(
    kubernetes_server: KubernetesServer,
    provider: SecretProvider,
    code: int,
    kind: type[SecretError],
    body: str,
) -> None:
    """An error that is not the API's own is no "not found", and its page is in no error."""
    kubernetes_server.answer(Answer(code, body.encode()))
    error = refusal(provider)
    assert type(error) is kind
    assert f"HTTP {code}" in error.message
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect(kubernetes_server: KubernetesServer, mount: dict[str, Any], code: int) -> None:
    """No redirect is followed, so that the token goes nowhere else."""
    kubernetes_server.answer(Answer(code, b"", {"Location": f"{kubernetes_server.url}/elsewhere"}))
    error = refusal(build(mount))
    assert type(error) is ProviderError
    assert "redirect" in error.hint
    assert kubernetes_server.calls == {"get": 1}


@pytest.mark.parametrize(
    "body",
    [
        f'{{"kind": "Secret", "data": {{"a": "{canary()}'.encode(),
        f'["{canary()}"]'.encode(),
        f'{{"kind": "{canary()}", "metadata": {{}}, "data": {{}}}}'.encode(),
        f'{{"kind": "Secret", "metadata": "{canary()}", "data": {{}}}}'.encode(),
        f'{{"kind": "Secret", "metadata": {{}}, "data": "{canary()}"}}'.encode(),
        f'{{"kind": "Secret", "metadata": {{}}, "data": {{"a": ["{canary()}"]}}}}'.encode(),
        f'{{"kind": "Secret", "metadata": {{}}, "data": {{"a": "{canary()}!"}}}}'.encode(),
        b'{"kind": "SecretList", "metadata": {}, "items": []}',
        b"[" * 100_000,
        canary().encode() + b"\xff",
        b"null",
        b"",
    ],
)
def test_answer_that_cannot_be_read(
    kubernetes_server: KubernetesServer, provider: SecretProvider, body: bytes
) -> None:
    """An answer that makes no sense is ProviderError, with nothing of it in its chain."""
    kubernetes_server.answer(Answer(200, body))
    error = refusal(provider)
    assert type(error) is ProviderError
    assert (error.__cause__, error.__context__) == (None, None)


def test_truncated_answer(kubernetes_server: KubernetesServer, provider: SecretProvider) -> None:
    """An answer that was cut short is unavailable, with nothing of it in its chain."""
    kubernetes_server.answer(Answer(200, canary().encode(), length=9999))
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert (error.__cause__, error.__context__) == (None, None)


def test_reset_in_the_middle(kubernetes_server: KubernetesServer, provider: SecretProvider) -> None:
    """A connection that breaks within the value is unavailable."""
    kubernetes_server.put("db", password=canary())
    kubernetes_server.reset_midway()
    assert type(refusal(provider)) is ProviderUnavailable


def test_retry(kubernetes_server: KubernetesServer, provider: SecretProvider) -> None:
    """A failure that passes is not seen by the reader."""
    kubernetes_server.put("db", password=canary())
    kubernetes_server.cut(times=ATTEMPTS - 1)
    assert canary() in fetch(provider).value
    assert kubernetes_server.calls == {"get": ATTEMPTS}


@pytest.mark.parametrize("fault", ["hang", "drip", "drip_headers"])
def test_timeout_bounds_everything(
    kubernetes_server: KubernetesServer, provider: SecretProvider, fault: str
) -> None:
    """Whatever hangs or drips, a fetch ends when its time is over, and is not tried again then."""
    kubernetes_server.put("db", password=canary())
    getattr(kubernetes_server, fault)()
    error = within(2, lambda: refusal(provider, timeout=0.4))
    assert type(error) is ProviderUnavailable
    assert kubernetes_server.calls == {"get": 1}
    kubernetes_server.heal()


def test_handshake_that_hangs(mount: dict[str, Any]) -> None:
    """A server that accepts a connection and says nothing holds a fetch no longer than its time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        provider = build({**mount, "url": f"https://127.0.0.1:{silent.getsockname()[1]}"})
        error = within(3, lambda: refusal(provider, timeout=0.4))
    assert type(error) is ProviderUnavailable


def test_no_time(kubernetes_server: KubernetesServer, provider: SecretProvider) -> None:
    """A fetch without any time left asks nobody."""
    assert type(refusal(provider, timeout=0)) is ProviderUnavailable
    assert not kubernetes_server.calls


# -- the service account --


def test_token_is_read_again(kubernetes_server: KubernetesServer, mount: dict[str, Any]) -> None:
    """A token that was rotated in its file is used for the next request, on the same connection."""
    kubernetes_server.put("db", password=canary())
    provider = build(mount)
    fetch(provider)
    kubernetes_server.tokens = {canary("new-token")}
    assert type(refusal(provider)) is AccessDenied
    Path(mount["token_file"]).write_text(canary("new-token"))
    assert canary() in fetch(provider).value
    assert kubernetes_server.connections == 1


def test_ca_is_read_again(kubernetes_server: KubernetesServer, mount: dict[str, Any]) -> None:
    """A CA that was rotated in its file is trusted without a restart, as kubelet replaces it."""
    kubernetes_server.put("db", password=canary())
    other, _ = certificates.__wrapped__()
    file = Path(mount["ca_file"])
    file.write_bytes(other)
    provider = build(mount)
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert "ca_file" in error.hint
    (file.parent / "..data").write_bytes(kubernetes_server.ca_file.read_bytes())
    (file.parent / "..data").replace(file)
    assert canary() in fetch(provider).value


@pytest.mark.parametrize("name", ["token_file", "ca_file"])
def test_no_service_account(
    kubernetes_server: KubernetesServer, mount: dict[str, Any], name: str
) -> None:
    """Without the files of a service account access is denied, and the hint tells how to mount."""
    Path(mount[name]).unlink()
    error = refusal(build(mount))
    assert type(error) is AccessDenied
    assert "automountServiceAccountToken" in error.hint
    assert not kubernetes_server.calls


@pytest.mark.parametrize("content", ["", "\n", "a b", "a\r\nX-Other: b", "ü"])
def test_what_is_no_token(
    kubernetes_server: KubernetesServer, mount: dict[str, Any], content: str
) -> None:
    """A file that holds no token sends nothing of what it holds."""
    Path(mount["token_file"]).write_text(content)
    assert type(refusal(build(mount))) is AccessDenied
    assert not kubernetes_server.calls


def test_ca_file_that_is_none(mount: dict[str, Any]) -> None:
    """A file without certificate trusts nobody."""
    Path(mount["ca_file"]).write_text("none")
    assert type(refusal(build(mount))) is ProviderUnavailable


def test_pipe_in_place_of_the_token(mount: dict[str, Any]) -> None:
    """A pipe in place of the token, which nobody writes to, holds nobody."""
    Path(mount["token_file"]).unlink()
    os.mkfifo(mount["token_file"])
    error = within(3, lambda: refusal(build(mount)))
    assert type(error) is ProviderError
    assert error.reference == "k8s://db"


# -- options --


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"},
            "10.0.0.1:6443",
        ),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "[fd00::1]:443"),
        ({}, ""),
    ],
)
def test_address_in_a_pod(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str
) -> None:
    """The address comes from what every pod is told; elsewhere it must be given."""
    pytest.importorskip("urllib3", reason="needs urllib3: pip install urllib3")
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if url:
        api = build({})._api
        assert f"{api._host}:{api._port}" == url
        assert api._token_file == SERVICE_ACCOUNT / "token"
    else:
        with pytest.raises(InvalidProvider, match="url"):
            build({})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"url": "http://127.0.0.1:8001"}, "url"),
        ({"url": "https://127.0.0.1/prefix"}, "url"),
        ({"url": "https://user@evil.test"}, "url"),
        ({"url": "https://api.example.com:6443"}, ""),
        ({"url": "https://[fd00::1]:6443/"}, ""),
        ({"namespace": "a.b"}, "namespace"),
        ({"token_file": "token"}, "token_file"),
        ({"ca_file": 1}, "ca_file"),
        ({"verify": False}, "verify"),
        ({}, ""),
    ],
)
def test_check(options: dict[str, Any], word: str) -> None:
    """The check names an option that is wrong, with a hint; TLS without a CA is none."""
    problems = SecretProvider.check(options)
    assert len(problems) == bool(word)
    assert all(word in problem.message and problem.hint for problem in problems)


def test_proxies_of_the_environment(
    kubernetes_server: KubernetesServer, mount: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment, made for the internet, is not used for the cluster's API."""
    kubernetes_server.put("db", password=canary())
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert canary() in fetch(build(mount)).value


# -- around it --


def test_no_answer_in_the_log(
    kubernetes_server: KubernetesServer, provider: SecretProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The client's logging, switched on, shows neither an answer nor the token."""
    kubernetes_server.put("db", password=canary())
    caplog.set_level(logging.DEBUG)
    fetch(provider)
    assert any(record.name.startswith("urllib3") for record in caplog.records)


def test_connections_are_kept(
    kubernetes_server: KubernetesServer, provider: SecretProvider
) -> None:
    """Fetches share a connection, and one that the server has closed is replaced unnoticed."""
    kubernetes_server.put("db", password=canary())
    for _ in range(3):
        fetch(provider)
    assert kubernetes_server.connections == 1
    kubernetes_server.disconnect()
    assert canary() in fetch(provider).value


def test_fetch_after_close(kubernetes_server: KubernetesServer, provider: SecretProvider) -> None:
    """A provider that was closed is unavailable for who still holds it."""
    kubernetes_server.put("db", password=canary())
    fetch(provider)
    provider.close()
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert "closed" in error.message


@pytest.mark.parametrize(
    ("fence", "reference"),
    [
        (Fence(allow=("shop-*",)), "k8s://db#password"),
        (Fence(projects=("billing",)), "k8s://db?project=ops#password"),
        (Fence(regions=("here",)), "k8s://db?region=there#password"),
    ],
)
def test_fences(
    kubernetes_server: KubernetesServer, mount: dict[str, Any], fence: Fence, reference: str
) -> None:
    """What lies outside a fence is denied before any request."""
    registry = through_registry(mount, fence=fence)
    with pytest.raises(AccessDenied, match="outside"):
        registry.get(reference)
    assert kubernetes_server.connections == 0


@pytest.mark.parametrize("text", ["k8s://patients", f"k8s://patients?project={NAMESPACE}"])
def test_residency_without_a_namespace(
    kubernetes_server: KubernetesServer, mount: dict[str, Any], text: str
) -> None:
    """A policy for a Secret of the pod's namespace binds also whoever writes that namespace."""
    residency = Residency(policy="strict", region="eu")
    entry = EntrySpec("patients", ref=SecretRef.parse("k8s://patients"), residency=residency)
    registry = through_registry(mount, entries={"patients": entry}, region="us")
    with pytest.raises(ResidencyViolation):
        registry.get(text)
    assert kubernetes_server.connections == 0


def test_documented_settings(kubernetes_server: KubernetesServer, mount: dict[str, Any]) -> None:
    """The settings of the documentation are without mistake, and read what they say."""
    config = load(settings_of("kubernetes"))
    spec = config.providers["k8s"]
    assert spec.problem == ""
    assert spec.backend_class.check(spec.options) == []
    kubernetes_server.put("shop-db", password=canary("pw"))
    kubernetes_server.put("shop-keys", keystore=b"\xff" + canary().encode())
    registry = through_registry(
        {**spec.options, **mount}, fence=spec.fence, entries=config.entries, region=config.region
    )
    assert registry.get("db_password") == canary("pw")
    assert registry.get("keystore") == b"\xff" + canary().encode()


def test_import_needs_no_client() -> None:
    """Importing and checking the provider imports no HTTP client."""
    code = """
        import sys
        from django_secret_registry.providers.kubernetes import SecretProvider
        assert SecretProvider.check({"namespace": "shop", "nonsense": 1})
        sys.exit("urllib3" in sys.modules)
    """
    assert not subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode
