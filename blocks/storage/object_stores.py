"""Object stores, opened: what each provider's client is told."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from blocks.errors import ConfigurationError
from blocks.storage.attempts import Attempts, Breaker
from blocks.storage.objects import ObjectTier
from blocks.storage.s3 import s3_credentials, s3_region
from blocks.storage.settings import StorageSettings, secret_in

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSCredential, ObjectStore

CONNECT_SECONDS = 10.0

_IN_MEMORY: dict[str, MemoryStore] = {}

# all attempts are made in one place, which is not here
_NO_RETRIES: Any = {
    "max_retries": 0,
    "retry_timeout": timedelta(seconds=1),
    "backoff": {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=1), "base": 2},
}


@dataclass(frozen=True)
class Address:
    """An object store's URL in its parts: scheme, bucket or container, prefix without slashes around it."""

    scheme: str
    bucket: str
    prefix: str


def address_of(url: str) -> Address:
    """Take the URL of an object store apart.

    Raises:
        ConfigurationError: It names no bucket.
    """
    parts = urlsplit(url)
    if not parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            f"repository.url: {url!r} does not name a bucket",
            hint=f"Write {parts.scheme}://bucket/prefix; everything else belongs under `storage` of the repository.",
        )
    return Address(parts.scheme, parts.netloc, parts.path.strip("/"))


def open_object_tier(url: str, settings: StorageSettings, single_writer: bool) -> ObjectTier:
    """Open an object store; nothing is asked of it yet.

    Raises:
        ConfigurationError: The URL or a setting is wrong, or named credentials cannot be read.
    """
    address = address_of(url)
    try:
        store = _OPENERS[address.scheme](address, settings)
    except BaseError as exc:  # a file with credentials, or a name that there cannot be
        said = str(exc).split("\n", 1)[0]
        raise ConfigurationError(
            f"repository.storage: {said}", hint="Correct `url` and `storage` of the repository (see docs/storage.md)."
        ) from exc
    place = "/".join(part for part in (f"{address.scheme}://{address.bucket}", address.prefix) if part)
    if settings.endpoint:
        place += f" at {settings.endpoint}"
    attempts = Attempts(settings.attempts, settings.retry_seconds, Breaker(place))
    return ObjectTier(url, place, store, attempts, settings.storage_class, single_writer)


def _client(settings: StorageSettings) -> ClientConfig:
    return {
        "timeout": timedelta(seconds=settings.timeout_seconds),
        "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, settings.timeout_seconds)),
        "allow_http": bool(settings.endpoint and settings.endpoint.startswith("http://")),
    }


def _common(address: Address, config: dict[str, Any], settings: StorageSettings) -> dict[str, Any]:
    """Return what is told to the client of each provider."""
    return {
        "prefix": address.prefix or None,
        "config": config,
        "client_options": _client(settings),
        "retry_config": _NO_RETRIES,
    }


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _open_s3(address: Address, settings: StorageSettings) -> ObjectStore:
    endpoint = settings.endpoint
    if endpoint and not settings.in_path:
        scheme, _, host = endpoint.partition("://")
        endpoint = f"{scheme}://{address.bucket}.{host}"
    config = _given(
        endpoint=endpoint,
        region=s3_region(settings),
        virtual_hosted_style_request=not settings.in_path,
        server_side_encryption=settings.server_side_encryption,
        sse_kms_key_id=settings.kms_key,
        # the server compares what arrives with it: not all compare the digest that the request is signed with
        checksum_algorithm="SHA256",
    )
    return S3Store(
        address.bucket,
        **_common(address, config, settings),
        credential_provider=s3_credentials(settings),
    )


def _open_google(address: Address, settings: StorageSettings) -> ObjectStore:
    config = _given(
        base_url=settings.endpoint,
        application_credentials=str(settings.credentials_file) if settings.credentials_file else None,
    )
    # what is reached without TLS is a server for tests, which gets no real token
    for_tests = bool(settings.endpoint and settings.endpoint.startswith("http://") and not settings.credentials_file)
    return GCSStore(
        address.bucket,
        **_common(address, config, settings),
        credential_provider=_no_token if for_tests else None,
    )


def _open_azure(address: Address, settings: StorageSettings) -> ObjectStore:
    config = _given(
        account_name=settings.account,
        endpoint=settings.endpoint,
        account_key=_account_key(settings.secret_env) if settings.secret_env else None,
    )
    return AzureStore(
        address.bucket,
        **_common(address, config, settings),
    )


def _no_token() -> GCSCredential:
    return {"token": "none", "expires_at": None}


def _account_key(variable: str) -> str:
    key = secret_in(variable)
    try:
        base64.b64decode(key, validate=True)
    except ValueError as exc:
        raise ConfigurationError(
            f"repository.storage.secret_env: what {variable} holds is no account key",
            hint="Copy the key of the storage account whole: it is base64 and ends in ==.",
        ) from exc
    return key


def _open_memory(address: Address, _settings: StorageSettings) -> ObjectStore:
    return _IN_MEMORY.setdefault(f"{address.bucket}/{address.prefix}", MemoryStore())


_OPENERS: Mapping[str, Callable[[Address, StorageSettings], ObjectStore]] = {
    "s3": _open_s3,
    "gs": _open_google,
    "az": _open_azure,
    "memory": _open_memory,
}
