"""Celery as its guide for Django has it."""

import os
import threading

from celery import Celery
from celery.signals import worker_process_init

from django_secret_registry import registry

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "platform_site.settings")
app = Celery("platform_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_process_init.connect
def start_registry(**kwargs):
    registry.start()


def reset(**kwargs):
    """Have Celery connect anew: it keeps its result backend, and connections for sending tasks."""
    app._backend_cache, app._local = None, threading.local()
    app._pool = app.amqp._producer_pool = None
