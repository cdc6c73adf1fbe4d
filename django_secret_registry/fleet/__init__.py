"""The fleet: an ordered log of events in an engine that the project has anyway, and its readers.

``bus`` is what a driver is, ``redis``, ``database`` and ``cache`` are the drivers. ``worker`` is a
process's side of it: over its ``link`` a ``listener``, or else readers by their ``lease``, have the
``log_reader`` read on and ``acting`` act. Nothing of a value goes over a bus, nor its length or a
digest of it.
"""
