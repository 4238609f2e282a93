"""A TCP proxy between what is tested and a broker, which a test can cut or make silent."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack


class Proxy:
    """A TCP proxy that a test can cut, or make silent: the bus behind it is then away."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self.down = False
        self._speaks = threading.Event()
        self._speaks.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.down = True
        for one in self._open:
            one.close()
        self._open.clear()

    def fall_silent(self) -> None:
        """Keep connections open and accept new ones, and pass nothing on, like a lost route."""
        self._speaks.clear()

    def speak(self) -> None:
        self._speaks.set()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self.down:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._speaks.wait()
                sink.sendall(data)
        except OSError:
            pass
        finally:
            with ExitStack() as stack:
                stack.callback(source.close)
                stack.callback(sink.close)
