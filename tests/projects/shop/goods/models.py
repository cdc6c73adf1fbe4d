"""A model, in a module that reads secrets when it is imported, as some libraries do."""

from django.conf import settings
from django.db import models

STRIPE_IS_LIVE = settings.STRIPE_KEY.startswith("sk_live_")
SMTP_LOGIN = f"{settings.SMTP['user']}:{settings.SMTP['password']}"
SIGNING_KEY = bytes(settings.SIGNING_KEY)
ACCOUNT = settings.SERVICE_ACCOUNT


class Product(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name
