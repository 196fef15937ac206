"""Structured log events for every step in a log's life.

Events pass through the processors that the application configured in structlog and
end in the standard logger ``raftwal``, so a library user who configured nothing sees
warnings only.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog

log: Any = structlog.wrap_logger(logging.getLogger("raftwal"))
