"""Which errors of drivers say that a login was refused; the texts are those of real servers."""

from __future__ import annotations

import psycopg
import pymysql
import pytest

from django_secret_registry.db.refusals import is_refused

AT = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    "text",
    [
        'FATAL:  password authentication failed for user "app"',
        'FATAL:  PAM authentication failed for user "app"',
        'FATAL:  LDAP authentication failed for user "app"',
        "FATAL:  SASL authentication failed",
        'FATAL:  role "app" does not exist',
        'FATAL:  role "app" is not permitted to log in',
        "FATAL:  Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen",
        "FATAL:  la autentificación password falló para el usuario «app»",
        "FATAL:  authentification par mot de passe échouée pour l'utilisateur  « app »",
        'FATAL:  autenticazione con password fallita per l\'utente "app"',
        'FATAL:  ユーザー"app"のパスワード認証に失敗しました',
        'FATAL:  პაროლით ავთენტიფიკაცია მომხმარებლისთვის "app" ვერ მოხერხდა',
        '치명적오류:  사용자 "app"의 password 인증을 실패했습니다',
        'ВАЖНО:  пользователь "app" не прошёл проверку подлинности (по паролю)',
        'FATAL:  Lösenordsautentisering misslyckades för användare "app"',
        'FATAL:  користувач "app" не пройшов автентифікацію за допомогою пароля',
        '致命错误:  用户 "app" Password 认证失败',
    ],
)
def test_refused_by_postgresql(text):
    """A refused login is known by PostgreSQL's text, in each language of its catalogue."""
    assert is_refused("postgresql", psycopg.OperationalError(AT + text))


@pytest.mark.parametrize(
    "text",
    [
        'FATAL:  database "app" does not exist',
        'FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "app", database "app", SSL off',
        'FATAL:  pg_hba.conf rejects connection for host "10.0.0.2", user "app", database "app"',
        "FATAL:  sorry, too many clients already",
        "FATAL:  the database system is starting up",
        'FATAL:  Peer authentication failed for user "app"',
        "Connection refused",
        "fe_sendauth: no password supplied",
        "timeout expired",
    ],
)
def test_not_refused_by_postgresql(text):
    """Nothing that another password would not mend counts as a refused login."""
    assert not is_refused("postgresql", psycopg.OperationalError(AT + text))


def test_sqlstate():
    """A driver that knows the SQLSTATE is believed; 28000 alone says too little."""
    assert is_refused("postgresql", psycopg.errors.InvalidPassword("whatever"))
    assert not is_refused("postgresql", psycopg.errors.InvalidAuthorizationSpecification("no"))
    psycopg2_error = psycopg.OperationalError("whatever")
    psycopg2_error.pgcode = "28P01"
    assert is_refused("postgresql", psycopg2_error)


@pytest.mark.parametrize(
    ("code", "refused"),
    [(1045, True), (1044, False), (1049, False), (1130, False), (1040, False), (2003, False)],
)
def test_mysql(code, refused):
    """MySQL and MariaDB refuse a login by number 1045."""
    assert is_refused("mysql", pymysql.err.OperationalError(code, "Access denied")) is refused


def test_oracle():
    """Oracle refuses a login by ORA-01017."""
    assert is_refused("oracle", RuntimeError("ORA-01017: invalid credential"))
    assert not is_refused("oracle", RuntimeError("ORA-12541: cannot connect. No listener"))
    assert not is_refused("mysql", RuntimeError())
