"""A clock that only a test moves: no test waits for time to pass."""

from __future__ import annotations


class HandClock:
    """Returns the same reading until :meth:`forward` is called; for ages and for POSIX times."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.now += seconds
