"""Session: the history's database. Named queries, inserts of rows, and migrations, on one engine.

Each table has a file (``events.py``, ``confirmations.py``, ``quarantine.py``, ``positions.py``)
that reads and writes it through a session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from stackbus.errors import HistoryError, InputError
from stackbus.history.embedded import Embedded
from stackbus.history.engine import ClickHouse, Engine, Rows

_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")
_QUERY = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^[ ]*--.*\n|[ ]+--.*$", re.MULTILINE)
_PORT_HTTP, _PORT_HTTPS = 8123, 8443
_encode = msgspec.json.Encoder().encode

R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tables are: on one server, or replicated and distributed over a cluster."""

    clickhouse_cluster: str | None = None


class _Migration(msgspec.Struct):
    number: int
    at: str = ""


def open_engine(dsn: str) -> Engine:
    """Open ``chdb:///path`` or ``clickhouse[s]://user:password@host:port/database``.

    Raises HistoryError, and InputError for another DSN, which it does not quote: a password may be
    in it.
    """
    parts = urlsplit(dsn)
    if parts.scheme == "chdb" and parts.path.startswith("/") and not parts.netloc:
        return Embedded(Path(unquote(parts.path)))
    if parts.scheme in {"clickhouse", "clickhouses"} and parts.hostname:
        tls = parts.scheme == "clickhouses"
        try:
            port = parts.port or (_PORT_HTTPS if tls else _PORT_HTTP)
        except ValueError:
            raise InputError("the DSN of the history: its port is not a number") from None
        return ClickHouse.connect(
            parts.hostname,
            port,
            unquote(parts.username or "default"),
            unquote(parts.password or ""),
            parts.path.strip("/") or "default",
            tls=tls,
        )
    raise InputError(
        "the DSN of the history is neither chdb:///an/absolute/path nor "
        "clickhouse[s]://user@host:port/database"
    )


class Session:
    """A session with the database behind ``engine``. Threads may share it."""

    def __init__(self, engine: Engine, layout: Layout) -> None:
        self._engine = engine
        self._layout = layout

    @property
    def has_one_writer(self) -> bool:
        """Whether two recorders can never insert the same event at the same moment."""
        return self._engine.has_one_writer

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep the writes of other processes out, if they share an embedded engine."""
        return self._engine.exclusive()

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def query(
        self,
        name: str,
        row_type: type[R],
        conditions: Sequence[str] = (),
        placeholders: Mapping[str, str] | None = None,
        **parameters: object,
    ) -> Iterator[R]:
        """Run a query of ``queries.sql``; return its rows."""
        return self.select(self.sql(name, conditions, placeholders), row_type, parameters)

    def query_lines(
        self,
        name: str,
        conditions: Sequence[str] = (),
        placeholders: Mapping[str, str] | None = None,
        **parameters: object,
    ) -> Iterator[bytes]:
        """Run a query of ``queries.sql``; return its rows as JSON."""
        return self._lines(self.sql(name, conditions, placeholders), parameters)

    def select(self, sql: str, row_type: type[R], parameters: Mapping[str, object]) -> Iterator[R]:
        """Run a query; return its rows."""
        decode = msgspec.json.Decoder(row_type).decode
        return (decode(line) for line in self._lines(sql, parameters))

    def sql(
        self,
        name: str,
        conditions: Sequence[str] = (),
        placeholders: Mapping[str, str] | None = None,
    ) -> str:
        """Return a query of ``queries.sql`` with its placeholders filled.

        ``$CONDITIONS`` becomes ``conditions``, whose values are parameters of the query. ``$FINAL``
        merges rows that replace each other, where two writers may have inserted them. The others
        become the texts in ``placeholders``, by name.
        """
        filled = queries()[name].replace("$CONDITIONS", " AND ".join(conditions) or "true")
        filled = filled.replace("$FINAL", "" if self.has_one_writer else "FINAL")
        for placeholder, text in (placeholders or {}).items():
            filled = filled.replace(f"${placeholder}", text)
        return filled

    def insert(self, table: str, rows: Iterable[msgspec.Struct]) -> None:
        """Insert rows; without any, do nothing."""
        lines = [_encode(row) + b"\n" for row in rows]
        if lines:
            self.insert_lines(table, lines)

    def insert_lines(self, table: str, rows: Rows) -> None:
        """Insert rows that are JSON already, in one block."""
        self._engine.insert(table, rows)

    def execute(self, sql: str) -> None:
        """Run the statements of a migration's text (see ``statements``)."""
        for statement in statements(sql, self._layout):
            self._engine.execute(statement)

    def migrate(self) -> None:
        """Bring the tables up to date.

        Raises HistoryError if a newer stackbus has migrated them further.
        """
        with self._engine.exclusive():
            self.execute(
                "CREATE TABLE IF NOT EXISTS migrations $ON_CLUSTER (number UInt32, at DateTime) "
                "ENGINE = $REPLACING() ORDER BY number"
            )
            applied = {migration.number for migration in self.query("migrations", _Migration)}
            newest = max(migrations())
            if applied and max(applied) > newest:
                raise HistoryError(
                    f"this history was written by a newer stackbus (migration {max(applied)}; this "
                    f"one has {newest}): upgrade stackbus"
                )
            for number, text in migrations().items():
                if number not in applied:
                    self.execute(text)
                    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
                    self.insert("migrations", [_Migration(number, now)])

    def _lines(self, sql: str, parameters: Mapping[str, object]) -> Iterator[bytes]:
        return (line for line in self._engine.select(sql, parameters).split(b"\n") if line)


@lru_cache(maxsize=1)
def migrations() -> Mapping[int, str]:
    """Return the texts of the migrations in ``schema/`` by number, in order."""
    folder = resources.files("stackbus.history") / "schema"
    texts = {}
    for file in folder.iterdir():
        if match := _MIGRATION.fullmatch(file.name):
            texts[int(match[1])] = file.read_text("utf-8")
    return dict(sorted(texts.items()))


def statements(text: str, layout: Layout) -> Iterator[str]:
    """Yield the statements of a migration, for one server or for a cluster.

    ``$LOCAL(name)`` is the table on each server, ``$DISTRIBUTED(name, key)`` creates the table over
    all servers of a cluster.
    """
    cluster = layout.clickhouse_cluster
    on_cluster = f"ON CLUSTER '{cluster}'" if cluster else ""
    text = _COMMENT.sub("", text)
    text = text.replace(" $ON_CLUSTER", f" {on_cluster}".rstrip())
    text = text.replace("$REPLACING", f"{'Replicated' if cluster else ''}ReplacingMergeTree")
    text = re.sub(r"\$LOCAL\((\w+)\)", rf"\1{'_local' if cluster else ''}", text)
    for part in text.split(";"):
        statement = part.strip()
        if match := re.fullmatch(r"\$DISTRIBUTED\((\w+), (.*)\)", statement, re.DOTALL):
            if cluster:
                yield (
                    f"CREATE TABLE IF NOT EXISTS {match[1]} {on_cluster} AS {match[1]}_local "
                    f"ENGINE = Distributed('{cluster}', currentDatabase(), "
                    f"{match[1]}_local, {match[2]})"
                )
        elif statement:
            yield statement


@lru_cache(maxsize=1)
def queries() -> Mapping[str, str]:
    """Return the queries of ``queries.sql`` by name, without their comments."""
    text = (resources.files("stackbus.history") / "queries.sql").read_text("utf-8")
    parts = _QUERY.split(text)[1:]
    sqls = (_COMMENT.sub("", sql).strip() for sql in parts[1::2])
    return dict(zip(parts[::2], sqls, strict=True))
