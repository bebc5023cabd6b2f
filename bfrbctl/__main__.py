"""Run the command line as `python -m bfrbctl`."""

from bfrbctl.cli import main

if __name__ == "__main__":
    main()
