"""The moment of a restore: never one that is still to come, and the same one whatever zone it is written in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from blocks.errors import ConfigurationError
from flows.restore import make_restore
from flows.restoring.point_in_time import checked_moment
from flows.restoring.request import RestoreRequest
from tests.flows.flow_support import Shop

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Tokyo"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "later",
    [
        datetime(2027, 3, 1, 12, 0, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=-5))),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_moment_that_is_still_to_come_is_refused(later: datetime) -> None:
    with pytest.raises(ConfigurationError, match="in the future: it is 2026-03-01 12:00:00 UTC now"):
        checked_moment(later, NOW)


@pytest.mark.usefixtures("_zone")
def test_a_moment_without_a_zone_is_local_time() -> None:
    local = NOW.astimezone().replace(tzinfo=None)
    assert checked_moment(local, NOW) == NOW
    with pytest.raises(ConfigurationError, match="in the future"):
        checked_moment(local + timedelta(seconds=1), NOW)


def test_what_has_been_is_given_back_in_utc() -> None:
    assert checked_moment(None, NOW) is None
    assert checked_moment(NOW, NOW) == NOW
    tokyo = timezone(timedelta(hours=9))
    assert checked_moment(datetime(2026, 3, 1, 20, 0, tzinfo=tokyo), NOW) == datetime(2026, 3, 1, 11, 0, tzinfo=UTC)


@pytest.mark.parametrize("moment", [datetime.min, datetime.min.replace(tzinfo=timezone(timedelta(hours=9)))])
def test_a_moment_that_no_clock_can_show_is_refused(moment: datetime) -> None:
    with pytest.raises(ConfigurationError):
        checked_moment(moment, NOW)


def test_a_restore_as_of_the_future_is_refused_also_as_a_parameter(tmp_path_factory: pytest.TempPathFactory) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.fill()
    made = shop.back_up()
    shop.db.execute("DELETE FROM orders")
    live = shop.picture()
    for at in (datetime.now(UTC) + timedelta(days=365), datetime.now() + timedelta(days=365)):
        with pytest.raises(ConfigurationError, match="in the future"):
            shop.restore(at=at)
    assert (shop.picture(), shop.ids) == (live, [made.backup_id])
    naive = datetime.now()
    assert make_restore(shop.plan, RestoreRequest(preview=True, at=naive)).backup_id == made.backup_id
