"""What has to be done after a rotation: sorl-thumbnail keeps its connection to Redis."""

from django.utils.functional import empty
from sorl.thumbnail import default


def reset_thumbnails(**kwargs):
    default.kvstore._wrapped = empty
