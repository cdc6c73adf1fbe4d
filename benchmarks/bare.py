"""The same project without the app, for the start-up benchmark."""

SECRET_KEY = "not a secret: nothing is signed here" * 2
INSTALLED_APPS = ["django_prometheus"]
DATABASES: dict[str, object] = {}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
USE_TZ = True
PLAIN_KEY = "a plain setting"
