"""How an SFTP server is reached: its URL in parts, the key of its host, the credentials of its user."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncssh

from blocks.errors import ConfigurationError, StorageRefused
from blocks.storage.settings import StorageSettings, secret_in

SSH_PORT = 22
LOGIN_SECONDS = 30.0
"""For so long a login may take, from the first packet on; less where one call may take less."""
KEEPALIVE_SECONDS = 30.0

# each connection would be a message of a level that programs show
if (_spoken := logging.getLogger("asyncssh")).level == logging.NOTSET:
    _spoken.setLevel(logging.WARNING)


@dataclass(frozen=True)
class SftpAddress:
    """The URL of a folder on an SFTP server in its parts.

    Attributes:
        user: None for the name of the local user.
        host: Name or address, in small letters.
        port: 22 where none is given.
        root: The folder as the server is asked for it; a relative one begins where a login does.
    """

    user: str | None
    host: str
    port: int
    root: str

    @property
    def server(self) -> str:
        """The server as a URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == SSH_PORT else f":{self.port}"
        return f"sftp://{self.user + '@' if self.user else ''}{host}{port}"

    @property
    def place(self) -> str:
        """The URL in its one spelling: what tells this place from all others."""
        if self.root.startswith("/"):
            return self.server + self.root
        return f"{self.server}/~" + ("" if self.root == "." else f"/{self.root}")

    @property
    def host_in_known_hosts(self) -> str:
        """How known_hosts names the host."""
        return self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"


def address_of(url: str) -> SftpAddress:
    """Take the URL of a folder on an SFTP server apart.

    Raises:
        ConfigurationError: It names no folder, or holds a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or SSH_PORT
    except ValueError as exc:
        raise ConfigurationError(f"repository.url: {url!r} is no URL: {exc}", hint=_FORM) from exc
    segments = [segment for segment in unquote(parts.path).split("/") if segment not in ("", ".")]
    unusable = parts.query or parts.fragment or ".." in segments or "\0" in unquote(parts.path)
    if not parts.hostname or not parts.path or parts.password is not None or unusable:
        raise ConfigurationError(f"repository.url: {parts.scheme}:// does not name a folder of a server", hint=_FORM)
    relative = segments[:1] == ["~"]
    root = "/".join(segments[1:]) or "." if relative else "/" + "/".join(segments)
    return SftpAddress(unquote(parts.username) if parts.username else None, parts.hostname, port, root)


_FORM = (
    "Write sftp://user@host:port/folder, or sftp://user@host/~/folder for one below the folder of the user's login; "
    "everything else belongs under `storage` of the repository."
)


class SftpLogin:
    """Logs in to an SFTP server whose host key is known; nothing turns that check off.

    Args:
        address: Where it is.
        settings: Keys, passwords, known hosts, timeouts; what is not named is found as ssh finds it.

    Raises:
        ConfigurationError: The key cannot be read, or the variable of the password is not set.
    """

    def __init__(self, address: SftpAddress, settings: StorageSettings) -> None:
        self.address = address
        self.seconds = settings.timeout_seconds
        self._known_hosts = Path(settings.known_hosts or "~/.ssh/known_hosts").expanduser()
        self._credentials = _credentials(settings)

    async def connect(self) -> asyncssh.SSHClientConnection:
        """Open a connection and log in.

        Raises:
            StorageRefused: The host's key is not the known one, or the server knows no such user, key or password.
            asyncssh.Error, OSError: It cannot be reached, or failed.
        """
        address = self.address
        self._require_known_hosts()
        user = {} if address.user is None else {"username": address.user}
        seconds = min(LOGIN_SECONDS, self.seconds)
        try:
            return await asyncssh.connect(
                address.host, address.port, known_hosts=str(self._known_hosts), **user, **self._credentials, **_PLAIN,
                connect_timeout=seconds, login_timeout=seconds, keepalive_interval=KEEPALIVE_SECONDS,
            )  # fmt: skip
        except asyncssh.HostKeyNotVerifiable as exc:
            raise self._other_host(exc) from exc
        except asyncssh.PermissionDenied as exc:
            raise StorageRefused(f"{address.server} refused the login: {exc.reason}", hint=_LOGIN) from exc
        except asyncssh.KeyExchangeFailed as exc:
            raise StorageRefused(
                f"{address.server} and this machine have no algorithm in common: {exc.reason}",
                hint=f"If it is about host keys: {self._known_hosts} may know the host by a key that it has no more.",
            ) from exc
        except ValueError as exc:
            raise StorageRefused(
                f"cannot log in to {address.server}: {exc}",
                hint=f"If it is about known hosts: put {self._known_hosts} right.",
            ) from exc

    def _require_known_hosts(self) -> None:
        try:
            with self._known_hosts.open("rb"):
                return
        except OSError as exc:
            raise StorageRefused(
                f"the known SSH hosts in {self._known_hosts} cannot be read: {exc.strerror}, "
                f"so {self.address.server} cannot be told from an impostor",
                hint=self._enter_it,
            ) from exc

    def _other_host(self, error: asyncssh.HostKeyNotVerifiable) -> StorageRefused:
        address, file = self.address, self._known_hosts
        port = None if address.port == SSH_PORT else address.port
        found = asyncssh.match_known_hosts(str(file), address.host, "", port)
        if found[0] or found[1]:
            return StorageRefused(
                f"{address.server} shows another host key than {file} has: {error.reason}",
                hint="Somebody may listen in. If the server's key was changed, compare its fingerprint with that of "
                f"the new one, remove the old entry (ssh-keygen -R '{address.host_in_known_hosts}' -f {file}), and "
                "enter the new one.",
            )
        return StorageRefused(f"{address.server} is not among the known SSH hosts in {file}", hint=self._enter_it)

    @property
    def _enter_it(self) -> str:
        port = "" if self.address.port == SSH_PORT else f"-p {self.address.port} "
        return (
            f"Get its key with `ssh-keyscan {port}{self.address.host}`, compare the fingerprint with the server's own "
            "(ssh-keygen -lf), and add the line to that file; `storage.known_hosts` of the repository names another."
        )


_LOGIN = (
    "Check the user in the URL, and the key or password: `storage.key_file`, the variable that `storage.secret_env` "
    "names, or else the SSH agent and the keys in ~/.ssh."
)

_PLAIN: dict[str, Any] = {
    # ~/.ssh/config could turn the check of host keys off
    "config": None,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": None,
    "host_based_auth": False,
    "gss_host": None,
    "gss_kex": False,
    "gss_auth": False,
    # what is stored is compressed and sealed already
    "compression_algs": "none",
}


def _credentials(settings: StorageSettings) -> dict[str, Any]:
    """Return what is offered to the server: what is named and nothing else, or else the agent and the default keys."""
    secret = secret_in(settings.secret_env) if settings.secret_env else None
    if settings.key_file is None:
        return {} if secret is None else {"password": secret, "client_keys": None, "agent_path": None}
    path = settings.key_file.expanduser()
    try:
        keys = asyncssh.load_keypairs(str(path))
    except asyncssh.KeyImportError as exc:
        if secret is None:
            raise ConfigurationError(
                f"repository.storage.key_file: {path} cannot be used: {exc}",
                hint="Name the variable with its passphrase as `secret_env`, or leave both out and use the SSH agent.",
            ) from exc
        return {"client_keys": _locked_keys(path, secret), "agent_path": None}
    except OSError as exc:
        raise ConfigurationError(f"repository.storage.key_file: {path} cannot be read: {exc.strerror}") from exc
    return {"client_keys": keys, "agent_path": None, "password": secret}


def _locked_keys(path: Path, passphrase: str) -> Any:
    # a passphrase is no password: the server never gets it
    try:
        return asyncssh.load_keypairs(str(path), passphrase)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as exc:
        raise ConfigurationError(
            f"repository.storage.key_file: {path} cannot be opened with the passphrase in `secret_env`: {exc}",
            hint="Check the passphrase, or leave both out and use the SSH agent.",
        ) from exc
