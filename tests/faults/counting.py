"""Tell at the end of a test run how many faults there were of every kind."""

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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write the counts below the results."""
    lines = faults_told(terminalreporter)
    if lines:
        terminalreporter.section("faults that were survived")
        for line in lines:
            terminalreporter.write_line(line)
