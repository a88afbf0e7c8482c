"""What a Prefect server keeps of runs and plans holds no password; what would is refused before."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from blocks.errors import ConfigurationError
from blocks.plan.plan import load_plan, parse_plan
from deployments.jobs import Timetable, deployments_of
from flows import restore
from tests.e2e.prefect_support import Prefect, SmallPlan
from tests.e2e.shared_server import STARTERS_SECRET

WORD = "sw0rdfish"
PLACES = [f"redis://:{WORD}@h", f"postgresql://me:{WORD}@h/x", f"host=h password={WORD}", f"unix:///s?password={WORD}"]


def runs(prefect: Prefect, plan: SmallPlan) -> list[Any]:
    """Return the restores of a plan, those too that have not begun; other tests use the server at the same time."""
    found = prefect.post("/flow_runs/filter", flows={"name": {"any_": ["restore"]}})
    return [run for run in found if run["parameters"]["plan"] == str(plan.path)]


def test_a_flow_that_is_given_a_password_makes_no_run(prefect: Prefect, small_plan: SmallPlan) -> None:
    before = len(runs(prefect, small_plan))
    for place in PLACES:
        with pytest.raises(ConfigurationError, match="there is a password"):
            restore(str(small_plan.path), to=place)
        with pytest.raises(ConfigurationError, match="there is a password"):
            restore(str(small_plan.path), "latest", None, "preview", None, None, False, "24h", place, return_state=True)
    assert len(runs(prefect, small_plan)) == before


def test_the_api_refuses_a_run_with_a_password(prefect: Prefect, small_plan: SmallPlan) -> None:
    by_hand = next(d for d in deployments_of("trading", str(small_plan.path), Timetable()) if "by-hand" in d.name)
    deployment = by_hand.apply()
    before = len(runs(prefect, small_plan))
    for place in PLACES:
        with pytest.raises(httpx.HTTPStatusError) as caught:
            prefect.post(f"/deployments/{deployment}/create_flow_run", parameters={"to": place})
        assert caught.value.response.status_code == httpx.codes.CONFLICT
    assert len(runs(prefect, small_plan)) == before
    for place in ("redis://me@h:6379/0", None):
        prefect.post(f"/deployments/{deployment}/create_flow_run", parameters={"to": place})
    assert WORD not in json.dumps(runs(prefect, small_plan))
    prefect.delete(f"/deployments/{deployment}")


def test_a_saved_plan_with_a_password_in_it_is_not_used(prefect: Prefect) -> None:
    source = {"type": "postgres", "dsn": "host=h"}
    raw: dict[str, Any] = {"name": "t", "sources": {"books": source}, "repository": {"url": "/r"}}
    document = parse_plan(raw | {"encryption": "none"}, "x").save("older", overwrite=True, _sync=True)
    data = prefect.get(f"/block_documents/{document}?include_secrets=true")["data"]
    data["sources"]["books"]["dsn"] = f"postgresql://me:{WORD}@h/x"
    with get_client(sync_client=True) as client:
        client.update_block_document(document, BlockDocumentUpdate(data=data, merge_existing_data=False))
    with pytest.raises(ConfigurationError, match=r"sources\.books\.dsn: there is a password in it") as caught:
        load_plan("older")
    assert WORD not in "".join(traceback.format_exception(caught.value))
    prefect.delete(f"/block_documents/{document}")


def test_a_prefect_server_of_ours_is_started_without_secrets(prefect_server: Prefect) -> None:
    told = Path(f"/proc/{prefect_server.server.pid}/environ").read_bytes()
    assert STARTERS_SECRET.encode() not in told
    assert b"LASTGOOD_PASSPHRASE" not in told
    assert b"PREFECT_HOME=" in told


def test_a_plan_whose_source_holds_a_password_is_not_saved(prefect: Prefect, small_plan: SmallPlan) -> None:
    source = {"type": "redis", "url": "redis://h", "password": WORD}
    raw = {"name": "t", "sources": {"cache": source}, "repository": {"url": "/r"}, "encryption": "none"}
    plan = parse_plan(raw, "x")
    with pytest.raises(ConfigurationError, match="source cache holds a password"):
        plan.save("holding", overwrite=True, _sync=True)
    kept = prefect.post("/block_documents/filter", include_secrets=True)
    assert WORD not in json.dumps(kept)
