"""Engine: runs SQL for the history, on a ClickHouse server or on the engine embedded in chDB.

``session.py`` is its only caller. ``ClickHouse`` reaches both kinds through clickhouse-connect; an
embedded engine accepts one process, so others reach it through ``embedded.py``. Rows travel as
JSON, one object a line, in both directions.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stackbus.errors import HistoryError, HistoryUnreachable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Parameters = Mapping[str, Any]
Rows = Sequence[bytes | bytearray | memoryview]
"""Pieces of a text that has a JSON object on each line."""

_SETTINGS = {
    "date_time_input_format": "best_effort",
    "date_time_output_format": "iso",
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_named_tuples_as_objects": "1",
    "input_format_json_read_objects_as_strings": "1",  # a payload is stored as its JSON text
    "input_format_parallel_parsing": "0",  # a batch is too small for it
    "max_insert_block_size": "1000000",  # an insert is one block, so it is atomic
    "max_partitions_per_insert_block": "0",
    "optimize_on_insert": "0",  # a batch has no rows that replace each other
    "max_query_size": "268435456",  # one query looks up the notifications of a whole batch
    "max_ast_elements": "10000000",
    "max_expanded_ast_elements": "10000000",
    "do_not_merge_across_partitions_select_final": "1",
}
_CLUSTER_SETTINGS = {"distributed_foreground_insert": "1", "insert_quorum": "auto"}


class Engine(Protocol):
    """Runs SQL. Raises HistoryError, or HistoryUnreachable for a failure that may pass.

    ``has_one_writer``: ``exclusive`` keeps all other writers out, so that no two of them insert the
    same notification at the same moment.
    """

    has_one_writer: bool

    def select(self, sql: str, parameters: Parameters) -> bytes:
        """Run a query; return its rows as JSON, one object a line."""

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing."""

    def insert(self, table: str, rows: Rows) -> None:
        """Insert rows in one block, which is there as a whole or not at all."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep the writes of other processes out, if they share an embedded engine."""

    def close(self) -> None:
        """Close the connection to the engine."""


class ClickHouse:
    """An engine that clickhouse-connect reaches: a server over HTTP, or chDB in this process.

    Each thread has a client of its own, since a client runs one query at a time.
    """

    has_one_writer = False

    def __init__(self, arguments: dict[str, Any]) -> None:
        """Connect with the ``arguments`` of clickhouse_connect.get_client. Raises HistoryError."""
        self._arguments = arguments
        self._clients: list[Client] = []
        self._local = threading.local()
        self._client()

    @classmethod
    def connect(
        cls, host: str, port: int, username: str, password: str, database: str, *, tls: bool
    ) -> ClickHouse:
        """Connect to a ClickHouse server, or to one server of a cluster."""
        return cls(
            {
                "interface": "https" if tls else "http",
                "host": host,
                "port": port,
                "username": username,
                "password": password,
                "database": database,
                "settings": {**_SETTINGS, **_CLUSTER_SETTINGS},
            }
        )

    @classmethod
    def open_here(cls, path: Path) -> ClickHouse:
        """Open the data at ``path`` in this process, which must be the only one."""
        return cls({"interface": "chdb", "path": str(path), "settings": _SETTINGS})

    def select(self, sql: str, parameters: Parameters) -> bytes:
        """Run a query; return its rows."""
        with _translate_errors():
            rows = self._client().raw_query(sql, parameters=dict(parameters), fmt="JSONEachRow")
        return bytes(rows)

    def execute(self, sql: str) -> None:
        """Run a statement."""
        with _translate_errors():
            self._client().command(sql)

    def insert(self, table: str, rows: Rows) -> None:
        """Insert rows in one block."""
        with _translate_errors():
            self._client().raw_insert(table, insert_block=b"".join(rows), fmt="JSONEachRow")

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep nobody out: rows inserted twice on a server replace each other."""
        return nullcontext()

    def close(self) -> None:
        """Close the clients of all threads."""
        while self._clients:
            self._clients.pop().close()

    def _client(self) -> Client:
        import clickhouse_connect  # noqa: PLC0415 -- takes a second; embedded.py does without

        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            # It logs each error that it raises; the error that we raise is reported once.
            logging.getLogger(clickhouse_connect.__name__).setLevel(logging.CRITICAL)
            with _translate_errors():
                client = clickhouse_connect.get_client(**self._arguments)
            self._local.client = client
            self._clients.append(client)
        return client


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise the errors of clickhouse-connect as HistoryError or HistoryUnreachable."""
    from clickhouse_connect.driver.exceptions import Error, OperationalError  # noqa: PLC0415

    try:
        yield
    except (Error, OSError) as error:
        is_temporary = isinstance(error, OSError | OperationalError)
        raise _history_error(error, is_temporary=is_temporary) from error


_TEMPORARY_CODES = frozenset(
    {
        *(159, 160, 209, 210, 279, 425, 439),  # timeouts and the network
        *(202, 241, 243, 252, 394),  # too many queries or parts, no memory, no disk space
        *(225, 242, 285, 286, 319, 999),  # replicas and ZooKeeper
    }
)
"""ClickHouse's error codes that may pass by themselves (src/Common/ErrorCodes.cpp)."""
_CODE = re.compile(r"\b[Cc]ode:? (\d+)")


def _history_error(error: BaseException, *, is_temporary: bool) -> HistoryError:
    """Return our error for the engine's: its first line, and by its code whether it may pass."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    code = _CODE.search(text)
    if code:
        is_temporary = int(code[1]) in _TEMPORARY_CODES
    if is_temporary or "No space left" in text:
        return HistoryUnreachable(f"the history cannot be reached: {text}")
    return HistoryError(f"the history refused: {text}")
