"""Leaks to be planted in a copy of the package: for each path, and for each way to mask."""

from __future__ import annotations

from typing import NamedTuple


class Plant(NamedTuple):
    """``old`` becomes ``new`` in ``file``; then ``path`` has to find it, in a place so called."""

    path: str
    where: str
    file: str
    old: str
    new: str


_CHAINED = (
    "making.py",
    'failure = unexpected(exc, "a .map function")',
    'raise unexpected(exc, "a .map function") from exc',
)
_AS_VERSION = (
    "lifecycle.py",
    "version=value.version if value else None,",
    "version=str(value.value) if value else None,",
)

CORE = (
    Plant("error page", "page of map", *_CHAINED),
    Plant("error page", "mail", *_CHAINED),
    Plant("error page", "Sentry", *_CHAINED),
    Plant(
        "settings on an error page",
        "raised ProviderUnavailable",
        "debug.py",
        "self.cleanse_setting(name, raw_setting(name))",
        "self.cleanse_setting(name, getattr(settings, name))",
    ),
    Plant(
        "diffsettings",
        "output",
        "lazy.py",
        'return f"secret({self.shown!r})" +',
        'return f"secret({resolve(self)})" +',
    ),
    Plant(
        "check",
        "values in wrong places, 0",
        "conf.py",
        "stand there, of type {type(value).__name__}",
        "stand there, {value!r}",
    ),
    Plant(
        "shell",
        "output",
        "lifecycle.py",
        "    def take_new(self)",
        '    def __repr__(self) -> str:\n        return f"Slot({self.value})"\n\n'
        "    def take_new(self)",
    ),
    Plant(
        "template",
        "page",
        "templatetags/secret_registry.py",
        'context[self.target] = registry.get(entry.name)\n            return ""',
        "context[self.target] = registry.get(entry.name)\n            return context[self.target]",
    ),
    Plant("admin", "list of cachedsecret", *_AS_VERSION),
    Plant(
        "admin",
        "log entries",
        "admin_base.py",
        'f"{action}: {outcome} (process',
        'f"{action}: {registry.get(done[0].row.reference)} (process',
    ),
    Plant(
        "admin",
        "statements",
        "admin_base.py",
        'f"{action}: {outcome} (process',
        'f"{action}: {registry.get(done[0].row.reference)} (process',
    ),
    Plant("commands", "list, json", *_AS_VERSION),
    Plant(
        "commands",
        "warm, table",
        "warming.py",
        "version=value.version, outcome",
        "version=str(value.value), outcome",
    ),
    Plant(
        "metrics",
        "scrape",
        "metrics.py",
        "where = alias, region or NO_REGION",
        'where = alias, str(self._source.get("vault://text"))',
    ),
    Plant("bus", "traffic", *_AS_VERSION),
    Plant(
        "log of this package",
        "log",
        "loading.py",
        "            self._have_previous_follow(provider, answers)",
        '            logger.debug("fetched %s", [f"{one.value}" for one in answers.values()])',
    ),
    Plant(
        "repr",
        "repr of text",
        "values.py",
        "return f\"{type(self).__name__}('{MASK}')\"",
        "return super().__repr__()",
    ),
    Plant(
        "repr",
        "pprint of fetched",
        "values.py",
        "value: SecretStr | SecretBytes = dataclasses.field(repr=False)",
        "value: SecretStr | SecretBytes\n    __repr__ = lambda self: str(self.value)",
    ),
    Plant(
        "copy",
        "copies of text",
        "values.py",
        "def __copy__(self) -> Self:\n        return self\n",
        "def __copy__(self) -> Self:\n        return self[:]\n",
    ),
    Plant("pickle", "pickle of text", "values.py", "def __reduce_ex__", "def _reduce_ex__"),
    Plant("json errors", "by str", "values.py", "def __str__(self)", "def _str__(self)"),
    Plant(
        "exceptions",
        "error of key",
        "extract.py",
        "{what} in the secret",
        "{what} in {parent}",
    ),
    Plant("exceptions", "chain and locals of map", *_CHAINED),
    Plant(
        "celery",
        "traffic",
        "extract.py",
        "error.copy(reference=str(ref),",
        'error.copy(reference=f"{ref} of {payload}",',
    ),
    # -- what masks the texts that projects make --
    Plant(
        "error page of made texts",
        "sync, text/html",
        "debug.py",
        "registry.redact(super().get_traceback_html())",
        "super().get_traceback_html()",
    ),
    Plant(
        "error page of made texts",
        "sync, text/plain",
        "debug.py",
        "registry.redact(super().get_traceback_text())",
        "super().get_traceback_text()",
    ),
    Plant(
        "error page of made texts",
        "async",
        "debug.py",
        "return pprint(self.value) if masked == text else masked",
        "return pprint(self.value)",
    ),
    Plant(
        "error page of made texts",
        "mail",
        "apps.py",
        "        _report_errors_in_mails()\n",
        "",
    ),
    Plant(
        "error page of made texts",
        "sync",
        "needles.py",
        "_mask_encoded(text, needle, plus=bool(plus))",
        "text",
    ),
    Plant(
        "log of made texts",
        "records",
        "needles.py",
        "return _BASE64.sub(self._in_base64, text)",
        "return text",
    ),
    Plant(
        "error page of made texts",
        "sync",
        "needles.py",
        "for one in once for form in _escaped(one)}",
        "for one in once for form in (one,)}",
    ),
    Plant(
        "error page of made texts",
        "sync",
        "needles.py",
        "    return {whole, *secret}",
        "    return {whole}",
    ),
    Plant(
        "log of made texts",
        "records",
        "redaction.py",
        "record.msg, record.args = masked, None",
        "pass",
    ),
    Plant("log of made texts", "records", "redaction.py", "record.exc_text = masked", "pass"),
    Plant(
        "log of made texts",
        "records",
        "redaction.py",
        "setattr(record, name, redacted(getattr(record, name)))",
        "pass",
    ),
    Plant(
        "log of made texts",
        "output",
        "redaction.py",
        "record.msg, record.args = redacted(record.msg), redacted(record.args)",
        "pass",
    ),
    Plant(
        "Sentry with before_send",
        "events",
        "redaction.py",
        "return redacted(event)",
        "return event",
    ),
    Plant(
        "log of django.request",
        "records",
        "redaction.py",
        "masked = registry.redact(text)",
        "masked = text",
    ),
)

BACKENDS = (
    Plant(
        "boto3", "log of botocore", "providers/_aws.py", "return not _call.deadline", "return True"
    ),
    Plant(
        "google",
        "log of google",
        "providers/_gcp_secret_manager.py",
        'return not (hasattr(record, "response") or hasattr(record, "httpResponse"))',
        "return True",
    ),
    Plant(
        "google",
        "log of google",
        "providers/_gcp.py",
        "return not _calling.now",
        "return True",
    ),
    Plant(
        "hvac",
        "log",
        "providers/vault.py",
        '        found = (data.get("metadata") or {}).get("version")\n',
        '        found = (data.get("metadata") or {}).get("version")\n'
        '        logger.debug("answer %s", data)\n',
    ),
    Plant(
        "urllib3",
        "log of urllib3",
        "providers/kubernetes.py",
        "        payload = _payload(answer)\n",
        "        payload = _payload(answer)\n"
        "        import logging\n"
        '        logging.getLogger("urllib3").debug("%s", payload)\n',
    ),
    Plant(
        "azure",
        "log of azure",
        "providers/azure.py",
        '(client or {}), "logging_enable": False}',
        '(client or {}), "logging_enable": True}',
    ),
    Plant(
        "azure",
        "log of azure",
        "providers/_azure.py",
        '{"logging_enable": False, "enable_support_logging": False}',
        '{"logging_enable": True, "enable_support_logging": True}',
    ),
)
