"""Names and settings of buckets that are a source; nothing here takes long to import."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from blocks.errors import ConfigurationError
from blocks.host.places import Location
from blocks.storage.kinds import check_settings
from blocks.storage.settings import StorageSettings


def is_bucket(url: str) -> bool:
    """Whether a URL names a bucket."""
    return url.lower().startswith("s3://")


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix of a URL; the prefix ends in `/`, or is empty.

    Raises:
        ConfigurationError: It names no bucket.
    """
    parts = urlsplit(url)
    if not parts.netloc or "@" in parts.netloc or ":" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "the URL of a bucket is `s3://bucket` or `s3://bucket/prefix`, and nothing else",
            hint="Endpoint, region and credentials belong under `storage`; a `?` or `#` cannot be in the prefix.",
        )
    prefix = parts.path.removeprefix("/")
    return parts.netloc, prefix if prefix.endswith("/") or not prefix else f"{prefix}/"


def check_bucket(url: str, settings: StorageSettings) -> None:
    """Make sure that a URL and its settings are of a bucket.

    Raises:
        ConfigurationError: They are not.
    """
    split_url(url)
    with of_the_source():
        check_settings(url, settings)


def bucket_location(url: str, settings: StorageSettings) -> Location:
    """Say where the objects of a URL are."""
    bucket, prefix = split_url(url)
    endpoint = (settings.endpoint or "").lower().rstrip("/")
    return Location(shown=place_of(url, settings), server=("s3", endpoint, bucket), prefix=prefix)


def place_of(url: str, settings: StorageSettings) -> str:
    """Name a bucket in messages."""
    return f"{url} at {settings.endpoint}" if settings.endpoint else url


class of_the_source:
    """Errors about settings name the repository, which has the same ones: here they are the source's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ConfigurationError):
            error.message = error.message.replace("repository.storage", "storage").replace("of the repository ", "")
            error.hint = error.hint.replace("of the repository", "of the source")
            error.args = (error.message,)


def shown_keys(keys: Iterable[str], most: int = 5) -> str:
    """Render some keys in a message, and how many more there are."""
    named = list(keys)
    more = f", and {len(named) - most:,} more" if len(named) > most else ""
    return ", ".join(key if key.isprintable() and key else repr(key) for key in named[:most]) + more
