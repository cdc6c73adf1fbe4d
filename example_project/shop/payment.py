"""Payment requests, signed as payment providers want them: HMAC-SHA256 with the account's key."""

from __future__ import annotations

import dataclasses
import hmac
import json
import time

from django.conf import settings


@dataclasses.dataclass(frozen=True)
class PaymentRequest:
    """What is sent to the payment provider. ``timestamp`` is in POSIX seconds."""

    body: str
    timestamp: int
    signature: str


def payment_request(amount: int, items: dict[str, int]) -> PaymentRequest:
    """Ask for ``amount`` cents for these items.

    ``settings.STRIPE_KEY`` reads as a plain ``str``, and as the one that is valid now: this code
    would look the same if the key stood in the settings file.
    """
    body = json.dumps({"amount": amount, "currency": "eur", "items": items}, sort_keys=True)
    timestamp = int(time.time())
    signed = f"{timestamp}.{body}"
    signature = hmac.new(settings.STRIPE_KEY.encode(), signed.encode(), "sha256").hexdigest()
    return PaymentRequest(body, timestamp, signature)
