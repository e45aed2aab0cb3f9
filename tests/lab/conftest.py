"""Lab tests run where a lab can be built, else they skip and say why.

With NFREAIM_REQUIRE_LAB in the environment a skip is a failure: a machine that was meant to run them did not.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.lab import kernel_sets, slipstream
from tests.lab.net import lab_available

REQUIRE = "NFREAIM_REQUIRE_LAB"
HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = []
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)
        legacy = item.get_closest_marker("legacy_only")
        if legacy is not None and kernel_sets.NFT:
            left_out.append(item)
            item.add_marker(pytest.mark.skip(f"legacy rules only: {legacy.args[0]}"))
    if left_out and os.environ.get(REQUIRE):  # they were not meant to run, so they are not missed
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    reason = lab_available()
    if reason is not None:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get(REQUIRE):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE} is set, and this lab test did not run: {reason}"
    return report


@pytest.fixture(scope="session")
def hostile() -> Generator[slipstream.Hostile, None, None]:
    """One network for all attacks: what they break in it shows in those that follow."""
    with slipstream.hostile() as made:
        yield made
        assert made.made.daemon.stop() == 0
        assert "failed_flows" not in made.made.daemon.log_text()
