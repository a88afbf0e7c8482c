"""Who is told of what becomes of a plan's backups: by mail, Slack, a webhook, Prefect's blocks, a dead man's switch.

A plan names where a secret is read from (a variable, a file, a Prefect Secret block), and never holds one. That goes
for URLs, too: those of Slack and of dead man's switches are secrets as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from blocks.crypto.credential import prefect_secret
from blocks.crypto.passphrase import text_at, text_in
from blocks.errors import ConfigurationError
from blocks.host.passwords import has_password

_TOKEN = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_-]{20,}")
_BLOCK = r"^[a-z0-9-]+/[a-z0-9-]+$"
_SERVER = re.compile(r"\[?[A-Za-z0-9_.:-]+?\]?(?::[0-9]{1,5})?")


class Occasion(StrEnum):
    """What somebody may be told of."""

    FAILED = "failed"
    """A backup, restore or retention failed or was done in part, or a verification ended without proving the backup."""
    CORRUPTED = "corrupted"
    """A verification found stored bytes that are bad, or a backup that cannot be restored."""
    SUSPICIOUS = "suspicious"
    """A backup was made whose content departs from those before it."""
    OVERDUE = "overdue"
    """There is no good backup within the RPO; the server watches for it, so only Prefect's blocks are told."""
    COMPLETED = "completed"
    """A backup, restore or retention did all of its work."""
    VERIFIED = "verified"
    """A verification found a backup good."""


USUAL = (Occasion.FAILED, Occasion.CORRUPTED, Occasion.SUSPICIOUS)
"""What is told of where a plan does not say."""


class _Target(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    secret: ClassVar[str] = ""
    """The field that is a secret, whose place the fields `SECRET_env`, `SECRET_file` and `SECRET_secret` name."""

    @model_validator(mode="before")
    @classmethod
    def _not_on(cls, given: Any) -> Any:
        if isinstance(given, dict) and True in given:
            raise ValueError("YAML takes `on` for true; what a target is told of is called `when`")
        return given

    @property
    def shown(self) -> str:
        """What messages call it."""
        return str(getattr(self, "type", ""))

    @property
    def variables(self) -> frozenset[str]:
        """Names of the environment variables that hold its secret."""
        name = getattr(self, f"{self.secret}_env", None)
        return frozenset({name}) if name else frozenset()

    def check(self) -> str:
        """Read its secret, and say in words that all is there.

        Raises:
            ConfigurationError: It cannot be read, or is not what it should be.
        """
        return "nothing is to be read for it"

    def anchored(self, folder: Path) -> Self:
        """Return a copy whose relative path is resolved against a folder."""
        path = getattr(self, f"{self.secret}_file", None)
        if path is None:
            return self
        return self.model_copy(update={f"{self.secret}_file": folder / path.expanduser()})

    def _places(self) -> dict[str, Any]:
        """Return where the secret is read from, by field; those that are set."""
        names = (f"{self.secret}_{kind}" for kind in ("env", "file", "secret"))
        return {name: value for name in names if (value := getattr(self, name, None)) is not None}

    def _read(self) -> str:
        """Read the secret.

        Raises:
            ConfigurationError: It is not there, or is empty.
        """
        (field, place), *_ = self._places().items()
        try:
            if field.endswith("_env"):
                text = text_in(place)
            elif field.endswith("_file"):
                text = text_at(place, private=False)
            else:
                text = prefect_secret(place)
        except ConfigurationError as exc:
            raise ConfigurationError(exc.message, hint=f"Look at `{field}` of `notifications` in the plan.") from exc
        if not text.strip():
            raise ConfigurationError(f"what `{field}` of `notifications` names is empty")
        return text.strip()


class _Choosing(_Target):
    when: tuple[Occasion, ...] = Field(
        default=USUAL,
        min_length=1,
        description="What it is told of: failed, corrupted, suspicious, completed, verified; the first three by "
        "default.",
    )

    @field_validator("when")
    @classmethod
    def _can_be_told(cls, when: tuple[Occasion, ...]) -> tuple[Occasion, ...]:
        if Occasion.OVERDUE in when:
            raise ValueError(
                "what is overdue is seen by the Prefect server, which tells targets of type block; a target of type "
                "ping raises the alarm without one"
            )
        return when

    def wants(self, occasion: Occasion) -> bool:
        """Return whether it is told of something."""
        return occasion in self.when


class _WithSecretUrl(_Target):
    secret: ClassVar[str] = "url"  # noqa: S105  the name of a field

    url_env: str | None = Field(default=None, description="Name of the environment variable that holds the URL.")
    url_file: Path | None = Field(default=None, description="File that holds the URL.")
    url_secret: str | None = Field(default=None, description="Name of the Prefect Secret block that holds the URL.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if len(self._places()) != 1:
            raise ValueError("it names exactly one of url_env, url_file, url_secret: its URL is a secret")
        return self

    def read_url(self) -> str:
        """Return the URL.

        Raises:
            ConfigurationError: It cannot be read, or is no URL.
        """
        return _checked(self._read(), self.shown)

    def check(self) -> str:
        """Read its URL."""
        self.read_url()
        return "its URL can be read"


class SlackTarget(_WithSecretUrl, _Choosing):
    """A channel of Slack, or of what takes the same messages, such as Mattermost; by an incoming webhook."""

    type: Literal["slack"]


class WebhookTarget(_WithSecretUrl, _Choosing):
    """A URL that is posted JSON."""

    type: Literal["webhook"]
    url: str | None = Field(default=None, description="The URL, where there is no secret in it.")

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            _ = parts.port
            refused = bool(parts.username or parts.password or parts.query) or has_password(url)
        except ValueError:
            raise ValueError("it is no URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write a URL of http or https")
        if refused or any(_TOKEN.fullmatch(step) for step in parts.path.split("/")):
            raise ValueError("there may be a secret in it, where a plan would show it; name it by url_env or url_file")
        return url

    def _places(self) -> dict[str, Any]:
        return super()._places() | ({"url": self.url} if self.url is not None else {})

    def read_url(self) -> str:
        """Return the URL.

        Raises:
            ConfigurationError: It cannot be read, or is no URL.
        """
        return self.url if self.url is not None else super().read_url()

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"webhook {urlsplit(self.url).hostname}" if self.url is not None else "webhook"


class PingTarget(_WithSecretUrl):
    """A dead man's switch: it is told that a backup begins, was made, or failed, and raises the alarm if it is not.

    As those of Healthchecks: `URL/start`, `URL`, `URL/fail`. A verification that finds a backup bad is a failure, too.
    An emergency backup, which may hold part of the state, counts for nothing.
    """

    type: Literal["ping"]


class EmailTarget(_Choosing):
    """Addresses that are written to through a mail server."""

    secret: ClassVar[str] = "password"  # noqa: S105  the name of a field

    type: Literal["email"]
    to: tuple[str, ...] = Field(min_length=1, description="Addresses that are written to.")
    sender: str = Field(description="Address that it is from.")
    server: str = Field(description="The mail server, as host or host:port.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is kept secret; usual ports: 587, 465, and 25 for none."
    )
    user: str | None = Field(default=None, description="Who logs in; nobody where it is not set.")
    password_env: str | None = Field(
        default=None, description="Name of the environment variable that holds the password."
    )
    password_file: Path | None = Field(default=None, description="File that holds the password.")
    password_secret: str | None = Field(
        default=None, description="Name of the Prefect Secret block that holds the password."
    )

    @field_validator("to", mode="before")
    @classmethod
    def _one(cls, to: Any) -> Any:
        return [to] if isinstance(to, str) else to

    @field_validator("to", "sender")
    @classmethod
    def _addresses(cls, given: str | Sequence[str]) -> str | Sequence[str]:
        for address in (given,) if isinstance(given, str) else given:
            if not re.fullmatch(r'[^@\s<>,;:()"\\]+@[^@\s<>,;]+', address):
                raise ValueError("write an address such as ops@example.com")
        return given

    @field_validator("server")
    @classmethod
    def _host(cls, server: str) -> str:
        try:
            parts = urlsplit(f"//{server}")
            usable = _SERVER.fullmatch(server) and parts.port != 0 and (parts.hostname or "").encode("idna")
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("write host or host:port, such as mail.example.com:587")
        return server

    @model_validator(mode="after")
    def _whole(self) -> Self:
        named = len(self._places())
        if named != (1 if self.user is not None else 0):
            raise ValueError(
                "`user` goes with exactly one of password_env, password_file, password_secret, and they with it"
            )
        if named and self.security == "none":
            raise ValueError("a password is sent over a secure connection only: write starttls or tls for `security`")
        return self

    @property
    def host(self) -> str:
        """The mail server."""
        return urlsplit(f"//{self.server}").hostname or self.server

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(f"//{self.server}").port or {"starttls": 587, "tls": 465, "none": 25}[self.security]

    def read_password(self) -> str | None:
        """Return the password; None where nobody logs in.

        Raises:
            ConfigurationError: It cannot be read, or no login takes it.
        """
        if self.user is None:
            return None
        password = self._read()
        if not (self.user + password).isascii():
            raise ConfigurationError(
                "the user or the password of a mail server has characters beyond ASCII",
                hint="A login at a mail server takes none: let its administrator give you others.",
            )
        return password

    def check(self) -> str:
        """Read its password."""
        return f"through {self.host}:{self.port}" + (", its password can be read" if self.read_password() else "")


class BlockTarget(_Target):
    """A notification block that Prefect keeps; `lastgood deploy` also makes automations that use it."""

    type: Literal["block"]
    block: str = Field(pattern=_BLOCK, description="The block as type/name, such as slack-webhook/ops.")
    when: tuple[Occasion, ...] = Field(
        default=(*USUAL, Occasion.OVERDUE),
        min_length=1,
        description="What it is told of: failed, corrupted, suspicious, overdue, completed, verified; the first four "
        "by default.",
    )

    def wants(self, occasion: Occasion) -> bool:
        """Return whether it is told of something."""
        return occasion in self.when

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"block {self.block}"

    def check(self) -> str:
        """Say who has what is to be read."""
        return "the Prefect server keeps it"


Target = SlackTarget | WebhookTarget | PingTarget | EmailTarget | BlockTarget

Notifications = tuple[Annotated[Target, Field(discriminator="type")], ...]


def _checked(url: str, what: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(c.isspace() for c in url):
        raise ConfigurationError(f"what is named as the URL of `{what}` is none of http or https")
    return url
