"""Django's error pages and error mails without secrets: settings by reference, values masked.

Both classes take the place of Django's default ones. A project with others derives them from these;
a check says so. Nothing here fetches, and a provider that is down changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView
from types import FrameType
from typing import Any

from django.conf import settings
from django.http import HttpRequest, QueryDict
from django.template.defaultfilters import pprint
from django.utils.safestring import SafeString
from django.views import debug

from . import registry
from .containers import raw
from .discovery import raw_setting

#: Libraries whose frames hold credentials in many guises (encoded, packed, split): shown empty.
DRIVERS = frozenset({
    "MySQLdb", "amqp", "asyncpg", "imaplib", "ldap", "ldap3", "mysql", "oracledb", "poplib",
    "psycopg", "psycopg2", "psycopg_c", "psycopg_pool", "pymongo", "pymysql", "redis", "smtplib",
})  # fmt: skip

_WORDS = "passw|pwd|secret|token|credential|signature|api_?key|access_?key|private_?key|auth_?key"
_PATTERNS = (
    # password='...', "PASSWORD": "...", password=... of a connection string
    re.compile(
        rf"""((?:{_WORDS})\w*['"]?\s*[=:]\s*)"""
        r"""(?!None\b|True\b|False\b|Secret(?:Str|Bytes)\(|secret\()"""
        r"""(b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*"|[^\s'",;&)}\]]+)""",
        re.IGNORECASE,
    ),
    # scheme://user:...@host
    re.compile(r"""(://[^\s:@/'"]*:)([^\s'"]+)(?=@)"""),
    # Authorization: Bearer ...
    re.compile(r"(\b(?:bearer|basic)\s+)([\w.~+/=-]{8,})", re.IGNORECASE),
)


class _Masked:
    """A local variable whose ``repr`` (all that the reporter takes of it) is masked when shown."""

    def __init__(self, value: Any, mask: Callable[[str], str]) -> None:
        self.value = value
        self.mask = mask

    def __repr__(self) -> str:
        if type(self.value) is str:
            return pprint(self.mask(self.value))
        try:
            text = repr(self.value)
        except Exception:  # which pprint tells
            return self.mask(pprint(self.value))
        # What pprint breaks into lines would not be found in there.
        masked = self.mask(text)
        return pprint(self.value) if masked == text else masked


class ExceptionReporterFilter(debug.SafeExceptionReporterFilter):
    """Django's filter for projects whose settings are secrets. It fetches nothing.

    Settings show references. In settings, in the request and in local variables each value that is
    held is masked (see :meth:`.SecretRegistry.redact`), and so is what looks like a password in a
    URL or a connection string. Variables of database and mail drivers are not shown at all.
    """

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        cleansed = super().cleanse_setting(key, raw(value))
        return self.mask(cleansed) if type(cleansed) is str else cleansed

    def get_safe_settings(self) -> dict[str, Any]:
        return {
            name: self.cleanse_setting(name, raw_setting(name))
            for name in dir(settings)
            if name.isupper()
        }

    def get_post_parameters(self, request: HttpRequest | None) -> Any:
        return self.mask_parameters(super().get_post_parameters(request))

    def mask_parameters(self, parameters: Any) -> Any:
        """Return a copy of parameters of a request with their values masked."""
        if not isinstance(parameters, QueryDict):
            return parameters
        masked = parameters.copy()
        for name, values in parameters.lists():
            masked.setlist(name, [self.mask(value) for value in values])
        return masked

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: FrameType
    ) -> ItemsView[str, Any]:
        variables = dict(super().get_traceback_frame_variables(request, tb_frame))
        if str(tb_frame.f_globals.get("__name__")).partition(".")[0] in DRIVERS:
            return dict.fromkeys(variables, self.cleansed_substitute).items()
        return {name: _Masked(value, self.mask) for name, value in variables.items()}.items()

    def mask(self, text: str) -> str:
        """Return ``text`` with values that are held, and what looks like a credential, masked."""
        text = registry.redact(text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\1{self.cleansed_substitute}", text)
        return text


class ExceptionReporter(debug.ExceptionReporter):
    """Django's reporter, whose page and mail show no value that is held, in whatever part of them.

    A filter sees neither the message of an error nor the path of a request.
    """

    def get_traceback_data(self) -> dict[str, Any]:
        data: dict[str, Any] = super().get_traceback_data()
        mask = getattr(self.filter, "mask", registry.redact)
        for name in ("exception_value", "exception_notes"):
            if name in data:
                data[name] = mask(str(data[name]))  # Django 6.0 leaves the error itself there
        if "request_GET_items" in data:
            data["request_GET_items"] = [
                (name, registry.redact(value)) for name, value in data["request_GET_items"]
            ]
        if data["unicode_hint"]:  # some characters of a text that could not be encoded or decoded
            data["unicode_hint"] = self.filter.cleansed_substitute
        return data

    def get_traceback_html(self) -> SafeString:
        return SafeString(registry.redact(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        return SafeString(registry.redact(super().get_traceback_text()))
