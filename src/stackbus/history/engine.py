"""Where SQL runs: the embedded engine, or a ClickHouse server or cluster.

``opened`` gives the one that a DSN means, as ``history.py`` needs it, which alone speaks to it.
Rows travel as JSON, one object a line, in both directions: the same bytes whichever engine it is.

The embedded engine (chDB) lets one process in. So it runs in a process of its own, ``serve.py``,
for as long as anybody needs it: whoever comes first starts it, and all reach it over a Unix socket
beside the data. It takes no time from the recorder's own interpreter there, and ``stackbus events``
works beside a recorder.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from stackbus.errors import HistoryError, HistoryUnreachable, InputError
from stackbus.history.history import Engine, Parameters, Piece
from stackbus.history.wire import LOG, SOCKET, Answer, Ask, in_memory, receive, send, short_path

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_SETTINGS = {
    "date_time_input_format": "best_effort",
    "date_time_output_format": "iso",
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_named_tuples_as_objects": "1",
    "input_format_json_read_objects_as_strings": "1",  # payloads stay the text that they are
    "input_format_parallel_parsing": "0",  # a batch is too small for it
    "max_insert_block_size": "1000000",  # an insert is one block, so it is there or it is not
    "max_partitions_per_insert_block": "0",
    "optimize_on_insert": "0",  # what replaces each other is not in one batch, or is read FINAL
    "max_query_size": "268435456",  # the ids of a whole batch are asked for at once
    "max_ast_elements": "10000000",
    "max_expanded_ast_elements": "10000000",
    "do_not_merge_across_partitions_select_final": "1",
}
_OF_A_CLUSTER = {"distributed_foreground_insert": "1", "insert_quorum": "auto"}
_START_SECONDS = 60.0
_ALLOCATORS = {
    "JE_MALLOC_CONF": "dirty_decay_ms:200,muzzy_decay_ms:0",
    "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
}
"""How the engine's allocators, chDB's own jemalloc and the C library's, give back what is freed:
jemalloc keeps it for five seconds by default, half of what the engine allocates in a backlog."""

R = TypeVar("R")


def opened(dsn: str) -> Engine:
    """Open what ``chdb:///path`` or ``clickhouse[s]://user:password@host:port/database`` means.

    Raises InputError for what is neither, without quoting it: a password may be in it.
    """
    parts = urlsplit(dsn)
    if parts.scheme == "chdb" and parts.path.startswith("/") and not parts.netloc:
        return _Embedded(Path(unquote(parts.path)))
    if parts.scheme in {"clickhouse", "clickhouses"} and parts.hostname:
        secure = parts.scheme == "clickhouses"
        try:
            port = parts.port or (8443 if secure else 8123)
        except ValueError:
            raise InputError("the history's DSN: its port is no number") from None
        return Direct(
            {
                "interface": "https" if secure else "http",
                "host": parts.hostname,
                "port": port,
                "username": unquote(parts.username or "default"),
                "password": unquote(parts.password or ""),
                "database": parts.path.strip("/") or "default",
                "settings": {**_SETTINGS, **_OF_A_CLUSTER},
            }
        )
    raise InputError(
        "the history's DSN: chdb:///an/absolute/path or clickhouse[s]://user@host:port/database"
    )


class Direct:
    """An engine that clickhouse-connect reaches: a server's over HTTP, or in this process.

    Each thread has a client of its own, since a client answers one question at a time.
    """

    has_one_writer = False

    def __init__(self, arguments: dict[str, Any]) -> None:
        """Connect. Raises HistoryError."""
        self._arguments = arguments
        self._clients: list[Client] = []
        self._local = threading.local()
        self._client()

    @classmethod
    def embedded(cls, path: Path) -> Direct:
        """Open the data at ``path`` in this process."""
        return cls({"interface": "chdb", "path": str(path), "settings": _SETTINGS})

    def read(self, sql: str, parameters: Parameters) -> bytes:
        """Run a query."""
        with _translated():
            found = self._client().raw_query(sql, parameters=dict(parameters), fmt="JSONEachRow")
        return bytes(found)

    def run(self, sql: str) -> None:
        """Run a statement."""
        with _translated():
            self._client().command(sql)

    def write(self, table: str, rows: Sequence[Piece]) -> None:
        """Insert rows."""
        with _translated():
            self._client().raw_insert(table, insert_block=b"".join(rows), fmt="JSONEachRow")

    def write_from(self, table: str, file: int) -> None:
        """Insert the rows in a file: what ``write`` does to an engine in this process.

        clickhouse-connect would copy them to a file in /tmp first, since such an engine reads
        files alone.
        """
        self.run(f"INSERT INTO {table} FROM INFILE '/proc/self/fd/{file}' FORMAT JSONEachRow")

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold nobody back: rows replace each other."""
        return nullcontext()

    def close(self) -> None:
        """Close all clients."""
        while self._clients:
            self._clients.pop().close()

    def _client(self) -> Client:
        import clickhouse_connect  # noqa: PLC0415 -- takes a second; the embedded one is elsewhere

        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            # What goes wrong is raised, and said once.
            logging.getLogger(clickhouse_connect.__name__).setLevel(logging.CRITICAL)
            with _translated():
                client = clickhouse_connect.get_client(**self._arguments)
            self._local.client = client
            self._clients.append(client)
        return client


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the engine's errors into ours."""
    from clickhouse_connect.driver.exceptions import Error, OperationalError  # noqa: PLC0415

    try:
        yield
    except (Error, OSError) as error:
        raise _explained(error, may_pass=isinstance(error, OSError | OperationalError)) from error


_MAY_PASS = frozenset(
    {
        *(159, 160, 209, 210, 279, 425, 439),  # too slow, or the network
        *(202, 241, 243, 252, 394),  # too much at once, no memory, no room, too many parts
        *(225, 242, 285, 286, 319, 999),  # replicas and their keeper
    }
)
"""ClickHouse's error codes that waiting may mend (src/Common/ErrorCodes.cpp)."""
_CODE = re.compile(r"\b[Cc]ode:? (\d+)")


def _explained(error: BaseException, *, may_pass: bool) -> HistoryError:
    """Say in a sentence what the engine's error means; what may pass is HistoryUnreachable."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    code = _CODE.search(text)
    if code:
        may_pass = int(code[1]) in _MAY_PASS
    if may_pass or "No space left" in text:
        return HistoryUnreachable(f"the history cannot be reached: {text}")
    return HistoryError(f"the history refuses: {text}")


class _Embedded:
    """The data at a path, through the process that has it open."""

    has_one_writer = True

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the history at {path}: {error.strerror}") from None
        self._path = path
        self._turn = threading.Lock()
        self._there: _Remote | None = None
        self._reached()

    def read(self, sql: str, parameters: Parameters) -> bytes:
        try:
            return self._use(lambda there: there.asked(Ask("read", sql, dict(parameters))))
        except _Gone:  # asking again does no harm
            return self._use(lambda there: there.asked(Ask("read", sql, dict(parameters))))

    def run(self, sql: str) -> None:
        self._use(lambda there: there.asked(Ask("run", sql)))

    def write(self, table: str, rows: Sequence[Piece]) -> None:
        try:
            with in_memory(rows) as file:
                self._use(lambda there: there.asked(Ask("write", table), file))
        except OSError as error:
            reason = f"the history at {self._path} cannot be given a batch: {error.strerror}"
            raise HistoryUnreachable(reason) from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        there = self._use(_locked)
        try:
            yield
        finally:
            with suppress(HistoryUnreachable):  # a lock goes with its connection
                there.asked(Ask("unlock", ""))

    def close(self) -> None:
        if self._there is not None:
            self._there.close()

    def _use(self, work: Callable[[_Remote], R]) -> R:
        there = self._reached()
        try:
            return work(there)
        except _Gone:
            with self._turn:
                if self._there is there:
                    there.close()
                    self._there = None
            raise

    def _reached(self) -> _Remote:
        with self._turn:
            if self._there is None:
                self._there = _reached(self._path)
            return self._there


def _locked(there: _Remote) -> _Remote:
    there.asked(Ask("lock", ""))
    return there


def _reached(path: Path) -> _Remote:
    """Connect to the process that has the data open; start it if there is none."""
    started: subprocess.Popen[bytes] | None = None
    end = time.monotonic() + _START_SECONDS
    while True:
        with suppress(OSError, _Gone):
            return _Remote(path)
        if started is None or started.poll() is not None:
            if started is not None and started.returncode > 0:  # it was not killed
                text = (path / LOG).read_text("utf-8", "replace").strip().splitlines()
                reason = text[-1] if text else f"exit code {started.returncode}"
                raise HistoryError(f"the history at {path} cannot be opened: {reason}")
            started = _start(path)
        if time.monotonic() > end:
            raise HistoryUnreachable(f"the history at {path} does not open")
        time.sleep(0.05)


def _start(path: Path) -> subprocess.Popen[bytes]:
    try:
        output = os.open(path / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(  # noqa: S603 -- our own module
                [sys.executable, "-m", "stackbus.history.serve", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for whoever asked, not for the engine
                env={**_ALLOCATORS, **os.environ},
            )
        finally:
            os.close(output)
    except OSError as error:
        raise HistoryUnreachable(f"the history at {path}: {error.strerror}") from error


class _Gone(HistoryUnreachable):
    """The process that had the history open has ended; the next one to ask starts it anew."""


class _Remote:
    """A connection to the process that has the data open."""

    def __init__(self, path: Path) -> None:
        """Connect, and see that somebody answers. Raises OSError or _Gone."""
        self._path = path
        self._turn = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(path) as short:
                self._socket.connect(f"{short}/{SOCKET}")
            self.asked(Ask("hello", ""))
        except BaseException:
            self._socket.close()
            raise

    def asked(self, ask: Ask, file: int | None = None) -> bytes:
        """Ask, with a ``file`` of rows to write; give the answer's rows. Raises HistoryError."""
        with self._turn:
            try:
                send(self._socket, ask, file=file)
                answered = receive(self._socket)
            except OSError:
                answered = None
        if answered is None:
            raise _Gone(f"the process that had the history {self._path} open has ended")
        answer = msgspec.msgpack.decode(answered.value, type=Answer)
        if answer.error:
            raise (HistoryUnreachable if answer.may_pass else HistoryError)(answer.error)
        return bytes(answered.rows)

    def close(self) -> None:
        """Leave."""
        self._socket.close()
