"""Values of secrets masked in what a project sends elsewhere: its log, and its events for Sentry.

Both are optional. They mask what the cache holds at that moment, and fetch nothing:

* :class:`SecretFilter`, a filter of a handler in ``LOGGING``;
* :func:`before_send`, a hook of ``sentry_sdk.init``.

docs/leaks.md tells what needs them, and what they cost.
"""

from __future__ import annotations

import logging
from typing import Any

from . import registry
from .values import MASK, SecretBytes, SecretStr

#: What every record has. Whatever else stands in one came by ``extra=``.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: How deep a structure is looked at; anything below is masked as a whole.
_DEEPEST = 50

_formatter = logging.Formatter()


class SecretFilter(logging.Filter):
    """Masks values that are held now in each record, and lets every record pass.

    Of a *handler*: a logger's filters do not see what its children log. Message, ``extra``, stack
    and the text of an exception are masked in the record itself, so for handlers that come later
    too. A record in which there is nothing keeps its ``msg`` and ``args``. What reads ``exc_info``
    itself (a formatter of one's own, an error tracker) has to mask on its own.

    Thread-safe; fetches nothing, and takes no lock once it has seen the first record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = _without_secrets(record.args)
        try:
            text = record.getMessage()
        except Exception:  # the handler will complain, and show the arguments
            record.msg, record.args = redacted(record.msg), redacted(record.args)
        else:
            masked = registry.redact(text)
            if masked != text:
                record.msg, record.args = masked, None
        if record.exc_info and not record.exc_text:
            text = _formatter.formatException(record.exc_info)
            masked = registry.redact(text)
            if masked != text:
                record.exc_text = masked  # formatters show it in place of the exception
        elif record.exc_text:
            record.exc_text = registry.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = registry.redact(record.stack_info)
        for name in vars(record).keys() - _USUAL:
            setattr(record, name, redacted(getattr(record, name)))
        return True


def before_send(event: Any, hint: Any = None) -> Any:
    """Return ``event`` with values that are held now masked, for ``sentry_sdk.init``.

    It serves as ``before_send``, ``before_send_transaction``, ``before_send_log`` and
    ``before_breadcrumb``. ``event`` itself is left as it is.
    """
    return redacted(event)


def redacted(value: Any, depth: int = 0) -> Any:
    """Return ``value`` with the texts in it masked: in dicts, lists and tuples, at any depth."""
    if isinstance(value, SecretStr | SecretBytes):
        return MASK
    if isinstance(value, str):
        return registry.redact(value)
    if isinstance(value, bytes):
        text = value.decode(errors="surrogateescape")
        masked = registry.redact(text)
        return value if masked == text else masked.encode(errors="surrogateescape")
    if not isinstance(value, dict | list | tuple):
        return value
    if depth == _DEEPEST:
        return MASK
    if isinstance(value, dict):
        return {redacted(k, depth + 1): redacted(v, depth + 1) for k, v in value.items()}
    items = [redacted(item, depth + 1) for item in value]
    return items if isinstance(value, list) else tuple(items)


def _without_secrets(args: Any) -> Any:
    """Return the arguments of a record without secrets, also those that are not held any more."""
    secrets = SecretStr | SecretBytes
    if isinstance(args, tuple) and any(isinstance(arg, secrets) for arg in args):
        return tuple(MASK if isinstance(arg, secrets) else arg for arg in args)
    if type(args) is dict and any(isinstance(arg, secrets) for arg in args.values()):
        return {name: MASK if isinstance(arg, secrets) else arg for name, arg in args.items()}
    return args
