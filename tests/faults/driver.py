"""Run the program with something going to happen at one step: python -m tests.faults.driver '{...}' WORD..."""

import json
import signal
import sys
from pathlib import Path

from bfrbctl.cli import main
from tests.faults.steps import Steps, watched

if __name__ == "__main__":
    arguments = json.loads(sys.argv.pop(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it
    with watched(Steps(Path(arguments["root"]), arguments["action"], arguments["at"])):
        main()
