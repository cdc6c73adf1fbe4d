"""The package in real projects: published ones, with every credential given by ``secret()``.

Each runs in processes of its own, from the installed package and not from the checkout, against
real servers on 127.0.0.1. What was seen is written down in ``docs/trials.md``.
"""
