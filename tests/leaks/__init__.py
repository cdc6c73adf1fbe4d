"""One set of secrets, driven through every path by which one could be seen.

``python -m tests.leaks`` switches all of it on at once (logging at DEBUG, Sentry, celery, metrics,
error pages and mails, the admin), drives each path, and prints as JSON where in which path a mark
was found. ``test_leaks.py`` runs it; ``test_leaks_planted.py`` runs it on copies of the package in
which a leak was planted.
"""
