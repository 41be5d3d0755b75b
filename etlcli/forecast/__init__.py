"""What a run would do, without doing it: the run itself, rehearsed against a cache and a table that keep nothing.

    source ─▶ the run as it is (etlcli.pipeline) ─▶ RehearsedCache, metered like Momento's ─▶ RehearsedSink, counted

So what is predicted is what the run's own code comes to, down to the ledger's pages. Without ``exact`` only a sample of
the rows is read, and the figures are scaled up.
"""

from __future__ import annotations

from etlcli.forecast.bill import DEFAULT_LIMITS, Bill, Limits, Timing, make_bill, price_sources, timing_of
from etlcli.forecast.facts import facts_of, sum_of
from etlcli.forecast.figures import Forecast, RuleCount, Verdict
from etlcli.forecast.rehearsal import rehearse

__all__ = [
    "DEFAULT_LIMITS",
    "Bill",
    "Forecast",
    "Limits",
    "RuleCount",
    "Timing",
    "Verdict",
    "facts_of",
    "make_bill",
    "price_sources",
    "rehearse",
    "sum_of",
    "timing_of",
]
