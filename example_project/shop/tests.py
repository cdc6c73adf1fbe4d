"""How a project tests code that uses secrets: with values of its own, and without a provider."""

from __future__ import annotations

import hmac

from django.test import TestCase

from django_secret_registry.test import override_secrets


@override_secrets(
    {
        "stripe": "test-payment-key",
        "maps_key": "test-map-key",
        "store://shop-django#secret_key": "test-signing-key",
        "store://shop-django-previous#secret_key": "test-signing-key-before",
        "store://shop-db#password": "test-database-password",
    }
)
class ShopTests(TestCase):
    def test_basket_is_paid_for(self) -> None:
        self.client.post("/basket/lantern/")
        self.client.post("/basket/lantern/")
        response = self.client.get("/checkout/")
        payment = response.context["payment"]
        self.assertIn('"amount": 7800', payment.body)
        signed = f"{payment.timestamp}.{payment.body}".encode()
        expected = hmac.new(b"test-payment-key", signed, "sha256").hexdigest()
        self.assertContains(response, expected)
        self.assertNotContains(response, "test-payment-key")

    def test_map_has_its_key(self) -> None:
        self.assertContains(self.client.get("/stores/"), 'data-api-key="test-map-key"')
