"""Key Vault: its client against vaults and an Entra ID over HTTPS, and against failing ones."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.conf import load
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.probing import within
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.azure import KeyVaultProvider
from django_secret_registry.providers.base import Fence
from django_secret_registry.references import SecretRef
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import RegistryConfig
from django_secret_registry.values import MAX_VALUE_SIZE
from tests.azure_support import ATTEMPTS, AzureConformance, build, closed_port, fetch, refusal
from tests.canary import canary
from tests.documents import settings_of
from tests.fixtures import azure
from tests.servers.azure import VAULT, AzureServer, key_vault_error
from tests.servers.https import Answer

pytestmark = pytest.mark.sdk

azure_session, azure_server = azure.azure_session, azure.azure_server

REGIONS = {"westeurope": "kv-west", "northeurope": "kv-north"}


@pytest.fixture
def provider(azure_server: AzureServer) -> KeyVaultProvider:
    return build(azure_server)


def reference(text: str, **options: Any) -> SecretRef:
    ref = SecretRef.parse(f"azure://{text}").payload()
    return KeyVaultProvider.canonical(ref, {"vault": VAULT, **options})


class TestKeyVault(AzureConformance):
    """Key Vault behaves as every provider must."""

    provider_class = KeyVaultProvider
    operation = "get"
    lacks = {"binary": "Key Vault keeps text only; what is binary lies there in base64"}
    existing, value, missing, denied = "db", canary("db"), "none", "denied"
    region = "westeurope"
    missing_version = f"db?version={'f' * 32}"
    missing_stage = "once?stage=previous"
    regions = {"westeurope": value, "northeurope": canary("db-north")}

    @pytest.fixture(autouse=True)
    def server(self, azure_server: AzureServer) -> None:
        self.azure = azure_server
        self.options = azure_server.options(vault=REGIONS)
        old = azure_server.put("db", canary("db-old"), vault="kv-west")
        new = azure_server.put("db", self.value, vault="kv-west")
        azure_server.put("db", self.regions["northeurope"], vault="kv-north")
        azure_server.put("once", canary("once"), vault="kv-west")
        azure_server.put(self.denied, canary("denied"), vault="kv-west")
        azure_server.deny(self.denied)
        self.versions = {f"db?version={old}": canary("db-old"), f"db?version={new}": self.value}
        self.stages = {"db?stage=current": self.value, "db?stage=previous": canary("db-old")}
        self.credentials = (
            azure_server.client_secret,
            azure_server.token("https://vault.test/.default"),
        )

    def elsewhere(self, port: int) -> dict[str, Any]:
        return {"dns_suffix": f"vault.test:{port}"}

    def rotate(self) -> str:
        self.azure.put("db", canary("db-rotated"), vault="kv-west")
        return canary("db-rotated")


# -- names, vaults, versions, stages --

ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db", "azure://db"),
        ("DB", "azure://db"),
        ("db?stage=current", "azure://db"),
        (f"db?project={VAULT}", "azure://db"),
        (f"db?project={VAULT.upper()}", "azure://db"),
        ("db?project=kv-two", "azure://db?project=kv-two"),
        (f"db?version={ID.upper()}", f"azure://db?version={ID}"),
        (f"https://{VAULT}.vault.azure.net/secrets/db", "azure://db"),
        (
            f"https://KV-TWO.vault.AZURE.net/secrets/DB/{ID}",
            f"azure://db?project=kv-two&version={ID}",
        ),
        ("https://kv-two.vault.azure.net/secrets/db?project=kv-two", "azure://db?project=kv-two"),
        ("db?region=westeurope", "azure://db?region=westeurope"),
    ],
)
def test_one_spelling(text: str, expected: str) -> None:
    """Every way to write a reference ends in one, which is what is cached and fenced."""
    ref = reference(text)
    assert str(ref) == expected
    assert reference(expected.removeprefix("azure://")) == ref


@pytest.mark.parametrize(
    "text",
    [
        "a/b",
        "a.b",
        "a_b",
        "x" * 128,
        "db?project=kv.two",
        "db?project=kv_two",
        "db?project=2kv",
        "db?stage=pending",
        "db?stage=AWSPREVIOUS",
        f"db?stage=previous&version={ID}",
        "https://kv-two.vault.azure.net/secrets/db?project=kv-one",
        f"https://kv-two.vault.azure.net/secrets/db/{ID}?version={'f' * 32}",
        "https://kv-two.vault.azure.net.evil.test/secrets/db",
        "https://evil.test/secrets/db",
        "https://vault.azure.net/secrets/db",
        "https://a.b.vault.azure.net/secrets/db",
        "https://kv-two.vault.azure.net:444/secrets/db",
        "https://kv-two.vault.azure.net@evil.test/secrets/db",
        "https://kv-two.vault.azure.net/keys/db",
        "http://kv-two.vault.azure.net/secrets/db",
    ],
)
def test_bad_name(text: str) -> None:
    """What cannot be a name, leads elsewhere or contradicts itself is refused, with a hint."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint


def test_no_vault() -> None:
    """A reference without project needs a vault in the options."""
    with pytest.raises(InvalidReference, match="vault"):
        reference("db", vault="")
    assert reference("db?project=kv-two", vault="").project == "kv-two"


@given(st.text(st.sampled_from("https:/.secrets-vaultazurenet@%#?1A"), min_size=1))
def test_names_are_safe_in_a_path(name: str) -> None:
    """Whatever the name, what is left of it is one segment and has one spelling."""
    ref = SecretRef(scheme="azure", name=name)
    try:
        ref = KeyVaultProvider.canonical(ref, {"vault": VAULT})
    except InvalidReference:
        return
    assert ref.name.replace("-", "a").isalnum()
    assert KeyVaultProvider.canonical(ref, {"vault": VAULT}) == ref


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db", "azure://db"),
        ("db?project=kv-west", "azure://db?region=westeurope"),
        ("db?project=kv-west&region=westeurope", "azure://db?region=westeurope"),
        ("https://kv-north.vault.azure.net/secrets/db", "azure://db?region=northeurope"),
    ],
)
def test_a_vault_of_a_region_says_its_region(text: str, expected: str) -> None:
    """Where each region has its vault, the name of a vault is one way to write the region."""
    assert str(reference(text, vault=REGIONS)) == expected


@pytest.mark.parametrize("text", ["db?project=kv-other", "db?project=kv-west&region=northeurope"])
def test_a_vault_of_no_region_or_another(text: str) -> None:
    """Where each region has its vault, no reference reaches another one."""
    with pytest.raises(InvalidReference):
        reference(text, vault=REGIONS)


def test_residency_sees_the_region_of_a_vault(azure_server: AzureServer) -> None:
    """A fence of regions holds for whoever names the vault, before any request."""
    azure_server.put("db", canary(), vault="kv-north")
    registry = through_registry(
        azure_server, vault=REGIONS, fence=Fence(regions=("westeurope",)), region="westeurope"
    )
    with pytest.raises(AccessDenied, match="REGIONS"):
        registry.get("azure://db?project=kv-north")
    assert not azure_server.calls


def test_region_without_a_vault(azure_server: AzureServer) -> None:
    """A region that has no vault builds no provider."""
    with pytest.raises(InvalidProvider, match="westeurope"):
        build(azure_server, "eastus", vault=REGIONS)


def test_another_vault(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A reference's project is the vault that is asked, also in an identifier."""
    version = azure_server.put("db", canary("two"), vault="kv-two")
    assert fetch(provider, "db?project=kv-two").value == canary("two")
    identifier = f"https://kv-two.{azure_server.suffix}/secrets/db/{version}"
    assert fetch(provider, identifier).value == canary("two")
    assert type(refusal(provider)) is SecretNotFound


def test_vault_by_its_url(azure_server: AzureServer) -> None:
    """A vault may be given by a URL, of its own name or of another host."""
    azure_server.put("db", canary("named"))
    azure_server.put("db", canary("host"), vault="127")
    named = build(azure_server, vault=f"https://{VAULT}.{azure_server.suffix}/")
    assert fetch(named).value == canary("named")
    assert fetch(named, f"db?project={VAULT}").value == canary("named")
    host = build(azure_server, vault=azure_server.url)
    assert fetch(host).value == canary("host")
    with pytest.raises(InvalidReference, match="host of its own"):
        fetch(host, f"db?project={VAULT}")


def test_version(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """The version is the id that Key Vault gave; what cannot be one is asked for nowhere."""
    version = azure_server.put("db", canary())
    assert fetch(provider).version == version
    assert type(refusal(provider, "db?version=1")) is SecretNotFound
    assert azure_server.calls["get"] == 1


def test_previous(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """The previous version is the newest enabled one before the newest, on whatever page."""
    for number in range(1, 7):
        version = azure_server.put("db", canary(str(number)))
        azure_server.enable("db", version, number in {1, 2})
    assert fetch(provider, "db?stage=previous").value == canary("2")
    assert azure_server.calls["list"] == 3
    assert azure_server.calls["get"] == 1


def test_no_previous(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A secret with one version has no previous one."""
    azure_server.put("db", canary())
    assert type(refusal(provider, "db?stage=previous")) is SecretNotFound
    assert type(refusal(provider, "none?stage=previous")) is SecretNotFound


def test_previous_is_denied(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """Without the right to list versions, previous is denied, naming that right."""
    azure_server.put("db", canary())
    azure_server.deny("db")
    error = refusal(provider, "db?stage=previous")
    assert type(error) is AccessDenied
    assert "secrets/list" in error.hint


def test_disabled(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A disabled secret is not found, and the hint says how to enable it: no role would help."""
    version = azure_server.put("db", canary())
    azure_server.enable("db", version, False)
    error = refusal(provider)
    assert type(error) is SecretNotFound
    assert "disabled" in error.message
    assert "--enabled true" in error.hint
    assert "Grant" not in error.hint


def test_deleted(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A deleted secret is not found, and the hint says that it may be recovered."""
    azure_server.put("db", canary())
    azure_server.delete("db")
    error = refusal(provider)
    assert type(error) is SecretNotFound
    assert "recover" in error.hint


def test_dates_are_not_looked_at(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A value outside of its dates is served, as Key Vault does, and never counts as expired."""
    azure_server.put("db", canary(), exp=1_000_000_000, nbf=2_000_000_000)
    answer = fetch(provider)
    assert answer.value == canary()
    assert answer.expires_at is None


# -- errors --


@pytest.mark.parametrize(
    ("answer", "kind", "hint"),
    [
        (key_vault_error(400, "BadParameter"), ProviderError, ""),
        (key_vault_error(403, "Forbidden", "ForbiddenByRbac"), AccessDenied, "Secrets User"),
        (key_vault_error(403, "Forbidden", "ForbiddenByPolicy"), AccessDenied, "secrets/get"),
        (key_vault_error(403, "Forbidden"), AccessDenied, "secrets/get"),
        (key_vault_error(403, "Forbidden", "ForbiddenByFirewall"), AccessDenied, "firewall"),
        (key_vault_error(403, "Forbidden", "ForbiddenByConnection"), AccessDenied, "private"),
        (key_vault_error(404, "SecretNotFound"), SecretNotFound, "recover"),
        (key_vault_error(404, "VaultNotFound"), ProviderError, ""),
        (key_vault_error(409, "Conflict"), ProviderError, ""),
        (key_vault_error(429, "Throttled"), ProviderUnavailable, ""),
        (key_vault_error(500, "InternalServerError"), ProviderUnavailable, ""),
        (key_vault_error(503, "ServiceUnavailable"), ProviderUnavailable, ""),
    ],
)
def test_error_of_the_service(
    azure_server: AzureServer, answer: Answer, kind: type[SecretError], hint: str
) -> None:
    """Each error is sorted, says what to do, and is retried only where that can help."""
    azure_server.answer(answer, "get")
    error = refusal(build(azure_server, "here"))
    assert type(error) is kind
    assert hint in error.hint
    assert (error.reference, error.provider, error.region) == ("azure://db", "azure", "here")
    assert azure_server.calls["get"] == (ATTEMPTS if kind is ProviderUnavailable else 1)
    assert json.loads(answer.body)["error"]["code"] in error.message


def test_token_that_is_not_accepted(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A vault that accepts no token denies access, and is asked with one new one only."""
    azure_server.answer(key_vault_error(401, "Unauthorized"), "get")
    error = refusal(provider)
    assert type(error) is AccessDenied
    assert azure_server.calls["get"] == 1


def test_retry_after_is_not_waited_for(
    azure_server: AzureServer, provider: KeyVaultProvider
) -> None:
    """A vault that says to come back later than a fetch may last ends it at once."""
    headers = {"Retry-After": "30"}
    azure_server.answer(key_vault_error(429, "Throttled", **headers), "get")
    error = within(5, lambda: refusal(provider))
    assert type(error) is ProviderUnavailable
    assert "HTTP 429" in error.message
    assert azure_server.calls["get"] == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(403, ProviderError), (404, ProviderError), (502, ProviderUnavailable)]
)
@pytest.mark.parametrize("body", [f"<p>{canary()}</p>", "{}", f'["{canary()}"]'])
def test_page_of_a_proxy(
    azure_server: AzureServer,
    provider: KeyVaultProvider,
    status: int,
    kind: type[SecretError],
    body: str,
) -> None:
    """An error that is not Key Vault's own is no "not found", and its page is in no error."""
    azure_server.answer(Answer(status, body.encode()), "get")
    error = refusal(provider)
    assert type(error) is kind
    assert f"HTTP {status}" in error.message
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"value": "{canary()}'.encode(),
        f'["{canary()}"]'.encode(),
        f'"{canary()}"'.encode(),
        f'{{"value": "{canary()}", "id": "{canary()}"}}'.encode(),
        b'{"value": null}',
        canary().encode() + b"\xff",
        b"{}",
        b"null",
        b"",
    ],
)
def test_answer_that_cannot_be_read(
    azure_server: AzureServer, provider: KeyVaultProvider, body: bytes
) -> None:
    """An answer that makes no sense is ProviderError, with nothing of it in its chain."""
    azure_server.answer(Answer(200, body), "get")
    error = refusal(provider)
    assert type(error) is ProviderError
    assert (error.__cause__, error.__context__) == (None, None)


def test_truncated_answer(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """An answer that was cut short is unavailable, with nothing of it in its chain."""
    azure_server.answer(Answer(200, canary().encode(), length=9999), "get")
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert (error.__cause__, error.__context__) == (None, None)


def test_reset_in_the_middle(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A connection that breaks within the value is unavailable."""
    azure_server.put("db", canary())
    azure_server.reset_midway("get")
    assert type(refusal(provider)) is ProviderUnavailable


@pytest.mark.parametrize("extra", [0, 1])
def test_size(azure_server: AzureServer, provider: KeyVaultProvider, extra: int) -> None:
    """A value over 1 MiB is ProviderError."""
    value = canary().ljust(MAX_VALUE_SIZE + extra, "x")
    azure_server.put("db", value)
    if extra:
        assert type(refusal(provider)) is ProviderError
    else:
        assert fetch(provider).value == value


def test_retry(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A failure that passes is not seen by the reader."""
    azure_server.put("db", canary())
    azure_server.cut("get", times=ATTEMPTS - 1)
    assert fetch(provider).value == canary()
    assert azure_server.calls["get"] == ATTEMPTS


@pytest.mark.parametrize(
    ("fault", "operation"),
    [
        ("hang", "challenge"),
        ("hang", "discovery"),
        ("hang", "token"),
        ("hang", "get"),
        ("drip", "token"),
        ("drip", "get"),
        ("drip_headers", "get"),
    ],
)
def test_timeout_bounds_everything(azure_server: AzureServer, fault: str, operation: str) -> None:
    """Whatever hangs or drips, the vault or Entra ID, a fetch ends when its time is over."""
    azure_server.put("db", canary())
    getattr(azure_server, fault)(operation)
    # A vault of its own: the SDK remembers challenges for the life of the process.
    vault = f"kv-{fault.replace('_', '')[:5]}-{operation}"
    provider = build(azure_server, vault=vault)
    error = within(3, lambda: refusal(provider, timeout=0.8))
    assert type(error) is ProviderUnavailable
    assert azure_server.calls[operation] == 1
    azure_server.heal()


def test_no_time(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A fetch without any time left asks nobody."""
    assert type(refusal(provider, timeout=0)) is ProviderUnavailable
    assert not azure_server.calls


def test_untrusted_certificate(azure_server: AzureServer) -> None:
    """A certificate of another CA is unavailable, and the hint says how to name one."""
    provider = build(azure_server, transport={"use_env_settings": False})
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert "connection_verify" in error.hint
    assert not azure_server.calls


def test_vault_that_asks_for_a_foreign_token(azure_server: AzureServer) -> None:
    """A vault whose challenge names another domain gets no token, and the hint says why."""
    error = refusal(build(azure_server, vault="kv-foreign", client={}))
    assert type(error) is ProviderError
    assert "verify_challenge_resource" in error.hint
    assert azure_server.calls["token"] == 0


# -- options --


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"credential": "default"}, "credential"),
        ({"credential": {"kind": "x"}}, "kind"),
        ({"client": []}, ""),
        ({"client": "x"}, "client"),
        ({"transport": "x"}, "transport"),
        ({"vault": "a/b"}, "vault"),
        ({"vault": "http://kv.vault.azure.net"}, "vault"),
        ({"vault": "https://kv.vault.azure.net/secrets"}, "vault"),
        ({"vault": {"westeurope": 1}}, "vault"),
        ({"vault": {"westeurope": "kv-west"}}, ""),
        ({"dns_suffix": "vault.azure.net/x"}, "dns_suffix"),
        ({"dns_suffix": "vault.azure.net@evil.test"}, "dns_suffix"),
        ({}, ""),
    ],
)
def test_check(options: dict[str, Any], word: str) -> None:
    """The check names an option that is wrong, with a hint, and needs no SDK."""
    problems = KeyVaultProvider.check(options)
    assert len(problems) == bool(word)
    assert all(word in problem.message and problem.hint for problem in problems)


def test_proxy_of_the_environment(
    azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment is used unless the transport is told otherwise."""
    azure_server.put("db", canary())
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetch(build(azure_server)).value == canary()
    transport = {"connection_verify": str(azure_server.ca_file)}
    assert type(refusal(build(azure_server, transport=transport))) is ProviderUnavailable


# -- around it --


def test_no_answer_in_the_log(azure_server: AzureServer, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK's logging, switched on wherever it can be, shows no answer and no token."""
    azure_server.put("db", canary())
    caplog.set_level(logging.DEBUG)
    noisy = {"logging_enable": True, "enable_support_logging": True}
    options = azure_server.token_options(**noisy)
    client = {"verify_challenge_resource": False, **noisy}
    assert fetch(build(azure_server, client=client, **options)).value == canary()
    assert any(record.name.startswith("azure.") for record in caplog.records)


def test_connections_are_kept(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """Fetches share a connection and a token."""
    azure_server.put("db", canary())
    for _ in range(3):
        fetch(provider)
    assert azure_server.calls["get"] == 3
    assert azure_server.calls["token"] == 1
    assert azure_server.connections <= 2  # the vault's, and Entra ID's


def test_fetch_after_close(azure_server: AzureServer, provider: KeyVaultProvider) -> None:
    """A provider that was closed is unavailable for who still holds it."""
    azure_server.put("db", canary())
    fetch(provider)
    provider.close()
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert "closed" in error.message


def through_registry(
    server: AzureServer, *, fence: Fence | None = None, region: str = "", **options: Any
) -> SecretRegistry:
    backend = "django_secret_registry.providers.azure.KeyVaultProvider"
    spec = ProviderSpec(
        "azure", backend, region=region, options=server.options(**options), fence=fence or Fence()
    )
    registry = SecretRegistry()
    registry.configure(RegistryConfig(providers={"azure": spec}))
    return registry


def test_through_the_registry(azure_server: AzureServer) -> None:
    """The registry reads a key by any spelling of a reference with one call."""
    azure_server.put("db", json.dumps({"password": canary("pw")}))
    registry = through_registry(azure_server)
    identifier = f"https://{VAULT}.{azure_server.suffix}/secrets/DB"
    for text in ("db", f"db?project={VAULT}", identifier):
        assert registry.get(f"azure://{text}#password") == canary("pw")
    with pytest.raises(SecretNotFound, match="password"):
        registry.get("azure://db#nothing")
    assert azure_server.calls["get"] == 1


@pytest.mark.parametrize(
    ("fence", "text"),
    [
        (Fence(allow=("prod-*",)), "azure://dev-db"),
        (Fence(projects=("kv-two",)), "azure://prod-db?project=kv-three"),
        (Fence(regions=("westeurope",)), "azure://prod-db?region=eastus"),
        (Fence(allow=("prod-*",)), "azure://https://kv-one.{suffix}/secrets/dev-db"),
        (Fence(projects=("kv-two",)), "azure://https://kv-three.{suffix}/secrets/prod-db"),
    ],
)
def test_fences(azure_server: AzureServer, fence: Fence, text: str) -> None:
    """What lies outside a fence is denied before any request, by whichever spelling."""
    registry = through_registry(azure_server, fence=fence, region="westeurope")
    with pytest.raises(AccessDenied, match="outside"):
        registry.get(text.format(suffix=azure_server.suffix))
    assert not azure_server.calls
    assert azure_server.connections == 0


def test_documented_settings(azure_server: AzureServer) -> None:
    """The settings of the documentation are without mistake, and read what they say."""
    config = load(settings_of("azure"))
    azure_server.put("shop-db", json.dumps({"password": canary("pw")}), vault="acme-prod")
    azure_server.scopes.add("https://ossrdbms-aad.database.windows.net/.default")
    providers = {}
    for alias, spec in config.providers.items():
        assert spec.problem == ""
        assert spec.backend_class.check(spec.options) == []
        options = azure_server.token_options()
        if alias == "azure":
            options = azure_server.options(vault=spec.options["vault"])
        providers[alias] = ProviderSpec(
            alias, spec.backend, region=spec.region, options=options, fence=spec.fence
        )
    registry = SecretRegistry()
    registry.configure(RegistryConfig(providers=providers, entries=config.entries))
    assert registry.get("db_password") == canary("pw")
    assert registry.get("db_token").startswith(canary("token"))
    registry.close()


def test_import_needs_no_sdk() -> None:
    """Importing and checking the provider imports no SDK."""
    code = """
        import sys
        from django_secret_registry.providers.azure import KeyVaultProvider
        assert KeyVaultProvider.check({"vault": "acme-prod", "nonsense": 1})
        sys.exit(bool({"azure.core", "azure.identity", "msal", "requests"} & set(sys.modules)))
    """
    assert not subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode
