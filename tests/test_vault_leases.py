"""Credentials that Vault issues: a real OpenBao makes users of a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry import resolving
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.vault import VaultProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import RegistryConfig
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.documents import block
from tests.fixtures import openbao
from tests.scripted import HandClock, until
from tests.servers import postgres
from tests.servers.openbao import CREATE, LEASES, RULES, OpenBaoServer, issuing, set_role
from tests.servers.process import free_port

pytestmark = pytest.mark.full

bao_session, bao = openbao.bao_session, openbao.bao
postgres = postgres.postgres

NAME = "creds/app?project=database"


@pytest.fixture(scope="module")
def database(bao_session: OpenBaoServer, postgres: Any) -> Iterator[Any]:
    """PostgreSQL, whose users the engine at ``database`` makes."""
    with issuing(bao_session, postgres):
        yield postgres


@pytest.fixture(autouse=True)
def role(bao: OpenBaoServer, database: Any) -> None:
    """The role ``app``, as each test finds it, and no leases of others."""
    bao.admin.sys.revoke_prefix("database/creds")
    until(lambda: not bao.leases("database/creds/app"))
    set_role(bao)


@pytest.fixture
def provider(bao: OpenBaoServer) -> VaultProvider:
    return build(bao, bao.token("leases"))


def build(bao: OpenBaoServer, token: str, **options: Any) -> VaultProvider:
    auth = options.pop("auth", {"method": "token", "token": token})
    return VaultProvider(alias="vault", region="", url=bao.url, auth=auth, **options)


def reference(text: str = NAME) -> SecretRef:
    return VaultProvider.canonical(SecretRef.parse(f"vault://{text}").payload(), {})


def fetch(provider: VaultProvider, text: str = NAME) -> SecretValue:
    return provider.fetch(reference(text), timeout=10)


def renew(provider: VaultProvider, value: SecretValue) -> SecretValue:
    return provider.renew(reference(), value, timeout=10)


def user(value: SecretValue | str) -> str:
    text = value.value if isinstance(value, SecretValue) else value
    return str(json.loads(str(text))["username"])


def works(database: Any, value: SecretValue) -> bool:
    """Tell whether one can log in to PostgreSQL with the credentials."""
    import psycopg

    given = json.loads(str(value.value))
    try:
        with psycopg.connect(
            host=database.host,
            port=database.port,
            dbname=database.database,
            user=given["username"],
            password=given["password"],
        ):
            return True
    except psycopg.OperationalError:
        return False


def exists(database: Any, name: str) -> bool:
    with database.admin() as connection:
        found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
        return found.fetchone() is not None


# -- issued, renewed, replaced --


def test_issued(bao: OpenBaoServer, database: Any, provider: VaultProvider) -> None:
    """Credentials are a JSON object that opens the database, with the end of their lease."""
    began = time.time()
    value = fetch(provider)
    assert set(json.loads(str(value.value))) == {"username", "password"}
    assert works(database, value)
    assert value.expires_at is not None
    assert began + 3590 < value.expires_at <= time.time() + 3600
    assert value.lease_id.startswith("database/creds/app/")
    assert value.version
    other = fetch(provider)
    assert other.version != value.version
    assert user(other) != user(value)
    for text in (value.lease_id, json.loads(str(value.value))["password"]):
        assert text not in f"{value!r} {provider!r} {value.version}"


def test_no_versions(provider: VaultProvider) -> None:
    """Issued credentials have neither versions nor stages, and none are issued for them."""
    for text in (f"{NAME}&version=1", f"{NAME}&stage=previous"):
        with pytest.raises(SecretNotFound, match="keeps no versions"):
            fetch(provider, text)


def test_renewed(bao: OpenBaoServer, database: Any, provider: VaultProvider) -> None:
    """A renewal prolongs the lease: the same credentials, the same version, a later end."""
    value = fetch(provider)
    time_left(bao, value, "20m")
    renewed = renew(provider, value)
    assert (renewed.value, renewed.version) == (value.value, value.version)
    assert renewed.lease_id == value.lease_id
    assert renewed.expires_at is not None
    assert renewed.expires_at > time.time() + 3590
    assert len(bao.leases("database/creds/app")) == 1
    left = bao.admin.sys.read_lease(value.lease_id)["data"]["ttl"]
    assert left > 3500


def time_left(bao: OpenBaoServer, value: SecretValue, span: str) -> None:
    """Have the lease end sooner."""
    seconds = int(span.rstrip("m")) * 60
    bao.admin.sys.renew_lease(value.lease_id, increment=seconds)
    assert bao.admin.sys.read_lease(value.lease_id)["data"]["ttl"] <= seconds


def test_longest_lease(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """Where Vault prolongs a lease by less than half its lifetime, new credentials are issued."""
    value = fetch(provider)
    set_role(bao, default_ttl="20m", max_ttl="20m")
    renewed = renew(provider, value)
    assert user(renewed) != user(value)
    assert renewed.version != value.version
    assert user(renew(provider, renewed)) == user(renewed)


def test_lease_that_was_revoked(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A lease that an operator has revoked in Vault is replaced when its time comes."""
    value = fetch(provider)
    bao.admin.sys.revoke_lease(value.lease_id)
    until(lambda: not bao.leases("database/creds/app"))
    assert user(renew(provider, value)) != user(value)


def test_user_that_was_dropped(database: Any, provider: VaultProvider) -> None:
    """Credentials whose user is gone from the database are replaced when their time comes."""
    value = fetch(provider)
    with database.admin() as connection:
        connection.execute(f'DROP ROLE "{user(value)}"')
    renewed = renew(provider, value)
    assert user(renewed) != user(value)
    assert works(database, renewed)


def test_renewal_during_an_outage(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """While Vault cannot answer nothing is issued in place of a renewal."""
    value = fetch(provider)
    bao.layer.fail(503, on="renew")
    with pytest.raises(ProviderUnavailable):
        renew(provider, value)
    bao.layer.heal()
    assert user(renew(provider, value)) == user(value)


def test_lease_ends_with_its_token(bao: OpenBaoServer, database: Any) -> None:
    """A lease lives no longer than the token that it was issued to, as its end says."""
    token = bao.token("leases", ttl="10m", explicit_max_ttl="10m")
    value = fetch(build(bao, token))
    assert value.expires_at is not None
    assert value.expires_at <= time.time() + 600
    bao.admin.auth.token.revoke(token)
    until(lambda: not works(database, value))


def test_lease_of_another_token(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """With another token in use a lease is replaced, since nobody renews its own token."""
    value = fetch(provider)
    assert user(renew(build(bao, bao.token("leases")), value)) != user(value)


def test_token_that_was_revoked(bao: OpenBaoServer) -> None:
    """When Vault has ended the token, a new one and new credentials come without a failed read."""
    given = {"method": "token", "token": bao.token("leases")}
    provider = build(bao, "", auth=given)
    value = fetch(provider)
    old, given["token"] = given["token"], bao.token("leases")
    bao.admin.auth.token.revoke(old)
    assert user(renew(provider, value)) != user(value)


def test_lease_that_cannot_be_renewed(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A lease that Vault does not renew is kept while half of its lifetime is left."""
    value = fetch(provider)
    token = provider._identity._token
    assert token is not None
    lease = token.leases[value.lease_id]._replace(renewable=False)
    token.leases[value.lease_id] = lease
    bao.policy("leases", **RULES, **LEASES, **{"sys/leases/lookup": ["update"]})
    assert user(renew(provider, value)) == user(value)
    assert bao.layer.calls["PUT /v1/sys/leases/lookup"] == 1
    token.leases[value.lease_id] = lease._replace(lifetime=9000)
    assert user(renew(provider, value)) != user(value)


def test_without_permissions(bao: OpenBaoServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without the right to renew new credentials are issued, and the log names the rule; so does
    the error of giving back."""
    bao.policy("only-creds", **RULES)
    provider = build(bao, bao.token("only-creds", no_default_policy=True))
    value = fetch(provider)
    assert user(renew(provider, value)) != user(value)
    assert 'path "sys/leases/renew" { capabilities = ["update"] }' in caplog.text
    with pytest.raises(AccessDenied) as caught:
        provider.release(reference(), value, timeout=10)
    assert 'path "sys/leases/revoke" { capabilities = ["update"] }' in caught.value.hint


def test_documented_policy(bao: OpenBaoServer, database: Any) -> None:
    """The policy of the documentation is enough to issue, renew and revoke."""
    bao.admin.sys.create_or_update_policy("documented", block("vault", "hcl"))
    provider = build(bao, bao.token("documented", no_default_policy=True))
    value = fetch(provider)
    assert renew(provider, value).version == value.version
    provider.release(reference(), value, timeout=10)
    until(lambda: not exists(database, user(value)))


def test_released(database: Any, provider: VaultProvider) -> None:
    """Credentials that are given back no longer open the database."""
    value = fetch(provider)
    provider.release(reference(), value, timeout=10)
    until(lambda: not exists(database, user(value)))


def test_database_that_is_down(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """While the engine cannot reach its database, issuing is ProviderUnavailable."""
    bao.write(
        "database/config/down",
        plugin_name="postgresql-database-plugin",
        connection_url=f"postgresql://u:p@127.0.0.1:{free_port()}/app?sslmode=disable",
        allowed_roles="*",
        verify_connection=False,
    )
    bao.write("database/roles/down", db_name="down", creation_statements=[CREATE])
    with pytest.raises(ProviderUnavailable):
        fetch(provider, "creds/down?project=database")


def test_unknown_role(bao: OpenBaoServer, provider: VaultProvider) -> None:
    """A role that the engine does not have is an error, and never an outage that is waited for."""
    with pytest.raises(SecretError) as caught:
        fetch(provider, "creds/none?project=database")
    assert not isinstance(caught.value, ProviderUnavailable)


def test_static_role(bao: OpenBaoServer, database: Any, provider: VaultProvider) -> None:
    """A password that the engine rotates is given with its rotation as version, and its end."""
    database.set_password("static_user", canary("before"))
    bao.write(
        "database/static-roles/batch",
        db_name="app",
        username="static_user",
        rotation_period="1h",
    )
    name = "static-creds/batch?project=database"
    value = fetch(provider, name)
    assert "ttl" not in json.loads(str(value.value))
    assert works(database, value)
    assert value.expires_at is not None
    assert time.time() < value.expires_at <= time.time() + 3601
    assert not value.lease_id
    assert fetch(provider, name).version == value.version
    bao.write("database/rotate-role/batch")
    rotated = fetch(provider, name)
    assert rotated.version != value.version
    assert works(database, rotated)
    bao.admin.adapter.delete("/v1/database/static-roles/batch")


# -- in a registry --


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def registry(bao: OpenBaoServer, clock: HandClock) -> Iterator[SecretRegistry]:
    """A registry whose ages are in the hand of the test, and whose wall clock is right."""
    registry = SecretRegistry(clock=clock)
    configure(registry, bao)
    yield registry
    registry.close()


def configure(registry: SecretRegistry, bao: OpenBaoServer) -> None:
    options = {"url": bao.url, "auth": {"method": "token", "token": bao.token("leases")}}
    backend = f"{VaultProvider.__module__}.{VaultProvider.__name__}"
    spec = ProviderSpec("vault", backend, options=options)
    registry.configure(RegistryConfig(providers={"vault": spec}))


REF = f"vault://{NAME}"


def test_in_use(registry: SecretRegistry, bao: OpenBaoServer, clock: HandClock) -> None:
    """Ahead of the end of its TTL a value is renewed in the background, and stays what it is."""
    first = registry.get(REF)
    clock.forward(280)
    assert registry.get(REF) == first
    until(lambda: bao.layer.calls["PUT /v1/sys/leases/renew"] == 1)
    until(lambda: registry.snapshot().secrets[0].state == "fresh")
    assert registry.get(REF) == first
    assert len(bao.leases("database/creds/app")) == 1


def test_refresh(registry: SecretRegistry, database: Any) -> None:
    """A refresh that is asked for issues new credentials; the old ones still open the database."""
    old = registry.fetch(REF)
    registry.refresh(REF)
    assert user(registry.get(REF)) != user(old)
    assert works(database, old)
    registry.evict(REF)
    until(lambda: not exists(database, user(old)))


def test_eviction(registry: SecretRegistry, database: Any) -> None:
    """An eviction drops the user from the database; the next read has another one."""
    old = registry.get(REF)
    registry.evict(REF)
    until(lambda: not exists(database, user(old)))
    assert exists(database, user(registry.get(REF)))


def test_new_configuration(registry: SecretRegistry, bao: OpenBaoServer, database: Any) -> None:
    """What was issued under a configuration before is revoked."""
    old = registry.get(REF)
    configure(registry, bao)
    until(lambda: not exists(database, user(old)))


def test_keys_of_one_issue(registry: SecretRegistry, database: Any) -> None:
    """User and password that are read one after the other belong together."""
    name, password = registry.get(f"{REF}#username"), registry.get(f"{REF}#password")
    text = json.dumps({"username": str(name), "password": str(password)})
    assert works(database, SecretValue(text))


# -- in a process --

PROJECT = """
    INSTALLED_APPS = ["django_secret_registry"]
    SECRET_REGISTRY = {{"PROVIDERS": {{"vault": {{
        "BACKEND": "django_secret_registry.providers.vault.VaultProvider",
        "OPTIONS": {{"url": {url!r}, "auth": {{"method": "token", "token": {token!r}}}}},
    }}}}}}
"""
SETUP = """
    import os, sys, django
    django.setup()
    from django_secret_registry import registry
    REF = "vault://creds/app?project=database#username"
    print(registry.get(REF), flush=True)
"""


@pytest.fixture
def process(bao: OpenBaoServer, tmp_path: Path) -> Iterator[Any]:
    """Give a function that starts a process, which has read the user's name, and goes on."""
    settings = PROJECT.format(url=bao.url, token=bao.token("leases"))
    (tmp_path / "project.py").write_text(textwrap.dedent(settings))
    started: list[subprocess.Popen[str]] = []

    def start(code: str = "") -> subprocess.Popen[str]:
        program = textwrap.dedent(SETUP) + textwrap.dedent(code)
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{tmp_path}:."},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_exit(process: Any, database: Any) -> None:
    """A process that ends has its leases revoked."""
    running = process("sys.stdin.readline()")
    name = running.stdout.readline().strip()
    assert exists(database, name)
    _, errors = running.communicate("\n", timeout=30)
    assert (running.returncode, errors) == (0, "")
    until(lambda: not exists(database, name))


def test_exit_while_vault_hangs(process: Any, bao: OpenBaoServer) -> None:
    """A Vault that does not answer keeps a process for a few seconds at most."""
    running = process("sys.stdin.readline()")
    running.stdout.readline()
    bao.layer.hang(on="revoke")
    began = time.monotonic()
    _, errors = running.communicate("\n", timeout=30)
    assert time.monotonic() - began < resolving.EXIT + 3
    assert running.returncode == 0
    assert "1 lease(s)" in errors


def test_child(process: Any, bao: OpenBaoServer, database: Any) -> None:
    """A forked child revokes what it was given itself at its exit, and nothing of its parent's."""
    code = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        if os.fork() == 0:
            print(registry.get(REF), flush=True)
            sys.exit()
        os.wait()
        print("ended", flush=True)
        sys.stdin.readline()
    """
    running = process(code)
    parents, childs = running.stdout.readline().strip(), running.stdout.readline().strip()
    assert running.stdout.readline() == "ended\n"
    assert parents != childs
    until(lambda: not exists(database, childs))
    assert exists(database, parents)
    assert len(bao.leases("database/creds/app")) == 1
    running.communicate("\n", timeout=30)
    until(lambda: not exists(database, parents))
