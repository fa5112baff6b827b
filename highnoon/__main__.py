"""`python -m highnoon`: the same as the command `highnoon`."""

from highnoon.coordinator.cli.main import main

if __name__ == "__main__":
    main()
