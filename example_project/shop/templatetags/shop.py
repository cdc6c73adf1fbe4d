from __future__ import annotations

from django.template import Library

register = Library()


@register.filter
def euro(cents: int) -> str:
    """Show a price in cents as euros."""
    return f"€ {cents / 100:,.2f}"
