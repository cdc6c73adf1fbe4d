from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from django_secret_registry import registry

from .models import Product
from .payment import payment_request


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/catalogue.html", {"products": Product.objects.all()})


@require_POST
def add(request: HttpRequest, slug: str) -> HttpResponse:
    product = get_object_or_404(Product, slug=slug)
    basket = request.session.get("basket", {})
    request.session["basket"] = basket | {slug: basket.get(slug, 0) + 1}
    messages.success(request, f"{product} is in your basket.")
    return redirect("catalogue")


@require_safe
@never_cache
def checkout(request: HttpRequest) -> HttpResponse:
    """Sign a payment request with the live setting ``STRIPE_KEY``."""
    basket: dict[str, int] = request.session.get("basket", {})
    lines = [
        (product, basket[product.slug], product.price * basket[product.slug])
        for product in Product.objects.filter(slug__in=basket)
    ]
    total = sum(price for *_, price in lines)
    context = {"lines": lines, "total": total, "payment": payment_request(total, basket)}
    return render(request, "shop/checkout.html", context)


@require_safe
def stores(request: HttpRequest) -> HttpResponse:
    """Show a map; its template renders the map service's key by the tag ``{% secret %}``."""
    return render(request, "shop/stores.html")


@require_safe
@never_cache
def secrets(request: HttpRequest) -> HttpResponse:
    """List what this process holds: never a value. A real shop would ask for a login here."""
    return render(request, "shop/secrets.html", {"snapshot": registry.snapshot()})
