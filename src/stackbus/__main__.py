"""``python -m stackbus``: the same as the ``stackbus`` command."""

from stackbus.cli.app import main

if __name__ == "__main__":
    main()
