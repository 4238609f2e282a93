"""Serve a WSGI application on loopback: ``python serve.py PORT MODULE [ARGUMENT...]``.

The demonstration and the test cloud run it with the Python of a service's own environment (see
``recipes.py``), so it imports nothing of stackbus.
"""

from __future__ import annotations

import importlib
import signal
import sys


def main() -> None:
    """Serve until SIGTERM."""
    sys.path.pop(0)  # modules of this folder must not shadow the service's
    port, module = int(sys.argv[1]), sys.argv[2]
    # The service parses the remaining arguments as its own options.
    sys.argv = [module.partition(".")[0], *sys.argv[3:]]
    application = importlib.import_module(module).application
    from cheroot import wsgi  # noqa: PLC0415 -- after the service's monkey patches

    server = wsgi.Server(("127.0.0.1", port), application, numthreads=8, timeout=60)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.start()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
