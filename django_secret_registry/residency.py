"""Residency: from which regions a process may read a secret."""

from __future__ import annotations

from typing import NamedTuple

POLICIES = ("none", "advisory", "strict")


class Residency(NamedTuple):
    """The policy's word, the region in which the secret lives, and further ones that may read it.

    An empty ``region`` stands for the effective region of the reference.
    """

    policy: str = "none"
    region: str = ""
    allowed_regions: tuple[str, ...] = ()

    def decide(self, here: str) -> str:
        """Return the decision for a process in region ``here`` (``""``: it has none)."""
        if self.policy == "none":
            return "allowed_no_policy"
        if here and here == self.region:
            return "allowed_same_region"
        if here and here in self.allowed_regions:
            return "allowed_in_allowlist"
        return "violation_blocked" if self.policy == "strict" else "violation_allowed"
