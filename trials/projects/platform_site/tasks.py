"""What the worker does."""

from celery import shared_task
from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.mail import send_mail


@shared_task
def report(name):
    """Store a report, mail its name, and return how many users it counts."""
    count = get_user_model().objects.count()
    default_storage.save(f"{name}.txt", ContentFile(f"{count} users"))
    send_mail(name, "is there", None, ["reader@example.com"])
    return count


@shared_task
def fail():
    """Fail while a secret lies about."""
    from django.conf import settings

    payment = {"key": settings.PAYMENT_KEY}
    raise RuntimeError(f"no payment by {len(payment)} keys")
