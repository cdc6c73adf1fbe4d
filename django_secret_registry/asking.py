"""What readers ask the cache for, what they are given at once, and how they wait for the rest."""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple, cast

from .exceptions import SecretError
from .lifecycle import Flight, Held, Outcome, SecretKey
from .references import SecretRef


class Ask(NamedTuple):
    """What a reader asks for: a key, its reference, and the oldest value it accepts (seconds).

    What is ``pinned`` (named in settings or SECRETS) is never evicted for want of room. So many as
    ``batch_size`` of one backend are fetched in one call.
    """

    key: SecretKey
    ref: SecretRef
    ttl: float
    pinned: bool = False
    batch_size: int = 1


class Admission(NamedTuple):
    """What a reader gets: a value to serve, a flight to wait for (``seconds``), or an error.

    ``launched`` is the flight that the reader has to submit, ``refresh`` why there is none.
    """

    held: Held | None = None
    flight: Flight | None = None
    seconds: float = 0.0
    error: SecretError | None = None
    stale: bool = False
    launched: Flight | None = None
    refresh: str = ""


#: Admissions and what came of their flights.
Ended = Iterable[tuple[Ask, Admission, Outcome | None]]


class Prefetch:
    """Keys of one backend that are being fetched: what somebody waits for, and how long."""

    def __init__(
        self,
        settle: Callable[[Ended], dict[SecretKey, Outcome]],
        admissions: Sequence[tuple[Ask, Admission]],
    ) -> None:
        self._settle = settle
        self._admissions = admissions
        seconds = max((admission.seconds for _, admission in admissions), default=0.0)
        self._deadline = time.monotonic() + seconds
        self._flights = [admission.flight for _, admission in admissions if admission.flight]

    def then(self, call: Callable[[], object]) -> None:
        """Have ``call`` called once all have landed, in the thread in which the last one does."""
        # A future keeps its callbacks for ever: they must not lead to the flights and their values.
        landings = iter({flight.landed for flight in self._flights})

        def wait_for_the_next(_: object = None) -> None:
            for landed in landings:
                if not landed.done():
                    landed.add_done_callback(wait_for_the_next)
                    return
            call()

        wait_for_the_next()

    def left(self) -> float:
        """Return the seconds for which anybody waits for it still."""
        return max(0.0, self._deadline - time.monotonic())

    def results(self) -> dict[SecretKey, Outcome]:
        """Return a value or an error for each key; blocks until they have landed, or it is time."""
        return self._settle((ask, one, wait(one, self.left())) for ask, one in self._admissions)


def wait(admission: Admission, left: float = math.inf) -> Outcome | None:
    """Return what the flight of an admission brings; ``None``: there is none, or time is over."""
    if admission.flight is None:
        return None
    with contextlib.suppress(TimeoutError):
        admission.flight.landed.result(max(0.0, min(admission.seconds, left)))
    return admission.flight.outcome


def on_event_loop() -> bool:
    """Whether this thread runs an event loop, which nothing may block."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def landing(source: Future[None], seconds: float) -> None:
    """Wait for a flight without blocking the event loop, ``seconds`` at most.

    Not by ``asyncio.wrap_future``, which raises and logs when the loop is closed before the flight
    lands.
    """
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def landed(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(wake)

    source.add_done_callback(landed)
    await asyncio.wait((woken,), timeout=seconds)


def in_batches(admitted: Iterable[tuple[Ask, Admission]]) -> list[list[Flight]]:
    """Cut what has to be submitted into calls; the flights of one call land together."""
    batches: list[list[Flight]] = []
    open_ones: dict[tuple[str, str], list[Flight]] = {}
    for ask, admission in admitted:
        flight, where = admission.launched, (ask.key.alias, ask.key.region)
        if flight is None:
            continue
        batch = open_ones.get(where)
        if batch is None or len(batch) >= ask.batch_size:
            batch = open_ones[where] = []
            batches.append(batch)
        batch.append(flight)
        flight.landed = batch[0].landed
    return batches


def all_held(outcomes: dict[SecretKey, Outcome]) -> dict[SecretKey, Held]:
    """Return the values, or raise the first error, which nothing here keeps alive then."""
    for outcome in outcomes.values():
        if isinstance(outcome, SecretError):
            try:
                raise outcome
            finally:
                del outcome
                outcomes.clear()
    return cast(dict[SecretKey, Held], outcomes)
