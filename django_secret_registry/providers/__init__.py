"""Providers: one file per backend. Each imports its SDK when its first instance is built."""

from .base import BaseProvider, Fence, Members, Problem

__all__ = ["BaseProvider", "Fence", "Members", "Problem"]
