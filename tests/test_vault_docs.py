"""docs/providers/vault.md keeps its promises: its settings run, and its policy is enough.

That it is enough for leases is tested with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from django_secret_registry.exceptions import AccessDenied, SecretError
from django_secret_registry.providers.vault import VaultProvider
from django_secret_registry.references import SecretRef
from tests.canary import canary
from tests.documents import block
from tests.fixtures import openbao
from tests.servers.openbao import OpenBaoServer

pytestmark = pytest.mark.sdk

bao_session, bao = openbao.bao_session, openbao.bao

PAGE = "vault"


@pytest.fixture
def policy(bao: OpenBaoServer) -> str:
    """The policy of the page, in OpenBao."""
    bao.admin.sys.create_or_update_policy("documented", block(PAGE, "hcl"))
    return "documented"


def test_settings(bao: OpenBaoServer, policy: str, tmp_path: Path) -> None:
    """The settings pass the checks and read what they name, with no more than the policy gives."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    bao.put("prod/stripe", api_key="first")
    bao.put("prod/stripe", api_key="second")
    bao.admin.sys.enable_auth_method("approle", path="shop")
    bao.write("auth/shop/role/web", token_policies=[policy], token_no_default_policy=True)
    bao.write("auth/shop/role/web/role-id", role_id="shop")
    bao.write("auth/shop/role/web/custom-secret-id", secret_id=canary("secret-id"))
    (tmp_path / "vault-secret-id").write_text(canary("secret-id") + "\n")
    settings = block(PAGE, "python")
    for shown, real in (
        ("https://vault.example.com:8200", bao.url),
        ("/run/secrets", str(tmp_path)),
        ('"method": "approle",', '"method": "approle", "mount": "shop",'),
    ):
        assert shown in settings
        settings = settings.replace(shown, real)
    (tmp_path / "project.py").write_text(settings)
    code = """
        import django
        django.setup()
        from django.conf import settings
        from django.core.management import call_command
        call_command("check")
        print(settings.STRIPE_KEY, settings.OLD_STRIPE_KEY)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{tmp_path}:."},
    )
    assert done.stdout.splitlines()[-1] == "second first"
    bao.admin.sys.disable_auth_method("shop")


def test_policy_is_narrow(bao: OpenBaoServer, policy: str) -> None:
    """Nothing besides what the settings name can be read with the policy."""
    bao.put("staging/stripe", api_key=canary())
    auth = {"method": "token", "token": bao.token(policy, no_default_policy=True)}
    provider = VaultProvider(alias="vault", region="", url=bao.url, auth=auth)
    for name in ("staging/stripe", "prod"):
        with pytest.raises(SecretError) as caught:
            provider.fetch(SecretRef(scheme="vault", name=name), timeout=10)
        assert isinstance(caught.value, AccessDenied)
