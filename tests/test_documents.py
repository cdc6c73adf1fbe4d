"""The documentation keeps its promises: every block is run, and every link leads somewhere.

Here: the rule itself, and the pages that no other test runs.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sqlite3
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.cache import caches
from django.test import override_settings

from django_secret_registry import registry
from django_secret_registry.checks import check_configuration
from django_secret_registry.conf import parse
from django_secret_registry.db.mixin import RotatingCredentials
from django_secret_registry.discovery import markers
from django_secret_registry.planning import Planner
from django_secret_registry.provider_cache import ProviderCache
from django_secret_registry.signals import secret_rotated
from tests.canary import canary
from tests.documents import DOCS, PAGES, ROOT, Block, blocks_of
from tests.servers import redis as redis_server
from tests.servers.redis import RedisServer
from tests.walking import INSTALL, Walk, look_for, made, project

__all__ = ["made", "project"]  # fixtures

redis_session, redis = redis_server.redis_session, redis_server.redis

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
#: Languages of what is no code that a reader runs.
DATA = {"", "console", "dockerfile", "hcl", "html+django", "json", "text", "yaml"}
#: What Markdown, or Sphinx, makes of a block.
DIRECTIVES = {"eval-rst", "toctree"}
#: Pages whose blocks a test of their own follows, all of them.
FOLLOWED = {"tests/test_tutorial.py": ["tutorial"], "tests/test_how_to.py": ["how-to"]}
#: All that is not run, and why.
REASONS = {
    "docs/how-to/docker.md": ["needs Docker"],
    "docs/how-to/from-aws-secretsmanager-caching.md": [
        "what is replaced; the library is no dependency of the tests"
    ],
    "docs/how-to/from-own-cache.md": ["what is replaced"] * 3,
    "docs/providers/azure.md": ["needs Azure"],
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_followed(block: Block) -> bool:
    """Whether a test walks through the whole page."""
    return any(
        name(block.page).startswith(f"docs/{start}")
        for starts in FOLLOWED.values()
        for start in starts
    )


def is_plain(block: Block) -> bool:
    """Whether it is run here, without any more ado."""
    return block.language == "python" and not block.note and not is_followed(block)


def execute(block: Block, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Execute a block of Python; return the names that it defines."""
    found: dict[str, Any] = {} if names is None else names
    exec(compile(block.text, str(block), "exec"), found)  # the point of it
    return found


def test_every_block_is_run_or_says_why_not() -> None:
    """A block of Python or shell is run by a test that its page, or its note, belongs to."""
    assert len(BLOCKS) > 80
    found: dict[str, list[str]] = {}
    for block in BLOCKS:
        assert block.runs or block.language in DATA | DIRECTIVES, f"{block}: {block.language}"
        if not block.runs:
            continue
        if reason := block.noted("not run"):
            found.setdefault(name(block.page), []).append(reason)
        elif runner := block.noted("run by"):
            text = (ROOT / runner).read_text()
            page = block.page
            assert page.stem in text or page.parent.name.upper() in text, f"{block}: not {runner}"
        elif block.language == "sh" and not is_followed(block):
            assert not INSTALL.sub("", block.text), f"{block} is run by nobody"
    assert found == REASONS


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(is_plain, blocks_of(page)))], ids=name
)
def test_python_of_a_page(page: Path) -> None:
    """Blocks of Python that need nothing around them run in their order."""
    names: dict[str, Any] = {}
    for block in filter(is_plain, blocks_of(page)):
        execute(block, names)


def test_what_is_not_run_is_at_least_python() -> None:
    """A block that cannot be run here can be compiled."""
    for block in BLOCKS:
        if block.language == "python" and block.noted("not run"):
            ast.parse(block.text)


def test_followed_pages_have_a_walk() -> None:
    """The pages that need no notes are those that the two tests walk through."""
    for runner, starts in FOLLOWED.items():
        text = (ROOT / runner).read_text()
        assert all(start in text and ".follow(" in text for start in starts)


def test_data_can_be_read() -> None:
    """What a page shows as JSON or YAML is that."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")
    read = {"json": json.loads, "yaml": lambda text: list(yaml.safe_load_all(text))}
    found = [block for block in BLOCKS if block.language in read]
    assert len(found) > 8
    for block in found:
        assert read[block.language](block.text), block


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page: Path) -> None:
    """Every link to another page of the docs leads to a file, and to a title in it."""
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), f"{name(page)} links {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{name(page)} links {target}#{anchor}"


@pytest.mark.full  # where Django is the one that the tutorial has
def test_installations() -> None:
    """What pages have people install is this package, with extras that it has, or is here."""
    found = [one for block in BLOCKS for one in INSTALL.finditer(block.text)]
    assert len(found) >= 7
    for command in found:
        look_for(command)


def test_commands_in_dialogues_are_understood() -> None:
    """A command of this package that a page shows takes the arguments that it is shown with."""
    from django.core.management import load_command_class

    found = 0
    for block in BLOCKS:
        for line in re.findall(r"manage\.py ((?:secret_cache|warm_secrets)[^\n`|&]*)", block.text):
            command, *arguments = shlex.split(line, comments=True)
            parser = load_command_class("django_secret_registry", command).create_parser(
                "manage.py", command
            )
            parser.parse_args(arguments)
            found += 1
    assert found >= 6


def has_no_mistake(settings: dict[str, Any]) -> None:
    """Look whether settings pass the checks, and all that they name could be asked for."""
    setting = settings["SECRET_REGISTRY"]
    config, mistakes = parse(setting, environ={})
    assert mistakes == []
    planner = Planner(config, ProviderCache(config.providers))
    named = [marker.reference for value in settings.values() for marker in markers(value)]
    assert named or config.entries
    for text in (*config.entries, *named):
        assert planner.plan(text).parts
    with override_settings(SECRET_REGISTRY=setting):
        assert [one for one in check_configuration() if one.level >= checks.WARNING] == []


def test_settings_of_the_readme() -> None:
    """The settings in the README have no mistake, and the app stands first."""
    pytest.importorskip("boto3", reason="needs boto3: pip install boto3")
    (block,) = [one for one in blocks_of(ROOT / "README.md") if one.language == "python"]
    settings = execute(block)
    assert settings["INSTALLED_APPS"][0] == "django_secret_registry"
    has_no_mistake({key: value for key, value in settings.items() if key.isupper()})


@pytest.mark.full
def test_monitoring(project: Path) -> None:
    """The page of metrics is one of the project's after what docs/monitoring.md has one write."""
    pytest.importorskip("django_prometheus", reason="needs django-prometheus")
    with Walk(DOCS / "monitoring.md", project) as walk:
        walk.follow()
        shown = walk.run(
            'python manage.py shell -c "from django.test import Client;'
            " print(Client().get('/metrics', headers={'host': '127.0.0.1'}).status_code)\""
        )
    assert shown.split()[-1] == "200"


@pytest.mark.full
def test_fleet(project: Path, redis: RedisServer) -> None:
    """The settings of docs/fleet.md join a process to a bus; its calls and its commands run."""
    path = project / "shop" / "settings.py"
    secrets = project / "secrets"
    secrets.mkdir()
    (secrets / "stripe").write_text(canary("stripe"))
    registry_of_project = {
        "PROVIDERS": {
            "file": {
                "BACKEND": "django_secret_registry.providers.file.FileProvider",
                "OPTIONS": {"path": str(secrets)},
            }
        },
        "SECRETS": {"stripe": "file://stripe"},
    }
    text = path.read_text() + "INSTALLED_APPS.insert(0, 'django_secret_registry')\n"
    text += f"SECRET_REGISTRY = {registry_of_project}\n"
    calls, commands = "from django_secret_registry import registry\n", []
    for block in blocks_of(DOCS / "fleet.md"):
        if block.file == "settings.py":
            text += block.text.replace("redis.example.com:6379", f"127.0.0.1:{redis.port}")
        elif block.language == "python":
            calls += block.text
        elif block.language == "console":
            commands += re.findall(r"^\$ (manage\.py .*)$", block.text, re.MULTILINE)
    path.write_text(text)
    assert "FLEET" in text
    assert "fleet=True" in calls
    assert commands
    (project / "calls.py").write_text(calls)
    with Walk(DOCS / "fleet.md", project) as walk:
        walk.run("python manage.py check --fail-level WARNING")
        walk.run("python manage.py shell < calls.py")
        for command in commands:
            walk.run(f"python {command}")


@pytest.mark.full
def test_leaks(tmp_path: Path) -> None:
    """The logging of docs/leaks.md masks what is held, and its Sentry asks this package first."""
    pytest.importorskip("sentry_sdk", reason="needs sentry-sdk: pip install sentry-sdk")
    code = "".join(block.text for block in blocks_of(DOCS / "leaks.md") if block.runs)
    assert "dsn=..." in code
    (tmp_path / "page.py").write_text(code.replace("dsn=...", "dsn=None"))
    script = """
        import logging, logging.config
        from django.conf import settings
        import page
        settings.configure(LOGGING=page.LOGGING, ADMINS=[])
        logging.config.dictConfig(page.LOGGING)
        assert page.sentry_sdk.get_client().options["before_send"] is page.before_send
        from django_secret_registry import SecretStr
        logging.getLogger("shop").info("the key is %s", SecretStr("{secret}"))
    """
    (tmp_path / "use.py").write_text(textwrap.dedent(script).format(secret=canary("key")))
    with Walk(DOCS / "leaks.md", tmp_path) as walk:
        printed = walk.run("python use.py")
    assert "the key is" in printed
    assert canary("key") not in printed


class TestRotation:
    """docs/rotation.md, block by block."""

    @pytest.fixture
    def blocks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Block]:
        """Give the page's blocks, and the project that they speak of."""
        package = tmp_path / "myproject"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "celery.py").write_text("from celery import Celery\napp = Celery('myproject')\n")
        (package / "queue.py").write_text(
            "import sqlite3\nconnection = sqlite3.connect(':memory:')\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        for module in ("myproject", "myproject.celery", "myproject.queue"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return [one for one in blocks_of(DOCS / "rotation.md") if one.language == "python"]

    def test_settings(self, blocks: list[Block]) -> None:
        """Its settings have no mistake, and each names secrets that can be asked for."""
        provider = "django_secret_registry.providers.aws.SecretsManagerProvider"
        base = {"REGION": "eu-central-1", "PROVIDERS": {"aws": {"BACKEND": provider}}}
        names: dict[str, Any] = {}
        seen: set[str] = set()
        for block in blocks:
            if re.search(r"^[A-Z_]+ = ", block.text, re.MULTILINE):
                execute(block, names)
                settings = {key: value for key, value in names.items() if key.isupper()}
                seen |= settings.keys()
                given = settings.pop("SECRET_REGISTRY", {})
                config, mistakes = parse({**base, **given}, environ={})
                assert mistakes == []
                planner = Planner(config, ProviderCache(config.providers))
                for marker in [one for value in settings.values() for one in markers(value)]:
                    assert planner.plan(marker.reference).parts
        assert seen == {
            "CACHES",
            "DATABASES",
            "SECRET_KEY",
            "SECRET_KEY_FALLBACKS",
            "SECRET_REGISTRY",
        }
        pytest.importorskip("redis", reason="needs redis-py: pip install redis")
        with override_settings(CACHES=names["CACHES"]):
            assert caches["default"]

    def test_engine_of_ones_own(self, blocks: list[Block]) -> None:
        """The mixin stands before an engine of Django's."""
        (block,) = [one for one in blocks if "RotatingCredentials" in one.text]
        pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
        try:
            made = execute(block)
        except Exception as error:  # GDAL says that it is missing by an error of Django's
            pytest.skip(f"needs GDAL: install gdal-bin ({type(error).__name__})")
        assert issubclass(made["DatabaseWrapper"], RotatingCredentials)

    def test_reset_of_celery(self, blocks: list[Block]) -> None:
        """The function forgets the result backend, which is then made anew."""
        pytest.importorskip("celery", reason="needs celery: pip install celery")
        (block,) = [one for one in blocks if "reset_celery(" in one.text]
        made = execute(block)
        app = importlib.import_module("myproject.celery").app
        before = app.backend
        made["reset_celery"](reference="aws://prod/redis")
        assert app.backend is not before

    @pytest.mark.full
    def test_receivers(self, blocks: list[Block], settings: Any) -> None:
        """The receivers act on their secret and on no other."""
        stripe = pytest.importorskip("stripe", reason="needs stripe: pip install stripe")
        settings.STRIPE_KEY = canary("stripe")
        queue = importlib.import_module("myproject.queue")
        names: dict[str, Any] = {"myproject": types.SimpleNamespace(queue=queue)}
        for block in blocks:
            if "@receiver" in block.text:
                execute(block, names)
        before = stripe.api_key
        try:
            for reference in ("aws://prod/other", "aws://prod/stripe", "aws://prod/redis"):
                assert (stripe.api_key == canary("stripe")) == (reference == "aws://prod/redis")
                queue.connection.execute("SELECT 1")
                versions = {"old_version": "1", "new_version": "2"}
                secret_rotated.send(
                    type(registry), reference=reference, provider="aws", region="", **versions
                )
            with pytest.raises(sqlite3.ProgrammingError):
                queue.connection.execute("SELECT 1")
        finally:
            stripe.api_key = before
            for receiver in ("use_new_stripe_key", "reconnect"):
                secret_rotated.disconnect(names[receiver])
