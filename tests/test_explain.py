"""``python -m django_secret_registry explain``."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from django_secret_registry import registry, secret
from django_secret_registry.__main__ import main
from django_secret_registry.exceptions import AccessDenied
from django_secret_registry.providers.memory import MemoryProvider, MemoryStore
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.command_project import Project

EXPIRES = time.time() + 7200


class Issuer(MemoryProvider):
    """A regional backend with an option; it issues what ends, and refuses ``denied``."""

    regional = True
    built = 0

    def __init__(self, *, token: str = "", **given: Any) -> None:
        super().__init__(**given)
        type(self).built += 1

    @classmethod
    def canonical(cls, ref, options):
        options.get("token")  # a backend may look at any of its options
        return super().canonical(ref, options)

    def fetch(self, ref, *, timeout):
        if ref.name == "denied":
            raise self.error(AccessDenied, "not yours", ref)
        value = super().fetch(ref, timeout=timeout)
        return SecretValue(value.value, version=value.version, expires_at=EXPIRES)


@pytest.fixture
def config(settings) -> dict[str, Any]:
    store = MemoryStore({"prod/db": {"password": canary("explained")}, "plain": canary("plain")})
    Issuer.built = 0
    settings.SECRET_REGISTRY = {
        "REGION": "eu-west-1",
        "PROVIDERS": {
            "issuer": {
                "BACKEND": f"{__name__}.Issuer",
                "OPTIONS": {"secrets": store, "token": secret("memory://plain")},
                "ALLOW": ["prod/*", "denied"],
                "REGIONS": ["eu-west-1", "us-east-1"],
            },
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
                "REGION": "home",
            },
            "both": {
                "BACKEND": "django_secret_registry.providers.chain.ChainProvider",
                "OPTIONS": {"aliases": ["memory", "issuer"]},
            },
            "broken": {"BACKEND": "tests.broken_backend.Provider"},
        },
        "SECRETS": {
            "db": {"REF": "issuer://prod/db?ttl=90#password", "TTL": 60, "TEMPLATES": True},
            "smtp": {"MAP": {"user": "memory://plain", "password": "issuer://prod/db#password"}},
            "patients": {
                "REF": "issuer://prod/patients",
                "REGION": "us-east-1",
                "RESIDENCY": "strict",
                "ALLOWED_REGIONS": ["us-east-2"],
            },
            "advised": {"REF": "memory://plain", "REGION": "far", "RESIDENCY": "advisory"},
            "wrong": {"REF": "memory://plain", "TTL": "long"},
        },
    }
    settings.DATABASE_PASSWORD = secret("issuer://prod/db#password")
    return settings.SECRET_REGISTRY


@pytest.fixture
def explain(capsys):
    """Run the command here; return its exit code and the document that it writes."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(["explain", "--format", "json", *arguments])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.usefixtures("config")
class TestMeaning:
    def test_reference(self, explain):
        """A reference is taken apart; backend, region, fences, TTL and its places are told."""
        code, document = explain("ref+issuer://prod/db?region=us-east-1&ttl=30#password")
        assert code == 0
        assert (document["entry"], document["offline"]) == (None, False)
        (one,) = document["secrets"]
        assert one["parts"] == {
            "scheme": "issuer",
            "name": "prod/db",
            "region": "us-east-1",
            "project": "",
            "version": "",
            "stage": "",
            "ttl": 30,
            "as": "str",
            "trim": False,
            "key": "password",
        }
        assert (one["provider"], one["backend"]) == ("issuer", f"{__name__}.Issuer")
        assert (one["region"], one["region_from"]) == ("us-east-1", "the reference")
        assert one["asked"] == "issuer://prod/db?region=us-east-1"
        assert one["ttl"] == 30
        assert one["fences"]["allow"] == ["prod/*", "denied"]
        assert one["fences"]["projects"] is None
        assert (one["named_by"], one["outcome"], one["fetched"]) == ([], "permitted", None)

    def test_entry(self, explain):
        """An entry leads to its reference, with the smallest TTL, and to all who name the same."""
        code, document = explain("db")
        assert (code, document["entry"]) == (0, "db")
        (one,) = document["secrets"]
        assert one["reference"] == "issuer://prod/db?ttl=90#password"
        assert one["ttl"] == 60
        assert (one["region"], one["region_from"]) == ("eu-west-1", "the process")
        assert set(one["named_by"]) == {
            "settings.DATABASE_PASSWORD",
            "SECRETS['db']",
            "SECRETS['smtp']",
        }

    def test_map(self, explain):
        """A MAP has a part per member, each with the region of its own alias."""
        _, document = explain("smtp")
        told = [(one["member"], one["region"], one["region_from"]) for one in document["secrets"]]
        assert told == [("user", "home", "the alias"), ("password", "eu-west-1", "the process")]

    def test_no_region(self, explain):
        """Where nobody names a region there is none; '-' is the reference's word for none."""
        _, document = explain("both://plain")
        assert [(one["region"], one["region_from"]) for one in document["secrets"]] == [("", "")]
        _, document = explain("memory://plain?region=-")
        told = [(one["region"], one["region_from"]) for one in document["secrets"]]
        assert told == [("", "the reference")]

    def test_chain(self, explain):
        """An alias that is made of others tells whom it would ask, and where."""
        _, document = explain("both://prod/db")
        (one,) = document["secrets"]
        assert one["handed_on_to"] == [
            "memory://prod/db?region=home",
            "issuer://prod/db?region=eu-west-1",
        ]

    def test_advisory(self, explain):
        """An advisory policy is told with its decision, and refuses nothing."""
        code, document = explain("advised")
        (one,) = document["secrets"]
        assert code == 0
        assert one["residency"] == [
            {
                "policy": "advisory",
                "region": "far",
                "allowed_regions": [],
                "decision": "violation_allowed",
            }
        ]

    def test_offline(self, explain, config, settings):
        """In offline mode the document says so."""
        settings.SECRET_REGISTRY = {**config, "OFFLINE": True}
        code, document = explain("db")
        assert (code, document["offline"]) == (0, True)
        code, document = explain("db", "--fetch")
        assert (code, document["secrets"][0]["fetched"]["outcome"]) == (1, "unavailable")

    def test_fetches_nothing(self, explain):
        """Without ``--fetch`` no provider is asked, not even for a secret in OPTIONS."""
        told: list[object] = []
        unsubscribe = registry.events.subscribe(told.append)
        for reference in ("db", "smtp", "both://prod/db", "issuer://prod/x"):
            assert explain(reference)[0] == 0
        assert (told, Issuer.built) == ([], 0)
        assert explain("db", "--fetch")[0] == 0
        assert told, "a fetch would have been told"
        unsubscribe()


@pytest.mark.usefixtures("config")
class TestRefusal:
    @pytest.mark.parametrize(
        ("reference", "outcome", "why"),
        [
            ("issuer://dev/db", "denied", "outside ALLOW"),
            ("issuer://prod/db?region=mars", "denied", "outside REGIONS"),
            ("patients", "denied", "strict residency"),
            ("memory://plain?project=x", "error", "has no projects"),
            ("broken://x", "error", "cannot be imported"),
            ("wrong", "error", "manage.py check"),
        ],
    )
    def test_refused(self, explain, reference, outcome, why):
        """What would be refused is explained as far as it goes, with the reason; exit code 1."""
        code, document = explain(reference)
        (one,) = document["secrets"]
        assert (code, one["outcome"]) == (1, outcome)
        assert why in one["error"]

    def test_policy(self, explain):
        """A strict policy that blocks names the regions that it lets read."""
        (one,) = explain("patients")[1]["secrets"]
        (policy,) = one["residency"]
        assert policy == {
            "policy": "strict",
            "region": "us-east-1",
            "allowed_regions": ["us-east-2"],
            "decision": "violation_blocked",
        }
        assert (one["region"], one["region_from"]) == ("us-east-1", "the entry")

    def test_refused_is_not_fetched(self, explain):
        """``--fetch`` asks no provider for what is refused."""
        code, document = explain("patients", "--fetch")
        assert (code, document["secrets"][0]["fetched"]["outcome"]) == (1, "denied")
        assert Issuer.built == 0


@pytest.mark.usefixtures("config")
class TestFetch:
    def test_fetched(self, explain):
        """``--fetch`` tells outcome, version, age and end; the value, its length: nowhere."""
        code, document = explain("db", "--fetch")
        (one,) = document["secrets"]
        assert code == 0
        age = one["fetched"].pop("age")
        assert age >= 0
        assert one["fetched"] == {
            "outcome": "ok",
            "version": "1",
            "expires_at": EXPIRES,
            "error": "",
        }
        assert canary() not in json.dumps(document)
        assert str(len(canary("explained"))) not in json.dumps({**one, "fetched": ""})

    @pytest.mark.parametrize(
        ("reference", "outcome"),
        [
            ("issuer://prod/none", "not_found"),
            ("issuer://prod/db#none", "not_found"),
            ("issuer://denied", "denied"),
        ],
    )
    def test_failed(self, explain, reference, outcome):
        """A fetch that fails tells its outcome and the error; exit code 1."""
        code, document = explain(reference, "--fetch")
        fetched = document["secrets"][0]["fetched"]
        assert (code, fetched["outcome"]) == (1, outcome)
        assert reference.partition("#")[0] in fetched["error"]

    def test_region_of_the_entry(self, explain, config, settings):
        """An entry is fetched from the region that is told."""
        entry = {"REF": "memory://plain", "REGION": "far"}
        settings.SECRET_REGISTRY = {**config, "SECRETS": {"far": entry}}
        assert explain("far", "--fetch")[0] == 0
        held = {(one.region, one.state) for one in registry.snapshot().secrets}
        assert ("far", "fresh") in held


@pytest.mark.usefixtures("config")
class TestText:
    def test_written(self, capsys):
        """The text names each part once, and says that nothing was fetched."""
        assert main(["explain", "db"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "db: an entry of SECRETS, may be rendered in templates"
        told = dict(line.strip().split("  ", 1) for line in lines[2:])
        assert {name: text.strip() for name, text in told.items()} == {
            "reference": "issuer://prod/db?ttl=90#password",
            "parts": "name prod/db, ttl 90.0, key password",
            "provider": f"issuer ({__name__}.Issuer)",
            "region": "eu-west-1 (of the process)",
            "asked for": "issuer://prod/db",
            "fences": "names prod/*, denied; regions eu-west-1, us-east-1",
            "residency": "none",
            "TTL": "60 s (±10%); refreshed in the background from 48 s on; served 3600 s longer"
            " in an outage",
            "named by": "settings.DATABASE_PASSWORD, SECRETS['db'], SECRETS['smtp']",
            "outcome": "permitted; nothing was fetched (--fetch does)",
        }

    def test_fetched(self, capsys):
        """With ``--fetch`` it has version, age and the end in UTC."""
        assert main(["explain", "db", "--fetch"]) == 0
        out = capsys.readouterr().out
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EXPIRES))
        assert f"expires at    {end}" in out
        assert "version       1\n" in out
        assert "outcome       ok\n" in out

    def test_policies(self, capsys, config, settings):
        """Policies, a chain's members, no region and offline mode have words of their own."""
        assert main(["explain", "patients"]) == 1
        expected = "strict, for processes in us-east-1, us-east-2: violation_blocked"
        assert expected in capsys.readouterr().out
        settings.SECRET_REGISTRY = {**config, "OFFLINE": True}
        assert main(["explain", "both://prod/db"]) == 0
        out = capsys.readouterr().out
        assert "both://prod/db: a reference\nOffline mode is on" in out
        assert "region        - (nobody names one)" in out
        assert "handed on to  memory://prod/db?region=home, issuer://prod/db" in out


@pytest.mark.usefixtures("config")
class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            [canary("pasted")],
            [f"{canary('alias')}://x"],
            [f"memory://x?{canary('query')}=1"],
            ["memory://plain", canary("second")],
            [f"--{canary('option')}", "memory://plain"],
            ["memory://plain", "--format", canary("format")],
            [],
        ],
    )
    def test_not_repeated(self, capsys, arguments):
        """Text that names nothing ends in exit code 2 and is nowhere repeated."""
        try:
            code = main(["explain", *arguments])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert "error: " in err
        assert canary("") not in err


class TestProcess:
    def test_apps_are_not_imported(self, tmp_path):
        """No app is imported without ``--fetch``, so that none can have a secret fetched."""
        project = Project(tmp_path, {"django": canary("django"), "stripe": canary("stripe")})
        (tmp_path / "greedy.py").write_text("from django.conf import settings\nsettings.SECRET_KEY")
        with (tmp_path / "settings.py").open("a") as file:
            file.write('INSTALLED_APPS.append("greedy")\nNESTED = []\n')
        (tmp_path / "secrets" / "django").unlink()
        assert self.run(project, "stripe").returncode == 0
        done = self.run(project, "stripe", "--fetch")
        assert done.returncode == 1
        assert "settings.SECRET_KEY cannot be read at start-up" in done.stderr

    def test_fetched(self, tmp_path):
        """With ``--fetch`` the process sets Django up and fetches."""
        project = Project(tmp_path, {"django": canary("django"), "stripe": canary("stripe")})
        done = self.run(project, "stripe", "--fetch", "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["secrets"][0]["fetched"]["outcome"] == "ok"
        assert canary("") not in done.stdout

    @pytest.mark.parametrize(
        ("module", "told"),
        [
            ("", "set DJANGO_SETTINGS_MODULE, or give --settings"),
            ("nowhere.settings", "there is no module 'nowhere'"),
            ("improper", "write a region"),
        ],
    )
    def test_settings(self, tmp_path, module, told):
        """Without settings, or with some that do not load, it says so in one line; exit code 2."""
        project = Project(tmp_path, {})
        (tmp_path / "improper.py").write_text(
            textwrap.dedent("""
                from django.core.exceptions import ImproperlyConfigured
                raise ImproperlyConfigured("write a region")
            """)
        )
        options = ["--settings", module] if module else []
        done = self.run(project, "stripe", *options, DJANGO_SETTINGS_MODULE="")
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert told in done.stderr

    def run(
        self, project: Project, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "django_secret_registry", "explain", *arguments],
            cwd=project.path,
            env={**project.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
