"""Secrets of a Django project: read as plain ``str``, cached, rotated and watched.

Everything here may be imported in ``settings.py``, before Django is configured: no Django setting
is read, no cloud SDK imported, no I/O done.
"""

from __future__ import annotations

from .exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderDoesNotExist,
    ProviderError,
    ProviderUnavailable,
    ResidencyViolation,
    SecretError,
    SecretNotExposed,
    SecretNotFound,
    SecretNotReady,
)
from .lazy import LazySecret, secret
from .providers.base import BaseProvider
from .references import SecretRef
from .resolver import SecretRegistry, registry
from .values import SecretBytes, SecretStr, SecretValue

__all__ = [
    "AccessDenied",
    "BaseProvider",
    "InvalidProvider",
    "InvalidReference",
    "LazySecret",
    "ProviderDoesNotExist",
    "ProviderError",
    "ProviderUnavailable",
    "ResidencyViolation",
    "SecretBytes",
    "SecretError",
    "SecretNotExposed",
    "SecretNotFound",
    "SecretNotReady",
    "SecretRef",
    "SecretRegistry",
    "SecretStr",
    "SecretValue",
    "registry",
    "secret",
]

__version__ = "0.1.0"
