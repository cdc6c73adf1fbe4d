"""Fails the test that lets a secret be seen.

Every secret of the run carries :data:`tests.canary.CANARY`. This pytest plugin looks for it, plain
and in base64, in

* what was printed, to the captured streams and to a ``capsys``, ``capfd``… that a test reads, what
  a management command wrote, and what another process wrote that a test read;
* every response of Django, its headers and its body, whoever asked;
* every statement for a database, with its parameters: log entries of the admin are such;
* every scrape of Prometheus metrics;
* every log record of every logger, DEBUG included, whatever level is set: message, arguments,
  extras, formatted exception. A record that a filter of its logger drops is not looked at;
* every error that ``pytest.raises`` caught or a test died of, with its whole chain of causes and
  contexts: text, ``repr``, ``args``, notes, attributes;
* every ``SecretError`` that was made at all. Most are caught in threads or handed on as results,
  where no test framework sees them. So each is examined when it dies: its chain is complete then,
  and no error, traceback or frame lives longer than it would.

A test that seeds a backend with a client of its own wraps that in
:func:`~tests.canary.unwatched`, since many SDKs log what they send. A test that must show a value
uses one without the mark.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import gc
import importlib.util
import logging
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.handlers.base import BaseHandler
from django.core.management.base import OutputWrapper
from django.db.backends.utils import CursorWrapper
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from django_secret_registry.exceptions import SecretError
from tests.canary import CANARY, is_unwatched, unwatched


def _in_base64(text: str) -> Iterator[str]:
    """Yield what base64 makes of ``text``, for each of the three ways it may fall on its groups."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + text.encode()).decode().rstrip("=")
        # The first and the last character may also hold bits of what stands next to the text.
        yield encoded[(shift * 8 + 5) // 6 : (shift + len(text)) * 8 // 6]


NEEDLES = (CANARY, *_in_base64(CANARY))


def shows(text: str) -> bool:
    """Tell whether a secret can be seen in ``text``."""
    return any(needle in text for needle in NEEDLES)


def masked(text: str) -> str:
    """Return ``text`` without the marks, so that the complaint about a leak does not leak."""
    for needle in NEEDLES:
        text = text.replace(needle, "[SECRET]")
    return text


def _text(make: Callable[[], str]) -> str:
    try:
        return make()
    except Exception as error:  # what cannot be shown shows nothing
        return f"<{type(error).__name__}>"


def leaks_of(error: BaseException) -> list[str]:
    """Name the places in ``error`` and its chain in which a secret can be seen."""
    leaks, seen, todo = [], set(), [(type(error).__name__, error)]
    while todo:
        path, one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        places = {
            "str": _text(lambda one=one: str(one)),
            "repr": _text(lambda one=one: repr(one)),
            "args": _text(lambda one=one: repr(one.args)),
            "attributes": _text(lambda one=one: repr(vars(one))),
        }
        leaks += [f"{place} of {path}" for place, text in places.items() if shows(text)]
        chain = {"__cause__": one.__cause__, "__context__": one.__context__}
        if isinstance(one, BaseExceptionGroup):
            chain |= {f"exceptions[{index}]": sub for index, sub in enumerate(one.exceptions)}
        todo += [
            (f"{path}.{name} ({type(sub).__name__})", sub)
            for name, sub in chain.items()
            if sub is not None
        ]
    return leaks


@dataclasses.dataclass
class Watch:
    """What was found; ``test`` is the one that runs, for errors that outlive theirs."""

    test: str = ""
    findings: list[str] = dataclasses.field(default_factory=list)

    def examine_record(self, record: logging.LogRecord) -> None:
        if is_unwatched():
            return
        with unwatched():  # what is shown here may log in turn
            record = copy.copy(record)
            raw = _text(lambda: repr(vars(record)))
            text = _text(lambda: logging.Formatter().format(record))
        if shows(raw) or shows(text):
            message = masked(text.partition("\n")[0])[:200]
            self.findings.append(f"a log record of {record.name!r}: {message}")

    def examine_error(self, error: BaseException, made_in: str = "") -> None:
        elsewhere = f", made in {made_in}" if made_in != self.test else ""
        self.findings += [f"{leak}{elsewhere}" for leak in leaks_of(error)]

    def examine_output(self, name: str, text: str) -> None:
        lines = [line for line in text.splitlines() if shows(line)]
        if lines:
            self.findings.append(f"{name}: {masked(lines[0])[:200]}")

    def take(self) -> list[str]:
        """Return what was found since the last call."""
        found, self.findings = self.findings, []
        return list(dict.fromkeys(found))


_watch = Watch()


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    _watch_logs(patch)
    _watch_output(patch)
    _watch_responses(patch)
    _watch_databases(patch)
    _watch_metrics(patch)
    _watch_errors(patch)


def _watch_logs(patch: pytest.MonkeyPatch) -> None:
    is_enabled_for, call_handlers = logging.Logger.isEnabledFor, logging.Logger.callHandlers

    def examine_and_call(logger: logging.Logger, record: logging.LogRecord) -> None:
        _watch.examine_record(record)
        if is_enabled_for(logger, record.levelno):
            call_handlers(logger, record)

    patch.setattr(logging.Logger, "isEnabledFor", lambda logger, level: True)
    patch.setattr(logging.Logger, "callHandlers", examine_and_call)


def _watch_output(patch: pytest.MonkeyPatch) -> None:
    read = pytest.CaptureFixture.readouterr

    def read_and_examine(fixture: pytest.CaptureFixture[Any]) -> Any:
        result = read(fixture)
        for name, text in zip(("stdout", "stderr"), result, strict=True):
            _watch.examine_output(f"{name} that the test read", _readable(text))
        return result

    def write_and_examine(wrapper: OutputWrapper, msg: str = "", *args: Any, **kwargs: Any) -> None:
        _watch.examine_output("a command wrote", msg)
        write(wrapper, msg, *args, **kwargs)

    def run_and_examine(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess[Any]:
        done = run(*args, **kwargs)
        for name, text in (("stdout", done.stdout), ("stderr", done.stderr)):
            _watch.examine_output(f"{name} of another process", _readable(text))
        return done

    write, run = OutputWrapper.write, subprocess.run
    patch.setattr(pytest.CaptureFixture, "readouterr", read_and_examine)
    patch.setattr(OutputWrapper, "write", write_and_examine)
    patch.setattr(subprocess, "run", run_and_examine)


def _watch_responses(patch: pytest.MonkeyPatch) -> None:
    def examine(request: HttpRequest, response: HttpResponseBase) -> None:
        where = f"the response to {request.method} {request.path}"
        _watch.examine_output(f"{where} (headers)", str(response.headers))
        if isinstance(response, HttpResponse):
            _watch.examine_output(where, _readable(response.content))

    def answer_and_examine(handler: BaseHandler, request: HttpRequest) -> HttpResponseBase:
        response = answer(handler, request)
        examine(request, response)
        return response

    async def aanswer_and_examine(handler: BaseHandler, request: HttpRequest) -> HttpResponseBase:
        response = await aanswer(handler, request)
        examine(request, response)
        return response

    answer, aanswer = BaseHandler.get_response, BaseHandler.get_response_async
    patch.setattr(BaseHandler, "get_response", answer_and_examine)
    patch.setattr(BaseHandler, "get_response_async", aanswer_and_examine)


def _watch_databases(patch: pytest.MonkeyPatch) -> None:
    def watch(name: str) -> None:
        run = getattr(CursorWrapper, name)

        def examine_and_run(cursor: CursorWrapper, sql: str, *params: Any) -> Any:
            _watch.examine_output("a statement for a database", f"{sql} {params}")
            return run(cursor, sql, *params)

        patch.setattr(CursorWrapper, name, examine_and_run)

    watch("execute")
    watch("executemany")


def _watch_metrics(patch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("prometheus_client") is None:
        return
    import prometheus_client

    generate = prometheus_client.generate_latest

    def generate_and_examine(*args: Any, **kwargs: Any) -> bytes:
        text = generate(*args, **kwargs)
        _watch.examine_output("a scrape of metrics", text.decode())
        return text

    patch.setattr(prometheus_client, "generate_latest", generate_and_examine)


def _readable(text: str | bytes | None) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text or ""


def _watch_errors(patch: pytest.MonkeyPatch) -> None:
    fill, init = pytest.ExceptionInfo.fill_unfilled, SecretError.__init__

    def fill_and_examine(info: pytest.ExceptionInfo[BaseException], exc_info: Any) -> None:
        fill(info, exc_info)
        _examine_unless_shown_on_purpose(exc_info[1])

    def remember_test(error: SecretError, *args: Any, **kwargs: Any) -> None:
        init(error, *args, **kwargs)
        made_in[id(error)] = _watch.test

    def examine_the_dying(error: SecretError) -> None:
        _watch.examine_error(error, made_in.pop(id(error), _watch.test))

    made_in: dict[int, str] = {}
    patch.setattr(pytest.ExceptionInfo, "fill_unfilled", fill_and_examine)
    patch.setattr(SecretError, "__init__", remember_test)
    patch.setattr(SecretError, "__del__", examine_the_dying, raising=False)


def _examine_unless_shown_on_purpose(error: BaseException) -> None:
    # An assertion shows the values that it compares; that is what it is for.
    if not isinstance(error, AssertionError | pytest.fail.Exception):
        _watch.examine_error(error, _watch.test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _watch.test = item.nodeid
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    result = yield
    if nextitem is None:
        gc.collect()  # whatever is left is examined before the run ends
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    gc.collect(1)  # most errors hang in a cycle with their traceback; the young ones are cheap
    if call.excinfo is not None:
        _examine_unless_shown_on_purpose(call.excinfo.value)
    for when, name, text in item._report_sections:
        if when == call.when and name != "log":  # records were examined one by one
            _watch.examine_output(name, text)
    found = _watch.take()
    if found:
        complaint = "a secret can be seen in\n" + "\n".join(f"  {place}" for place in found)
        if report.passed:
            report.outcome, report.longrepr = "failed", complaint
        else:
            report.sections.append(("Canary", complaint))
    return report
