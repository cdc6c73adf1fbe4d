"""The tutorial keeps its promise: whoever follows its blocks, and nothing else, gets there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from example_project.demo.steps import wait_for
from example_project.demo.tour import Browser
from tests.documents import DOCS
from tests.servers import aws
from tests.walking import PATIENCE, Walk

pytestmark = pytest.mark.full
PAGE = DOCS / "tutorial.md"
SECRETS = "/admin/django_secret_registry/cachedsecret/"
#: What the page has people put into AWS.
VALUES = re.compile(r"(?:first|second)-key-|sk_live_")


def hits(metrics: str) -> float:
    """Return how many reads found a secret of AWS in memory."""
    labels = '{provider="aws",region="eu-central-1",status="hit"}'
    found = re.search(
        rf"^secret_registry_resolve_total{re.escape(labels)} (\S+)$", metrics, re.MULTILINE
    )
    return float(found[1]) if found else 0.0


def version(secrets: str, reference: str) -> str:
    """Return which version of a secret the admin's list shows."""
    found = re.search(rf">{re.escape(reference)}</a>.*?field-version.*?title=\"(\S+)\"", secrets)
    assert found, f"{reference} is not listed"
    return found[1]


def test_tutorial(tmp_path: Path) -> None:
    """Its blocks lead to a live secret, an admin page, a metric, and a rotation that is followed.

    An empty folder, the page's files and commands, an unmodified server of Django and moto's own.
    """
    pytest.importorskip(
        "django_prometheus", reason="needs the extra: pip install django-prometheus"
    )
    if reason := aws.missing():
        pytest.skip(reason)
    with Walk(PAGE, tmp_path, ports=(5000, 8000)) as walk:
        walk.follow(until="Put the package in")
        before = tmp_path.joinpath("shop/settings.py").read_text()
        walk.follow(until="Rotate")
        assert tmp_path.joinpath("shop/settings.py").read_text().startswith(before)

        # A live secret of AWS: each page was signed with it, and so was the second of two.
        browser = Browser(f"http://127.0.0.1:{walk.port(8000)}")
        signed = browser.get("/pay/")
        assert [signed, signed] in [text.splitlines(keepends=True) for text in walk.printed]
        warmed = next(text for text in walk.printed if "OUTCOME" in text)
        assert re.findall(r"^aws://(\S+).* (\w+)$", warmed, re.MULTILINE) == [
            ("prod/django#secret_key", "ok"),
            ("prod/django?stage=previous#secret_key", "default"),
            ("prod/stripe#api_key", "ok"),
        ]

        # The admin shows it, and no value.
        account = {"username": "admin", "password": "ten-minutes", "next": SECRETS}
        listed = browser.submit("/admin/login/", "/admin/login/", **account)
        assert version(listed, "aws://prod/stripe")
        django = version(listed, "aws://prod/django")

        # The metric counts on.
        assert any("secret_registry_resolve_total{" in text for text in walk.printed)
        counted = hits(browser.get("/metrics"))
        browser.get("/pay/")
        assert hits(browser.get("/metrics")) > counted > 0

        # Two rotations are followed without a restart, and the session outlives them.
        walk.follow(until="Test it")
        wait_for("another key", lambda: browser.get("/pay/") != signed or None, seconds=PATIENCE)
        wait_for(
            "another SECRET_KEY",
            lambda: version(browser.get(SECRETS), "aws://prod/django") != django or None,
            seconds=PATIENCE,
        )
        assert "Log out" in browser.get("/admin/")

        walk.follow()
        assert "Ran 1 test" in walk.printed[-1]
        pages = [browser.get(path) for path in ("/pay/", "/admin/", SECRETS, "/metrics")]
    # All that was printed, the servers' logs included, and all that was shown.
    for text in (listed, *pages, *walk.printed):
        assert not VALUES.search(text)
