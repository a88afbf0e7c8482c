"""What object stores say, told apart once and in our words."""

from __future__ import annotations

import re

from obstore import exceptions as said

from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryFull,
    RepositoryUnavailable,
    StorageRefused,
)
from blocks.storage.attempts import Transient
from blocks.storage.s3_codes import CREDENTIALS, OTHER_REGION

_STATUS = re.compile(r"non-2xx status code: (\d{3})([^:|\n]*)")
# in an answer, or what a batch says of one object
_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>|\(code: ([A-Z][A-Za-z0-9]+)\)")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>|\"message\": ?\"([^\"]*)\"")

_NO_PLACE = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "InvalidResourceName", "ContainerBeingDeleted"}
# what S3 answers where a bucket is in another region names no new address
_BARE_REDIRECT = "redirect without LOCATION"
_ARCHIVED = {"InvalidObjectState", "BlobArchived"}
_FULL = {"XMinioStorageFull", "QuotaExceeded", "AccountQuotaExceeded", "InsufficientCapacity"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted"}
_LOCKED = {"LeaseIdMissing", "BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold", "RetentionPolicyNotMet"}
_PASSING_CODES = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout", "Md5Mismatch"}
"""Said with the status 400 of what was spoiled on its way."""
_PERMISSIONS = "Check the credentials, and that they may list, read, write and delete there (see docs/storage.md)."
_UNSAID = "The storage does not say why: the credentials have expired, or may not do that (see docs/storage.md)."
"""Of what is only looked at: such answers have no text."""
_UNREACHED = "Check that the storage works and can be reached from this machine."
_NO_SUCH_PATH = "Check the endpoint: it is the server's address alone; the bucket is in `url`."
_BUSY_CODES = {"InternalError", "SlowDown", "ServiceUnavailable", "OperationTimedOut", "ServerBusy"}
_CREDENTIALS = CREDENTIALS | {
    "AccessDenied": _PERMISSIONS,
    "AuthenticationFailed": "The account key is wrong, or the clocks differ.",
    "AuthorizationFailure": "The account key is wrong, or the account's network rules keep this machine out.",
}
_NO_CREDENTIALS = re.compile(
    r"(?i)169\.254\.\d+\.\d+|metadata\.google|instance metadata|meta-data|latest/api/token"
    r"|credential|token request|OAuth"
)
_ADDRESS = re.compile(r"https?://(?!169\.254|metadata\.google|\S*/(?:meta-data|latest/api/token))\S+")
_RANGE = re.compile(r"status code: 416|Wanted range starting at|non-partial response|CONTENT_RANGE header")

_CAUSES = (
    (re.compile(r"(?i)connection refused"), "connection refused"),
    (re.compile(r"(?i)timed ?out"), "timed out"),
    (re.compile(r"(?i)dns error"), "dns error: the name of the server is not known"),
    (re.compile(r"(?i)connection reset|IncompleteMessage"), "the connection was cut"),
    (re.compile(r"InvalidContentType"), "the server speaks no TLS: is it http:// there?"),
    (re.compile(r"hyper::Error\(\s*Parse\("), "the answer is not HTTP: is it https:// there?"),
)
"""What failed below HTTP, by what stands somewhere in obstore's structures."""
_CERTIFICATE = re.compile(r"(?i)certificate[^\"|\n]{0,80}")
_DOING = re.compile(r"^Generic \w+ error: (?:Error performing list request: )?(?:Error performing [A-Z]+ \S+ - )?")

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


def classified(error: Exception, verb: str, name: str, place: str) -> LastgoodError | Transient:
    """Return what an error of obstore is, as one of ours; `Transient` where trying again can help.

    Args:
        error: What obstore raised.
        verb: What was tried: read, write, look at, list, remove.
        name: The object; empty where the place as a whole is concerned.
        place: Names the storage.
    """
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else None
    code = (found[1] or found[2]) if (found := _CODE.search(text)) else ""
    told = _said(text, status, code)
    what = f"cannot {verb} {name or 'the repository'} in {place}: {told}"
    if code in _NO_PLACE or "specified bucket does not exist" in text:
        return ConfigurationError(
            f"repository.url: there is no bucket or container at {place}",
            hint="Create it, or correct the URL; lastgood makes no buckets.",
        )
    if code in OTHER_REGION or status == 301 or _BARE_REDIRECT in text:
        return ConfigurationError(
            f"repository.storage.region: the bucket of {place} is in another region: {told}",
            hint="Set `region` of the repository's `storage` to that of the bucket.",
        )
    if code in _ARCHIVED:
        return ObjectUnreadable(what, hint="The object is archived: have the storage restore it, then try again.")
    if code in _LOCKED:
        return StorageRefused(what, hint="A rule of the storage keeps the object as it is: a lease, a lock or a hold.")
    if isinstance(error, (said.AlreadyExistsError, said.PreconditionError)) and code not in _CONFLICT:
        return AlreadyExists(f"{name} exists already in {place}")
    if isinstance(error, (FileNotFoundError, said.NotFoundError)):
        return ObjectMissing(f"{name} is not there in {place}")
    if code in _FULL or status == 507:
        return RepositoryFull(what, hint="Free space there: `lastgood retention` works. What was committed is safe.")
    if _lacks_credentials(text, status):
        return StorageRefused(
            f"no credentials for {place} were found: {told}",
            hint="Set them in the environment or name them under `storage` of the repository.",
        )
    refused = isinstance(error, (said.PermissionDeniedError, said.UnauthenticatedError)) or status in (401, 403)
    if refused or code in _CREDENTIALS:
        return StorageRefused(what, hint=_CREDENTIALS.get(code, _PERMISSIONS if code else _UNSAID))
    problem = RepositoryUnavailable(what, hint=_NO_SUCH_PATH if status == 404 else _UNREACHED)
    passing = status in PASSING or code in _CONFLICT | _PASSING_CODES | _BUSY_CODES or (status is None and not code)
    return Transient(problem) if passing else problem


def is_about_range(error: Exception) -> bool:
    """Whether a store could not give the range that it was asked for; each says that in its own way."""
    return bool(_RANGE.search(str(error).split("\n", 1)[0]))


def _lacks_credentials(text: str, status: int | None) -> bool:
    """Whether no credentials could be got; what a token service fails to answer for a moment may pass."""
    said_first = _ADDRESS.sub("", text.split("\n", 1)[0])
    return (status is None or status < 429) and bool(_NO_CREDENTIALS.search(said_first))


def _said(text: str, status: int | None, code: str) -> str:
    """Shorten what obstore says: it prints whole answers, and its own structures after them."""
    found = _MESSAGE.search(text)
    message = ((found[1] or found[2]) if found else "").split("\n", 1)[0]
    if status is not None:
        return " ".join(part for part in (str(status), code, message) if part).rstrip(".")
    first = re.sub(r" in [\d.]+(?:ns|µs|ms|s)\b", "", text.split("\n", 1)[0])
    cause = next((cause for pattern, cause in _CAUSES if pattern.search(text)), "")
    if _lacks_credentials(text, status):  # it was not the storage that was asked
        return f"{first[:200]} ({cause})" if cause else first[:200]
    certificate = _CERTIFICATE.search(text)
    return cause or (certificate[0].lower() if certificate else _DOING.sub("", first)[:200])
