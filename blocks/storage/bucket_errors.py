"""What S3 says of a bucket that is a source, told apart once and in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.errors import ConfigurationError, LastgoodError, SourceUnavailable
from blocks.storage.bucket_objects import Lost
from blocks.storage.s3_codes import CREDENTIALS, OTHER_REGION

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_PASSING = {408, 429, 500, 502, 503, 504}
_RIGHTS = "Check the access rights of the credentials: they have to list and read there, and to write for a restore."
_REACH = "Check that the storage works and can be reached from this machine, and `endpoint` of the source's `storage`."


def place_error(error: Exception, place: str) -> LastgoodError:
    """Return what an error that concerns a whole bucket is, as one of ours.

    Args:
        error: What botocore or the connection raised.
        place: Names the bucket.
    """
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return SourceUnavailable(
            f"no credentials for {place} were found",
            hint="Set them in the environment, or name them under `storage` of the source (`key_id_env`, `profile`).",
        )
    if not isinstance(error, ClientError):
        return SourceUnavailable(f"{place} cannot be reached: {_first_line(error)}", hint=_REACH)
    code, status = code_of(error)
    if code in _NO_BUCKET or (code == "404" and status == 404):
        return SourceUnavailable(
            f"there is no bucket at {place}",
            hint="Check the source's `url`, and `endpoint` of its `storage`; lastgood makes no buckets.",
        )
    if code in OTHER_REGION or status == 301:
        return ConfigurationError(
            f"storage.region: the bucket of {place} is in another region: {said_of(error)}",
            hint="Set `region` of the source's `storage` to that of the bucket.",
        )
    hint = CREDENTIALS.get(code, _RIGHTS if status in (401, 403) else _REACH)
    return SourceUnavailable(f"{place} cannot be used: {said_of(error)}", hint=hint)


def object_error(error: ClientError, place: str) -> Lost:
    """Return what became of one object.

    Raises:
        LastgoodError: The error concerns the place as a whole.
    """
    code, status = code_of(error)
    if code in _NO_BUCKET or code in OTHER_REGION or code in CREDENTIALS or status in _PASSING:
        raise place_error(error, place) from error
    if status == 404:
        return Lost(None)
    if code == "InvalidObjectState":
        return Lost("it is archived, and the storage has to restore it first")
    return Lost(said_of(error))


def code_of(error: ClientError) -> tuple[str, int]:
    """Return the storage's own code, and the HTTP status; 0 where there is none."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(error.response.get("Error", {}).get("Code", "")), int(status)


def said_of(error: ClientError) -> str:
    """Render what the storage said, on one line."""
    code, status = code_of(error)
    message = str(error.response.get("Error", {}).get("Message", ""))
    words = [str(status) if status and str(status) != code else "", code, message]
    return " ".join(" ".join(word for word in words if word).split()).rstrip(".")[:300]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0][:300]
