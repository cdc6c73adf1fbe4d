"""Error pages and mails of a project whose settings are secrets."""

from __future__ import annotations

import logging
import sys
import types

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.test import RequestFactory
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter as DjangosReporter
from django.views.debug import (
    SafeExceptionReporterFilter,
    get_default_exception_reporter_filter,
    get_exception_reporter_class,
)

from django_secret_registry import ProviderUnavailable, SecretStr, registry
from django_secret_registry.checks import check_configuration
from django_secret_registry.debug import ExceptionReporter, ExceptionReporterFilter
from django_secret_registry.live import secret
from tests.canary import CANARY, canary, unwatched
from tests.live_support import configured

VALUE = canary("value")
STARS = ExceptionReporterFilter.cleansed_substitute


@pytest.fixture(autouse=True)
def vault(settings):
    get_default_exception_reporter_filter.cache_clear()
    yield configured(settings, {"key": VALUE})
    get_default_exception_reporter_filter.cache_clear()


def report(error: BaseException, *, html: bool = True) -> str:
    request = RequestFactory().get("/")
    reporter = ExceptionReporter(request, type(error), error, error.__traceback__)
    return reporter.get_traceback_html() if html else reporter.get_traceback_text()


def reported(function, *, html: bool = True) -> str:
    try:
        function()
    except Exception as error:
        return report(error, html=html)
    raise AssertionError("no error")


def test_takes_the_place_of_djangos_default_classes(settings):
    """Django's default filter and reporter give way to ours; a project's own are kept."""
    assert isinstance(get_default_exception_reporter_filter(), ExceptionReporterFilter)
    assert get_exception_reporter_class(None) is ExceptionReporter
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = f"{__name__}.Own"
    settings.DEFAULT_EXCEPTION_REPORTER = f"{__name__}.OwnReporter"
    get_default_exception_reporter_filter.cache_clear()
    assert type(get_default_exception_reporter_filter()) is Own
    assert get_exception_reporter_class(None) is OwnReporter


class Own(SafeExceptionReporterFilter):
    pass


class OwnReporter(DjangosReporter):
    pass


class Derived(ExceptionReporterFilter):
    pass


class DerivedReporter(ExceptionReporter):
    pass


@pytest.mark.parametrize(
    ("name", "own", "derived", "ours"),
    [
        ("DEFAULT_EXCEPTION_REPORTER_FILTER", Own, Derived, ExceptionReporterFilter),
        ("DEFAULT_EXCEPTION_REPORTER", OwnReporter, DerivedReporter, ExceptionReporter),
    ],
)
def test_a_check_tells_of_a_class_that_knows_no_secrets(settings, name, own, derived, ours):
    """A project's own class is told to be derived from ours; one that is, or Django's, is fine."""

    def told():
        return [one for one in check_configuration() if one.id == "secret_registry.W009"]

    assert told() == []
    for fine in (f"{__name__}.{derived.__name__}", f"{ours.__module__}.{ours.__name__}", "no.such"):
        setattr(settings, name, fine)
        assert told() == []
    setattr(settings, name, f"{__name__}.{own.__name__}")
    (warning,) = told()
    assert name in warning.msg
    assert warning.hint == f"Derive it from {ours.__module__}.{ours.__name__}."


def test_a_reporter_of_ours_works_with_a_filter_of_the_projects_own(settings):
    """Values that are held are masked in the page whatever filter a project has chosen."""
    settings.DEBUG = True
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = f"{__name__}.Own"
    get_default_exception_reporter_filter.cache_clear()
    registry.get("vault://key")

    def fail() -> None:
        raise LookupError(f"no {VALUE}")

    with unwatched():  # at DEBUG, Django logs what its template is given before it is masked
        text = reported(fail)
    assert CANARY not in text
    assert "LookupError" in text


def test_handlers_of_mails_that_were_made_before_report_as_others(settings):
    """Django makes the handlers of LOGGING before any app; a reporter of a project's own stays."""
    logger = logging.getLogger("tests.mails")
    handlers = [
        AdminEmailHandler(reporter_class=path) for path in (None, f"{__name__}.OwnReporter")
    ]
    handlers[0].reporter_class = DjangosReporter
    logger.handlers = handlers
    try:
        apps.get_app_config("django_secret_registry").ready()
    finally:
        logger.handlers = []
    made = handlers[0].reporter_class(None, LookupError, LookupError("x"), None, is_email=True)
    assert type(made) is ExceptionReporter
    assert handlers[1].reporter_class is OwnReporter


def test_a_text_that_cannot_be_encoded_is_not_hinted_at(settings):
    """Django shows the characters around the one that could not be encoded: a part of a secret."""
    settings.DEBUG = True

    def fail() -> None:
        "a-secret-\u00e9-of-its-own".encode("ascii")

    page = reported(fail)
    assert "Unicode error hint" in page
    assert "cret-\u00e9-of-i" not in page.partition("Unicode error hint")[2][:400]


@pytest.mark.parametrize("html", [True, False])
@pytest.mark.parametrize("debug", [True, False])
def test_settings_are_shown_by_reference_while_the_provider_is_down(settings, vault, html, debug):
    """The report shows references, hides what Django hides, and needs no provider."""
    settings.DEBUG = debug
    settings.BROKER = secret("vault://key")
    settings.BOX = {"a": [{"b": (1, secret("vault://key"))}], "API_KEY": secret("vault://key")}
    assert django_settings.BROKER == VALUE
    vault.error = ProviderUnavailable("down")
    vault.rotate("key", "new")
    fetched = list(vault.fetched)
    text = reported(lambda: 1 / 0, html=html).replace("&#x27;", "'")
    assert "secret('vault://key')" in text
    safe = ExceptionReporterFilter().get_safe_settings()
    assert repr(safe["BOX"]["a"]) == "[{'b': [1, secret('vault://key')]}]"
    assert safe["BOX"]["API_KEY"] == STARS
    assert repr(safe["BROKER"]) == "secret('vault://key')"
    assert CANARY not in text
    assert vault.fetched == fetched


def test_literals_with_credentials_are_masked_in_settings(settings):
    """A URL with a password is masked where Django's filter, going by names, would show it."""
    settings.BROKER_URL = f"amqp://app:{VALUE}@broker/v"
    settings.LOCATIONS = [f"redis://:{VALUE}@a/0", "redis://b/0"]
    safe = ExceptionReporterFilter().get_safe_settings()
    assert safe["BROKER_URL"] == f"amqp://app:{STARS}@broker/v"
    assert safe["LOCATIONS"] == [f"redis://:{STARS}@a/0", "redis://b/0"]


FRAMES = {
    "a secret": SecretStr,
    "in a dict": lambda v: {"password": SecretStr(v), "l": [SecretStr(v)]},
    "connection string": lambda v: f"host=db user=app password={v} dbname=app",
    "quoted": lambda v: f"host=db password='{v} x\\' y' dbname=app",
    "dict of text": lambda v: {"user": "app", "PASSWORD": f"{v}", "passwd": f"it's {v}"},
    "bytes": lambda v: {"password": v.encode()},
    "keyword": lambda v: f"connect(host='db', api_key=\"{v}\")",
    "long": lambda v: f"host={'h' * 40} options='-c search_path=x y' password='a b {v} c' x=1",
    "url": lambda v: f"redis://:{v}@redis:6379/0",
    "url with user": lambda v: [f"postgres://app:{v}@x@db/app?sslmode=require"],
    "header": lambda v: {"Authorization": f"Bearer {v}"},
    "json": lambda v: f'{{"user": "app", "client_secret": "{v}"}}',
}


@pytest.mark.parametrize("html", [True, False])
@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_local_variables_are_masked(settings, make, html):
    """A local variable shows no secret: as a SecretStr, in a connection string, a URL or a dict."""
    settings.DEBUG = True

    def fail() -> None:
        held = make(VALUE)
        del held.__class__

    assert CANARY not in reported(fail, html=html)


def test_other_local_variables_are_shown(settings):
    """What looks like no credential is shown as Django shows it."""
    settings.DEBUG = True
    shown = {"name": "value", "password": None, "url": "https://host/path?x=a@b", "tokens": 3}
    variables = dict(ExceptionReporterFilter().get_traceback_frame_variables(None, _frame()))
    assert repr(variables["text"]) == "'user=app host=db'"
    assert ExceptionReporterFilter().mask(repr(shown)) == repr(shown).replace("3", STARS)


def _frame() -> types.FrameType:
    text = "user=app host=db"
    assert text
    return sys._getframe()


@pytest.mark.parametrize("driver", ["psycopg.connection", "redis", "smtplib"])
def test_frames_of_drivers_show_no_variable(settings, driver):
    """The locals of a database or mail driver are masked, whatever they are."""
    settings.DEBUG = True
    module = types.ModuleType(driver)
    exec("def connect(packed):\n    parts = [packed[::-1]]\n    1 / 0", vars(module))

    variables = {}
    try:
        module.connect(VALUE)
    except ZeroDivisionError as error:
        frame = error.__traceback__.tb_next.tb_frame
        variables = dict(ExceptionReporterFilter().get_traceback_frame_variables(None, frame))
    assert variables == {"packed": STARS, "parts": STARS}


def test_object_that_cannot_be_shown_does_not_end_the_report(settings):
    """A local variable whose repr fails is reported as Django reports it."""
    settings.DEBUG = True

    class Broken:
        def __repr__(self) -> str:
            raise ProviderUnavailable("down")

    def fail() -> None:
        broken = Broken()
        raise LookupError(len([broken]))

    assert "Error in formatting: ProviderUnavailable" in reported(fail)


def test_reads_no_request_that_is_not_there():
    """The filter works for errors outside of a request."""
    try:
        raise LookupError("x")
    except LookupError as error:
        reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
    assert "LookupError" in reporter.get_traceback_text()
