"""Vault: hvac against a real OpenBao, and against a layer before it that fails."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.probing import outcome
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers import _vault_login
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.providers.vault import VaultProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.values import MAX_VALUE_SIZE, SecretValue
from tests.canary import canary
from tests.fixtures import openbao
from tests.scripted import HandClock, at_once
from tests.servers.openbao import ROOT, OpenBaoServer, started

pytestmark = pytest.mark.sdk

bao_session, bao, bao_with_tls = openbao.bao_session, openbao.bao, openbao.bao_with_tls

READER = {
    "secret/data/*": ["read"],
    "secret/data/denied": ["deny"],
    "kv1/*": ["read"],
}
ROLE_ID = "role-of-tests"


@pytest.fixture(scope="session")
def reader(bao_session: OpenBaoServer) -> str:
    """A token that may read everything but one secret."""
    return bao_session.token(bao_session.policy("reader", **READER))


@pytest.fixture
def provider(bao: OpenBaoServer, reader: str) -> VaultProvider:
    return build(bao, reader)


def build(server: OpenBaoServer, token: str = "", **options: Any) -> VaultProvider:
    """Return a provider that uses ``token``, unless ``auth`` says how to log in."""
    if "auth" not in options:
        options["auth"] = {"method": "token", "token": token}
    region = options.pop("region", "")
    return VaultProvider(alias="vault", region=region, **{"url": server.url, **options})


def reference(text: str) -> SecretRef:
    return VaultProvider.canonical(SecretRef.parse(f"vault://{text}").payload(), {})


def fetch(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def refusal(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


def payload(text: str) -> str:
    return json.dumps({"password": canary(text)}, separators=(",", ":"))


class TestConformance(ProviderConformance):
    """Vault behaves as every provider must."""

    provider_class = VaultProvider
    alias = "vault"
    lacks = {"binary": "KV keeps JSON"}
    existing, value, missing, denied = "prod/db", payload("new"), "none", "denied"
    versions = {"prod/db?version=1": payload("old"), "prod/db?version=2": payload("new")}
    missing_version = "prod/db?version=9"
    stages = {"prod/db?stage=current": payload("new"), "prod/db?stage=previous": payload("old")}
    missing_stage = "prod/db?stage=pending"
    regions = {"eu-central-1": payload("new"), "us-east-1": payload("there")}
    outages = ("refused", "cut", "sealed", "throttled", "error")

    @pytest.fixture(autouse=True)
    def server(self, bao: OpenBaoServer, bao_with_tls: OpenBaoServer, reader: str) -> None:
        self.bao = bao
        bao.put("prod/db", password=canary("old"))
        bao.put("prod/db", password=canary("new"))
        bao.put("denied", password=canary("denied"))
        if "prod/db" not in bao_with_tls._names:
            bao_with_tls.put("prod/db", password=canary("there"))
            policy = bao_with_tls.policy("reader", **READER)
            bao_with_tls.admin.auth.token.create(id=reader, policies=[policy])
        self.credentials = (reader,)
        self.options = {
            "url": {"-": bao.url, "eu-central-1": bao.url, "us-east-1": bao_with_tls.url},
            "auth": {"method": "token", "token": reader},
            "client": {"verify": str(bao_with_tls.ca)},
        }

    def rotate(self) -> str:
        self.bao.put("prod/db", password=canary("rotated"))
        return payload("rotated")

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        if kind == "refused":
            yield VaultProvider(
                alias="vault", region="", **{**self.options, "url": "http://[::1]:1"}
            )
            return
        if kind == "cut":
            self.bao.layer.cut()
        else:
            self.bao.layer.fail({"sealed": 503, "throttled": 429, "error": 500}[kind])
        yield self.provider()
        self.bao.layer.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.bao.layer.hang()
        yield self.provider()
        self.bao.layer.heal()


# -- names, mounts, versions --


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prod/db", "vault://prod/db"),
        ("prod/db?project=secret", "vault://prod/db"),
        ("prod/db?project=kv1", "vault://prod/db?project=kv1"),
        ("prod/db?stage=current", "vault://prod/db"),
        ("prod/db?version=3&stage=current", "vault://prod/db?version=3"),
    ],
)
def test_one_spelling(text: str, expected: str) -> None:
    """Every way to write a reference ends in one, which is what is cached and fenced."""
    assert str(reference(text)) == expected


@pytest.mark.parametrize(
    "text", ["../db", "a//b", "/db", "db/", "a/./b", "db?version=1&stage=previous"]
)
def test_bad_name(text: str) -> None:
    """A name that bends a path, and a reference that contradicts itself, are InvalidReference."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint
    assert caught.value.provider == "vault"


@given(st.text(min_size=1))
def test_any_name(name: str) -> None:
    """Any name has one spelling or is InvalidReference."""
    ref = SecretRef(scheme="vault", name=name)
    try:
        ref = VaultProvider.canonical(ref, {})
    except InvalidReference:
        return
    assert VaultProvider.canonical(ref, {}) == ref


def test_names_are_quoted(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """What a URL would understand in a name is part of the name."""
    bao.put("a b/ü", password=canary("odd"))
    assert fetch(provider, "a%20b/%C3%BC").value == payload("odd")
    for other in ("a%20b%2F%C3%BC%3Fversion=1", "a%20b/%C3%BC%23", "a%2520b/%25C3%25BC"):
        assert isinstance(refusal(provider, other), SecretNotFound)


def test_whole_secret(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A secret is a compact JSON object, with its nesting and its Unicode; so is an empty one."""
    data = {"user": "ü", "ports": [1, 2.5, None], "tls": {"on": True}}
    bao.put("db", **data)
    bao.put("empty")
    value = fetch(provider).value
    assert json.loads(value) == data
    assert " " not in value
    assert "ü" in value
    assert fetch(provider, "empty").value == "{}"


def test_keys(registry_of: Any, bao: OpenBaoServer) -> None:
    """A key of the object is read with ``#``, through the registry."""
    bao.put("db", user="app", password=canary("key"))
    registry = registry_of()
    assert registry.get("vault://db#password") == canary("key")
    assert registry.get("vault://db?version=1#user") == "app"
    assert registry.fetch("vault://db").version == "1"
    with pytest.raises(SecretNotFound, match="'password', 'user'"):
        registry.get("vault://db#pasword")


@pytest.fixture
def registry_of(bao: OpenBaoServer, reader: str) -> Iterator[Any]:
    """Give a function that makes a registry with the alias ``vault``."""
    from django_secret_registry.resolver import SecretRegistry
    from django_secret_registry.specs import RegistryConfig

    made = []

    def make(clock: HandClock | None = None, **options: Any) -> SecretRegistry:
        registry = SecretRegistry(**({"clock": clock, "wall": clock} if clock else {}))
        given = {"url": bao.url, "auth": {"method": "token", "token": reader}, **options}
        spec = ProviderSpec(
            "vault", f"{VaultProvider.__module__}.{VaultProvider.__name__}", options=given
        )
        registry.configure(RegistryConfig(providers={"vault": spec}))
        made.append(registry)
        return registry

    yield make
    for registry in made:
        registry.close()


def test_kv1(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """KV v1 has neither versions nor stages; which engine a mount has is asked once."""
    bao.write("kv1/app/db", password=canary("v1"))
    for _ in range(2):
        answer = fetch(provider, "app/db?project=kv1")
        assert (answer.value, answer.version) == (payload("v1"), None)
    assert bao.layer.calls["GET /v1/sys/internal/ui/mounts/kv1"] == 1
    for text in ("app/db?project=kv1&version=1", "app/db?project=kv1&stage=previous"):
        error = refusal(provider, text)
        assert isinstance(error, SecretNotFound)
        assert "keeps no versions" in error.message
    assert isinstance(refusal(provider, "none?project=kv1"), SecretNotFound)


def test_default_mount(bao: OpenBaoServer, reader: str) -> None:
    """The mount of OPTIONS is the one that a reference does not name; it may be a path."""
    bao.write("sys/mounts/team/kv", type="kv", options={"version": "1"})
    bao.policy("team", **{"team/kv/*": ["read"]})
    bao.write("team/kv/db", password=canary("team"))
    provider = build(bao, bao.token("reader", "team"), mount="team/kv")
    assert fetch(provider).value == payload("team")
    bao.admin.sys.disable_secrets_engine("team/kv")


def test_part_of_a_mount(bao: OpenBaoServer, reader: str) -> None:
    """What lies below a mount is no mount, and the error says so."""
    bao.put("app/db", password=canary())
    error = refusal(build(bao, reader, mount="secret/app"))
    assert isinstance(error, ProviderError)
    assert '"secret/app"' in error.hint


@pytest.mark.parametrize("version", ["0", "-", "latest", "01", "9" * 19])
def test_version_that_is_no_number(
    bao: OpenBaoServer, provider: VaultProvider, version: str
) -> None:
    """A version that KV cannot have is not found, without a call."""
    error = refusal_of(provider, SecretRef(scheme="vault", name="db", version=version))
    assert isinstance(error, SecretNotFound)
    assert not bao.layer.calls


def refusal_of(provider: BaseProvider, ref: SecretRef) -> SecretError:
    with pytest.raises(SecretError) as caught:
        provider.fetch(ref, timeout=10)
    return caught.value


def test_deleted_and_destroyed(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A version that is deleted or destroyed is not found, and the hint tells them apart."""
    bao.put("db", password=canary("first"))
    bao.put("db", password=canary("second"))
    kv = bao.admin.secrets.kv.v2
    kv.delete_secret_versions("db", [2])
    for text in ("db", "db?version=2"):
        error = refusal(provider, text)
        assert isinstance(error, SecretNotFound)
        assert "undelete" in error.hint
    assert fetch(provider, "db?stage=previous").value == payload("first")
    kv.undelete_secret_versions("db", [2])
    assert fetch(provider).value == payload("second")
    kv.destroy_secret_versions("db", [2])
    error = refusal(provider)
    assert isinstance(error, SecretNotFound)
    assert "cannot be brought back" in error.hint


def test_no_previous(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """Without a version before the current one there is no previous one."""
    bao.put("db", password=canary())
    for text in ("db?stage=previous", "none?stage=previous"):
        assert isinstance(refusal(provider, text), SecretNotFound)


def test_missing_names_the_path(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """Who writes the path of the API for a name is told where it was looked for."""
    bao.put("db", password=canary())
    assert '"secret/data/data/db"' in refusal(provider, "data/db").hint


@pytest.mark.parametrize(
    "text", ["x?project=sys", "lookup-self?project=auth", "k?project=cubbyhole"]
)
def test_other_paths_of_the_api(bao: OpenBaoServer, text: str) -> None:
    """Nothing but KV and leases is read, even with a token that may read everything."""
    bao.write("cubbyhole/k", password=canary())
    error = refusal(build(bao, ROOT), text)
    assert isinstance(error, AccessDenied | SecretNotFound | ProviderError)
    assert isinstance(refusal(build(bao, ROOT), "k?project=cubbyhole"), ProviderError)


# -- namespaces and regions --


def test_namespace(bao: OpenBaoServer, reader: str) -> None:
    """The namespace of OPTIONS is the one that is logged in to and read from."""
    bao.write("sys/namespaces/team-a")
    bao.write("sys/mounts/secret", namespace="team-a", type="kv", options={"version": "1"})
    bao.write("secret/db", namespace="team-a", password=canary("namespace"))
    provider = build(bao, ROOT, namespace="team-a")
    assert fetch(provider).value == payload("namespace")
    error = refusal(build(bao, reader, namespace="team-a"))
    assert isinstance(error, AccessDenied)


def test_missing_namespace(bao: OpenBaoServer) -> None:
    """A namespace that Vault does not have is an error of the set-up, and no missing secret."""
    error = refusal(build(bao, ROOT, namespace="nowhere"))
    assert type(error) is ProviderError
    assert "namespace" in error.hint


def test_region_without_url(bao: OpenBaoServer, reader: str) -> None:
    """A region that the urls leave out is an error of the set-up, before any call."""
    with pytest.raises(InvalidProvider, match="us-east-1"):
        build(bao, reader, url={"eu-central-1": bao.url}, region="us-east-1")
    with pytest.raises(InvalidProvider, match="no url"):
        build(bao, reader, url="")


def test_url_from_the_environment(
    bao: OpenBaoServer, reader: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without url and auth the variables and the file of Vault's own client are used."""
    bao.put("db", password=canary("env"))
    monkeypatch.setenv("VAULT_ADDR", bao.url)
    assert isinstance(refusal(VaultProvider(alias="vault", region="")), AccessDenied)
    monkeypatch.setenv("VAULT_TOKEN", reader)
    assert fetch(VaultProvider(alias="vault", region="")).value == payload("env")
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".vault-token").write_text(reader)
    assert fetch(VaultProvider(alias="vault", region="")).value == payload("env")


# -- what goes wrong --


def test_denied_names_path_and_capability(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A policy that denies is told with the rule that it lacks."""
    error = refusal(provider, "denied")
    assert isinstance(error, AccessDenied)
    assert 'path "secret/data/denied" { capabilities = ["read"] }' in error.hint


def test_unknown_mount(provider: VaultProvider) -> None:
    """A mount that does not exist and one that is not allowed look alike to Vault."""
    error = refusal(provider, "db?project=nowhere")
    assert isinstance(error, AccessDenied)
    assert '"nowhere"' in error.hint


@pytest.mark.parametrize("status", [412, 429, 500, 501, 502, 503, 504])
def test_outages(bao: OpenBaoServer, provider: VaultProvider, status: int) -> None:
    """A status that says "not now" is ProviderUnavailable, and is asked once."""
    fetch_any(provider, bao)
    bao.layer.calls.clear()
    bao.layer.fail(status, canary("what a server says"))
    error = refusal(provider)
    assert isinstance(error, ProviderUnavailable)
    assert str(status) in error.message
    assert bao.layer.calls.total() == 1


def test_sealed_and_throttled(bao: OpenBaoServer) -> None:
    """What a real server answers over its quota, and once it is sealed, is ProviderUnavailable."""
    with started() as server:
        provider = build(server, ROOT)
        fetch_any(provider, server)
        server.write("sys/quotas/rate-limit/tests", rate=1, path="secret", interval="1h")
        errors = [outcome(lambda: fetch(provider)) for _ in range(2)]
        assert isinstance(errors[1], ProviderUnavailable)
        assert "throttles" in errors[1].message
        server.admin.sys.seal()
        error = refusal(provider)
        assert isinstance(error, ProviderUnavailable)
        assert "sealed" in error.message


def fetch_any(provider: BaseProvider, bao: OpenBaoServer) -> None:
    """Have the provider log in and learn of the mount."""
    bao.put("db", password=canary())
    fetch(provider)


@pytest.mark.parametrize("status", [400, 405, 418])
def test_refused_requests(bao: OpenBaoServer, provider: VaultProvider, status: int) -> None:
    """A status that says "not like this" is ProviderError."""
    fetch_any(provider, bao)
    bao.layer.fail(status, canary("what a server says"))
    assert type(refusal(provider)) is ProviderError


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>" + canary("page").encode(),
        b'{"data": {"data": {"password": "' + canary().encode(),
        b'["' + canary().encode() + b'"]',
        b'{"data": "' + canary().encode() + b'"}',
        b'{"data": {"data": "' + canary().encode() + b'"}}',
        b'{"data": ' * 100_000 + b"1" + b"}" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda body: body[:16].decode("latin-1") or "empty",
)
def test_answers_that_cannot_be_used(
    bao: OpenBaoServer, provider: VaultProvider, body: bytes
) -> None:
    """An answer that is no secret of KV is ProviderError, and nothing of it is shown."""
    fetch_any(provider, bao)
    bao.layer.answer(body)
    assert type(refusal(provider)) is ProviderError


@pytest.mark.parametrize("size", [MAX_VALUE_SIZE, 7 * MAX_VALUE_SIZE])
def test_too_large(bao: OpenBaoServer, provider: VaultProvider, size: int) -> None:
    """A secret that is too large is ProviderError, and no more of it is read than need be."""
    fetch_any(provider, bao)
    bao.layer.answer(b'{"data": {"data": {"a": "' + b"x" * size + b'"}}}')
    error = refusal(provider)
    assert type(error) is ProviderError
    assert "large" in error.message


def test_short_answer(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A body that ends too early is an outage, though it may be valid JSON."""
    fetch_any(provider, bao)
    body = b'{"data": {"data": {"a": "' + canary().encode() + b'"}}}'
    bao.layer.answer(body, length=len(body) + 10)
    error = refusal(provider)
    assert isinstance(error, ProviderUnavailable)
    assert error.__cause__ is None


def test_drip(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """An answer that comes byte by byte is given up in time."""
    fetch_any(provider, bao)
    bao.layer.drip(b'{"data":' * 100)
    began = time.monotonic()
    assert isinstance(refusal(provider, timeout=0.3), ProviderUnavailable)
    assert time.monotonic() - began < 2


def test_no_time_left(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """With no time left nothing is asked."""
    assert isinstance(refusal(provider, timeout=0), ProviderUnavailable)
    assert not bao.layer.calls


def test_redirect_to_another_host(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A redirect to another host is not followed: the token would go there."""
    fetch_any(provider, bao)
    seen: list[str] = []

    class Thief(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # pragma: no cover - nobody comes here
            seen.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Thief) as thief:
        thread = Thread(target=thief.serve_forever, args=[0.01], daemon=True)
        thread.start()
        bao.layer.redirect(f"http://127.0.0.1:{thief.server_port}/")
        error = refusal(provider)
        thief.shutdown()
        thread.join()
    assert type(error) is ProviderError
    assert "redirects to another host" in error.message
    assert not seen


def test_redirect_to_the_same_host(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A redirect to the same host is followed, as behind a load balancer, but not in a circle."""
    fetch_any(provider, bao)
    bao.layer.redirect(f"{bao.url}/", times=1)
    assert fetch(provider).value == payload("secret")
    bao.layer.redirect(f"{bao.url}/")
    assert "circle" in refusal(provider).message


def test_tls(bao_with_tls: OpenBaoServer, tmp_path: Path) -> None:
    """A server whose CA is not trusted is unavailable, and the hint tells how to name a CA."""
    error = refusal(build(bao_with_tls, "x"))
    assert isinstance(error, ProviderUnavailable)
    assert '"verify"' in error.hint
    with pytest.raises(InvalidProvider, match="does not exist"):
        build(bao_with_tls, "x", client={"verify": str(tmp_path / "none.pem")})


def test_nothing_is_logged(
    bao: OpenBaoServer, provider: VaultProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that the libraries log at DEBUG holds a value or a token."""
    caplog.set_level(logging.DEBUG)
    fetch_any(provider, bao)
    assert any("secret/data/db" in record.getMessage() for record in caplog.records)


# -- tokens and logins --


@pytest.fixture
def approle(bao: OpenBaoServer) -> dict[str, Any]:
    """Return what to log in with by AppRole."""
    if "approle/" not in bao.admin.sys.list_auth_methods()["data"]:
        bao.admin.sys.enable_auth_method("approle")
        bao.write("auth/approle/role/web", token_policies=["reader"], token_ttl="1h")
        bao.write("auth/approle/role/web/role-id", role_id=ROLE_ID)
        bao.write("auth/approle/role/web/custom-secret-id", secret_id=canary("secret-id"))
    bao.policy("reader", **READER)
    return {"method": "approle", "role_id": ROLE_ID, "secret_id": canary("secret-id")}


def role(bao: OpenBaoServer, **settings: Any) -> None:
    bao.write("auth/approle/role/web", **{"token_ttl": "1h", "token_max_ttl": "0", **settings})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """The clock of tokens, in the hand of the test."""
    clock = HandClock()
    monkeypatch.setattr(_vault_login, "steady", clock)
    return clock


def test_approle(bao: OpenBaoServer, approle: dict[str, Any]) -> None:
    """AppRole logs in once, however many threads come first."""
    bao.put("db", password=canary("approle"))
    provider = build(bao, auth=approle)
    answers = at_once(lambda: fetch(provider).value, 16)
    assert answers == [payload("approle")] * 16
    assert bao.layer.calls["POST /v1/auth/approle/login"] == 1


def test_refused_login(bao: OpenBaoServer, approle: dict[str, Any]) -> None:
    """A login that Vault refuses is AccessDenied, names its method, and is not repeated at once."""
    provider = build(bao, auth={**approle, "secret_id": canary("wrong")})
    for _ in range(3):
        error = refusal(provider)
        assert isinstance(error, AccessDenied)
        assert "approle" in error.message
        assert "auth/approle" in error.hint
    assert bao.layer.calls["POST /v1/auth/approle/login"] == 1
    unmounted = build(bao, auth={**approle, "mount": "nowhere"})
    assert "auth/nowhere" in refusal(unmounted).hint


def test_login_during_an_outage(bao: OpenBaoServer, approle: dict[str, Any]) -> None:
    """A login that fails for now is ProviderUnavailable, and is tried again."""
    fetchable = build(bao, auth=approle)
    bao.put("db", password=canary("later"))
    bao.layer.fail(503, on="login", times=1)
    assert isinstance(refusal(fetchable), ProviderUnavailable)
    assert fetch(fetchable).value == payload("later")


def test_token_is_renewed(bao: OpenBaoServer, approle: dict[str, Any], clock: HandClock) -> None:
    """A token that has a third of its lifetime left is renewed by whoever needs it."""
    provider = build(bao, auth=approle)
    fetch_any(provider, bao)
    clock.forward(2401)
    fetch(provider)
    fetch(provider)
    assert bao.layer.calls["POST /v1/auth/token/renew-self"] == 1
    assert bao.layer.calls["POST /v1/auth/approle/login"] == 1


def test_token_at_its_longest(
    bao: OpenBaoServer, approle: dict[str, Any], clock: HandClock
) -> None:
    """A token that cannot be renewed for long any more is replaced while it still holds."""
    role(bao, token_ttl="1h", token_max_ttl="1h")
    provider = build(bao, auth=approle)
    fetch_any(provider, bao)
    bao.layer.answer(b'{"auth": {"lease_duration": 600, "renewable": true}}', on="renew-self")
    clock.forward(2401)
    fetch(provider)
    assert bao.layer.calls["POST /v1/auth/approle/login"] == 2
    role(bao)


def test_token_that_cannot_be_replaced_yet(
    bao: OpenBaoServer, approle: dict[str, Any], clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While logins fail, a token that still holds is used, and a warning says so."""
    provider = build(bao, auth=approle)
    fetch_any(provider, bao)
    clock.forward(2401)
    bao.layer.fail(503, on="/auth/")
    fetch(provider)
    assert "cannot be replaced yet" in caplog.text
    fetch(provider)
    assert bao.layer.calls["POST /v1/auth/token/renew-self"] == 1
    clock.forward(1300)
    assert isinstance(refusal(provider), ProviderUnavailable)
    bao.layer.heal()
    fetch(provider)


def test_token_that_was_revoked(bao: OpenBaoServer, approle: dict[str, Any]) -> None:
    """A token that Vault has ended is replaced, and the read does not fail."""
    provider = build(bao, auth=approle)
    fetch_any(provider, bao)
    revoke(bao, provider)
    assert fetch(provider).value == payload("secret")
    answers = revoke(bao, provider) or at_once(lambda: fetch(provider).value, 8)
    assert answers == [payload("secret")] * 8
    assert bao.layer.calls["POST /v1/auth/approle/login"] == 3


def revoke(bao: OpenBaoServer, provider: VaultProvider) -> None:
    token = provider._identity._token
    assert token is not None
    bao.admin.auth.token.revoke(token.text)


def test_denied_does_not_log_in_again(bao: OpenBaoServer, approle: dict[str, Any]) -> None:
    """A policy that denies is no reason for a new token."""
    provider = build(bao, auth=approle)
    assert isinstance(refusal(provider, "denied"), AccessDenied)
    assert isinstance(refusal(provider, "denied"), AccessDenied)
    assert bao.layer.calls["POST /v1/auth/approle/login"] == 1


def test_static_token_that_ended(bao: OpenBaoServer, reader: str) -> None:
    """A token that was given and has ended is AccessDenied with that reason."""
    token = bao.token("reader")
    provider = build(bao, token)
    fetch_any(provider, bao)
    bao.admin.auth.token.revoke(token)
    error = refusal(provider)
    assert isinstance(error, AccessDenied)
    assert "has ended or was revoked" in error.message


def test_static_token_is_renewed(bao: OpenBaoServer, reader: str, clock: HandClock) -> None:
    """A token that was given is renewed too, if it can be; one that never ends is left alone."""
    provider = build(bao, bao.token("reader", ttl="1h"))
    fetch_any(provider, bao)
    clock.forward(2401)
    fetch(provider)
    assert bao.layer.calls["POST /v1/auth/token/renew-self"] == 1
    root = build(bao, ROOT)
    fetch(root)
    clock.forward(1e9)
    fetch(root)
    assert bao.layer.calls["POST /v1/auth/token/renew-self"] == 1


def test_static_token_is_read_again(bao: OpenBaoServer, reader: str) -> None:
    """A marker in ``auth`` is read at each login: a token that was replaced there is used."""
    tokens = [bao.token("reader"), bao.token("reader")]
    given = {"method": "token", "token": tokens[0]}
    provider = build(bao, auth=given)
    fetch_any(provider, bao)
    given["token"] = tokens[1]
    bao.admin.auth.token.revoke(tokens[0])
    assert fetch(provider).value == payload("secret")


def test_token_without_default_policy(bao: OpenBaoServer, reader: str) -> None:
    """A token that may not look itself up can be used, and is told when it may not read."""
    provider = build(bao, bao.token("reader", no_default_policy=True))
    fetch_any(provider, bao)
    error = refusal(provider, "denied")
    assert isinstance(error, AccessDenied)
    assert 'path "secret/data/denied"' in error.hint
    assert "look itself up" in error.hint
    assert "look itself up" in refusal(build(bao, canary("no-token"))).hint


def test_login_without_default_policy(bao: OpenBaoServer, approle: dict[str, Any]) -> None:
    """With tokens that may not look themselves up a denied read logs in again once."""
    role(bao, token_no_default_policy=True)
    provider = build(bao, auth=approle)
    for _ in range(3):
        assert 'path "secret/data/denied"' in refusal(provider, "denied").hint
    assert bao.layer.calls["POST /v1/auth/approle/login"] == 2
    role(bao, token_no_default_policy=False)


def test_secret_id_from_a_marker(
    bao: OpenBaoServer, approle: dict[str, Any], tmp_path: Path
) -> None:
    """The secret_id may be a secret of another alias, which must exist."""
    settings = f"""
        from django_secret_registry import secret
        INSTALLED_APPS = ["django_secret_registry"]
        SECRET_REGISTRY = {{"PROVIDERS": {{
            "file": {{
                "BACKEND": "django_secret_registry.providers.file.FileProvider",
                "OPTIONS": {{"path": {str(tmp_path)!r}}},
            }},
            "vault": {{
                "BACKEND": "django_secret_registry.providers.vault.VaultProvider",
                "OPTIONS": {{
                    "url": {bao.url!r},
                    "auth": {{
                        "method": "approle",
                        "role_id": {ROLE_ID!r},
                        "secret_id": secret("file://secret-id?trim=true"),
                    }},
                }},
            }},
        }}}}
    """
    bao.put("db", password="seen")
    (tmp_path / "project.py").write_text(textwrap.dedent(settings))
    code = """
        import django, sys
        django.setup()
        from django.core.management import call_command
        from django_secret_registry import registry
        call_command("check")
        assert "hvac" not in sys.modules and "requests" not in sys.modules
        try:
            registry.get("vault://db", default="not told")
        except Exception as error:
            print(type(error).__name__)
        open(sys.argv[1], "w").write(sys.argv[2] + chr(10))
        registry.evict(all=True)
        print(registry.get("vault://db#password"))
    """
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c", textwrap.dedent(code)),
            *(str(tmp_path / "secret-id"), canary("secret-id")),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{tmp_path}:."},
    )
    assert done.stdout.split("\n")[-3:] == ["InvalidProvider", "seen", ""]


def jwt(key: Any, **claims: Any) -> str:
    """Return a JSON Web Token, signed with RS256."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    header = {"alg": "RS256", "typ": "JWT"}
    claims = {"iat": int(time.time()), "exp": int(time.time()) + 600, **claims}
    text = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(key.sign(text, PKCS1v15(), SHA256()))).decode()


@pytest.fixture(scope="module")
def key() -> Any:
    rsa = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.rsa", reason="needs cryptography"
    )
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def test_jwt(bao: OpenBaoServer, reader: str, key: Any, tmp_path: Path) -> None:
    """A JWT logs in, from OPTIONS or from a file that is read again at each login."""
    bao.admin.sys.enable_auth_method("jwt", path="ci")
    bao.write("auth/ci/config", jwt_validation_pubkeys=[public_pem(key)])
    bao.write(
        "auth/ci/role/web",
        role_type="jwt",
        user_claim="sub",
        bound_audiences=["vault"],
        token_policies=["reader"],
    )
    auth = {"method": "jwt", "role": "web", "mount": "ci"}
    provider = build(bao, auth={**auth, "jwt": jwt(key, sub="ci", aud="vault")})
    fetch_any(provider, bao)
    path = tmp_path / "token"
    provider = build(bao, auth={**auth, "jwt_path": str(path)})
    error = refusal(provider)
    assert isinstance(error, AccessDenied)
    assert str(path) in error.hint
    path.write_text(jwt(key, sub="ci", aud="another"))
    assert isinstance(refusal(provider), AccessDenied)
    path.write_text(jwt(key, sub="ci", aud="vault") + "\n")
    provider = build(bao, auth={**auth, "jwt_path": str(path)})
    assert fetch(provider).value == payload("secret")
    bao.admin.sys.disable_auth_method("ci")


class TokenReviews(BaseHTTPRequestHandler):
    """What Vault asks of Kubernetes: whose token is this?"""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        user = {
            "username": "system:serviceaccount:shop:web",
            "uid": "1",
            "groups": ["system:serviceaccounts"],
        }
        body = json.dumps(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "status": {"authenticated": True, "user": user},
            }
        ).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


def test_kubernetes(
    bao: OpenBaoServer, bao_with_tls: OpenBaoServer, reader: str, key: Any, tmp_path: Path
) -> None:
    """A pod's service account logs in, with the token that stands in the file at that time."""
    with HTTPServer(("127.0.0.1", 0), TokenReviews) as cluster:
        thread = Thread(target=cluster.serve_forever, args=[0.01], daemon=True)
        thread.start()
        bao.admin.sys.enable_auth_method("kubernetes")
        bao.write(
            "auth/kubernetes/config",
            kubernetes_host=f"http://127.0.0.1:{cluster.server_port}",
            token_reviewer_jwt=jwt(key, sub="reviewer"),
            kubernetes_ca_cert=bao_with_tls.ca.read_text(),
            disable_local_ca_jwt=True,
        )
        bao.write(
            "auth/kubernetes/role/web",
            bound_service_account_names="web",
            bound_service_account_namespaces="shop",
            token_policies=["reader"],
        )
        account = {"namespace": "shop", "serviceaccount": {"name": "web", "uid": "1"}}
        path = tmp_path / "token"
        path.write_text(
            jwt(key, sub="system:serviceaccount:shop:web", **{"kubernetes.io": account})
        )
        auth = {"method": "kubernetes", "role": "web", "jwt_path": str(path)}
        fetch_any(build(bao, auth=auth), bao)
        error = refusal(build(bao, auth={**auth, "role": "none"}))
        assert isinstance(error, AccessDenied)
        assert "kubernetes" in error.message
        in_no_pod = build(bao, auth={"method": "kubernetes", "role": "web"})
        assert _vault_login.SERVICE_ACCOUNT in refusal(in_no_pod).hint
        bao.admin.sys.disable_auth_method("kubernetes")
        cluster.shutdown()
        thread.join()


# -- options --


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "vault.example.com"}, "'url'"),
        ({"url": "https://user:password@vault"}, "'url'"),
        ({"url": "https://vault:port"}, "'url'"),
        ({"url": {"eu/../us": "https://vault"}}, "no region"),
        ({"url": {"eu": "ftp://vault"}}, "'url'"),
        ({"mount": "../sys"}, "'mount'"),
        ({"namespace": "a//b"}, "'namespace'"),
        ({"client": ["verify"]}, "'client'"),
        ({"client": {"token": "x"}}, "'client'"),
        ({"auth": "approle"}, "no method"),
        ({"auth": {"method": "ldap"}}, "no method"),
        ({"auth": {"method": "approle"}}, "lacks 'role_id'"),
        ({"auth": {"method": "approle", "role_id": "r", "role": "r"}}, "take 'role'"),
        ({"auth": {"method": "jwt", "role": "r"}}, "either 'jwt' or 'jwt_path'"),
        (
            {"auth": {"method": "kubernetes", "role": "r", "jwt": "j", "jwt_path": "p"}},
            "either 'jwt' or 'jwt_path'",
        ),
    ],
)
def test_mistakes_in_options(options: dict[str, Any], message: str) -> None:
    """Each mistake in OPTIONS is told by the check, with a hint, and refuses the build."""
    (problem,) = VaultProvider.check(options)
    assert message in problem.message
    assert problem.hint
    with pytest.raises(InvalidProvider) as caught:
        VaultProvider(alias="vault", region="", **options)
    assert caught.value.message == problem.message


def test_options_in_use() -> None:
    """What the documentation shows is accepted."""
    assert not VaultProvider.check(
        {
            "url": {
                "eu-central-1": "https://vault.eu.example.com:8200/prefix",
                "-": "http://[::1]",
            },
            "auth": {"method": "approle", "role_id": "r", "secret_id": "s", "mount": "a/b"},
            "namespace": "team/a",
            "mount": "team/kv",
            "client": {"verify": "/ca.pem", "cert": ("/a", "/b"), "proxies": {}},
        }
    )
