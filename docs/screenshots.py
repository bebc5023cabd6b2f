"""Photograph what `make demo` left: the report of its dataset, and a session in the terminal, for the README.

usage: python docs/screenshots.py [DEMO_FOLDER]      (or make screenshots; needs Chromium)
"""

import os
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from bfrbctl.inspection.report import write_report

IMAGES = Path(__file__).parent / "images"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe src="{page}#sequence" style="width:1000px;height:1180px;border:0"></iframe>"""
TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
body{margin:0;padding:14px 18px;background:#0d1117;color:#e6edf3}
pre{margin:0;font:13px/1.25 "DejaVu Sans Mono",monospace}b{color:#3fb950}</style>"""


def photograph(page: Path, picture: Path, *, width: int, height: int) -> None:
    """Open a page in Chromium and keep what it shows as PNG."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(NAMES)} is installed")
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={width},{height}"
        words = [browser, *FLAGS, f"--user-data-dir={profile}", size, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
    print(f"wrote {picture} ({picture.stat().st_size // 1000} kB)")


def session(*words: str) -> str:
    """Run a command and give what it prints, as HTML."""
    environment = {**os.environ, "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "bfrbctl", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return f"<b>$</b> bfrbctl {escape(' '.join(words))}\n{escape(done.stdout)}"


def main(demo: Path) -> None:
    """Make both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        report, frame, terminal = (Path(folder) / f"{name}.html" for name in ("report", "frame", "terminal"))
        write_report(demo / "data", report)
        frame.write_text(FRAME.format(page=report.name), encoding="utf-8")
        photograph(frame, IMAGES / "report.png", width=1000, height=1180)
        shown = session("inspect", "sequence", str(demo / "data"), "SEQ_000007")
        terminal.write_text(f"{TERMINAL}<pre>{shown}</pre>", encoding="utf-8")
        photograph(terminal, IMAGES / "terminal.png", width=980, height=672)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
