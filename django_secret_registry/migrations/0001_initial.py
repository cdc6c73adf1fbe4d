# As "manage.py makemigrations" writes it; the models are unmanaged, and no table is made.

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="CachedProvider",
            fields=[
                (
                    "name",
                    models.CharField(
                        max_length=1024, primary_key=True, serialize=False, verbose_name="provider"
                    ),
                ),
            ],
            options={
                "verbose_name": "cached provider",
                "verbose_name_plural": "providers",
                "permissions": (
                    ("refresh_cachedprovider", "Can refresh cached provider"),
                    ("evict_cachedprovider", "Can evict cached provider"),
                ),
                "abstract": False,
                "managed": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="CachedSecret",
            fields=[
                (
                    "reference",
                    models.CharField(
                        max_length=1024, primary_key=True, serialize=False, verbose_name="reference"
                    ),
                ),
            ],
            options={
                "verbose_name": "cached secret",
                "verbose_name_plural": "secrets",
                "permissions": (
                    ("refresh_cachedsecret", "Can refresh cached secret"),
                    ("evict_cachedsecret", "Can evict cached secret"),
                ),
                "abstract": False,
                "managed": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                (
                    "name",
                    models.CharField(
                        max_length=1024, primary_key=True, serialize=False, verbose_name="worker"
                    ),
                ),
            ],
            options={
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
                "permissions": (
                    ("refresh_worker", "Can refresh worker"),
                    ("evict_worker", "Can evict worker"),
                ),
                "abstract": False,
                "managed": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
            },
        ),
    ]
