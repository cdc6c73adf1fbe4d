"""Children that a measured process forks are not measured; a pytest plugin for runs under coverage.

coverage.py takes a lock when it sees a file for the first time. A child that is forked while
another thread has that lock would wait for it for ever, in whatever code comes first. Such children
end by ``os._exit`` and so leave no report anyway.

To be imported before the package is: functions that are called after a fork are called in the order
of their registration.
"""

from __future__ import annotations

import os
import sys
import threading


def _measure_nothing() -> None:
    threading.settrace(None)  # type: ignore[arg-type]
    sys.settrace(None)


os.register_at_fork(after_in_child=_measure_nothing)
