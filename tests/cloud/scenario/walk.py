"""What a scenario is made of: actors who call APIs, and the record of what they did.

Used by the sections beside this file. Each call gets a request id of its own, sent as
``X-OpenStack-Request-Id``: services carry it into their notifications (and into the calls they
make to each other), so that what was told can be held against what was done, call by call.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import NotFoundException, SDKException

from tests.cloud.catalogue import connect
from tests.cloud.place import Place, wait_until

PATIENCE = 180.0
"""Seconds until a resource must have become what it was told to."""

REQUEST_ID = "X-OpenStack-Request-Id"


@dataclass
class Call:
    """One thing that was done: which call, by whom, on what, when, and how it ended.

    ``call`` is ``<service>.<resource>.<action>``; ``outcome`` is success or failure, as seen by the
    caller; ``requests`` are the HTTP requests it took, each with method, path, status and the
    request id that the service gave it; ``request_id`` is the one that the caller gave.
    """

    call: str
    user: str
    user_id: str | None
    project_id: str | None
    resource_id: str | None
    begin: str
    end: str = ""
    outcome: str = "success"
    error: str | None = None
    as_expected: bool = True
    request_id: str = ""
    requests: list[dict[str, object]] = field(default_factory=list)


class Walk:
    """The whole record; sections in several threads write into it."""

    def __init__(self, place: Place, progress: Callable[[str], None]) -> None:
        self.place = place
        self.tag = secrets.token_hex(3)
        self.calls: list[Call] = []
        self.tokens: set[str] = set()
        self.problems: list[str] = []
        self.people: dict[str, tuple[str, str, str]] = {}
        self.projects: dict[str, str] = {}
        self.progress = progress
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        """Keep a call that has ended."""
        with self._lock:
            self.calls.append(call)
        if not call.as_expected:
            self.problem(f"{call.call} by {call.user}: {call.outcome}: {call.error}")

    def problem(self, sentence: str) -> None:
        """Keep what went otherwise than meant; the check fails of it."""
        with self._lock:
            self.problems.append(sentence)
        self.progress(f"PROBLEM {sentence}")

    def save(self, path: Path) -> None:
        """Write the record, one call a line, in the order of their beginnings."""
        calls = sorted(self.calls, key=lambda one: one.begin)
        path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in calls), "utf-8")

    def admin(self) -> Actor:
        """Give the cloud's administrator, logged in to its project."""
        connection = connect(self.place, "admin", self.place.password, project_name="admin")
        return Actor(self, "admin", connection)

    def system_admin(self) -> Actor:
        """Give the administrator, logged in to the system."""
        connection = connect(self.place, "admin", self.place.password, system_scope="all")
        return Actor(self, "admin", connection)

    def person(self, name: str) -> Actor:
        """Give one of the scenario's people, logged in to their project."""
        user, password, project = self.people[name]
        return Actor(self, name, connect(self.place, user, password, project_name=project))


class Actor:
    """A user, logged in. ``do`` is the one way in which a scenario changes anything."""

    def __init__(
        self, walk: Walk, name: str, connection: Any, login: str = "keystone.token.create"
    ) -> None:
        self.walk = walk
        self.name = name
        self.cloud = connection
        self._current: Call | None = None
        self._http = connection.session.session
        self._http.hooks["response"].append(self._note)
        self.user_id: str | None = None
        self.project_id: str | None = None
        self.do(login, connection.authorize, id_of=lambda _: None)
        self.user_id = connection.current_user_id
        self.project_id = connection.current_project_id

    def do(
        self,
        call: str,
        function: Callable[..., Any],
        /,
        *arguments: Any,
        refused: bool = False,
        id_of: Callable[[Any], str | None] | None = None,
        **named: Any,
    ) -> Any:
        """Call ``function`` and record it; give its result, or None if it failed.

        ``refused``: the call is meant to fail. The resource's id is the result's, or else that of
        the first argument; ``id_of`` gives it where neither does.
        """
        record = Call(call, self.name, self.user_id, self.project_id, None, _now())
        record.request_id = f"req-{uuid.uuid4()}"
        self._http.headers[REQUEST_ID] = record.request_id
        self._current = record
        result = None
        try:
            result = function(*arguments, **named)
        except (SDKException, ClientException) as error:
            record.outcome, record.error = "failure", f"{type(error).__name__}: {error}"[:600]
        finally:
            self._current = None
            del self._http.headers[REQUEST_ID]
        record.end = _now()
        record.as_expected = (record.outcome == "failure") == refused
        record.resource_id = (
            id_of(result) if id_of else identifier(result) or _first_identifier(arguments)
        )
        self.walk.add(record)
        return result

    def rest(
        self, service: str, method: str, path: str, body: object = None, **headers: str
    ) -> Any:
        """Make a call that the SDK lacks; ``headers``: with underscores. Gives the answer's JSON."""
        content = {"data": body} if isinstance(body, bytes) else {"json": body} if body else {}
        answer = self.cloud.session.request(
            path,
            method,
            endpoint_filter={"service_type": service, "interface": "public"},
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            **content,
        )
        return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else {}

    def until(self, read: Callable[[], str], *wanted: str, bad: tuple[str, ...] = ()) -> str:
        """Ask until the answer is one of ``wanted``; a thing that is not there reads GONE."""
        state = ""

        def is_settled() -> bool:
            nonlocal state
            try:
                state = read()
            except (NotFoundException, ClientException) as error:
                if getattr(error, "http_status", getattr(error, "status_code", 404)) != 404:
                    raise
                state = "GONE"
            return state in wanted or state in bad

        wait_until(is_settled, PATIENCE, 0.5)
        if state not in wanted:
            raise Stuck(f"{self.name} wanted {' or '.join(wanted)}; it is {state!r}")
        return state

    def _note(self, response: Any, *_: object, **__: object) -> None:
        token = response.headers.get("X-Subject-Token")
        if token:
            self.walk.tokens.add(token)
        if self._current is not None:
            headers = response.headers
            self._current.requests.append(
                {
                    "method": response.request.method,
                    "path": response.request.path_url,
                    "status": response.status_code,
                    "request_id": headers.get("X-OpenStack-Request-Id")
                    or headers.get("X-Compute-Request-Id")
                    or headers.get("Openstack-Request-Id"),
                }
            )


class Stuck(Exception):
    """A resource that did not become what it was told to."""


def identifier(result: object) -> str | None:
    """Give the id of what a call returned: the SDK's resource, or an answer of REST."""
    if isinstance(result, Mapping) and not hasattr(result, "_original_body"):
        inner = next(iter(result.values())) if len(result) == 1 else result
        for found in (result, inner):
            if isinstance(found, Mapping):
                for key in ("id", "uuid", "notification_uuid"):
                    if isinstance(found.get(key), str):
                        return str(found[key])
        return None
    value = getattr(result, "id", None)
    return value if isinstance(value, str) else None


def _first_identifier(arguments: tuple[Any, ...]) -> str | None:
    for one in arguments:
        value = getattr(one, "id", None)
        if isinstance(value, str):
            return value
    for one in arguments:
        if isinstance(one, str):
            # The id in a path, or the id itself.
            for part in one.replace("?", "/").split("/"):
                if len(part.replace("-", "")) == 32 and all(
                    letter in "0123456789abcdef-" for letter in part
                ):
                    return part
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def section(walk: Walk, name: str) -> Iterator[None]:
    """Run a part of the scenario; what breaks it is a problem of its own, the others go on."""
    begin = time.monotonic()
    try:
        yield
    except (Stuck, SDKException, ClientException, AttributeError, TypeError, KeyError) as error:
        walk.problem(f"section {name} broke off: {type(error).__name__}: {error}")
    walk.progress(f"scenario: {name}, {time.monotonic() - begin:.0f} s")
