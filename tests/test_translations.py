"""German and Spanish: the catalogues are whole, and the admin pages have no English left."""

from __future__ import annotations

import gettext
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import translation

from django_secret_registry import display
from tests.admin_support import PROVIDERS, SECRETS, Shown, selection, url, user

PACKAGE = Path(__file__).parents[1] / "django_secret_registry"
LANGUAGES = sorted(path.name for path in (PACKAGE / "locale").iterdir())
needs_gettext = pytest.mark.skipif(
    shutil.which("msgfmt") is None, reason="needs gettext's msgfmt: apt-get install gettext"
)


@pytest.fixture(autouse=True)
def _language_of_the_thread() -> Iterator[None]:
    """Leave no language active: it would be that of every test that follows."""
    yield
    translation.deactivate()


def catalogue(language: str, kind: str, *, of: Path = PACKAGE) -> Path:
    return of / "locale" / language / "LC_MESSAGES" / f"django.{kind}"


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read(compiled: Path) -> dict[Any, str]:
    """Return the texts of a catalogue; of a plural each form stands under a key of its own."""
    with compiled.open("rb") as file:
        return gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]


def test_languages():
    """There are these languages besides English."""
    assert LANGUAGES == ["de", "es"]


@pytest.mark.full
@needs_gettext
def test_every_text_is_translated(tmp_path, monkeypatch):
    """Each text that is marked in the sources is translated, and none of it is a guess (fuzzy).

    Mend it in ``django_secret_registry``: ``django-admin makemessages --all --no-location
    --no-wrap``, translate, then ``django-admin compilemessages``.
    """
    copy = shutil.copytree(PACKAGE, tmp_path / "package")
    monkeypatch.chdir(copy)
    call_command("makemessages", locale=LANGUAGES, no_location=True, no_wrap=True, verbosity=0)
    for language in LANGUAGES:
        po = catalogue(language, "po", of=copy)
        assert run("msgattrib", "--no-obsolete", "--untranslated", po) == "", language
        assert run("msgattrib", "--no-obsolete", "--only-fuzzy", po) == "", language


@needs_gettext
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_catalogue_is_that_of_its_text(tmp_path, language):
    """What is shipped is what ``msgfmt`` makes of the text, which passes its checks."""
    made = tmp_path / "made.mo"
    run("msgfmt", "--check", "-o", made, catalogue(language, "po"))
    compiled = read(catalogue(language, "mo"))
    assert compiled == read(made)
    assert all(compiled.values())


@pytest.mark.parametrize(
    ("language", "past", "future"),
    [("de", "vor 2 Minuten", "in 1 Tag"), ("es", "hace 2 minutos", "dentro de 1 día")],
)
def test_times_are_those_of_the_browser(language, past, future):
    """Times have the words of ``Intl.RelativeTimeFormat``, with which the script goes on."""
    with translation.override(language):
        assert past in display.moment(1000.0, 1120.0)
        assert future in display.moment(1000.0 + 86400, 1000.0)


class Texts(HTMLParser):
    """The texts of a page: what is between tags, and what is read or shown of attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._skipped = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipped += tag in ("script", "style")
        for name, value in attrs:
            button = tag == "input" and dict(attrs).get("type") == "submit" and name == "value"
            if name in ("title", "alt", "placeholder", "aria-label") or button:
                self._add(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._add(data)

    def _add(self, text: str) -> None:
        text = " ".join(text.split())
        if re.search(r"[^\W\d_]{2}", text):
            self.found.add(text)


#: What is the same in every language: references, names, times of day, what providers say (their
#: errors stand in logs as well), and what is written into the log of the admin; and what Django
#: 6.1 puts before a name and does not translate into each language.
DATA = re.compile(
    r"\w+://|aws|gcp|eu-\w+-1|operator|ScriptedProvider|SECRETS\[|\d{4}-\d\d-\d\d"
    r"|secretmanager|\(reference '|(refresh|evict): |[Dd]jango|(Search|Pagination) workers"
)


@pytest.fixture
def shown(settings: Any) -> Iterator[Shown]:
    with Shown(settings) as it:
        it.populate()
        yield it


@pytest.fixture
def operator(client: Any) -> Any:
    permissions = [
        f"{action}_{model}"
        for action in ("view", "refresh", "evict")
        for model in (SECRETS, PROVIDERS)
    ]
    client.force_login(
        user("operator", *permissions, "view_worker", "refresh_worker", "evict_worker")
    )
    return client


PAGES = {
    "index": "/admin/",
    "secrets": url(SECRETS),
    "nothing found": url(SECRETS, q="nothing-like-that"),
    "a stale secret": url(SECRETS, "change/", "aws://prod/search"),
    "a refused secret": url(SECRETS, "change/", "gcp://pagerduty-token"),
    "history": url(SECRETS, "history/", "aws://prod/db"),
    "refresh": url(SECRETS, "refresh/", "aws://prod/db"),
    "evict": url(SECRETS, "evict/", "aws://prod/db"),
    "evict all": url(SECRETS, "evict-all/"),
    "providers": url(PROVIDERS),
    "a provider": url(PROVIDERS, "change/", "aws@eu-central-1"),
    "evict a provider": url(PROVIDERS, "evict/", "aws@eu-central-1"),
    "workers": url("worker"),
}


def texts(client: Any, language: str, where: str) -> set[str]:
    response = client.get(where, headers={"accept-language": language})
    assert response.status_code == 200, where
    page = response.content.decode()
    assert f'lang="{language}"' in page
    return Texts(page).found


def bare(text: Any) -> str:
    """Return the words of a text, or of a key of a catalogue, without numbers and marks."""
    text = (text[0] if isinstance(text, tuple) else text).rpartition("\x04")[2]
    return " ".join(re.sub(r"%\(\w+\)[sd]|%[sd]|[\W\d]+", " ", text).lower().split())


@pytest.mark.full
@pytest.mark.django_db
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_has_english_left(settings, operator, admin_client, shown, language):
    """What a page says in English and in the other language alike is data, or the same word."""
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.middleware.locale.LocaleMiddleware",
    ]
    operator.post(url(SECRETS, "refresh/", "aws://prod/smtp"), {"confirmed": "yes"})
    translated = read(catalogue(language, "mo")).items()
    known = {bare(word) for word, other in translated if bare(word) == bare(other)}
    for where in ("/admin/auth/user/", "/admin/auth/user/?q=nobody"):  # Django leaves some, too
        alike = texts(admin_client, "en", where) & texts(admin_client, language, where)
        known |= {bare(word) for word in alike}
    left = {}
    for name, where in PAGES.items():
        alike = texts(operator, "en", where) & texts(operator, language, where)
        left[name] = {word for word in alike if not DATA.search(word) and bare(word) not in known}
    assert {name: words for name, words in left.items() if words} == {}


@pytest.mark.full
@pytest.mark.django_db
def test_what_is_told_after_an_action(settings, operator, shown):
    """Messages, also those of a failure, are in the language of the visitor."""
    settings.LANGUAGE_CODE = "de"
    keys = ["aws://prod/db", "aws://prod/smtp"]
    answer = operator.post(
        url(SECRETS), selection("evict", keys, confirmed="yes"), follow=True
    ).content.decode()
    assert "2 Geheimnisse verworfen." in answer
