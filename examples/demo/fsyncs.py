"""Quantiles of the log's fsync times, from a scrape of /metrics."""

from __future__ import annotations

import math
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

HISTOGRAM = "raftwal_wal_fsync_duration_seconds"


class Fsyncs(NamedTuple):
    """How many there were, and the times that half and 99 in 100 of them stayed below."""

    total: int
    p50_seconds: float
    p99_seconds: float


def fsyncs_of(metrics: str) -> Fsyncs:
    """Raises ``ValueError`` when the scrape has no such histogram."""
    buckets: dict[float, float] = {}
    for family in text_string_to_metric_families(metrics):
        if family.name == HISTOGRAM:
            for sample in family.samples:
                if sample.name == f"{HISTOGRAM}_bucket":
                    bound = float(sample.labels["le"])
                    buckets[bound] = buckets.get(bound, 0.0) + sample.value
    if math.inf not in buckets:
        raise ValueError(f"no histogram {HISTOGRAM} in the scrape")
    return Fsyncs(int(buckets[math.inf]), quantile(0.5, buckets), quantile(0.99, buckets))


def quantile(fraction: float, buckets: dict[float, float]) -> float:
    """As Prometheus's ``histogram_quantile``: linear within the bucket that holds it.

    ``buckets`` are cumulative counts by upper bound, infinity included.
    """
    rank = fraction * buckets[math.inf]
    if rank == 0:
        return math.nan
    lower_bound, lower_count = 0.0, 0.0
    for bound in sorted(buckets):
        count = buckets[bound]
        if count >= rank:
            if math.isinf(bound):
                break
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / (
                count - lower_count
            )
        lower_bound, lower_count = bound, count
    return lower_bound
