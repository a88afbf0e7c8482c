"""Credentials of S3, from where a plan names them: profile, credentials file, variables, Prefect block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blocks.errors import ConfigurationError
from blocks.storage.settings import StorageSettings, secret_in

if TYPE_CHECKING:
    from obstore.store import S3Credential

_LIFETIME_SECONDS = 300
"""Credentials that may be renewed by somebody else are asked for again after so long."""
_NO_CREDENTIALS = "repository.storage: AWS' configuration files hold no credentials for this profile"


def s3_credentials(settings: StorageSettings) -> Callable[[], S3Credential] | None:
    """Return what gives the credentials that the settings name; None to look where AWS' tools do.

    Raises:
        ConfigurationError: They are not there.
    """
    if settings.credentials_block:
        return _from_block(settings.credentials_block)
    if settings.names_keys:
        return _from_variables(settings)
    if settings.profile or settings.credentials_file or _has_own_files():
        return _from_files(settings)
    return None


def s3_region(settings: StorageSettings) -> str | None:
    """Return the region of the bucket as far as it is named; None to look in the environment."""
    in_environment = any(name in os.environ for name in ("AWS_REGION", "AWS_DEFAULT_REGION"))
    if settings.region or (in_environment and not settings.profile):
        return settings.region
    if settings.profile or _has_own_files():
        with _errors_of_files():
            found: str | None = _session(settings).get_config_variable("region")
        return found
    return None


def _has_own_files() -> bool:
    """Whether AWS' files are there and the environment does not say it all; obstore reads none of them."""
    if "AWS_ACCESS_KEY_ID" in os.environ or "AWS_WEB_IDENTITY_TOKEN_FILE" in os.environ:
        return False
    given = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE"), os.environ.get("AWS_CONFIG_FILE"))
    return "AWS_PROFILE" in os.environ or any(
        os.path.exists(os.path.expanduser(path))
        for path in (given[0] or "~/.aws/credentials", given[1] or "~/.aws/config")
    )


def _fixed(key_id: str, secret: str, token: str | None = None) -> Callable[[], S3Credential]:
    return lambda: {"access_key_id": key_id, "secret_access_key": secret, "token": token, "expires_at": None}


def _from_variables(settings: StorageSettings) -> Callable[[], S3Credential]:
    key_id = secret_in(settings.key_id_env or "AWS_ACCESS_KEY_ID", "key_id_env")
    secret = secret_in(settings.secret_env or "AWS_SECRET_ACCESS_KEY", "secret_env")
    return _fixed(key_id, secret, secret_in(settings.token_env, "token_env") if settings.token_env else None)


def _session(settings: StorageSettings) -> Any:
    import botocore.session

    session = botocore.session.Session(profile=profile_of(settings))
    if settings.credentials_file:
        session.set_config_variable("credentials_file", str(settings.credentials_file))
    return session


def profile_of(settings: StorageSettings) -> str | None:
    """Return the profile that a session is opened with; None leaves it to AWS' rules.

    Raises:
        ConfigurationError: The credentials file that is named is not there.
    """
    if settings.credentials_file:
        if not settings.credentials_file.exists():
            raise ConfigurationError(
                f"repository.storage.credentials_file: there is no file {settings.credentials_file}",
                hint="Correct the path, or name other credentials.",
            )
        # a profile that is named comes before the environment, and so must a file
        return settings.profile or os.environ.get("AWS_PROFILE", "default")
    return settings.profile


@contextmanager
def _errors_of_files() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except BotoCoreError as exc:
        raise ConfigurationError(f"repository.storage: {exc}", hint="Name a profile that there is.") from exc


def _from_files(settings: StorageSettings) -> Callable[[], S3Credential]:
    from datetime import UTC, datetime, timedelta

    from botocore.credentials import RefreshableCredentials

    def read() -> Any:
        with _errors_of_files():
            found = _session(settings).get_credentials()
        if found is None:
            raise ConfigurationError(_NO_CREDENTIALS, hint="Run `aws configure`, or name other credentials.")
        return found

    credentials = read()

    def now() -> S3Credential:
        nonlocal credentials
        if not isinstance(credentials, RefreshableCredentials):
            credentials = read()  # somebody may have written new ones; those that expire are renewed by botocore
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_LIFETIME_SECONDS),
        }

    return now


def _from_block(reference: str) -> Callable[[], S3Credential]:
    """Read a Prefect block that has AWS' fields: prefect-aws' AwsCredentials, or one of MinIO's."""
    from prefect.blocks.core import Block

    try:
        block: Any = Block.load(reference, _sync=True)  # type: ignore[call-arg]  # the decorator takes it
    except ValueError as exc:
        raise ConfigurationError(
            f"repository.storage.credentials_block: there is no Prefect block {reference}: {exc}",
            hint="Write type/name, for example aws-credentials/production; prefect-aws has to be installed.",
        ) from exc
    for key_id, secret in (
        ("aws_access_key_id", "aws_secret_access_key"),
        ("minio_root_user", "minio_root_password"),
    ):
        found = getattr(block, key_id, None), _plain(getattr(block, secret, None))
        if found[0] and found[1]:
            return _fixed(found[0], found[1], _plain(getattr(block, "aws_session_token", None)))
    raise ConfigurationError(
        f"repository.storage.credentials_block: {reference} holds no access key",
        hint="Fill in its access key id and secret key, or name other credentials.",
    )


def _plain(secret: Any) -> str | None:
    shown = secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret
    return str(shown) if shown else None
