"""What S3, and what speaks its protocol, says of buckets and credentials: repositories and sources are told alike."""

from __future__ import annotations

OTHER_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
"""Codes of a request for a bucket that is in another region."""

CREDENTIALS = {
    "ExpiredToken": "The credentials have expired: get new ones.",
    "TokenRefreshRequired": "The credentials have expired: get new ones.",
    "InvalidToken": "The session token does not belong to the keys, or has expired.",
    "InvalidAccessKeyId": "The storage does not know the access key id; check the credentials.",
    "SignatureDoesNotMatch": "The secret key does not belong to the access key id.",
    "RequestTimeTooSkewed": "The clock of this machine is wrong: the storage takes no request whose time differs.",
}
"""Codes of credentials that are not accepted, and what to do."""
