from __future__ import annotations

from django.db import models


class Product(models.Model):
    """Something to buy. ``price`` is in cents."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=80)
    description = models.TextField()
    price = models.PositiveIntegerField()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
