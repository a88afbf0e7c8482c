"""How a message reaches one target, within seconds: by HTTP, by mail, or through a block that Prefect keeps.

What goes wrong is raised as a `LastgoodError` whose words hold no URL: those of Slack and of switches are secrets.
"""

from __future__ import annotations

import logging
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from threading import get_ident
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from blocks.errors import ConfigurationError, LastgoodError
from blocks.plan.notifications import BlockTarget, EmailTarget, Occasion, PingTarget, SlackTarget, Target
from blocks.prefect_compat import import_blocks
from flows.reporting.messages import Message

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 3.0
"""How long a connection, or an answer, is waited for."""
ATTEMPTS = 2
PAUSE_SECONDS = 0.5
"""Between the attempts."""
_HEADERS = {"User-Agent": "lastgood"}
START, SUCCESS, FAIL, LOG = "start", "", "fail", "log"
"""What is added to the URL of a dead man's switch; what is sent to the last one changes nothing there."""


class NotTold(LastgoodError):
    """A target was not told: it did not answer, or refused."""

    exit_code = ConfigurationError.exit_code


class _Passing(Exception):
    """It may be told all the same when it is tried again."""


def deliver(target: Target, message: Message, *, test: bool = False) -> None:
    """Tell one target.

    Args:
        target: Who is told.
        message: What.
        test: Whether it is only tried; a dead man's switch is then told nothing that counts.

    Raises:
        NotTold: It did not answer, in all attempts, or refused.
        ConfigurationError: Its secret, or its block, cannot be read.
    """
    if isinstance(target, PingTarget):
        ping(target, LOG if test else SUCCESS if message.occasion is Occasion.COMPLETED else FAIL, message)
    elif isinstance(target, EmailTarget):
        _mail(target, message)
    elif isinstance(target, BlockTarget):
        _notify(target, message)
    elif isinstance(target, SlackTarget):
        _post(target.read_url(), json={"text": _for_slack(f"*{message.subject}*\n{message.text}")})
    else:
        _post(target.read_url(), json=message.as_json())


def ping(target: PingTarget, step: str, message: Message | None = None) -> None:
    """Tell a dead man's switch of one step: `START`, `SUCCESS`, `FAIL` or `LOG`.

    Raises:
        NotTold: It did not answer, in all attempts, or refused.
        ConfigurationError: Its URL cannot be read.
    """
    parts = urlsplit(target.read_url())
    path = f"{parts.path.rstrip('/')}/{step}" if step else parts.path
    text = f"{message.subject}\n\n{message.text}" if message is not None else ""
    _post(urlunsplit(parts._replace(path=path)), content=text.encode())


def _for_slack(text: str) -> str:
    """Write text so that Slack takes nothing in it for a link, or for the name of who is to be called."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(url: str, **content: Any) -> None:
    import httpx  # what is told to nobody does without

    def once() -> None:
        try:
            # a stream: what it says beside its code is not read, and may have no end
            with _unlogged(), httpx.stream("POST", url, timeout=TIMEOUT_SECONDS, headers=_HEADERS, **content) as answer:
                pass
        except httpx.TransportError as exc:
            raise _Passing(_why(exc)) from None
        except (httpx.HTTPError, httpx.InvalidURL):
            # their words hold the URL
            raise NotTold("its URL cannot be used", hint="Look at what holds it.") from None
        if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise _Passing(f"it answered with HTTP {answer.status_code}")
        if not answer.is_success:
            raise NotTold(
                f"it refused with HTTP {answer.status_code}", hint="Look at its URL, and whether it still takes this."
            )

    _tried(once)


def _why(error: httpx.TransportError) -> str:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return f"it did not answer within {TIMEOUT_SECONDS:g} seconds"
    cause = error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return f"it cannot be reached: {cause.strerror or cause}" if cause is not None else "it cannot be reached"


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the URL of a request out of the log of httpx."""
    logger, mine = logging.getLogger("httpx"), get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != mine

    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)


def _mail(target: EmailTarget, message: Message) -> None:
    letter = EmailMessage()
    letter["Subject"], letter["From"], letter["To"] = message.subject, target.sender, ", ".join(target.to)
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(f"{message.text}\n")
    password = target.read_password()

    def once() -> None:
        try:
            with _connected(target) as server:
                if target.user is not None and password is not None:
                    server.login(target.user, password)
                refused = server.send_message(letter)
            if refused:
                raise NotTold(f"the mail server {target.server} refused {', '.join(refused)}, and took the others")
        except (smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError, TimeoutError) as exc:
            raise _Passing(f"the mail server {target.server} does not answer") from exc
        except smtplib.SMTPRecipientsRefused as exc:
            raise NotTold(f"the mail server {target.server} refused {', '.join(exc.recipients)}") from None
        except smtplib.SMTPResponseException as exc:
            said = f"the mail server {target.server} said {exc.smtp_code}"
            if 400 <= exc.smtp_code < 500:
                raise _Passing(said) from None
            raise NotTold(said, hint="Look at the sender, the user and the password.") from None
        except smtplib.SMTPException as exc:
            raise NotTold(f"the mail server {target.server} cannot do what is asked: {type(exc).__name__}") from None
        except ssl.SSLError as exc:
            raise NotTold(
                f"no secure connection to the mail server {target.server}: {exc.reason}",
                hint="Look at `security` and at the port: 587 for starttls, 465 for tls.",
            ) from None
        except OSError as exc:
            raise _Passing(f"the mail server {target.server} cannot be reached: {exc.strerror or exc}") from None

    _tried(once)


def _connected(target: EmailTarget) -> smtplib.SMTP:
    own = socket.gethostname()  # else it is looked up, for which there is no time limit
    if target.security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(target.host, target.port, own, timeout=TIMEOUT_SECONDS, context=context)
    server = smtplib.SMTP(target.host, target.port, own, timeout=TIMEOUT_SECONDS)
    if target.security == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def _notify(target: BlockTarget, message: Message) -> None:
    # what is not told through Prefect does without it
    import_blocks()
    import httpx as http
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block
    from prefect.exceptions import PrefectException
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        raise ConfigurationError(
            f"no Prefect server is configured, which keeps the block {target.block}",
            hint="Set PREFECT_API_URL, or name a target of another type.",
        )
    try:
        # `_sync`: Prefect does not declare the argument
        found = Block.load(target.block, _sync=True)  # type: ignore[call-arg]
    except (ValueError, RuntimeError, PrefectException, http.HTTPError, OSError) as exc:
        raise ConfigurationError(
            f"the block {target.block} cannot be loaded: {type(exc).__name__}",
            hint="Make it in the Prefect UI, or look at `block` of `notifications` in the plan.",
        ) from None
    if not isinstance(found, NotificationBlock):
        raise ConfigurationError(f"the block {target.block} sends no notifications")
    block = found
    try:
        with block.raise_on_failure():
            block.notify(message.text, message.subject)  # type: ignore[unused-coroutine]  # there is no loop here
    except Exception as exc:  # noqa: BLE001  each kind of block has errors of its own, whose words may hold its URL
        raise NotTold(
            f"the block could not tell ({type(exc).__name__})", hint="Look at what the block holds, in the Prefect UI."
        ) from None


def _tried(once: Any) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            once()
        except _Passing as exc:
            if attempt == ATTEMPTS:
                raise NotTold(f"{exc} ({ATTEMPTS} attempts)") from None
            time.sleep(PAUSE_SECONDS)
        else:
            return
