"""``manage.py secret_cache list|refresh|evict``."""

from __future__ import annotations

import io
import json
import os
import pwd

import pytest
from django.core.management import CommandError, call_command

from django_secret_registry import ProviderUnavailable, audit, registry, secret
from django_secret_registry.providers.memory import MemoryProvider, MemoryStore
from tests.canary import canary
from tests.command_project import Project


class RegionalProvider(MemoryProvider):
    """Has regions, and can be down."""

    regional = True
    down = False

    def fetch(self, ref, *, timeout):
        if self.down:
            raise self.error(ProviderUnavailable, "down", ref)
        return super().fetch(ref, timeout=timeout)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore({name: canary(name) for name in ("a", "b", "c")})


@pytest.fixture(autouse=True)
def config(store, settings, monkeypatch):
    monkeypatch.setattr(RegionalProvider, "down", False)
    settings.SECRET_REGISTRY = {
        "REGION": "eu-west-1",
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
            },
            "aws": {"BACKEND": f"{__name__}.RegionalProvider", "OPTIONS": {"secrets": store}},
        },
        "SECRETS": {"entry": "memory://a"},
    }
    settings.KEY = secret("aws://b")
    settings.OTHER = [secret("aws://b?region=us-east-1"), secret("aws://missing")]
    return settings.SECRET_REGISTRY


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command("secret_cache", *arguments, stdout=out, stderr=err)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    assert canary() not in out.getvalue() + err.getvalue()
    return code, out.getvalue(), err.getvalue()


def run_json(action: str, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    code, out, _ = run(action, "--format", "json", *arguments)
    document = json.loads(out)
    assert document["pid"] == os.getpid()
    return code, document["secrets"]


def states(*arguments: str) -> dict[str, object]:
    return {row["reference"]: row["state"] for row in run_json("list", *arguments)[1]}


def outcomes(action: str, *arguments: str) -> dict[str, object]:
    return {row["reference"]: row["outcome"] for row in run_json(action, *arguments)[1]}


NAMED = {
    "aws://b": "absent",
    "aws://b?region=us-east-1": "absent",
    "aws://missing": "absent",
    "memory://a": "absent",
}


def held() -> set[str]:
    return {info.reference for info in registry.snapshot().secrets if info.age is not None}


class TestList:
    def test_shows_what_is_named_without_fetching(self):
        """Secrets of settings and SECRETS are listed as absent, and no provider is asked."""
        assert states() == NAMED
        assert held() == set()

    def test_shows_what_is_held(self, store):
        """What is held shows state, version, age and hits, also where no setting names it."""
        store.put("a", canary("second"))
        registry.get("entry")
        registry.get("memory://c")
        assert states() == NAMED | {"memory://a": "fresh", "memory://c": "fresh"}
        row = next(r for r in run_json("list")[1] if r["reference"] == "memory://a")
        assert row["version"] == "2"
        assert row["age"] >= 0
        assert row["due_in"] > 0
        assert row["last_error"] == ""

    def test_shows_refusals_and_errors(self):
        """A confirmed "not found" is shown as refused, with the error."""
        registry.get("aws://missing", None)
        row = next(r for r in run_json("list")[1] if r["reference"] == "aws://missing")
        assert row["state"] == "refused"
        assert row["last_status"] == "not_found"
        code, out, _ = run("list")
        assert code == 0
        assert "aws://missing" in out.splitlines()[-1]

    def test_table(self):
        """The table has one line per secret, and '-' where a field does not apply."""
        registry.get("entry")
        code, out, err = run("list")
        lines = out.splitlines()
        heading = [
            "REFERENCE",
            "PROVIDER",
            "REGION",
            "VERSION",
            "STATE",
            "AGE",
            "DUE",
            "IN",
            "HITS",
        ]
        assert lines[0].split() == heading
        assert len(lines) == 1 + len(NAMED)
        absent = next(line for line in lines if line.startswith("aws://b "))
        assert absent.split() == ["aws://b", "aws", "eu-west-1", "-", "absent", "-", "-", "0"]
        assert (code, err) == (0, "")

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["entry"], {"memory://a"}),
            (["memory://c"], {"memory://c"}),
            (["aws://b", "entry"], {"aws://b", "memory://a"}),
            (["--provider", "memory"], {"memory://a"}),
            (["--provider", "memory", "--provider", "aws"], set(NAMED)),
            (["--region", "us-east-1"], {"aws://b?region=us-east-1"}),
            (["--region", "-"], {"memory://a"}),
            (["--state", "fresh"], {"memory://a"}),
            (["--state", "fresh", "--state", "absent", "--provider", "memory"], {"memory://a"}),
            (["--state", "stale"], set()),
        ],
    )
    def test_selection(self, arguments, expected):
        """References, aliases, region and state narrow the list; all that are given must fit."""
        registry.get("entry")
        assert set(states(*arguments)) == expected

    def test_reference_without_version_means_all_versions(self, store):
        """A reference without version names every version that is held."""
        store.put("a", canary("2"))
        registry.get("memory://a?version=1")
        assert set(states("memory://a")) == {"memory://a", "memory://a?version=1"}
        assert set(states("memory://a?version=1")) == {"memory://a?version=1"}

    def test_broken_references(self, settings):
        """A reference that leads nowhere is told by its place, not by its text."""
        settings.BROKEN = secret(canary())
        code, out, _ = run("list")
        assert code == 0
        assert out.splitlines()[-1].startswith("settings.BROKEN: ")
        _, out, _ = run("list", "--format", "json")
        assert [one["where"] for one in json.loads(out)["broken"]] == ["settings.BROKEN"]
        _, out, _ = run("list", "--format", "json", "--state", "fresh")
        assert json.loads(out)["broken"] == []


class TestRefresh:
    def test_fetches_the_selection(self):
        """What is selected is fetched now, whether it was held or not."""
        registry.get("entry")
        assert outcomes("refresh", "entry", "aws://b") == {"memory://a": "ok", "aws://b": "ok"}
        assert held() == {"memory://a", "aws://b"}

    def test_brings_the_new_value(self, store):
        """After a rotation it brings the new version."""
        registry.get("entry")
        store.put("a", canary("new"))
        run("refresh", "--provider", "memory")
        assert registry.get("entry") == canary("new")

    def test_failure(self):
        """One that fails is told with its error, the others are refreshed, and the code is 1."""
        code, rows = run_json("refresh", "--all")
        assert code == 1
        failed = {row["reference"]: row for row in rows if row["outcome"] != "ok"}
        assert set(failed) == {"aws://missing"}
        assert failed["aws://missing"]["outcome"] == "not_found"
        assert "aws://missing" in failed["aws://missing"]["error"]

    def test_outage_keeps_the_held_value(self, monkeypatch):
        """A provider that is down fails the refresh and takes nothing away."""
        value = registry.get("aws://b")
        monkeypatch.setattr(RegionalProvider, "down", True)
        code, rows = run_json("refresh", "aws://b")
        assert (code, rows[0]["outcome"]) == (1, "unavailable")
        assert registry.get("aws://b") == value

    def test_broken_references_fail_it(self, settings):
        """``refresh --all`` fails for a reference that leads nowhere."""
        settings.OTHER = []
        settings.BROKEN = secret(canary())
        code, out, err = run("refresh", "--all")
        assert code == 1
        assert "1 of 3 failed" in err
        assert "settings.BROKEN: " in out


class TestEvict:
    @pytest.fixture(autouse=True)
    def filled(self):
        for ref in ("entry", "aws://b", "aws://b?region=us-east-1"):
            registry.get(ref)

    def test_reference(self):
        """A reference is forgotten, the others are not."""
        assert outcomes("evict", "entry") == {"memory://a": "evicted"}
        assert held() == {"aws://b", "aws://b?region=us-east-1"}

    def test_is_remembered(self):
        """The list tells when a secret was evicted, and that this command did it."""
        run("evict", "entry")
        row = next(r for r in run_json("list")[1] if r["reference"] == "memory://a")
        assert row["evicted_at"] > 0
        assert row["evicted_by"] == "manage.py secret_cache"
        assert row["used_by"] == ["SECRETS['entry']"]

    def test_absent(self):
        """To evict what is not held is no error, and is told."""
        assert outcomes("evict", "memory://c") == {"memory://c": "absent"}

    def test_region(self):
        """A region's secrets go, of whatever alias."""
        assert set(outcomes("evict", "--region", "us-east-1")) == {"aws://b?region=us-east-1"}
        assert held() == {"aws://b", "memory://a"}

    def test_provider_goes_with_its_client(self):
        """A whole alias, in one region or all, loses its clients as well as its secrets."""
        before = registry.get_provider("aws"), registry.get_provider("aws", "us-east-1")
        outcomes("evict", "--provider", "aws", "--region", "us-east-1")
        assert registry.get_provider("aws") is before[0]
        assert registry.get_provider("aws", "us-east-1") is not before[1]
        outcomes("evict", "--provider", "aws")
        assert registry.get_provider("aws") is not before[0]
        assert held() == {"memory://a"}

    def test_state(self):
        """Only what is in the state goes."""
        registry.get("aws://missing", None)
        assert outcomes("evict", "--state", "refused") == {"aws://missing": "evicted"}
        assert held() == {"aws://b", "aws://b?region=us-east-1", "memory://a"}

    def test_all_without_input(self):
        """``--all --no-input`` forgets everything, clients too, and asks nobody."""
        client = registry.get_provider("memory")
        code, out, err = run("evict", "--all", "--no-input")
        assert (code, err, held()) == (0, "", set())
        assert registry.get_provider("memory") is not client
        assert f"Only in process {os.getpid()}" in out

    @pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("YES\n", True), ("yes", True)])
    def test_all_asks(self, answer, goes, monkeypatch):
        """``--all`` asks, on standard error, and goes on after a yes."""
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        code, out, err = run("evict", "--all", "--format", "json")
        assert code == 0
        assert json.loads(out)["secrets"]
        assert err.startswith("Evict every secret")
        assert held() == set()

    @pytest.mark.parametrize("answer", ["", "\n", "n\n", "yep\n"])
    def test_all_is_cancelled(self, answer, monkeypatch):
        """Without a yes, or with nobody to answer, nothing is evicted and the code is 1."""
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        code, out, err = run("evict", "--all")
        assert (code, out) == (1, "")
        assert "Nothing was evicted" in err
        assert len(held()) == 3


@pytest.mark.parametrize("action", ["refresh", "evict"])
class TestUsage:
    def test_needs_a_selection(self, action):
        """Without any word of selection nothing is done: everything must be asked for by name."""
        code, out, err = run(action)
        assert (code, out) == (2, "")
        assert "--all" in err

    def test_all_is_all(self, action):
        """``--all`` together with a selection is refused: one of the two is a mistake."""
        assert run(action, "--all", "--provider", "aws")[0] == 2

    @pytest.mark.parametrize("arguments", [["--provider", canary()], [canary()], ["x://y"]])
    def test_bad_words_are_not_repeated(self, action, arguments):
        """An unknown alias or reference is exit code 2, without an echo."""
        assert run(action, *arguments)[:2] == (2, "")


class TestAudit:
    @pytest.fixture
    def lines(self, caplog):
        """Return what was written since the last call: user, action, reference, outcome."""

        def lines() -> list[tuple[str, ...]]:
            fields = ("user", "action", "reference", "outcome")
            found = [record.audit for record in caplog.records if record.name == audit.logger.name]
            caplog.clear()
            return [tuple(line[field] for field in fields) for line in found]

        return lines

    USER = pwd.getpwuid(os.getuid()).pw_name

    def test_refresh(self, lines):
        """A refresh is a line per secret, with its outcome, as in the admin."""
        run("refresh", "entry", "aws://missing")
        assert lines() == [
            (self.USER, "refresh", "aws://missing", "not_found"),
            (self.USER, "refresh", "memory://a", "ok"),
        ]

    def test_evict(self, lines):
        """An eviction is a line per secret, and one for each alias that lost its clients."""
        registry.get("entry")
        run("evict", "entry")
        assert lines() == [(self.USER, "evict", "memory://a", "ok")]
        run("evict", "--provider", "aws", "--region", "us-east-1")
        assert lines() == [
            (self.USER, "evict", "aws@us-east-1", "ok"),
            (self.USER, "evict", "aws://b?region=us-east-1", "ok"),
        ]
        run("evict", "--provider", "memory")
        assert lines()[0] == (self.USER, "evict", "memory@*", "ok")
        run("evict", "--all", "--no-input")
        assert lines()[0] == (self.USER, "evict", "*", "ok")

    def test_what_was_not_done(self, lines, monkeypatch):
        """A list, a question that was not answered and wrong usage are no lines."""
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        run("list")
        run("evict", "--all")
        run("evict")
        run("refresh", canary())
        assert lines() == []

    def test_user(self, lines, monkeypatch):
        """The user is the process's, whatever its environment says; one without a name a number."""
        for name in ("LOGNAME", "USER", "USERNAME"):
            monkeypatch.setenv(name, "somebody")
        run("refresh", "entry")
        monkeypatch.setattr(os, "getuid", lambda: 987654321)
        run("refresh", "entry")
        assert [line[0] for line in lines()] == [self.USER, "987654321"]


class TestProcess:
    def test_list(self, tmp_path):
        """Run as a command it has a cache of its own: everything is absent, nothing is fetched."""
        project = Project(tmp_path, {"django": canary(), "stripe": canary(), "nested": canary()})
        done = project.run("secret_cache", "list", "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        rows = json.loads(done.stdout)["secrets"]
        assert {row["state"] for row in rows} == {"absent"}
        assert len(rows) == 3

    @pytest.mark.full
    def test_exit_codes(self, tmp_path):
        """0, 1 for a failure, 2 for usage, as shells see them."""
        project = Project(tmp_path, {"django": canary()})
        assert project.run("secret_cache", "refresh", "file://django").returncode == 0
        assert project.run("secret_cache", "refresh", "--all").returncode == 1
        assert project.run("secret_cache", "evict", "--all", stdin="").returncode == 1
        assert project.run("secret_cache", "evict", "--all", stdin="y\n").returncode == 0
        assert project.run("secret_cache", "evict").returncode == 2
        assert project.run("secret_cache", "list", "--state", "good").returncode == 2
        assert project.run("secret_cache").returncode == 2

    def test_help_says_that_workers_are_not_touched(self, tmp_path):
        """The help says that a command's cache is its own."""
        done = Project(tmp_path, {}).run("secret_cache", "evict", "--help")
        assert "nothing in running workers" in " ".join(done.stdout.split())
