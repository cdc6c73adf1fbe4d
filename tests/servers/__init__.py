"""Servers that the tests talk to over real sockets; most modules have their fixtures, too.

Those of the secret managers have theirs in :mod:`tests.fixtures`. They know nothing of pytest, and
the example's demo runs them as well: each has ``missing()`` and ``started()``.
"""
