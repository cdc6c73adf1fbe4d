"""Something to sell, somewhere to send it, and somebody who looks after it; prints its page."""

import sys

from django.contrib.auth import get_user_model
from oscar.core.loading import get_model
from oscar.test.factories import create_product

product = create_product(title="A teapot", price=10, num_in_stock=50)
get_model("address", "Country").objects.create(
    iso_3166_1_a2="DE", printable_name="Germany", name="Germany", is_shipping_country=True
)
get_user_model().objects.create_superuser("keeper", "keeper@example.com", "what the keeper types")
sys.stdout.write(product.get_absolute_url())
