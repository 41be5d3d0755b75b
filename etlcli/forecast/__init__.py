"""What a run would do, without doing it: the run itself, rehearsed against a cache and a table that keep nothing.

    source ─▶ the run as it is (etlcli.pipeline) ─▶ RehearsedCache, metered like Momento's ─▶ RehearsedSink, counted

So what is predicted is what the run's own code comes to, down to the ledger's pages. Without ``exact`` only a sample of
the rows is read, and the figures are scaled up. What a run by the Lambda functions would do follows from the same
figures (``remote``).
"""

from __future__ import annotations

from etlcli.forecast.bill import Bill, RemoteBill, Timing, make_bill, make_remote_bill, price_sources, timing_of
from etlcli.forecast.facts import facts_of, remote_facts, sum_of
from etlcli.forecast.figures import Forecast, RuleCount, Verdict, as_if
from etlcli.forecast.limits import DEFAULT_LIMITS, Limits
from etlcli.forecast.rehearsal import rehearse
from etlcli.forecast.remote import Remote, remote_of, work_of

__all__ = [
    "DEFAULT_LIMITS",
    "Bill",
    "Forecast",
    "Limits",
    "Remote",
    "RemoteBill",
    "RuleCount",
    "Timing",
    "Verdict",
    "as_if",
    "facts_of",
    "make_bill",
    "make_remote_bill",
    "price_sources",
    "rehearse",
    "remote_facts",
    "remote_of",
    "sum_of",
    "timing_of",
    "work_of",
]
