"""``RedisCredentials``: a Redis client that logs in with the current password, each time.

::

    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://redis:6379/0",
            "OPTIONS": {"credential_provider": RedisCredentials("aws://prod/redis#password")},
        }
    }
"""

from __future__ import annotations

from . import registry
from .exceptions import SecretError
from .specs import Derived


class RedisCredentials:
    """A credential provider of redis-py: its pools ask it whenever they connect.

    ``password`` and ``username`` are references or entries; both come from one version where they
    are of one secret. Nothing is read before the first connect. Thread-safe. Raises
    :class:`SecretError`.
    """

    def __init__(self, password: str, *, username: str = "") -> None:
        self._password = Derived(password)
        self._username = Derived(username) if username else None

    def get_credentials(self) -> tuple[str, ...]:
        """Return the password, after the user name if there is one, as they are now."""
        wanted = [self._password] if self._username is None else [self._username, self._password]
        reading = registry.together(wanted)
        values = [reading.values[one] for one in wanted]
        for value in values:
            if isinstance(value, SecretError):
                raise value
        return tuple(values)

    async def get_credentials_async(self) -> tuple[str, ...]:
        """Do as :meth:`get_credentials` without blocking the event loop."""
        # Fetches what is not held; what is held is then read together.
        await registry.aget(self._password)
        if self._username is not None:
            await registry.aget(self._username)
        return self.get_credentials()
