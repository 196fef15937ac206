"""What the integration tests share: a missing tool fails in CI and skips elsewhere."""

from __future__ import annotations

import os
import shutil

import pytest


def missing(what: str) -> None:
    """Skip the test, or fail it where everything must be there (``CI=true``)."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(name)
    return path
