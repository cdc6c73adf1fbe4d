"""The built site: ``tox run -e docs`` builds it, and then looks here whether all of it is there."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import pytest
from registry_docs import tables

import django_secret_registry
from django_secret_registry import rules
from tests.documents import DOCS

SITE = Path(os.environ["SECRET_REGISTRY_SITE"])


def text(page: str) -> str:
    """Return what a reader sees of a page."""
    written = (SITE / f"{page}.html").read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<[^>]+>", "", written))


def first_column(table: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("table", ["checks", "errors", "metrics"])
def test_page_has_its_table(table: str) -> None:
    """Each line of the table that the code makes is on the page."""
    shown = text(f"reference/{table}")
    expected = first_column(tables.TABLES[table]())
    assert len(expected) > 10
    assert [one for one in expected if one not in shown] == []


def test_settings_are_on_their_page() -> None:
    """Each key, backend and bus is on the page of settings."""
    shown = text("reference/settings")
    keys = {*rules.REGISTRY, *rules.PROVIDER, *rules.ENTRY, *rules.CACHE, *rules.FLEET}
    paths = first_column(tables.backends()) + first_column(tables.buses())
    assert [one for one in (*keys, *paths) if one not in shown] == []


def test_permissions_are_on_their_page() -> None:
    """Each permission is on the page of the admin."""
    shown = text("reference/admin")
    named = re.findall(r"`(\w+)`", tables.permissions())
    assert len(named) == 9
    assert [one for one in named if one not in shown] == []


def test_commands_are_on_their_page() -> None:
    """Each command and each of its arguments is on the page of commands."""
    shown = text("reference/commands")
    named = re.findall(r"`(manage\.py [^`]+|--[\w-]+)", tables.commands())
    assert len(named) > 20
    assert [one for one in named if one not in shown] == []


@pytest.mark.parametrize("name", sorted(django_secret_registry.__all__))
def test_public_name_is_documented(name: str) -> None:
    """A public name has a place of its own that can be linked, and says something."""
    written = (SITE / "reference" / "api.html").read_text(encoding="utf-8")
    found = re.search(
        rf'id="django_secret_registry\.{name}">.*?<dd>\s*<p>(.+?)</p>', written, re.DOTALL
    )
    assert found, name
    assert len(found[1]) > 15


def test_no_page_fetches_anything() -> None:
    """Scripts, styles, fonts and pictures are the site's own: it can be read without a network."""
    for page in SITE.rglob("*.html"):
        written = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|source)\b[^>]*>", written):
            assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", tag), f"{page}: {tag}"
    for style in SITE.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_page_is_built() -> None:
    """Each page of the docs is one of the site, and can be reached from the start."""
    index = (SITE / "index.html").read_text(encoding="utf-8")
    for page in sorted(DOCS.rglob("*.md")):
        name = page.relative_to(DOCS).with_suffix(".html").as_posix()
        assert (SITE / name).is_file(), name
        if name != "index.html":
            assert f'href="{name}"' in index, f"{name} is in no menu"
