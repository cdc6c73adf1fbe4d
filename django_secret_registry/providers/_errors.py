"""How providers describe what an SDK raised, before it becomes an error of ours."""

from __future__ import annotations

from typing import NamedTuple

from ..exceptions import SecretError


class Sorted(NamedTuple):
    """What an error of an SDK is to us.

    ``chain`` tells that it can hold no part of a value and may be the cause; the others are told by
    the name of their class.
    """

    kind: type[SecretError]
    message: str
    hint: str = ""
    chain: bool = False
