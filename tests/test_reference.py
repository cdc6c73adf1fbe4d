"""The tables of the reference are made of the code: each leaves nothing out."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from registry_docs import life, tables

import django_secret_registry
from django_secret_registry import conf, exceptions, metrics, rules
from django_secret_registry.management.commands.secret_cache import STATES
from tests.documents import DOCS


def cells(table: str) -> list[str]:
    """Return what stands in the first column of a table, without its marks."""
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def test_checks() -> None:
    """Every id of a check is a line that says what it finds."""
    table = tables.checks()
    assert cells(table) == [one.value for one in conf.Id]
    assert "| error | A secret() where no reader gets its value. |" in table


def test_settings() -> None:
    """Every key of every level is a line that says what it is for, with its default."""
    table = tables.settings()
    levels = (rules.REGISTRY, rules.PROVIDER, rules.ENTRY, rules.CACHE, rules.FLEET)
    assert cells(table) == [key for level in levels for key in level]
    assert re.search(r"`MAX_STALE` \| For how many seconds .* \| `3600` \|", table)
    assert re.search(r"`MODE` \| .* \| one of available, strict \| `\"available\"` \|", table)


def test_a_key_without_a_word_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no comment in the code has no line to stand on."""
    monkeypatch.setitem(rules.CACHE, "NEW", rules.SECONDS)
    with pytest.raises(KeyError):
        tables.settings()


SOURCE = """
OTHER = {
    #: the first
    "A": 1,
    "B": 2,  # the second
    "C": 3,
}
TABLE = {"D": 4, **OTHER}


class Words:
    E = 5  # the fifth
    F = 6
"""


def test_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment belongs to the key that it stands above or behind, and to no other."""
    (tmp_path / "commented.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tables.comments(importlib.import_module("commented")) == {
        ("OTHER", "A"): "The first.",
        ("OTHER", "B"): "The second.",
        ("TABLE", "A"): "The first.",
        ("TABLE", "B"): "The second.",
        ("Words", "E"): "The fifth.",
    }


def test_metrics() -> None:
    """Every metric that the code makes is a line, with the words under its labels."""
    client = pytest.importorskip("prometheus_client")
    into = client.CollectorRegistry()
    metrics.Metrics(django_secret_registry.SecretRegistry(), into)
    named = [
        family.name + ("_total" if family.type == "counter" else "") for family in into.collect()
    ]
    table = tables.metrics_()
    assert set(cells(table)) == set(named)
    assert len(named) >= 14
    assert "`status`: " + ", ".join(f"`{status}`" for status in metrics.READS) in table


def test_commands() -> None:
    """All commands are there, with the arguments of each action and none of Django's own."""
    table = tables.commands()
    for title in ("warm_secrets", "secret_cache list", "secret_cache evict"):
        assert f"`manage.py {title}`" in table
    assert "`python -m django_secret_registry explain`" in table
    for argument in ("--dry-run", "--fleet", "--no-input", "--state", "--jobs N", "--fetch"):
        assert argument in table
    assert "--traceback" not in table


def test_permissions() -> None:
    """Each page of the admin has its three permissions in a line."""
    table = tables.permissions()
    for model in ("cachedsecret", "cachedprovider", "worker"):
        assert ", ".join(f"`{act}_{model}`" for act in ("view", "refresh", "evict")) in table
    assert table.count("\n") == 5


def test_errors() -> None:
    """Every error that can be imported from the package is a line, and has its status."""
    table = tables.errors()
    named = {
        name
        for name in django_secret_registry.__all__
        if isinstance(getattr(django_secret_registry, name), type)
        and issubclass(getattr(django_secret_registry, name), exceptions.SecretError)
    }
    assert set(cells(table)) == named
    assert len(named) >= 11
    assert re.search(r"`AccessDenied` \|.*\| `denied` \|", table)


def test_backends_and_buses() -> None:
    """Every public provider and bus is a line, by the path that settings name."""
    found = [path.rpartition(".providers.")[2] for path in cells(tables.backends())]
    assert {"aws.SecretsManagerProvider", "file.FileProvider", "vault.VaultProvider"} <= {*found}
    assert len(found) >= 14
    assert [path.rpartition(".")[2] for path in cells(tables.buses())] == [
        "CacheBus",
        "DatabaseBus",
        "RedisBus",
    ]


def test_public_names() -> None:
    """Every public name is documented."""
    named = re.findall(r"^\.\. auto\w+:: (\S+)$", tables.public_names(), re.MULTILINE)
    assert sorted(named) == sorted(f"{tables.APP}.{one}" for one in django_secret_registry.__all__)


def test_every_table_is_on_a_page() -> None:
    """No table is made for nobody."""
    pages = "".join(path.read_text() for path in DOCS.glob("reference/*.md"))
    assert sorted(re.findall(r"\{table-of\} (\S+)", pages)) == sorted(tables.TABLES)


@pytest.mark.parametrize("scheme", life.PALETTES)
def test_picture_of_a_life(scheme: str) -> None:
    """The picture in the docs is what is drawn now, of all states that there are."""
    drawn = life.picture(scheme)
    assert (life.PICTURES / f"life-{scheme}.svg").read_text() == drawn
    for state in STATES:
        assert f">{state}</tspan>" in drawn
