"""The clocks. Everything that ages takes one as an argument, so that a test can hold it still."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

#: Returns seconds. Ages are differences of two readings; the zero point means nothing.
Clock = Callable[[], float]

#: Counts the time that the machine was suspended, where the system has such a clock (Linux,
#: clock_gettime(2)): a laptop or a frozen container must not wake up and serve last night's secret.
#: A partial of the C function costs less per call than a Python function around it.
steady: Clock = (
    functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)

#: POSIX seconds, for what an issuer or an operator calls a time; never used to measure an age.
wall: Clock = time.time
