"""The pages about providers keep their promises: what they tell people to write is executed."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.test import override_settings

from django_secret_registry import BaseProvider, ProviderUnavailable, providers, registry
from django_secret_registry.checks import check_configuration
from django_secret_registry.conf import parse
from django_secret_registry.discovery import markers
from django_secret_registry.planning import Planner
from django_secret_registry.provider_cache import ProviderCache
from tests.canary import canary
from tests.documents import PROVIDERS as DOCS
from tests.documents import blocks, names_of

pytestmark = pytest.mark.sdk

PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
#: Those of one backend each, whose first block of Python is a part of ``settings.py``.
OF_BACKENDS = [page for page in PAGES if page not in ("index", "own")]


#: Those whose client logs in as it is built, for which nobody is here.
LOG_IN = {"vault"}


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the settings of the pages find around them: credentials of each cloud, a pod.

    Nothing is called: clients are built and thrown away.
    """
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canary("aws-access-key"))
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    user = {
        "type": "authorized_user",
        "client_id": "id",
        "client_secret": canary("client"),
        "refresh_token": canary("refresh"),
        "quota_project_id": "acme-prod",
    }
    adc = tmp_path / "adc.json"
    adc.write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(adc))


@pytest.mark.parametrize("page", OF_BACKENDS)
def test_settings_of_a_page(page: str, surroundings: None) -> None:
    """The settings on a page have no mistake, its references are accepted, its clients built."""
    for module in ("boto3", "google.cloud.secretmanager_v1"):
        pytest.importorskip(module, reason=f"needs the extras: pip install {module.split('.')[0]}")
    settings = names_of(page)
    config, mistakes = parse(settings["SECRET_REGISTRY"], environ={})
    assert mistakes == []
    planner = Planner(config, ProviderCache(config.providers))
    named = [marker.reference for value in settings.values() for marker in markers(value)]
    for text in (*config.entries, *named):
        assert planner.plan(text).parts
    with override_settings(SECRET_REGISTRY=settings["SECRET_REGISTRY"]):
        told = [m for m in check_configuration() if m.level >= checks.WARNING]
        assert told == []
        for alias in config.providers:
            expected = ProviderUnavailable if alias in LOG_IN else ()
            with contextlib.suppress(expected):
                assert isinstance(registry.get_provider(alias), BaseProvider)
    registry.evict(all=True)


@pytest.mark.parametrize("page", OF_BACKENDS)
def test_policies_of_a_page(page: str) -> None:
    """The policies on a page are JSON that a cloud could take."""
    for block in blocks(page, "json"):
        policy = json.loads(block)
        for statement in policy.get("Statement", ()):
            assert set(statement) <= {"Effect", "Action", "Resource", "Condition"}
            if statement["Resource"] == "*":  # the one action that knows no resource
                assert statement["Action"] == "secretsmanager:BatchGetSecretValue"
        assert policy


@pytest.mark.parametrize("page", ["aws", "gcp"])
def test_permissions_stand_on_their_page(page: str) -> None:
    """Every permission or role that a hint of these providers names is explained on its page."""
    source = Path(__file__).parents[1] / "django_secret_registry" / "providers"
    names: set[str] = set()
    for path in source.glob(f"_{page}*.py"):
        text = path.read_text(encoding="utf-8")
        names.update(re.findall(r"\b(?:kms|ssm|sts|secretsmanager|rds-db):[A-Z][a-z]\w+", text))
        names.update(re.findall(r"roles/[a-z]+\.[A-Za-z]+", text))
    assert names
    written = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if name not in written] == []


def test_index_names_every_provider() -> None:
    """Each public provider stands in the one table, and links its page if there is one."""
    table = (DOCS / "index.md").read_text(encoding="utf-8")
    folder = Path(providers.__file__).parent
    found = set()
    for name in sorted(path.stem for path in folder.glob("[!_]*.py") if path.stem != "base"):
        module = importlib.import_module(f"{providers.__name__}.{name}")
        for kind in vars(module).values():
            exported = getattr(kind, "__name__", "") in getattr(module, "__all__", ())
            own = exported or getattr(kind, "__module__", "") == module.__name__
            if own and isinstance(kind, type) and issubclass(kind, BaseProvider):
                found.add(f"{name}.{kind.__name__}")
        if name in PAGES:
            assert f"]({name}.md)" in table
    assert {"env.EnvProvider", "aws.AssumeRoleProvider", "chain.ChainProvider"} <= found
    assert {name for name in found if name not in table} == set()


def test_links() -> None:
    """Every link between the pages leads to one."""
    for page in PAGES:
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^):#]+\.md)\)", text):
            assert (DOCS / target).is_file(), f"{page}.md links {target}"


def test_a_provider_of_ones_own(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider on the page, of about 15 lines, passes the conformance class on the page."""
    provider, settings, tests = blocks("own", "python")
    lines = [line for line in provider.partition("class ")[2].splitlines() if line.strip()]
    assert len(lines) <= 15
    package = pytester.mkpydir("shop")
    (package / "secrets.py").write_text(provider, encoding="utf-8")
    pytester.makepyfile(test_own=tests)
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath), prepend=":")
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess(
        "-p", "no:randomly", "-p", "no:django", "-W", "error", "-rA", "--rootdir", pytester.path
    )
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}, result.outlines
    assert outcomes["passed"] >= 15
    namespace: dict[str, Any] = {}
    exec(settings, namespace)
    config, mistakes = parse(namespace["SECRET_REGISTRY"], environ={})
    assert mistakes == []
    assert config.providers["local"].backend == "shop.secrets.SQLiteProvider"
