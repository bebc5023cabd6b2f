"""Report at the end of a test run how many faults of every kind there were, and how serving did under load."""

from collections import Counter
from typing import Any


def faults_told(reporter: Any) -> list[str]:
    """Add up what the tests of faults recorded; one line a kind."""
    counts: Counter[str] = Counter()
    for report in reporter.stats.get("passed", []):
        if "faults" in report.nodeid:
            for name, value in report.user_properties:
                counts[name] += value
    return [f"{name}: {value}" for name, value in sorted(counts.items())]


def load_told(reporter: Any) -> list[str]:
    """What the tests of serving under load measured."""
    reports = [report for report in reporter.stats.get("passed", []) if "serving_load" in report.nodeid]
    return [f"{name}: {value}" for report in reports for name, value in report.user_properties]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write the counts below the results."""
    lines = faults_told(terminalreporter) + load_told(terminalreporter)
    if lines:
        terminalreporter.section("faults and load that were survived")
        for line in lines:
            terminalreporter.write_line(line)
