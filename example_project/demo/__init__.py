"""Runs the shop against a secret manager that the demo brings along; see ``python -m demo -h``."""
