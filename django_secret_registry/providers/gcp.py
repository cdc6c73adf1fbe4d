"""Google Cloud: one provider per service, each in a file of its own."""

from ._gcp_secret_manager import SecretManagerProvider
from ._gcp_token import AccessTokenProvider

__all__ = ["AccessTokenProvider", "SecretManagerProvider"]
