"""``python -m tests.leaks [PATH ...|backends]``: drive the paths, and print what was found in them.

A JSON object on the last line of stdout: path → where a mark was seen. It shows no value.
"""

from __future__ import annotations

import json
import os
import sys
import warnings

warnings.simplefilter("error")
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.leaks.project"

import django  # noqa: E402
from django.core.management import call_command  # noqa: E402

from tests.leaks import driving, sinks  # noqa: E402

if __name__ == "__main__":
    sinks.sentry(masked=False)
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    sinks.watch()
    print(json.dumps(driving.drive(sys.argv[1:])))  # noqa: T201
