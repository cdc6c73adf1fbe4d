"""The tests that every provider must pass: subclass :class:`ProviderConformance` and run pytest."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, TypeVar

from .exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from .probing import at_once, in_child, outcome, show, within
from .providers.base import BaseProvider
from .references import SecretRef
from .values import SecretBytes, SecretStr, SecretValue

#: What the tests of one feature need; a backend without the feature declares it in ``lacks``.
FEATURES: tuple[str, ...] = (
    "not_found",
    "binary",
    "denied",
    "outage",
    "timeout",
    "version",
    "stage",
    "regions",
    "rotation",
)

Function = TypeVar("Function", bound=Callable[..., Any])


def needs(feature: str) -> Callable[[Function], Function]:
    """Mark a test that applies only to backends that have ``feature``."""

    def mark(function: Function) -> Function:
        function.needs = feature  # type: ignore[attr-defined]
        return function

    return mark


class ProviderConformance:
    """A ready test class; a subclass named ``Test...`` describes one provider and its backend::

        class TestPassProvider(ProviderConformance):
            provider_class = PassProvider
            existing, value = "mail/smtp", "hunter2"
            missing = "mail/none"
            lacks = {"stage": "pass has no stages", ...}

            @pytest.fixture(autouse=True)
            def server(self, pass_server):
                self.options = {"url": pass_server.url}

    Names are what stands behind ``alias://`` in a reference, so ``db?version=2`` is one too. A
    fixture may set any attribute on ``self``. ``lacks`` maps a feature that the backend cannot have
    to the reason; its tests are then not collected. A feature that is neither described nor
    lacking fails. Each test builds its own provider; nothing is fetched but what is named here.
    """

    #: Features (see ``FEATURES``) that the backend cannot have, each with the reason.
    lacks: ClassVar[Mapping[str, str]] = {}

    provider_class: type[BaseProvider]
    options: Mapping[str, Any] = {}
    alias: str = "backend"
    #: A secret whose payload is text, the payload, and (``not_found``) a name that the backend does
    #: not have.
    existing: str
    value: str
    missing: str
    #: ``binary``: a secret whose payload is no UTF-8.
    binary: str
    binary_value: bytes
    #: ``denied``: a name that the backend refuses to this process.
    denied: str
    #: ``outage``: the ways to fail (refused, server error, throttled, ...) that ``outage`` knows.
    outages: tuple[str, ...] = ("refused",)
    #: ``version``: names with ``?version=`` and their payloads, and a version that does not exist.
    versions: Mapping[str, str]
    missing_version: str
    #: ``stage``: names with ``?stage=`` and their payloads, and a stage that does not exist.
    stages: Mapping[str, str]
    missing_stage: str
    #: ``regions``: at least two regions, and the payload of ``existing`` in each.
    regions: Mapping[str, str]
    #: Texts besides the payloads that no repr and no error may show: tokens, passwords, keys.
    credentials: tuple[str, ...] = ()
    #: The region that ``make_provider`` is given where the test is not about regions.
    region: str = ""
    #: Seconds a fetch is given, and seconds it may take longer than it was given.
    timeout: float = 10.0
    hang_timeout: float = 0.5
    margin: float = 2.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = sorted(set(cls.lacks) - set(FEATURES))
        if unknown:
            raise TypeError(f"{cls.__name__}.lacks names {unknown}; known: {', '.join(FEATURES)}")
        for name in dir(cls):
            if getattr(getattr(cls, name, None), "needs", None) in cls.lacks:
                setattr(cls, name, None)

    # -- hooks that a subclass overrides where the default does not do --

    def make_provider(self, region: str = "") -> BaseProvider:
        """Return a new instance for ``region`` that talks to the working backend."""
        return self.provider_class(alias=self.alias, region=region, **self.options)

    def outage(self, kind: str) -> AbstractContextManager[BaseProvider]:
        """Give a provider whose backend fails in the way ``kind`` while the context is open."""
        raise AssertionError(f"{type(self).__name__} neither defines outage() nor lacks it")

    def hang(self) -> AbstractContextManager[BaseProvider]:
        """Give a provider whose backend accepts a call and does not answer it."""
        raise AssertionError(f"{type(self).__name__} neither defines hang() nor lacks 'timeout'")

    def is_value(self, value: object, expected: str) -> bool:
        """Tell whether a payload is the ``expected`` one.

        Where each fetch issues a new one, ``value`` describes them, and this compares.
        """
        return value == expected

    def rotate(self) -> str:
        """Give ``existing`` a new payload in the backend and return it."""
        raise AssertionError(f"{type(self).__name__} neither defines rotate() nor lacks 'rotation'")

    # -- what a secret gives --

    def test_existing_secret(self) -> None:
        """A text secret arrives as a SecretValue that holds a SecretStr with the whole payload."""
        answer = self.fetch(self.provider(), self.existing)
        assert isinstance(answer.value, SecretStr), f"not a SecretStr: {type(answer.value)}"
        assert self.is_value(answer.value, self.value), (
            "the payload is not the one that the backend holds"
        )
        self.assert_version_is_no_digest(answer)

    @needs("binary")
    def test_binary_secret(self) -> None:
        """A payload that is no UTF-8 arrives unchanged as SecretBytes."""
        answer = self.fetch(self.provider(), self.given("binary"))
        assert isinstance(answer.value, SecretBytes), f"not SecretBytes: {type(answer.value)}"
        assert answer.value == self.binary_value, "the payload is not the one the backend holds"
        self.assert_version_is_no_digest(answer)

    @needs("version")
    def test_version(self) -> None:
        """Each version gives its own payload and its own id; one that is missing is not found."""
        self.assert_each(self.given("versions"), distinct=True)
        self.assert_refused(SecretNotFound, self.given("missing_version"))

    @needs("stage")
    def test_stage(self) -> None:
        """Each stage gives its own payload; one that is missing is not found."""
        self.assert_each(self.given("stages"), distinct=False)
        self.assert_refused(SecretNotFound, self.given("missing_stage"))

    @needs("regions")
    def test_region(self) -> None:
        """The region is handed to the instance: each region gives its own payload."""
        regions = self.given("regions")
        assert len(regions) > 1, "name two regions at least"
        for region, value in regions.items():
            provider = self.make_provider(region)
            assert provider.region == region, f"built for {region}, says {provider.region}"
            answer = self.fetch(provider, self.existing)
            assert self.is_value(answer.value, value), (
                f"the payload of another region than {region}"
            )
            if "not_found" not in self.lacks:
                error = self.refusal(provider, self.missing)
                assert error.region == region, "the error does not name the region"

    @needs("rotation")
    def test_rotation(self) -> None:
        """The same instance gives the new payload, and a version that tells it from the old."""
        provider = self.provider()
        old = self.fetch(provider, self.existing)
        value = self.rotate()
        new = self.fetch(provider, self.existing)
        assert self.is_value(new.value, value), "the payload is still the old one"
        assert old.version is None or new.version != old.version, "the version did not change"

    # -- what goes wrong --

    @needs("not_found")
    def test_not_found(self) -> None:
        """A missing secret is SecretNotFound."""
        self.assert_refused(SecretNotFound, self.given("missing"))

    @needs("denied")
    def test_denied(self) -> None:
        """A secret that this process may not read is AccessDenied."""
        self.assert_refused(AccessDenied, self.given("denied"))

    @needs("outage")
    def test_unavailable(self) -> None:
        """A backend that fails is ProviderUnavailable, for a secret that exists and one that does
        not: an outage never reads as "not found"."""
        assert self.outages, "name a way to fail, or declare that the backend lacks 'outage'"
        for kind in self.outages:
            with self.outage(kind) as provider:
                for name in self.names():
                    error = self.refusal(provider, name)
                    assert isinstance(error, ProviderUnavailable), f"{kind}: {type(error).__name__}"
                ref = self.reference(provider, self.existing)
                answers = provider.fetch_many([ref], timeout=self.timeout)
                assert isinstance(answers[ref], ProviderUnavailable), f"{kind}, in a batch"

    @needs("timeout")
    def test_timeout(self) -> None:
        """A backend that hangs is ProviderUnavailable within the timeout, alone and in a batch."""
        with self.hang() as provider:
            ref = self.reference(provider, self.existing)
            limit = self.hang_timeout + self.margin
            error = within(limit, lambda: provider.fetch(ref, timeout=self.hang_timeout))
            assert isinstance(error, ProviderUnavailable), f"the fetch gave {type(error).__name__}"
            self.assert_clean(error)
            answers = within(limit, lambda: provider.fetch_many([ref], timeout=self.hang_timeout))
            assert isinstance(answers[ref], ProviderUnavailable), "the batch gave something else"

    def test_hostile_names(self) -> None:
        """No name that means something to a path, a URL, a shell or a parser reaches a secret."""
        provider = self.provider()
        for name in hostile_names(self.existing.partition("?")[0]):
            ref = SecretRef(scheme=self.alias, name=name)
            try:
                ref = self.provider_class.canonical(ref, self.options)
                provider.fetch(ref, timeout=self.timeout)
            except (SecretNotFound, AccessDenied, InvalidReference, ProviderError) as error:
                self.assert_clean(error)
            else:
                raise AssertionError(f"the name {name[:80]!r} gave a secret")

    def test_fetch_many(self) -> None:
        """A batch gives an answer for each reference, and its errors do not spoil the others."""
        provider = self.provider()
        *missing, existing = (self.reference(provider, name) for name in self.names()[::-1])
        hostile = existing.replace(name=f"../{existing.name}")
        refs = [*missing, hostile, existing]
        answers: dict[SecretRef, SecretValue | SecretError] = {}
        for start in range(0, len(refs), provider.batch_size):
            batch = refs[start : start + provider.batch_size]
            got = provider.fetch_many(batch, timeout=self.timeout)
            assert set(got) == set(batch), "not exactly one answer for each reference"
            answers |= got
        answer = answers[existing]
        assert isinstance(answer, SecretValue), f"the good one gave {type(answer).__name__}"
        assert self.is_value(answer.value, self.value), (
            "the payload is not the one that the backend holds"
        )
        for ref in missing:
            assert isinstance(answers[ref], SecretNotFound), "the missing one is something else"
        assert isinstance(answers[hostile], SecretError), "the hostile name gave a secret"
        for other in (*missing, hostile):
            self.assert_clean(answers[other])
        assert provider.fetch_many([], timeout=self.timeout) == {}, "answers to no question"

    def test_unknown_option(self) -> None:
        """``check`` accepts the options in use and names one that the backend does not know."""
        assert self.provider_class.check(self.options) == [], "the options in use are refused"
        problems = self.provider_class.check({**self.options, "no_such_option": True})
        assert any("no_such_option" in problem.message for problem in problems), "not noticed"
        assert all(problem.hint for problem in problems), "a problem without a hint"

    def test_no_value_is_shown(self) -> None:
        """Neither the provider nor its answer shows a payload or a credential in repr or str."""
        provider = self.provider()
        answer = self.fetch(provider, self.existing)
        for shown in (provider, answer, answer.value):
            self.assert_hides(repr(shown))
            self.assert_hides(f"{[shown]}")
        self.assert_hides(f"{provider} {answer}")

    # -- threads, close and fork --

    def test_concurrent_fetch(self) -> None:
        """One instance serves many threads at once."""
        provider = self.provider()
        for answer in at_once([partial(self.fetch, provider, self.existing)] * 16):
            assert isinstance(answer, SecretValue), f"a thread got {show(answer)}"
            assert self.is_value(answer.value, self.value), "a thread got another payload"

    def test_close_during_fetch(self) -> None:
        """A fetch that meets ``close`` gives the value, ProviderUnavailable or ProviderError."""
        for _ in range(3):
            provider = self.provider()
            fetch = partial(self.fetch, provider, self.existing)
            for answer in at_once([*[fetch] * 6, provider.close, *[fetch] * 6]):
                if isinstance(answer, SecretValue):
                    assert self.is_value(answer.value, self.value), "another payload"
                elif answer is not None:
                    assert isinstance(answer, ProviderUnavailable | ProviderError), show(answer)

    @needs("timeout")
    def test_close_does_not_wait(self) -> None:
        """``close`` returns while a fetch hangs, and the fetch still ends in time."""
        with self.hang() as provider:
            ref = self.reference(provider, self.existing)
            limit = self.hang_timeout + self.margin

            def fetch() -> object:
                return outcome(lambda: provider.fetch(ref, timeout=self.hang_timeout))

            answers: list[object] = []
            thread = threading.Thread(target=lambda: answers.append(fetch()), daemon=True)
            thread.start()
            assert within(self.margin, provider.close) is None, "close gave something"
            thread.join(limit)
            assert answers, "the fetch hangs"
            assert isinstance(answers[0], ProviderUnavailable | ProviderError), show(answers[0])

    def test_close_twice(self) -> None:
        """A provider may be closed again, and unused."""
        unused = self.provider()
        unused.close()
        unused.close()
        used = self.provider()
        self.fetch(used, self.existing)
        used.close()
        used.close()

    def test_fork(self) -> None:
        """A forked child drops the instance it inherited and builds its own; both then work."""
        provider = self.provider()
        self.fetch(provider, self.existing)

        def child() -> str:  # pragma: no cover - runs in the child, which leaves no report
            nonlocal provider
            provider = self.provider()  # which drops the inherited one
            answer = self.fetch(provider, self.existing)
            return "ok" if self.is_value(answer.value, self.value) else "another payload"

        answer_of_child = in_child(child)
        assert answer_of_child == "ok", answer_of_child
        answer = self.fetch(provider, self.existing)
        assert self.is_value(answer.value, self.value), "the parent's instance no longer works"

    # -- helpers --

    def provider(self) -> BaseProvider:
        """Return a new provider of the usual region."""
        return self.make_provider(self.region)

    def names(self) -> tuple[str, ...]:
        """Return the name of a secret that exists and, where there can be one, of one missing."""
        known = (self.existing,)
        return known if "not_found" in self.lacks else (*known, self.given("missing"))

    def given(self, name: str) -> Any:
        """Return the attribute ``name`` that a feature's test needs; its absence is a failure."""
        value = getattr(self, name, None)
        assert value, f"{type(self).__name__} neither sets {name} nor says in lacks why it cannot"
        return value

    def reference(self, provider: BaseProvider, name: str) -> SecretRef:
        """Return the canonical reference that the registry would hand to ``provider``."""
        ref = SecretRef.parse(f"{self.alias}://{name}").payload()
        return type(provider).canonical(ref, self.options)

    def fetch(self, provider: BaseProvider, name: str) -> SecretValue:
        """Fetch ``name`` as the registry would."""
        answer = provider.fetch(self.reference(provider, name), timeout=self.timeout)
        assert isinstance(answer, SecretValue), f"fetch gave a {type(answer).__name__}"
        return answer

    def refusal(self, provider: BaseProvider, name: str) -> SecretError:
        """Return the error of a fetch that must fail, after looking for values in it."""
        answer = outcome(lambda: self.fetch(provider, name))
        assert isinstance(answer, SecretError), f"{name} gave {show(answer)}"
        assert answer.reference, "the error does not name the reference"
        assert answer.provider == self.alias, "the error does not name the provider"
        self.assert_clean(answer)
        return answer

    def assert_refused(self, kind: type[SecretError], name: str) -> None:
        """Assert that ``name`` ends in this ``kind`` of error, alone and in a batch."""
        provider = self.provider()
        error = self.refusal(provider, name)
        assert isinstance(error, kind), f"{name} gave {show(error)} instead of {kind.__name__}"
        ref = self.reference(provider, name)
        answer = provider.fetch_many([ref], timeout=self.timeout)[ref]
        assert isinstance(answer, kind), f"{name} gave {show(answer)} in a batch"
        self.assert_clean(answer)

    def assert_each(self, payloads: Mapping[str, str], *, distinct: bool) -> None:
        """Assert that each name gives its payload; with ``distinct``, each its own version."""
        provider = self.provider()
        answers = {name: self.fetch(provider, name) for name in payloads}
        for name, answer in answers.items():
            assert self.is_value(answer.value, payloads[name]), f"{name} gave another payload"
        versions = {answer.version for answer in answers.values()}
        assert not distinct or len(versions) == len(payloads), "two versions have one id"

    def assert_version_is_no_digest(self, answer: SecretValue) -> None:
        """Assert that the version is text or ``None`` and was not computed from the payload."""
        version = answer.version
        assert version is None or type(version) is str, "the version is no plain text"
        payload = answer.value.encode() if isinstance(answer.value, str) else answer.value
        for name in ("md5", "sha1", "sha256", "sha512"):
            digest = hashlib.new(name, payload, usedforsecurity=False).digest()
            for text in (digest.hex(), base64.b64encode(digest).decode()):
                assert not version or text[:16] not in version, f"the version is a {name}"
        self.assert_hides(version or "")

    def assert_clean(self, error: object) -> None:
        """Assert that an error and all it is chained to show no payload and no credential."""
        assert isinstance(error, BaseException)
        seen: set[int] = set()
        todo: list[BaseException | None] = [error]
        while todo:
            current = todo.pop()
            if current is None or id(current) in seen:
                continue
            seen.add(id(current))
            self.assert_hides(f"{current} {current!r} {current.args} {vars(current)}")
            self.assert_hides(" ".join(getattr(current, "__notes__", ())))
            todo += [current.__cause__, current.__context__]
            if isinstance(current, BaseExceptionGroup):
                todo += current.exceptions

    def assert_hides(self, text: str) -> None:
        """Assert that ``text`` contains none of the payloads and credentials known here."""
        known: list[str] = [self.value, *self.credentials]
        for payloads in ("versions", "stages", "regions"):
            known += getattr(self, payloads, {}).values()
        if hasattr(self, "binary_value"):
            known.append(repr(self.binary_value)[2:-1])
        assert not any(value in text for value in known if value), "a secret is shown"


def hostile_names(name: str) -> list[str]:
    """Return names that careless code would turn into ``name``, another file, a URL or a crash."""
    before = ["../", "./", "/", "//", "x/../", "../../x/../", "..\\", "..%2f", "%2e%2e%2f"]
    before += ["@", "*/", " ", "\n", "\0", "\u202e"]
    after = ["/", "//", "/.", "/..", "/../x", "%00", "%0a", "?", "#", "&", ";", "*", "'", '"}']
    after += [
        " ",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "\0.txt",
        "\ufeff",
        "' OR '1'='1",
        "$(id)",
        "{0}",
        "%s",
    ]
    whole = [f"{name}/../{name}", f"{name}//{name}", ".", "..", "../" * 8 + "etc/hostname"]
    whole += ["/etc/hostname", "/proc/self/environ", "file:///etc/hostname", "http://127.0.0.1:9/"]
    whole += ["пароль", "\U0001f511", "a" * 300, "a/" * 3000 + "a", "a" * 100_000]
    return [*(start + name for start in before), *(name + end for end in after), *whole]
