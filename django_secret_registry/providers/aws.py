"""AWS, through boto3: one provider per service, each in a file of its own."""

from ._aws_rds import RDSAuthTokenProvider
from ._aws_secrets_manager import SecretsManagerProvider
from ._aws_ssm import ParameterStoreProvider
from ._aws_sts import AssumeRoleProvider

__all__ = [
    "AssumeRoleProvider",
    "ParameterStoreProvider",
    "RDSAuthTokenProvider",
    "SecretsManagerProvider",
]
