"""``python -m tests.fleet_run``: a fleet of processes over real engines, and how stale it gets."""
