"""What the admin's pages show of the whole fleet: asked once per request, and never needed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from .exceptions import SecretError
from .fleet import overview
from .fleet.bus import Cursor
from .fleet.overview import InFleet
from .fleet.reports import Acks, WorkerInfo, acks
from .lifecycle import SecretInfo
from .resolver import registry

#: Secrets of other workers that are listed at most.
_ELSEWHERE = 2000
#: Of the largest number that an engine counts to.
_DIGITS = 19


class FleetSeen(NamedTuple):
    """The fleet at one moment; ``failure``: why the bus does not say.

    ``here``: what this process holds or is configured with; ``elsewhere``: what other workers hold
    besides.
    """

    workers: Sequence[WorkerInfo] = ()
    secrets: Mapping[str, InFleet] = {}
    here: Sequence[SecretInfo] = ()
    elsewhere: Sequence[SecretInfo] = ()
    failure: str = ""

    @property
    def blind(self) -> int:
        """How many workers are blind."""
        return sum(worker.blind for worker in self.workers)


def seen(request: HttpRequest) -> FleetSeen | None:
    """Return the fleet as all parts of a page show it; ``None``: there is none."""
    if registry.fleet is None:
        return None
    if not hasattr(request, "_secret_registry_fleet"):
        request._secret_registry_fleet = _look()  # type: ignore[attr-defined]
    found: FleetSeen = request._secret_registry_fleet  # type: ignore[attr-defined]
    return found


def _look() -> FleetSeen:
    fleet, snapshot = registry.fleet, registry.snapshot()
    if fleet is None:
        return FleetSeen()
    try:
        workers = fleet.workers()
    except SecretError as error:
        return FleetSeen(failure=str(error))
    secrets = overview.secrets(workers, snapshot.taken)
    known = {info.reference for info in snapshot.secrets}
    others = itertools.islice((name for name in secrets if name not in known), _ELSEWHERE)
    return FleetSeen(workers, secrets, snapshot.secrets, fleet.elsewhere(others))


def follow(request: HttpRequest, page: str, back: str) -> HttpResponse | None:
    """Lead to ``page``, which follows what this process told the fleet last; ``None``: nothing.

    Where that stands in the log goes along, so that any process can show how far it has come.
    """
    sent = registry.fleet.sent if registry.fleet is not None else None
    if registry.fleet is None or sent is None:
        return None
    registry.fleet.watch(sent)
    place = {"log": sent.last.log, "number": sent.last.number, "back": back}
    return HttpResponseRedirect(f"{page}?{urlencode(place)}")


class Progress(NamedTuple):
    """How far an action has come in the fleet; ``failure``: why the bus does not say."""

    acks: Acks
    failure: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Progress:
        """Return how far the place of a page's query has been read; raises ``Http404``."""
        fleet, number = registry.fleet, query.get("number", "")
        if fleet is None or not number.isdecimal() or len(number) > _DIGITS:
            raise Http404
        try:
            workers = fleet.workers(heads=True)
        except SecretError as error:
            return cls(Acks(0, 0, 0), str(error))
        return cls(acks([Cursor(query.get("log", ""), int(number))], workers))

    def __str__(self) -> str:
        if self.failure:
            return capfirst(self.failure)
        text = _("%(applied)d of %(total)d applied") % self.acks._asdict()
        if self.acks.blind:
            text = _("%(text)s, %(blind)d blind") % {"text": text, "blind": self.acks.blind}
        if self.acks.waiting:
            text = _("%(text)s, %(waiting)d to come") % {"text": text, "waiting": self.acks.waiting}
        return f"{text}."

    @property
    def over(self) -> bool:
        """Whether nobody is waited for any more."""
        return not self.failure and not self.acks.waiting

    def as_json(self) -> JsonResponse:
        """Return what the page's script shows."""
        said = {"text": str(self), "over": self.over, **self.acks._asdict()}
        return JsonResponse(said)
