"""Following: secrets of which somebody keeps a copy are fetched again, though nobody reads them.

A storage or a cache is made once, with the secret of then, and never asks for it again. Nothing
would fetch it from then on, so nobody would learn that it has rotated, and rebinding would never
come. A thread looks after these secrets instead of their readers, once the process has begun.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable

from .rebinding import copied
from .resolver import SecretRegistry

logger = logging.getLogger("django_secret_registry.following")

#: Seconds between two looks. A secret with a TTL below them is followed within them.
SHORTEST, LONGEST = 1.0, 5.0
_SETTING = re.compile(r"settings\.(\w+)")


def start(source: SecretRegistry) -> None:
    """Follow in a daemon thread, if settings name any secret."""
    if source.references():
        Follower(source, copied).start()


class Follower:
    """Fetches again what is held, stale, and may be kept by somebody, as ``copied(setting)`` says.

    ``setting`` is a name; empty for what an entry of ``SECRETS`` names.
    """

    def __init__(self, source: SecretRegistry, copied: Callable[[str], bool]) -> None:
        self._source = source
        self._copied = copied

    def start(self) -> None:
        threading.Thread(target=self._run, name="secret-registry-following", daemon=True).start()

    def _run(self) -> None:
        # By the first look every app has been loaded, so what is copied is known.
        pause, seconds = threading.Event(), LONGEST
        while seconds:
            pause.wait(seconds)
            try:
                seconds = self.follow()
            except Exception:
                logger.exception("Secrets that are copied could not be followed")

    def follow(self) -> float:
        """Fetch what is no longer fresh, once some of it is stale; return the seconds to wait.

        All at once, since backends take many in one call: what is due waits for the first that is
        stale. What this process has never read, or what does not exist, is left alone. A failure
        shows where every failure does, and the cache backs off. Returns 0 when nobody keeps
        anything.
        """
        texts = {
            place: text
            for place, text in self._source.references().items()
            if self._copied(_setting(place))
        }
        if not texts:
            return 0
        due, first = [], LONGEST
        for info in self._source.snapshot().secrets:
            text = next((texts[place] for place in info.used_by if place in texts), None)
            if text is None or info.ttl is None or info.age is None or info.state == "refused":
                continue
            first = min(first, info.ttl - info.age)
            if info.state != "fresh":
                due.append(text)
        if first > 0:
            return max(first, SHORTEST)
        self._source.warm(due)
        return SHORTEST


def _setting(place: str) -> str:
    found = _SETTING.match(place)
    return found[1] if found else ""
