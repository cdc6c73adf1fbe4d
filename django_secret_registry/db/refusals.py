"""How a database says that it refuses a login: user and password do not match, or no longer.

Nothing else counts, since nothing else is mended by another version of the secret: not a server
that is down, a database that does not exist, or a host that ``pg_hba.conf`` rejects.
"""

from __future__ import annotations

import re

#: PostgreSQL's own texts, in the languages of its catalogue, those of PgBouncer, and of accounts
#: that a rotation has retired. Text, because libpq gives no SQLSTATE for a connection that was not
#: made, and so neither psycopg does (psycopg issue 1188). User names are quoted in these texts.
_TEXTS = (
    r"\b(?:password|PAM|LDAP|RADIUS|SASL) authentication failed",
    r'role "[^"]*" (?:does not exist|is not permitted to log in)',
    r"Passwort-Authentifizierung für Benutzer .* fehlgeschlagen",
    r"autentificación password falló",
    r"authentification par mot de passe échouée",
    r"autenticazione con password fallita",
    r"パスワード認証に失敗しました",
    r"პაროლით ავთენტიფიკაცია .* ვერ მოხერხდა",
    r"password 인증을 실패했습니다",
    r"не прошёл проверку подлинности \(по паролю\)",
    r"Lösenordsautentisering misslyckades",
    r"не пройшов автентифікацію за допомогою пароля",
    r"Password 认证失败",
)
_POSTGRESQL = re.compile("|".join(_TEXTS))
#: 28P01 is invalid_password. 28000 also covers what no password mends: the text decides.
_INVALID_PASSWORD = "28P01"  # noqa: S105 - a SQLSTATE
#: ER_ACCESS_DENIED_ERROR of MySQL and MariaDB. Whom no host rule admits gets 1130.
_ACCESS_DENIED = 1045
#: Oracle: invalid user name or password.
_ORACLE = re.compile(r"\bORA-01017\b")


def is_refused(vendor: str, error: Exception) -> bool:
    """Whether a driver's ``error`` of a connect says that the login was refused.

    ``vendor`` is that of the engine: ``postgresql``, ``mysql`` or ``oracle``.
    """
    if vendor == "mysql":
        return error.args[:1] == (_ACCESS_DENIED,)
    if vendor == "oracle":
        return bool(_ORACLE.search(str(error)))
    # psycopg 3 calls it sqlstate, psycopg2 pgcode.
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code == _INVALID_PASSWORD or bool(_POSTGRESQL.search(str(error)))
