from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

PRODUCTS = [
    ("lantern", "Storm lantern", "Burns for twelve hours, in any weather.", 3900),
    ("thermos", "Thermos flask", "Keeps a litre of tea hot for a day.", 2750),
    ("blanket", "Wool blanket", "Woven by hand; large enough for two.", 8400),
    ("compass", "Pocket compass", "Brass, with a lid, and it points north.", 4600),
]


def fill_shelves(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    product = apps.get_model("shop", "Product")
    product.objects.bulk_create(
        product(slug=slug, name=name, description=text, price=price)
        for slug, name, text, price in PRODUCTS
    )


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Product",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("slug", models.SlugField(unique=True)),
                ("name", models.CharField(max_length=80)),
                ("description", models.TextField()),
                ("price", models.PositiveIntegerField()),
            ],
            options={"ordering": ["name"]},
        ),
        migrations.RunPython(fill_shelves, migrations.RunPython.noop),
    ]
