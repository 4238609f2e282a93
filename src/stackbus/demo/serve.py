"""Serve a WSGI application on loopback: ``python serve.py PORT MODULE [ARGUMENT...]``.

Run by ``openstack.py`` (and by the test cloud) with the Python of an OpenStack service's own
environment; it therefore imports nothing of stackbus.
"""

from __future__ import annotations

import importlib
import signal
import sys


def main() -> None:
    """Serve until SIGTERM."""
    sys.path.pop(0)  # this folder's names must not hide the service's
    port, module = int(sys.argv[1]), sys.argv[2]
    # Services read their own options from the rest.
    sys.argv = [module.partition(".")[0], *sys.argv[3:]]
    application = importlib.import_module(module).application
    from cheroot import wsgi  # noqa: PLC0415 -- after the service has patched what it patches

    server = wsgi.Server(("127.0.0.1", port), application, numthreads=8, timeout=60)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.start()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
