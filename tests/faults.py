"""The table of faults: what a reader gets when a backend fails, by provider, fault and state.

``tests/test_faults.py`` asserts every line of it; ``python -m tests.faults`` writes it to
``docs/faults.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

DOCUMENT = Path(__file__).parents[1] / "docs" / "faults.md"

#: The state of the entry when the fault strikes, and how the document explains it.
STATES = {
    "absent": "nothing is held",
    "due": "older than `REFRESH_AHEAD` × TTL",
    "stale": "older than its TTL",
    "expired": "older than TTL + `MAX_STALE`",
    "refused": 'a "not found" older than `NEGATIVE_TTL`',
}


class Outcome(NamedTuple):
    """What a reader gets: the ``old`` or the ``new`` value, or an error, by the name of its class.

    ``status`` is what ``secret_registry_resolve_total`` counts the read as. Each of these reads
    starts one fetch, and the next read none.
    """

    served: str
    status: str


def _refusal(error: str, status: str) -> dict[str, Outcome]:
    """Return what readers get of a fetch that brings no answer about the secret."""
    return {
        "absent": Outcome(error, status),
        "due": Outcome("old", "hit"),
        "stale": Outcome("old", "stale"),
        "expired": Outcome(error, status),
        "refused": Outcome("SecretNotFound", "not_found"),
    }


#: What becomes of a fetch, and what readers get of it in each state.
KINDS: Mapping[str, Mapping[str, Outcome]] = {
    "unavailable": _refusal("ProviderUnavailable", "unavailable"),
    "denied": _refusal("AccessDenied", "denied"),
    "unusable": _refusal("ProviderError", "error"),
    "gone": {
        **_refusal("SecretNotFound", "not_found"),
        "stale": Outcome("SecretNotFound", "not_found"),
    },
    "answered": {
        "absent": Outcome("new", "ok"),
        "due": Outcome("old", "hit"),
        "stale": Outcome("new", "ok"),
        "expired": Outcome("new", "ok"),
        "refused": Outcome("SecretNotFound", "not_found"),
    },
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """What a fault is at one provider, what it makes of a fetch, and how often that asks.

    ``requests`` is what the backend sees of one fetch; ``None`` where nothing is asked over a
    network.
    """

    how: str
    kind: str
    requests: int | None = None


_CLOCK = "the wall clock jumps by a year, forth and back"

#: Faults by provider. What a backend cannot have is not here: Secrets Manager sends no checksum,
#: gRPC no JSON, a file has no name server.
FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "aws": {
        "throttled": Fault("`ThrottlingException`", "unavailable", 1),
        "server error": Fault("500 `InternalServiceError`", "unavailable", 1),
        "hang": Fault("no answer", "unavailable", 1),
        "connection refused": Fault("connections break, new ones are refused", "unavailable", 0),
        "no DNS": Fault("a new client, and the name does not resolve", "unavailable", 0),
        "reset": Fault("TCP reset in the middle of the value", "unavailable", 1),
        "malformed": Fault("JSON that ends too early", "unusable", 1),
        "access denied": Fault("`AccessDeniedException`", "denied", 1),
        "expired credentials": Fault("`ExpiredTokenException`", "denied", 1),
        "clock off": Fault("`InvalidSignatureException`: the machine's clock is off", "denied", 1),
        "clock jump": Fault(_CLOCK, "answered", 1),
        "slow drip": Fault("a byte now and then", "unavailable", 1),
        "deleted": Fault("`ResourceNotFoundException`", "gone", 1),
    },
    "gcp-grpc": {
        "throttled": Fault("`RESOURCE_EXHAUSTED`", "unavailable", 3),
        "server error": Fault("`INTERNAL`", "unavailable", 3),
        "hang": Fault("no answer", "unavailable", 1),
        "connection refused": Fault("connections break, new ones are refused", "unavailable", 0),
        "no DNS": Fault("a new client, and the name does not resolve", "unavailable", 0),
        "reset": Fault("TCP reset in the middle of the value", "unavailable", 3),
        "wrong checksum": Fault("the payload differs from its CRC32C, twice", "unusable", 2),
        "access denied": Fault("`PERMISSION_DENIED`", "denied", 1),
        "expired credentials": Fault("`UNAUTHENTICATED`", "denied", 1),
        "clock jump": Fault(_CLOCK, "answered", 1),
        "slow drip": Fault("a byte now and then", "unavailable", 1),
        "deleted": Fault("the version is `DESTROYED`", "gone", 1),
    },
    "gcp-rest": {
        "throttled": Fault("429 `RESOURCE_EXHAUSTED`", "unavailable", 3),
        "server error": Fault("500 `INTERNAL`", "unavailable", 3),
        "hang": Fault("no answer", "unavailable", 1),
        "connection refused": Fault("connections break, new ones are refused", "unavailable", 0),
        "no DNS": Fault("a new client, and the name does not resolve", "unavailable", 0),
        "reset": Fault("TCP reset in the middle of the value", "unavailable", 3),
        "malformed": Fault("JSON that ends too early", "unusable", 1),
        "wrong checksum": Fault("the payload differs from its CRC32C, twice", "unusable", 2),
        "access denied": Fault("403 `PERMISSION_DENIED`", "denied", 1),
        "expired credentials": Fault("401 `UNAUTHENTICATED`", "denied", 1),
        "clock jump": Fault(_CLOCK, "answered", 1),
        "slow drip": Fault("a byte now and then", "unavailable", 1),
        "deleted": Fault("the version is `DESTROYED`", "gone", 1),
    },
    "azure": {
        "throttled": Fault("429 `Throttled`", "unavailable", 3),
        "server error": Fault("500 `InternalServerError`", "unavailable", 3),
        "hang": Fault("no answer", "unavailable", 1),
        "connection refused": Fault("connections break, new ones are refused", "unavailable", 0),
        "no DNS": Fault("a new client, and the name does not resolve", "unavailable", 0),
        "reset": Fault("TCP reset in the middle of the value", "unavailable", 3),
        "untrusted": Fault("a new client, and a certificate of another CA", "unavailable", 0),
        "malformed": Fault("JSON that ends too early", "unusable", 1),
        "access denied": Fault("403 `ForbiddenByRbac`", "denied", 1),
        "expired credentials": Fault("the client secret is no longer accepted", "denied", 0),
        "token outage": Fault("a new client, and Entra ID answers 503", "unavailable", 0),
        "clock jump": Fault(_CLOCK, "answered", 1),
        "slow drip": Fault("a byte now and then", "unavailable", 1),
        "disabled": Fault("403 `SecretDisabled`", "gone", 1),
        "deleted": Fault("404 `SecretNotFound`", "gone", 1),
    },
    "kubernetes": {
        "throttled": Fault("429 `TooManyRequests`", "unavailable", 3),
        "server error": Fault("500 `InternalError`", "unavailable", 3),
        "hang": Fault("no answer", "unavailable", 1),
        "connection refused": Fault("connections break, new ones are refused", "unavailable", 0),
        "no DNS": Fault("a new client, and the name does not resolve", "unavailable", 0),
        "reset": Fault("TCP reset in the middle of the value", "unavailable", 3),
        "untrusted": Fault("the file of the CA has another one", "unavailable", 0),
        "malformed": Fault("JSON that ends too early", "unusable", 1),
        "access denied": Fault("403 `Forbidden`", "denied", 1),
        "expired credentials": Fault("401 `Unauthorized`", "denied", 1),
        "not mounted": Fault("the file of the token is gone", "denied", 0),
        "clock jump": Fault(_CLOCK, "answered", 1),
        "slow drip": Fault("a byte now and then", "unavailable", 1),
        "deleted": Fault("404 `NotFound`", "gone", 1),
    },
    "vault": {
        "throttled": Fault("429 of a quota", "unavailable", 1),
        "server error": Fault("500 `internal error`", "unavailable", 1),
        "sealed": Fault("503 `Vault is sealed`", "unavailable", 1),
        "hang": Fault("no answer", "unavailable", 1),
        "connection refused": Fault("connections break, new ones are refused", "unavailable", 0),
        "no DNS": Fault("a new client, and the name does not resolve", "unavailable", 0),
        "reset": Fault("TCP reset in the middle of the value", "unavailable", 1),
        "malformed": Fault("JSON that ends too early", "unusable", 1),
        "access denied": Fault("403: a policy denies", "denied", 1),
        "clock jump": Fault(_CLOCK, "answered", 1),
        "slow drip": Fault("a byte now and then", "unavailable", 1),
        "deleted": Fault("the version is deleted", "gone", 1),
    },
    "file": {
        "server error": Fault("`EIO` from the file system", "unavailable"),
        "not mounted": Fault("the directory is gone", "unavailable"),
        "malformed": Fault("a FIFO in place of the file", "unusable"),
        "access denied": Fault("the file may not be read", "denied"),
        "clock jump": Fault(_CLOCK, "answered"),
        "deleted": Fault("the file is gone", "gone"),
    },
    "env": {
        "server error": Fault("`EIO` from the file system", "unavailable"),
        "malformed": Fault("the `.env` file is not UTF-8", "unusable"),
        "access denied": Fault("the `.env` file may not be read", "denied"),
        "clock jump": Fault(_CLOCK, "answered"),
        "deleted": Fault("the variable is gone", "gone"),
    },
    "memory": {
        "clock jump": Fault(_CLOCK, "answered"),
        "deleted": Fault("the secret is gone", "gone"),
    },
}


class Case(NamedTuple):
    """One cell of the table."""

    provider: str
    name: str
    state: str

    def __str__(self) -> str:
        return f"{self.provider}-{self.name}-{self.state}".replace(" ", "_")

    @property
    def fault(self) -> Fault:
        return FAULTS[self.provider][self.name]

    @property
    def outcome(self) -> Outcome:
        return KINDS[self.fault.kind][self.state]


def cases() -> Iterator[Case]:
    for provider, faults in FAULTS.items():
        for name in faults:
            for state in STATES:
                yield Case(provider, name, state)


def document() -> str:
    """Return ``docs/faults.md``."""
    states = [f"- **{state}**: {meaning};" for state, meaning in STATES.items()]
    lines = [_ABOVE, *states, _BELOW]
    for provider, faults in FAULTS.items():
        header = ["fault", "what happens", *STATES, "requests"]
        lines += ["", f"## {provider}", "", _row(header), _row(["---"] * len(header))]
        for name, fault in faults.items():
            cells = [_cell(KINDS[fault.kind][state]) for state in STATES]
            asked = "–" if fault.requests is None else str(fault.requests)
            lines.append(_row([name, fault.how, *cells, asked]))
    return "\n".join(lines) + "\n"


_ABOVE = """\
# What a reader gets when a backend fails

Written by `python -m tests.faults` from the data of `tests/test_faults.py`, which asserts every
cell against real servers and with unmodified SDKs. The columns are the states in which the fault
meets an entry:
"""
_BELOW = """
A cell is what the first read gets, and its status in `secret_registry_resolve_total`. Each of these
reads starts one fetch; of a value that is *due* in the background, so that it is the next read that
gets what it brought. Who holds a value has it at once or, when it is stale, after `SOFT_TIMEOUT` at
most; who holds none waits for the fetch, `FETCH_TIMEOUT` at most. The next read starts no fetch:
what failed is left alone for a while. Once the fault is over the new value arrives.

*Requests* is what the backend sees of one fetch, those for a token not counted, nor Vault's for
what is mounted. Most are asked up to three times; Vault is asked once, and AWS is told in OPTIONS
to be asked once here."""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(outcome: Outcome) -> str:
    served = outcome.served
    shown = f"{served} value" if served in ("old", "new") else f"`{served}`"
    return f"{shown} (`{outcome.status}`)"


if __name__ == "__main__":
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document())
