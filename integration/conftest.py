"""What the integration tests share: a missing tool fails in CI and skips elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what the servers wrote, for every fixture that has ``logs``."""
    report = yield
    if report.failed:
        for name, fixture in getattr(item, "funcargs", {}).items():
            if hasattr(fixture, "logs"):
                report.sections.append((f"logs of {name}", fixture.logs()))
    return report


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


@pytest.fixture(scope="module")
def etcd():
    """etcd's own packages, of the newest release."""
    from etcd_packages import EtcdPackages  # noqa: PLC0415  # it asks this file for programs

    with EtcdPackages() as packages:
        yield packages
