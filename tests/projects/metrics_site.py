"""A site under gunicorn whose only page reads a secret, with django-prometheus' endpoint."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

SECRET_KEY = "not-a-secret-of-the-package"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["django_secret_registry", "django_prometheus"]
PROMETHEUS_METRIC_NAMESPACE = "shop"
SECRET_REGISTRY = {
    "PROVIDERS": {
        "env": {"BACKEND": "django_secret_registry.providers.env.EnvProvider"},
        "unused": {"BACKEND": "django_secret_registry.providers.env.EnvProvider"},
    }
}


def read(request: HttpRequest) -> HttpResponse:
    """Read the secret ten times; answer with the process that did."""
    from django_secret_registry import registry

    for _ in range(10):
        registry.get("env://METRICS_SECRET")
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("read", read), path("", include("django_prometheus.urls"))]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", __name__)


@functools.cache
def _made() -> WSGIHandler:
    return get_wsgi_application()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Make Django's application at the first call, when this module is whole."""
    return _made()(environ, start_response)
