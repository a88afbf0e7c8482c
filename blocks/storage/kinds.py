"""The kinds of storage tiers by the scheme of their URL."""

from __future__ import annotations

import inspect
import os
import re
import threading
from collections.abc import Set
from typing import TYPE_CHECKING

from blocks.errors import ConfigurationError
from blocks.host.passwords import has_password
from blocks.host.plugins import Group, plugin
from blocks.storage.base import StorageTier
from blocks.storage.fsync import SCHEME, local_path
from blocks.storage.local import LocalTier

if TYPE_CHECKING:
    from blocks.storage.settings import StorageSettings

_HOLDS_CREDENTIALS = re.compile(
    r"://[^/@]*:[^/@]*@|^(?!sftp:)[^:]*://[^/]*@|[?&][^=]*(key|secret|token|sig|password)[^=]*=", re.I
)

_NEARLY = re.compile(r"\s*([a-z][a-z0-9+.-]*):|([^/\s@:]+@[^/\s@:]+):", re.IGNORECASE)
"""What is written before a colon: the scheme of a URL that lacks slashes, or user and host as ssh takes them."""

_SETTINGS: dict[str, frozenset[str]] = {
    "file": frozenset(),
    "memory": frozenset(),
    "s3": frozenset(
        {"endpoint", "region", "path_style", "storage_class", "server_side_encryption", "kms_key", "profile"}
        | {"credentials_file", "credentials_block", "key_id_env", "secret_env", "token_env"}
    ),
    "gs": frozenset({"endpoint", "storage_class", "credentials_file"}),
    "az": frozenset({"endpoint", "account", "storage_class", "secret_env"}),
    "sftp": frozenset({"secret_env", "key_file", "known_hosts"}),
}
_BY_DEFAULT: dict[str, frozenset[str]] = {
    "s3": frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}),
    "gs": frozenset({"GOOGLE_SERVICE_ACCOUNT_KEY"}),
    "az": frozenset(
        {"AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"}
        | {"AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN"}
    ),
}
"""Variables that hold a secret where a plan names no other credentials."""
_NAMES_CREDENTIALS = ("secret_env", "key_id_env", "profile", "credentials_file", "credentials_block")
_FOR_ALL = frozenset({"timeout_seconds", "attempts", "retry_seconds"})

_opened: dict[str, StorageTier] = {}
_opening = threading.Lock()


def scheme_of(url: str) -> str:
    """Return the kind of a URL; `file` for a path.

    Raises:
        ConfigurationError: It is none that there is, or holds credentials.
    """
    found = SCHEME.match(url)
    if found is None:
        _refuse_what_is_no_path(url)
        local_path(url)
        return "file"
    scheme = found[1].lower()
    if has_password(url) or (scheme != "file" and _HOLDS_CREDENTIALS.search(url)):
        raise ConfigurationError(
            "repository.url: there are credentials in it, where they would be kept and shown",
            hint="Take them out of the URL; set them in the environment, or name them under `storage`.",
        )
    if found[2] != "://" or (scheme not in _SETTINGS and _added(scheme) is None):
        known = ", ".join(f"{one}://" for one in _SETTINGS if one != "memory")
        raise ConfigurationError(
            f"repository.url: backups cannot be kept at {found[0]}…",
            hint=f"Give a path, or a URL of {known}. A package that adds another kind is to be installed here.",
        )
    if scheme == "file":
        local_path(url)
    return scheme


def _refuse_what_is_no_path(url: str) -> None:
    """Make sure that what is taken for a path was not meant to be elsewhere: its backups would lie on this machine."""
    found = _NEARLY.match(url)
    if found is None:
        return
    scheme, login = (found[1] or "").lower(), found[2]
    if login or scheme in _SETTINGS or (scheme and _added(scheme) is not None):
        meant = f"sftp://{login}/…" if login else f"{scheme}://{'/' if scheme == 'file' else ''}…"
        raise ConfigurationError(
            f"repository.url: {found[0].strip()}… is neither a path nor a URL",
            hint=f"Write {meant}; a folder of that name is ./{found[0].strip()}…",
        )


def check_settings(url: str, settings: StorageSettings) -> None:
    """Make sure that the settings are of the URL's kind.

    Raises:
        ConfigurationError: One of them means nothing there.
    """
    scheme = scheme_of(url)
    # a block that was loaded has all of its fields set
    fields = type(settings).model_fields
    given = {name for name, field in fields.items() if getattr(settings, name) != field.get_default()}
    meant = _SETTINGS[scheme] if scheme in _SETTINGS else _of_package(scheme).settings
    foreign = sorted(given - meant - _FOR_ALL)
    if foreign:
        allowed = ", ".join(sorted(meant | _FOR_ALL))
        raise ConfigurationError(
            f"repository.storage: {', '.join(foreign)} means nothing to {scheme}://", hint=f"It knows {allowed}."
        )


def secret_variables(url: str, settings: StorageSettings) -> frozenset[str]:
    """Return the names of the environment variables that let lastgood into a storage."""
    if any(getattr(settings, field) for field in _NAMES_CREDENTIALS):
        return settings.variables
    scheme = scheme_of(url)
    by_default = _BY_DEFAULT.get(scheme, frozenset()) if scheme in _SETTINGS else _of_package(scheme).variables
    return settings.variables | by_default


def open_tier(url: str, settings: StorageSettings, single_writer: bool = False) -> StorageTier:
    """Return the tier of a place; its connections are shared by all who ask for the same.

    Raises:
        ConfigurationError: The URL or a setting is wrong, or named credentials cannot be read.
    """
    scheme = scheme_of(url)
    check_settings(url, settings)
    if scheme == "file":
        return LocalTier(url)
    key = f"{single_writer} {url} {settings.model_dump_json()}"
    with _opening:
        if key not in _opened:
            _opened[key] = _connected(scheme, url, settings, single_writer)
        return _opened[key]


def _connected(scheme: str, url: str, settings: StorageSettings, single_writer: bool) -> StorageTier:
    if scheme not in _SETTINGS:
        return _of_package(scheme).opened(url, settings, single_writer)
    # what local repositories do without is imported only where it is used
    if scheme == "sftp":
        from blocks.storage.sftp import open_sftp_tier

        return open_sftp_tier(url, settings, single_writer)
    from blocks.storage.object_stores import open_object_tier

    return open_object_tier(url, settings, single_writer)


def _added(scheme: str) -> type[StorageTier] | None:
    """Return the tier of a scheme that another package adds; None where none does.

    Raises:
        PluginUnusable: One does, and it cannot be used.
    """
    return plugin(Group.TIERS, scheme, _checked)


def _of_package(scheme: str) -> type[StorageTier]:
    found = _added(scheme)
    assert found is not None, scheme  # whoever asks has its scheme from `scheme_of`
    return found


def _checked(_scheme: str, one: object) -> type[StorageTier]:
    if not (isinstance(one, type) and issubclass(one, StorageTier)):
        raise TypeError("it is no class that derives from StorageTier")
    if inspect.isabstract(one):
        raise ValueError(f"it lacks {', '.join(sorted(one.__abstractmethods__))}")
    for field in ("settings", "variables"):
        names = getattr(one, field)
        if not (isinstance(names, Set) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"its `{field}` is no set of names")
    return one


os.register_at_fork(after_in_child=_opened.clear)
