"""What OPTIONS of Vault may hold, told without its SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..exceptions import InvalidProvider, InvalidReference
from ..references import LOCATOR, NO_REGION
from .base import Problem, quote_path

MOUNT = "secret"
#: Where Kubernetes puts the token of a pod's service account.
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
#: The arguments of ``hvac.Client`` that OPTIONS["client"] may have.
CLIENT = ("verify", "cert", "proxies")


class _Method(NamedTuple):
    needs: frozenset[str]
    takes: frozenset[str] = frozenset()


METHODS = {
    "token": _Method(frozenset(), frozenset({"token"})),
    "approle": _Method(frozenset({"role_id"}), frozenset({"secret_id", "mount"})),
    "kubernetes": _Method(frozenset({"role"}), frozenset({"jwt", "jwt_path", "mount"})),
    "jwt": _Method(frozenset({"role"}), frozenset({"jwt", "jwt_path", "mount"})),
}


def check_auth(auth: object) -> list[Problem]:
    """Return what is wrong with ``OPTIONS["auth"]``; what it holds is not read, but for the method.

    It may hold markers, whose secrets are read at each login.
    """
    example = '"auth": {"method": "approle", "role_id": ..., "secret_id": ...}'
    if not isinstance(auth, Mapping) or auth.get("method") not in METHODS:
        known = ", ".join(METHODS)
        return [Problem("option 'auth' names no method", f"Write {example}; methods: {known}.")]
    method = METHODS[auth["method"]]
    given = {str(name) for name in auth} - {"method"}
    problems = [
        Problem(f"option 'auth' does not take {name!r}", f"It takes: {_listed(method)}.")
        for name in sorted(given - method.needs - method.takes)
    ]
    problems += [
        Problem(f"option 'auth' lacks {name!r}", f'Write "auth": {{"{name}": ...}}.')
        for name in sorted(method.needs - given)
    ]
    sources = given & {"jwt", "jwt_path"}
    if len(sources) > 1 or (auth["method"] == "jwt" and not sources):
        hint = "A file is read again at each login."
        problems.append(Problem("option 'auth' needs either 'jwt' or 'jwt_path'", hint))
    return problems


def _listed(method: _Method) -> str:
    return ", ".join(sorted(method.needs | method.takes))


def check_options(options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the values of OPTIONS."""
    url = options.get("url")
    for region, address in (url if isinstance(url, Mapping) else {NO_REGION: url}).items():
        if region != NO_REGION and not LOCATOR.match(str(region)):
            hint = 'Write {"eu-central-1": "https://..."}; "-" stands for no region.'
            yield Problem("option 'url' has a key that is no region", hint)
        if url and not _is_url(address):
            hint = 'Write "https://vault.example.com:8200", without user, query and fragment.'
            yield Problem("option 'url' is not that of a server", hint)
    if options.get("auth") is not None:
        yield from check_auth(options["auth"])
    for name in ("mount", "namespace"):
        if options.get(name) and not _is_path(options[name]):
            hint = f'Write "{name}": "a/path", without empty, . and .. segments.'
            yield Problem(f"option {name!r} is no path", hint)
    client = options.get("client") or {}
    if not isinstance(client, Mapping) or set(client) - set(CLIENT):
        hint = f"It is a dict of what hvac takes as {', '.join(CLIENT)}."
        yield Problem("option 'client' is not known in this form", hint)


def existing(client: Mapping[str, Any] | None, alias: str) -> dict[str, Any]:
    """Return the arguments for hvac; requests itself misses a file at the first call only."""
    arguments = dict(client or {})
    certificate = arguments.get("cert")
    files = [certificate] if isinstance(certificate, str) else list(certificate or ())
    for file in (arguments.get("verify"), *files):
        if isinstance(file, str | Path) and not Path(file).exists():
            message = "a file that 'client' names does not exist"
            raise InvalidProvider(message, provider=alias, hint=f"Look for {str(file)!r}.")
    return arguments


def _is_url(address: object) -> bool:
    if not isinstance(address, str):
        return False
    try:
        parts = urlsplit(address)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port_is_valid
        and not (parts.username or parts.password or parts.query or parts.fragment)
    )


def _is_path(path: object) -> bool:
    try:
        return isinstance(path, str) and bool(quote_path(path.strip("/")))
    except InvalidReference:
        return False
