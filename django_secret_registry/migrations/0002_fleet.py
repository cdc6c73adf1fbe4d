# As "manage.py makemigrations" writes it: the tables of DatabaseBus, empty with any other bus.

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_secret_registry", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="FleetEvent",
            fields=[
                ("number", models.BigIntegerField(primary_key=True, serialize=False)),
                ("event", models.TextField()),
                ("written", models.FloatField(db_index=True)),
            ],
            options={
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="FleetLog",
            fields=[
                ("id", models.SmallIntegerField(primary_key=True, serialize=False)),
                ("log", models.CharField(max_length=32)),
                ("number", models.BigIntegerField()),
            ],
            options={
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="FleetReport",
            fields=[
                ("worker", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("head", models.TextField()),
                ("rest", models.TextField()),
                ("seen", models.FloatField()),
                ("lifetime", models.FloatField()),
            ],
            options={
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
            },
        ),
    ]
