"""A small SFTP server that can lack what others have: python -m tests.sftp_child '{"port": ..., "files": ..., ...}'."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import asyncssh
from asyncssh.sftp import SFTPServerHandler

EXTENSIONS = {"hardlink": b"hardlink@openssh.com", "rename": b"posix-rename@openssh.com", "fsync": b"fsync@openssh.com"}


class Server(asyncssh.SSHServer):
    """Takes one password, beside keys."""

    def __init__(self, password: str) -> None:
        self._password = password

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return password == self._password


def _without(lacking: list[str], advertised: bool) -> type[asyncssh.SFTPServer]:
    def refuse(*_: Any) -> None:
        raise asyncssh.SFTPOpUnsupported("not here")

    names = {"hardlink": "link", "rename": "posix_rename", "fsync": "fsync"}
    if not advertised:
        gone = {EXTENSIONS[one] for one in lacking}
        SFTPServerHandler._extensions = [one for one in SFTPServerHandler._extensions if one[0] not in gone]
    return type("Lacking", (asyncssh.SFTPServer,), {names[one]: refuse for one in lacking})


async def main(
    port: int, files: str, host_key: str, keys: str, password: str, lacking: list[str], advertised: bool
) -> None:
    kind = _without(lacking, advertised)
    await asyncssh.listen(
        "127.0.0.1", port, server_host_keys=[host_key], authorized_client_keys=keys, reuse_address=True,
        server_factory=lambda: Server(password), sftp_factory=lambda channel: kind(channel, chroot=files.encode()),
    )  # fmt: skip
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
