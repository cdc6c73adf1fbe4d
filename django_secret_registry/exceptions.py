"""Every error this package raises on purpose.

The classes keep apart what an operator must never confuse: a secret that does not exist, one that
may not be read, and a backend that cannot answer right now. No error carries a value: messages are
built from the reference, the alias and the region only, and an error that is born while a value is
parsed is raised outside its ``except`` block, so that neither ``__cause__`` nor ``__context__``
leads to the text that was parsed.
"""

from __future__ import annotations

from typing import ClassVar, Self

from django.core.exceptions import ImproperlyConfigured


class SecretError(Exception):
    """Base of all errors here.

    ``message`` says what happened, ``hint`` what to do about it, or else the class's ``advice``
    does. ``reference``, ``provider`` (the
    alias) and ``region`` say where; an empty string means "not known" or "none".
    """

    advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        reference: str = "",
        provider: str = "",
        region: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reference = reference
        self.provider = provider
        self.region = region
        self.hint = hint

    def __str__(self) -> str:
        where = [
            f"{label} {text!r}"
            for label, text in (
                ("reference", self.reference),
                ("provider", self.provider),
                ("region", self.region),
            )
            if text
        ]
        text = self.message
        if where:
            text = f"{text} ({', '.join(where)})"
        what_to_do = self.hint or self.advice
        return f"{text.rstrip('.')}. {what_to_do}" if what_to_do else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self._where(), self.hint)

    def _where(self) -> dict[str, str]:
        return {"reference": self.reference, "provider": self.provider, "region": self.region}

    def copy(self, *, reference: str = "", provider: str = "", region: str = "") -> Self:
        """Return a new error of the same class and text; fields given here fill the empty ones.

        Every raise gets an object of its own: one that is shared between threads collects their
        tracebacks and keeps their frames alive. The cause is not taken over for the same reason.
        """
        # Not by calling the class: a provider's own subclass may take other arguments.
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__ |= self.__dict__
        twin.reference = self.reference or reference
        twin.provider = self.provider or provider
        twin.region = self.region or region
        return twin


def _rebuild(
    kind: type[SecretError], message: str, where: dict[str, str], hint: str
) -> SecretError:
    return kind(message, hint=hint, **where)


class SecretNotFound(SecretError):
    """The backend answered, and the secret, the version, the stage or the key does not exist."""

    advice = "Create it there, or correct the reference; where it may be missing, give a default=."


class AccessDenied(SecretError):
    """The backend answered, and this process may not read the secret."""


class ProviderUnavailable(SecretError):
    """No answer for now: throttled, timed out, unreachable, backing off or offline. Transient."""

    advice = "It is tried again after a pause, and what is held serves on until then."

    #: True: nothing follows for other secrets of the alias, and only this one is left alone.
    only_this = False


class ProviderError(SecretError):
    """The backend answered something that cannot be used; trying again alone will not mend it."""


class InvalidReference(SecretError):
    """The text is no reference. It is not repeated here: it may be a secret passed by mistake."""


class ResidencyViolation(SecretError):
    """A ``strict`` residency policy forbids this process to read the secret from its region."""


class SecretNotExposed(SecretError):
    """A template asked for a secret that is not an entry with ``"TEMPLATES": True``."""


class SecretNotReady(SecretError):
    """A secret was used before the registry was configured (settings still load, or no app)."""


class InvalidProvider(SecretError, ImproperlyConfigured):
    """The alias is configured wrongly; ``manage.py check`` lists every mistake at once."""


class ProviderDoesNotExist(InvalidProvider):
    """No alias of that name stands in ``SECRET_REGISTRY["PROVIDERS"]``."""
