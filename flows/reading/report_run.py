"""The report of a plan as it is left in the run that has just changed how the plan stands."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from blocks.plan.plan import BackupPlan
from flows.pipeline.prefect_compat import in_flow_run
from flows.reporting.artifacts import publish_report

logger = logging.getLogger(__name__)


def publish_plan(plan: BackupPlan) -> None:
    """Publish how a plan stands in the run that this is called in; a report that cannot be made stops nothing.

    Args:
        plan: The plan, read and resolved.
    """
    if not in_flow_run():
        return
    # most processes make no report
    from flows.reading.report import read_facts
    from flows.reporting.report_markdown import report_markdown
    from flows.reporting.report_page import health_words, report_page

    now = datetime.now(UTC)
    try:
        facts = read_facts(plan, plan.reference or plan.name, now)
        publish_report(plan.name, health_words(facts.health), report_markdown(facts, now), report_page([facts], now))
    except Exception:  # whatever it is: the work of the run is done
        logger.warning("the report of plan %s was not made", plan.name, exc_info=True)
