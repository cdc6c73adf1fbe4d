from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.catalogue, name="catalogue"),
    path("basket/<slug:slug>/", views.add, name="add"),
    path("checkout/", views.checkout, name="checkout"),
    path("stores/", views.stores, name="stores"),
    path("secrets/", views.secrets, name="secrets"),
]
