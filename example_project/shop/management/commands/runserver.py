from __future__ import annotations

from django.contrib.staticfiles.management.commands import runserver
from django.core.management import call_command


class Command(runserver.Command):
    """``runserver`` that makes the database when it starts, so that one command runs the shop."""

    def check_migrations(self) -> None:
        call_command("migrate", verbosity=0)
