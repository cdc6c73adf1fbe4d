"""``manage.py warm_secrets``."""

from __future__ import annotations

import io
import json
import threading

import pytest
from django.core.management import CommandError, call_command

from django_secret_registry import registry, secret
from django_secret_registry.exceptions import AccessDenied
from django_secret_registry.providers.memory import MemoryProvider, MemoryStore
from tests.canary import canary
from tests.command_project import Project

FIELDS = {"reference", "provider", "region", "version", "milliseconds", "outcome", "error"}


class BatchProvider(MemoryProvider):
    """Takes batches of two, tells what it was asked, and refuses ``denied``."""

    batch_size = 2
    regional = True
    calls: list[tuple[str, ...]] = []
    lock = threading.Lock()
    under_way = most_under_way = 0

    def meet(self) -> None:
        """Be under way; a test has the requests wait here."""

    def fetch_many(self, refs, *, timeout):
        with self.lock:
            self.calls.append(tuple(ref.name for ref in refs))
        return super().fetch_many(refs, timeout=timeout)

    def fetch(self, ref, *, timeout):
        if ref.name == "denied":
            raise self.error(AccessDenied, "not yours", ref)
        kind = type(self)
        with self.lock:
            kind.under_way += 1
            kind.most_under_way = max(kind.most_under_way, kind.under_way)
        self.meet()
        with self.lock:
            kind.under_way -= 1
        return super().fetch(ref, timeout=timeout)


@pytest.fixture
def config(settings):
    store = MemoryStore({name: canary(name) for name in ("a", "b", "c", "d", "maps")})
    store.put("smtp", {"user": canary("user"), "password": canary("password")})
    BatchProvider.calls, BatchProvider.most_under_way = [], 0
    settings.SECRET_REGISTRY = {
        "REGION": "eu-west-1",
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
            },
            "batch": {
                "BACKEND": f"{__name__}.BatchProvider",
                "OPTIONS": {"secrets": store},
            },
        },
        "SECRETS": {
            "maps": "memory://maps",
            "smtp": {"MAP": {"user": "memory://smtp#user", "password": "memory://smtp#password"}},
        },
    }
    settings.TOP = secret("batch://a")
    settings.NESTED = {"list": [{"deep": secret("batch://b?region=us-east-1")}]}
    return settings.SECRET_REGISTRY


def held() -> set[str]:
    return {info.reference for info in registry.snapshot().secrets if info.state == "fresh"}


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command("warm_secrets", *arguments, stdout=out, stderr=err)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    return code, out.getvalue(), err.getvalue()


def run_json(*arguments: str) -> tuple[int, list[dict[str, object]]]:
    code, out, _ = run("--format", "json", *arguments)
    rows = json.loads(out)["secrets"]
    assert all(set(row) == FIELDS for row in rows)
    return code, rows


ALL = {
    ("batch://a", "eu-west-1"),
    ("batch://b?region=us-east-1", "us-east-1"),
    ("memory://maps", ""),
    ("memory://smtp#user", ""),
    ("memory://smtp#password", ""),
}


@pytest.mark.usefixtures("config")
class TestWarming:
    def test_finds_and_fetches_everything(self):
        """Without arguments every reference of settings, nested ones too, and SECRETS is held."""
        code, rows = run_json()
        assert code == 0
        assert {(row["reference"], row["region"]) for row in rows} == ALL
        assert {(row["outcome"], row["version"], row["error"]) for row in rows} == {("ok", "1", "")}
        assert all(row["milliseconds"] >= 0 for row in rows)
        assert registry.ready()

    def test_references_of_the_command_line(self):
        """With references only these are fetched; an entry stands for what it names."""
        _, rows = run_json("maps", "ref+batch://c")
        assert [row["reference"] for row in rows] == ["memory://maps", "batch://c"]
        assert held() == {"memory://maps", "batch://c"}

    def test_batches(self):
        """References of one backend go out in its batches."""
        code, _ = run_json("batch://a", "batch://b", "batch://c", "batch://d")
        assert code == 0
        assert sorted(map(len, BatchProvider.calls)) == [2, 2]

    def test_jobs(self, monkeypatch):
        """``--jobs`` is how many requests are under way at once."""
        wanted = [f"batch://a?region=r{number}" for number in range(6)]
        monkeypatch.setattr(BatchProvider, "meet", threading.Barrier(2, timeout=20).wait)
        assert run_json("--jobs", "2", *wanted)[0] == 0
        assert BatchProvider.most_under_way == 2
        registry.evict(all=True)
        monkeypatch.setattr(BatchProvider, "most_under_way", 0)
        monkeypatch.setattr(BatchProvider, "meet", lambda _: threading.Event().wait(0.01))
        assert run_json("--jobs", "1", *wanted)[0] == 0
        assert BatchProvider.most_under_way == 1

    def test_timings(self, monkeypatch):
        """Each reference has the milliseconds that its request took."""
        monkeypatch.setattr(BatchProvider, "meet", lambda _: threading.Event().wait(0.02))
        rows = {row["reference"]: row for row in run_json("batch://a", "batch://b", "maps")[1]}
        assert rows["batch://a"]["milliseconds"] >= 20
        assert rows["batch://a"]["milliseconds"] == rows["batch://b"]["milliseconds"], "one request"

    def test_table(self):
        """The table has reference, provider, region, version, milliseconds and outcome."""
        code, out, err = run()
        lines = [line.split() for line in out.splitlines()]
        assert lines[0] == ["REFERENCE", "PROVIDER", "REGION", "VERSION", "MS", "OUTCOME"]
        assert ["memory://maps", "memory", "-", "1"] in [line[:4] for line in lines]
        assert {line[-1] for line in lines[1:]} == {"ok"}
        assert len(lines) == 1 + len(ALL)
        assert (code, err) == (0, "")

    def test_failures(self):
        """Each failure has its own outcome and a text with reference and provider; exit code 1."""
        code, rows = run_json("batch://a", "batch://missing", "batch://denied")
        assert code == 1
        assert [row["outcome"] for row in rows] == ["ok", "not_found", "denied"]
        assert all("batch://denied" in row["error"] for row in rows[2:])
        code, out, err = run("batch://a", "batch://missing")
        assert code == 1
        assert "1 of 2 failed" in err
        assert "batch://missing" in out.splitlines()[-1]

    def test_optional(self, settings):
        """What is missing and has a default in settings is told, and no failure."""
        settings.FALLBACKS = [secret("batch://previous", default=None)]
        code, rows = run_json()
        assert code == 0
        told = {row["reference"]: (row["outcome"], row["error"]) for row in rows}
        assert told["batch://previous"] == ("default", "")
        assert registry.ready()
        settings.NEEDED = secret("batch://previous")
        code, rows = run_json()
        assert code == 1
        assert "not_found" in {row["outcome"] for row in rows}
        assert registry.ready().missing == ("batch://previous",)

    def test_provider(self):
        """``--provider``, once or more, leaves out what belongs to other aliases."""
        _, rows = run_json("--provider", "batch")
        assert {row["provider"] for row in rows} == {"batch"}
        _, rows = run_json("--provider", "batch", "--provider", "memory")
        assert len(rows) == len(ALL)
        _, rows = run_json("--provider", "batch", "memory://maps")
        assert rows == []

    def test_dry_run(self):
        """``--dry-run`` lists what would be fetched, and asks no provider."""
        code, rows = run_json("--dry-run")
        assert code == 0
        assert {(row["reference"], row["region"]) for row in rows} == ALL
        assert {row["outcome"] for row in rows} == {"planned"}
        assert held() == set()
        assert sum(info.builds for info in registry.snapshot().providers) == 0

    def test_fail_fast(self):
        """With ``--fail-fast`` nothing is begun after the first failure, and that is told."""
        code, rows = run_json("--fail-fast", "--jobs", "1", "batch://missing", "memory://maps")
        assert code == 1
        assert [row["outcome"] for row in rows] == ["not_found", "skipped"]
        assert held() == set()

    def test_nothing_to_do(self, settings):
        """A project without secrets is no error."""
        settings.SECRET_REGISTRY = {}
        settings.TOP = settings.NESTED = None
        assert run_json() == (0, [])
        assert run()[0] == 0

    def test_offline(self, config, settings):
        """In offline mode nothing is fetched: every reference fails, and a dry run still lists."""
        settings.SECRET_REGISTRY = {**config, "OFFLINE": True}
        code, rows = run_json()
        assert code == 1
        assert {row["outcome"] for row in rows} == {"unavailable"}
        assert len(rows) == len(run_json("--dry-run")[1]) - 1  # a MAP fails as one

    def test_names_do_not_reach_the_terminal_raw(self):
        """What makes a terminal show another text is shown as '?'; JSON escapes it."""
        reference = "memory://smtp#\u202ekey"
        _, out, err = run("memory://smtp", reference)
        assert "memory://smtp#?key" in out
        assert "\u202e" not in out + err
        _, out, _ = run("--format", "json", reference)
        assert out.isascii()
        assert json.loads(out)["secrets"][0]["reference"] == reference

    def test_misconfigured_alias(self, config, settings):
        """An alias that cannot work fails its own references, and the others are fetched."""
        backend = {"BACKEND": "no.such.Backend"}
        providers = {**config["PROVIDERS"], "memory": backend}
        settings.SECRET_REGISTRY = {**config, "PROVIDERS": providers}
        code, rows = run_json()
        assert code == 1
        assert {row["provider"] for row in rows if row["outcome"] == "ok"} == {"batch"}
        failed = [row for row in rows if row["outcome"] == "error"]
        assert {row["provider"] for row in failed} == {"memory"}

    def test_no_value_in_any_output(self):
        """No value is in any format of any outcome (here, and by the canary of the whole run)."""
        for arguments in ([], ["--dry-run"], ["batch://missing"]):
            for form in ("table", "json"):
                _, out, err = run("--format", form, *arguments)
                assert canary() not in out + err


class TestBrokenReferences:
    @pytest.fixture(autouse=True)
    def broken(self, config, settings):
        settings.PASTED = {"KEY": secret(canary())}
        settings.UNKNOWN = secret("nope://x")
        settings.STAGED = secret("memory://x?project=p")

    def test_are_named_by_their_place(self):
        """What names no alias and no entry may be a secret: its place is shown instead."""
        code, rows = run_json()
        assert code == 1
        failed = {row["reference"]: row["outcome"] for row in rows if row["outcome"] != "ok"}
        assert failed == {
            "settings.PASTED['KEY']": "error",
            "settings.UNKNOWN": "error",
            "memory://x?project=p": "error",
        }
        assert len(rows) == len(ALL) + 3

    def test_fail_a_dry_run(self):
        """A dry run finds them too."""
        code, rows = run_json("--dry-run")
        assert code == 1
        assert sum(row["error"] != "" for row in rows) == 3

    def test_stop_fail_fast(self):
        """With ``--fail-fast`` nothing is fetched when a reference is already known to fail."""
        code, rows = run_json("--fail-fast")
        assert code == 1
        assert len(rows) == 3
        assert held() == set()

    def test_belong_to_their_provider(self):
        """With ``--provider`` only the failures of that alias are told."""
        _, rows = run_json("--provider", "memory", "--dry-run")
        assert [row["reference"] for row in rows if row["error"]] == ["memory://x?project=p"]


@pytest.mark.usefixtures("config")
class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--provider", canary()],
            ["--provider", ""],
            [canary()],
            ["memory://a", f"{canary()}://x"],
            [f"memory://{canary()}?x"],
            [""],
        ],
    )
    def test_is_refused_without_an_echo(self, arguments):
        """An unknown alias or a malformed reference is exit code 2; the text is not repeated."""
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert canary() not in err
        assert held() == set()

    def test_says_what_there_is(self):
        """The message counts the argument and lists aliases and entries."""
        assert "PROVIDERS has: batch, memory" in run("--provider", "x")[2]
        assert "Reference 2: " in run("memory://a", "x")[2]
        assert "SECRETS has: maps, smtp" in run("x")[2]

    @pytest.mark.parametrize("jobs", ["0", "-1", "x", "1.5", "²", ""])
    def test_jobs_is_a_positive_number(self, jobs):
        """``--jobs`` takes 1 or more."""
        with pytest.raises(CommandError, match="1 or more"):
            call_command("warm_secrets", f"--jobs={jobs}")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("config")
def test_progress_ends_with_an_empty_line():
    """The bar counts to the end and is then wiped, so that the table stands alone."""
    terminal = Terminal()
    call_command("warm_secrets", stdout=io.StringIO(), stderr=terminal)
    shown = terminal.getvalue()
    assert f" 0/{len(ALL)}" in shown
    assert f"] {len(ALL)}/{len(ALL)}" in shown
    assert shown.endswith("\r\x1b[K")


class TestProcess:
    def test_ok(self, tmp_path):
        """Exit code 0; standard output is JSON and nothing else, and standard error is silent."""
        names = ("django", "stripe", "nested")
        project = Project(tmp_path, {name: canary(name) for name in names})
        done = project.run("warm_secrets", "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        rows = json.loads(done.stdout)["secrets"]
        assert {row["reference"] for row in rows} == {f"file://{name}" for name in names}
        assert canary() not in done.stdout

    def test_failure(self, tmp_path):
        """Exit code 1 with one line about it; JSON still is all that is on standard output."""
        project = Project(tmp_path, {"django": canary(), "stripe": canary()})
        done = project.run("warm_secrets", "--format", "json")
        assert done.returncode == 1
        assert done.stderr == "CommandError: 1 of 3 failed.\n"
        assert len(json.loads(done.stdout)["secrets"]) == 3

    @pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--provider", "x"], ["x"], ["--x"]])
    def test_usage(self, tmp_path, arguments):
        """Exit code 2, and nothing on standard output."""
        done = Project(tmp_path, {}).run("warm_secrets", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr

    def test_pipe(self, tmp_path):
        """Where standard error is a pipe or a file, no bar and no control character is written."""
        project = Project(tmp_path, dict.fromkeys(("django", "stripe", "nested"), canary()))
        done = project.run("warm_secrets")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("REFERENCE")
        assert done.stdout.replace("\n", "").isprintable()

    def test_terminal(self, tmp_path):
        """On a terminal a bar is drawn on standard error."""
        project = Project(tmp_path, dict.fromkeys(("django", "stripe", "nested"), canary()))
        code, shown = project.run_on_terminal("warm_secrets")
        assert code == 0
        assert "3/3" in shown
