"""The driver of Django's MySQL engine: mysqlclient where it is installed, else PyMySQL."""

from __future__ import annotations

import importlib.util

#: PyMySQL reads the certificates of the system for each connection, which takes longer than all the
#: rest. mysqlclient does not, and has no such option.
OPTIONS = {} if importlib.util.find_spec("MySQLdb") else {"ssl_disabled": True}


def use_driver() -> None:
    """Have Django find a driver under the name of mysqlclient."""
    if importlib.util.find_spec("MySQLdb") is None:
        import pymysql

        pymysql.install_as_MySQLdb()
