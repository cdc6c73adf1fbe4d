"""SECRET_KEY rotates: sessions, cookies and tokens in processes that do not change together."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry.exceptions import ProviderUnavailable, SecretNotFound
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.fixtures.aws import aws_server, aws_session
from tests.scripted import Gate, Script, alias, make, running
from tests.servers.aws import AWSServer

__all__ = ["aws_server", "aws_session"]

ROOT = Path(__file__).parents[1]
EVERYTHING = ["session", "login", "cookie", "token"]


class Worker:
    """A process that signs and checks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, *command: Any) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())


@contextlib.contextmanager
def worker(aws: AWSServer) -> Iterator[Worker]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.projects.signing_worker"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIGNING": json.dumps(aws.options())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


class Keys:
    """The key in the secret manager, and how one rotates it."""

    def __init__(self, aws: AWSServer) -> None:
        self.aws = aws
        self.number = 0
        self.current = aws.create("django", self.payload())["VersionId"]
        self.pending = ""

    def payload(self) -> str:
        return json.dumps({"secret_key": canary(f"key-{self.number}-{'x' * 50}")})

    def write_pending(self) -> None:
        self.number += 1
        self.pending = self.aws.put("django", self.payload(), "AWSPENDING")

    def promote(self) -> None:
        self.aws.promote("django", self.pending, self.current)
        self.current = self.pending


def everything_is_valid(workers: list[Worker], signed: list[Any]) -> None:
    """Whatever one process has signed until now or signs now, the other one accepts."""
    signed += [worker("sign") for worker in workers]
    for one in signed:
        for worker in workers:
            assert worker("check", one) == []


@pytest.mark.full
def test_two_processes(aws_server):
    """Processes that differ by a whole TTL accept each other's signatures through a rotation.

    The rotation is done as documented: write pending, wait one TTL, promote.
    """
    keys = Keys(aws_server)
    with worker(aws_server) as one, worker(aws_server) as other:
        workers = [one, other]
        signed: list[Any] = []
        everything_is_valid(workers, signed)
        oldest = list(signed)
        for order in ([one, other], [other, one]):
            early, late = order
            if keys.number:
                # What was made before the rotation before this one is valid until this one.
                assert one("check", oldest[0]) == []
                signed = [one("sign")]
            keys.write_pending()
            early("refresh", "pending")
            everything_is_valid(workers, signed)
            late("refresh", "pending")
            keys.promote()
            early("refresh", "")
            everything_is_valid(workers, signed)
            early("refresh", "pending")
            early("refresh", "previous")
            everything_is_valid(workers, signed)
            # A TTL later the other one follows, in the worst order.
            late("refresh", "pending")
            everything_is_valid(workers, signed)
            late("refresh", "")
            everything_is_valid(workers, signed)
        assert one("check", oldest[0]) == other("check", oldest[0]) == EVERYTHING


# -- the cache ------------------------------------------------------------------------------------


class Staged(Script):
    """A secret manager with a current and a previous version."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = {"": 2, "previous": 1}
        self.answers["key"] = self.version

    def version(self, ref: SecretRef) -> Any:
        number = self.numbers.get(ref.stage)
        if number is None:
            return SecretNotFound("there is no such stage")
        return SecretValue(canary(f"key-{number}"), version=str(number))

    def rotate(self) -> None:
        self.numbers = {"": self.numbers[""] + 1, "previous": self.numbers[""]}


CURRENT, PREVIOUS = "a://key", "a://key?stage=previous"


def test_previous_follows_current():
    """Before a new current version is shown, the previous one that is held is fetched."""
    script = Staged()
    registry = make(alias("a", script))
    registry.get(CURRENT), registry.get(PREVIOUS)
    shown: list[Any] = []

    def answer(ref: SecretRef) -> Any:
        shown.append(registry.get(CURRENT))
        return script.version(ref)

    script.rotate()
    script.answers["key"] = answer
    registry.refresh(CURRENT)
    assert shown == [canary("key-2")] * 2  # as the current and as the previous one were fetched
    assert registry.get(CURRENT) == canary("key-3")
    assert registry.get(PREVIOUS) == canary("key-2")


def test_previous_that_is_being_fetched():
    """One that is being fetched since before the promotion is fetched again, and told last."""
    script = Staged()
    registry = make(alias("a", script))
    registry.get(CURRENT), registry.get(PREVIOUS)
    early = Gate()

    def before_the_promotion(ref: SecretRef) -> Any:
        answer = script.version(ref)
        script.answers["key"] = script.version
        early.stop()
        return answer

    script.answers["key"] = before_the_promotion
    with running(lambda: registry.refresh(PREVIOUS)):
        early.wait()
        script.rotate()
        registry.refresh(CURRENT)
        assert registry.get(CURRENT) == canary("key-3")
        assert registry.get(PREVIOUS) == canary("key-2")
        early.open()
    assert registry.get(PREVIOUS) == canary("key-2")


def test_first_rotation():
    """A previous version that did not exist until now is looked for as well."""
    script = Staged()
    script.numbers = {"": 1}
    registry = make(alias("a", script))
    registry.get(CURRENT)
    assert registry.get(PREVIOUS, default=None) is None
    script.rotate()
    registry.refresh(CURRENT)
    assert registry.get(PREVIOUS) == canary("key-1")


def test_nothing_follows_without_need():
    """Nothing more is fetched without a new version, or when no previous one is held."""
    script = Staged()
    registry = make(alias("a", script))
    registry.get(CURRENT)
    script.rotate()
    registry.refresh(CURRENT)
    registry.get(PREVIOUS)
    script.fetched.clear()
    registry.refresh(CURRENT)
    registry.refresh(PREVIOUS)
    assert [ref.stage for ref in script.fetched] == ["", "previous"]


def test_previous_that_cannot_be_fetched():
    """The new version is shown although the previous one cannot be fetched, which stays."""
    script = Staged()
    registry = make(alias("a", script))
    registry.get(CURRENT), registry.get(PREVIOUS)
    script.rotate()
    version = script.version

    def down(ref: SecretRef) -> Any:
        return ProviderUnavailable("down") if ref.stage else version(ref)

    script.answers["key"] = down
    registry.refresh(CURRENT)
    assert registry.get(CURRENT) == canary("key-3")
    assert registry.get(PREVIOUS) == canary("key-1")


def test_previous_follows_after_an_outage():
    """The first answer after an outage brings the previous version along."""
    script = Staged()
    registry = make(alias("a", script))
    clock: Any = registry.clock
    registry.get(CURRENT), registry.get(PREVIOUS)
    script.answers["key"] = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):
        registry.refresh(CURRENT)
    script.rotate()
    script.answers["key"] = script.version
    clock.forward(61)
    registry.refresh(CURRENT)
    assert registry.get(CURRENT) == canary("key-3")
    assert registry.get(PREVIOUS) == canary("key-2")
