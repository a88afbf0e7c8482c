"""Where a credential's secret comes from: a passphrase, or a key as text in a file or on paper.

A key is 32 random bytes, written as base32 in groups of four with a checksum, so that it can be typed from paper:

    LASTGOOD-KEY-1-ABCD-EFGH-...      14 groups: the key and 3 bytes of SHA-256 that reveal a typing error
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.crypto.encoding import KEY_BYTES
from blocks.crypto.passphrase import passphrase_at, passphrase_in, passphrase_of, text_at, text_in
from blocks.errors import ConfigurationError
from blocks.host.folders import sync_folder
from blocks.prefect_compat import import_blocks

_KEY_PREFIX = "LASTGOOD-KEY-1"
_CHECKSUM_BYTES = 3
_GROUP = 4
# none of these is in the base32 alphabet, so reading them as their look-alikes costs nothing
_LOOK_ALIKES = str.maketrans("018", "OIB")
_FILE_COMMENT = "# A key of lastgood: whoever has it opens the repository. Keep it secret, and keep a copy elsewhere.\n"


class SecretKind(StrEnum):
    """How a secret becomes a key: a passphrase is stretched first, a key is strong by itself."""

    PASSPHRASE = "passphrase"  # noqa: S105 - a kind, no password
    KEY_FILE = "key-file"


class Guarded:
    """Base of what must not leave the process by accident: it cannot be pickled or copied, and shows nothing."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to travel."""
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be pickled or copied")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(**********)"


class ResolvedSecret(Guarded):
    """A secret as read: the passphrase's bytes (UTF-8 of its NFKC form), or the 32 bytes of a key."""

    def __init__(self, kind: SecretKind, value: bytes) -> None:
        self.kind = kind
        self.value = value


class RecoveryKey(Guarded):
    """A key that is shown once, to be kept on paper.

    Attributes:
        text: The key as people write it; `Credential` takes it back from a file or an environment variable.
    """

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.text = format_key(value)

    @property
    def secret(self) -> ResolvedSecret:
        """The key as a slot is made for it."""
        return ResolvedSecret(SecretKind.KEY_FILE, self.value)


class Credential(BaseModel):
    """Where the secret is read from when it is needed; exactly one field is set. The secret itself is never here.

    Passphrases are compared in Unicode's NFKC form, so that the same words typed on another keyboard open the
    repository; one newline at the end of a passphrase file is not part of the passphrase.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    passphrase_env: str | None = Field(
        default=None, description="Name of the environment variable that holds the passphrase."
    )
    passphrase_file: Path | None = Field(
        default=None, description="File that holds the passphrase; a newline at its end is ignored."
    )
    passphrase_secret: str | None = Field(
        default=None, description="Name of the Prefect Secret block that holds the passphrase."
    )
    key_file: Path | None = Field(
        default=None, description="Key file, or a file with the text of the recovery key, readable by its owner only."
    )
    recovery_key_env: str | None = Field(
        default=None, description="Name of the environment variable that holds the text of the recovery key."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Credential:
        names = list(type(self).model_fields)
        if sum(getattr(self, name) is not None for name in names) != 1:
            raise ValueError(f"a credential names exactly one of {', '.join(names)}")
        return self

    def anchored(self, folder: Path) -> Credential:
        """Return a copy whose relative paths are resolved against `folder` (that of the plan file)."""
        if self.passphrase_file is not None:
            return Credential(passphrase_file=folder / self.passphrase_file.expanduser())
        if self.key_file is not None:
            return Credential(key_file=folder / self.key_file.expanduser())
        return self

    @property
    def variables(self) -> frozenset[str]:
        """Names of the environment variables that hold the secret, or that open the Prefect server which has it."""
        if self.passphrase_secret is not None:
            return frozenset({"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"})
        return frozenset(name for name in (self.passphrase_env, self.recovery_key_env) if name)

    def resolve(self) -> ResolvedSecret:
        """Read the secret.

        Raises:
            ConfigurationError: It is not there, is empty, is not well formed, or others may read the key file.
        """
        if self.passphrase_env is not None:
            return _stretchable(passphrase_in(self.passphrase_env))
        if self.passphrase_file is not None:
            return _stretchable(passphrase_at(self.passphrase_file))
        if self.passphrase_secret is not None:
            text = prefect_secret(self.passphrase_secret)
            return _stretchable(passphrase_of(text, f"Secret block {self.passphrase_secret}"))
        if self.key_file is not None:
            text = text_at(self.key_file, private=True)
            return ResolvedSecret(SecretKind.KEY_FILE, parse_key(text, f"file {self.key_file}"))
        assert self.recovery_key_env is not None
        text = text_in(self.recovery_key_env)
        return ResolvedSecret(SecretKind.KEY_FILE, parse_key(text, f"variable {self.recovery_key_env}"))


def _stretchable(passphrase: bytes) -> ResolvedSecret:
    return ResolvedSecret(SecretKind.PASSPHRASE, passphrase)


def format_key(key: bytes) -> str:
    """Write a key as text: prefix and 14 groups of base32."""
    text = base64.b32encode(key + _checksum(key)).decode("ascii")
    groups = [text[start : start + _GROUP] for start in range(0, len(text), _GROUP)]
    return "-".join([_KEY_PREFIX, *groups])


def parse_key(text: str, place: str) -> bytes:
    """Read a key from text; case, spaces, dashes, lines that begin with #, and a missing prefix do not matter.

    Args:
        text: What `format_key` wrote, or what a person typed.
        place: Where the text came from, for the error.

    Raises:
        ConfigurationError: It is not a key, or was mistyped.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    letters = "".join("".join(lines).replace("-", "").split()).upper()
    letters = letters.removeprefix(_KEY_PREFIX.replace("-", "")).translate(_LOOK_ALIKES)
    expected = (KEY_BYTES + _CHECKSUM_BYTES) * 8 // 5
    if len(letters) != expected:
        raise ConfigurationError(
            f"The {place} holds no lastgood key: {expected} letters and digits after {_KEY_PREFIX} were expected, "
            f"there are {len(letters)}",
            hint="Compare it with the printed recovery key: a group may be missing or doubled.",
        )
    try:
        data = base64.b32decode(letters)
    except (binascii.Error, ValueError) as exc:
        raise _mistyped(place) from exc
    key, checksum = data[:KEY_BYTES], data[KEY_BYTES:]
    if not hmac.compare_digest(checksum, _checksum(key)):
        raise _mistyped(place)
    return key


def write_key_file(path: Path, text: str | None = None) -> None:
    """Create a key file, readable by its owner only, never over an existing one.

    Args:
        path: The file to create.
        text: The key as text, such as the recovery key's; None draws a fresh key.

    Raises:
        ConfigurationError: The file exists or cannot be created, or the text is not a key.
    """
    key = secrets.token_bytes(KEY_BYTES) if text is None else parse_key(text, "text given")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise _exists_already(path) from exc
    except OSError as exc:
        raise ConfigurationError(f"The key file {path} cannot be created: {exc.strerror}") from exc
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{_FILE_COMMENT}{format_key(key)}\n")
            file.flush()
            os.fsync(descriptor)
        sync_folder(path.parent)
    except BaseException as exc:
        # a part of a key opens nothing, and stands in the way of the next attempt
        path.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            raise ConfigurationError(f"The key file {path} cannot be written: {exc.strerror}") from exc
        raise


def check_new_key_file(path: Path) -> None:
    """See that a key file can be created, before anything is changed that needs it.

    Raises:
        ConfigurationError: There is something at its place, or its folder is missing or may not be written.
    """
    if os.path.lexists(path):
        raise _exists_already(path)
    if not path.parent.is_dir():
        raise ConfigurationError(f"The key file {path} cannot be created: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigurationError(f"The key file {path} cannot be created: the folder {path.parent} cannot be written")


def _exists_already(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"The key file {path} exists already", hint="Choose another name: a key that is overwritten is lost."
    )


def generate_key_file(path: Path) -> None:
    """Create a key file with a fresh key.

    Raises:
        ConfigurationError: The file exists or cannot be created.
    """
    write_key_file(path)


def _checksum(key: bytes) -> bytes:
    return hashlib.sha256(b"lastgood/1/key-text" + key).digest()[:_CHECKSUM_BYTES]


def _mistyped(place: str) -> ConfigurationError:
    return ConfigurationError(
        f"The key in the {place} was mistyped: its checksum does not match",
        hint="Compare it group by group with the printed recovery key.",
    )


def prefect_secret(name: str) -> str:
    """Read a Prefect Secret block.

    Raises:
        ConfigurationError: It cannot be loaded, or does not hold text.
    """
    # only needed by plans that use it; importing all of Prefect's own blocks costs start-up time
    import_blocks()
    import httpx
    from prefect.blocks.system import Secret
    from prefect.exceptions import PrefectException

    try:
        # `_sync`: a flow may already run in an event loop; Prefect does not declare the argument
        value = cast("Secret[str]", Secret.load(name, _sync=True)).get()  # type: ignore[call-arg]
    except (ValueError, OSError, PrefectException, httpx.HTTPError) as exc:
        raise ConfigurationError(
            f"The Prefect Secret block {name} cannot be loaded",
            hint="Create it, or check that the Prefect API can be reached (`prefect config view`).",
        ) from exc
    if not isinstance(value, str):
        raise ConfigurationError(f"The Prefect Secret block {name} does not hold text")
    return value
