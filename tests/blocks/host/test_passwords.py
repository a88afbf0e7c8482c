"""Passwords in places: every spelling is found, nothing else is, and none is ever repeated."""

from __future__ import annotations

import re

import pytest

from blocks.errors import ConfigurationError
from blocks.host.passwords import PATTERN, has_password, refuse_password, without_password

WORD = "sw0rdfish"

HOLDING = [
    f"postgresql://me:{WORD}@host:5432/books",
    f"postgres://me:{WORD}@host",
    f"POSTGRESQL://me:{WORD}@host",
    f"postgresql://:{WORD}@host/books",
    f"postgresql://me:a@{WORD}@host/books",
    f"postgresql://me:a?{WORD}@host/books",
    f"postgresql://me:a/{WORD}@host/books",
    f"postgresql://me:1/{WORD}@host/books",
    f"postgresql://me:a/b?{WORD}@host/books",
    f"postgresql://me:a#{WORD}@host/books",
    f"postgresql://me:{WORD}%40x@host/books",
    f"postgresql://me%3A{WORD}@host/books",
    f"postgresql://me%3a{WORD}%40host/books",
    f"postgresql:me:{WORD}@host/books",
    f"postgresql:///me:{WORD}@host/books",
    f"postgresql://host/books?password={WORD}",
    f"postgresql://host/books?x=1&password={WORD}&y=2",
    f"postgresql://host/books?Password={WORD}",
    f"postgresql://host/books?pass%77ord={WORD}",
    f"postgresql://host/books?sslpassword={WORD}",
    f"postgresql://host/?dbname=postgresql%3A%2F%2Fme%3A{WORD}%40other%2Fbooks",
    f"postgresql://host/books?oauth_client_secret={WORD}",
    f"host=db password={WORD}",
    f"password={WORD}",
    f"host=db password = {WORD} dbname=x",
    f"host=db\tpassword='{WORD} x'",
    f"dbname='books'password={WORD}",
    f"host=db sslpassword={WORD}",
    f"PGPASSWORD={WORD} host=db",
    f"dbname=postgresql://me:{WORD}@host/x",
    f"redis://:{WORD}@localhost:6379/0",
    f"redis://me:{WORD}@localhost",
    f"rediss://me:{WORD}@localhost",
    f"redis:me:{WORD}@localhost",
    f"redis+sentinel://me:{WORD}@a:26379,b/master/0",
    f"rediss+cluster://me:{WORD}@a,b",
    f"redis://localhost?password={WORD}",
    f"redis://localhost/0?db=1&pwd={WORD}",
    f"redis://localhost/0?auth={WORD}",
    f"unix://me:{WORD}@/run/redis.sock",
    f"unix:///run/redis.sock?password={WORD}",
    f"unix://:{WORD}@/run/redis.sock?db=0",
    f"file://me:{WORD}@host/state",
    f"https://me:{WORD}@host/x",
    f"s3://bucket/x?aws_secret_access_key={WORD}",
    f"me:{WORD}@host:5432/books",
    f"//me:{WORD}@host/books",
    f":{WORD}@host",
]

FREE = [
    "",
    "/srv/copy.db",
    "./state/models",
    "~/copy",
    "file:///srv/a:b@c/copy",
    "./a:b@c",
    "/srv/me:x@y/z",
    "unix:///run/redis.sock?db=0",
    "unix:///run/a:b@c/redis.sock",
    "redis://localhost:6379/0",
    "redis://me@localhost:6379/0?password_env=CACHE_PASSWORD",
    "redis://[::1]:6379/0",
    "redis+sentinel://me@a:26379,[::1]/my%20master/7",
    "rediss+cluster://me@a:1,b,[::1]:7/?password_env=X",
    "postgresql:///books",
    "postgresql://me@host:5432/books",
    "postgresql://me@h1:1,h2:2/books?target_session_attrs=any",
    "postgresql://host:5432/books?user=me@tenant",
    "postgresql://[2001:db8::1]:5432/books?user=me@tenant",
    "postgresql://me@/books?host=/var/run/postgresql",
    "postgresql://host/books?passfile=/home/me/.pgpass&require_auth=scram-sha-256",
    "host=db user=me dbname=books",
    "host=db passfile=/x/.pgpass require_auth=password,scram-sha-256",
    "host=db password='' dbname=books",
    "host=db options='-c password_encryption=scram-sha-256'",
    "trading.state:manager",
    "dump.rdb",
    "proof:/tmp/x/dump.rdb",
]


@pytest.mark.parametrize("place", HOLDING)
def test_a_password_is_found_in_every_spelling_and_never_repeated(place: str) -> None:
    assert has_password(place)
    assert WORD not in without_password(place)
    with pytest.raises(ConfigurationError) as caught:
        refuse_password(place, "the place")
    assert WORD not in f"{caught.value.message}{caught.value.hint}{caught.value!r}"
    assert "environment variable" in caught.value.hint


@pytest.mark.parametrize("place", FREE)
def test_a_place_without_a_password_is_left_as_it_is(place: str) -> None:
    assert not has_password(place)
    assert without_password(place) == place
    refuse_password(place, "the place")


def test_what_a_server_is_told_to_refuse_needs_no_flags() -> None:
    assert "(?i" not in PATTERN
    plain = [place for place in HOLDING if "pass%77" not in place and "dbname=postgresql%3A" not in place]
    assert all(re.search(PATTERN, place) for place in plain)
    assert not any(re.search(PATTERN, place) for place in FREE)
