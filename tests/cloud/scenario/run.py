"""A run of the scenario: actors who call APIs, and the record of their calls.

The sections beside this file use it. Each call gets a request id of its own, sent as
``X-OpenStack-Request-Id``. Services copy it into their notifications and into the calls that they
make to each other, so that ``check.py`` can compare notifications with calls.
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
from tests.cloud.home import CloudHome, wait_until

PATIENCE = 180.0
"""Seconds in which a resource must reach the state that was requested."""

REQUEST_ID = "X-OpenStack-Request-Id"


@dataclass
class Call:
    """One call: its name, user, resource, time and outcome.

    ``call`` is ``<service>.<resource>.<action>``; ``outcome`` is success or failure, as the caller
    saw it; ``requests`` are its HTTP requests, each with method, path, status and the request id of
    the service; ``request_id`` is the caller's.
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


class ScenarioRun:
    """The record of one run. The sections, which run in several threads, add to it."""

    def __init__(self, home: CloudHome, progress: Callable[[str], None]) -> None:
        self.home = home
        self.tag = secrets.token_hex(3)
        self.calls: list[Call] = []
        self.tokens: set[str] = set()
        self.problems: list[str] = []
        self.people: dict[str, tuple[str, str, str]] = {}
        self.projects: dict[str, str] = {}
        self.progress = progress
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        """Record a call that has ended."""
        with self._lock:
            self.calls.append(call)
        if not call.as_expected:
            self.problem(f"{call.call} by {call.user}: {call.outcome}: {call.error}")

    def problem(self, sentence: str) -> None:
        """Record a problem, which fails the check."""
        with self._lock:
            self.problems.append(sentence)
        self.progress(f"PROBLEM {sentence}")

    def save(self, path: Path) -> None:
        """Write the calls as JSON lines, in the order of their start."""
        calls = sorted(self.calls, key=lambda call: call.begin)
        path.write_text("".join(json.dumps(asdict(call)) + "\n" for call in calls), "utf-8")

    def admin(self) -> Actor:
        """Return the administrator, logged in to the project admin."""
        connection = connect(self.home, "admin", self.home.password, project_name="admin")
        return Actor(self, "admin", connection)

    def system_admin(self) -> Actor:
        """Return the administrator, logged in with system scope."""
        connection = connect(self.home, "admin", self.home.password, system_scope="all")
        return Actor(self, "admin", connection)

    def person(self, name: str) -> Actor:
        """Return one of the scenario's users, logged in to their project."""
        user, password, project = self.people[name]
        return Actor(self, name, connect(self.home, user, password, project_name=project))


class Actor:
    """A logged-in user. A scenario changes resources only through ``do``."""

    def __init__(
        self, run: ScenarioRun, name: str, connection: Any, login: str = "keystone.token.create"
    ) -> None:
        self.run = run
        self.name = name
        self.cloud = connection
        self._current: Call | None = None
        self._http = connection.session.session
        self._http.hooks["response"].append(self._record_response)
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
        """Call ``function`` and record the call; return its result, or None if it failed.

        ``refused``: the call is expected to fail. The resource's id is that of the result, or else
        of the first argument; ``id_of`` returns it where neither has one.
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
        self.run.add(record)
        return result

    def rest(
        self, service: str, method: str, path: str, body: object = None, **headers: str
    ) -> Any:
        """Call an API that the SDK does not have; return its JSON. Header names have underscores."""
        content = {"data": body} if isinstance(body, bytes) else {"json": body} if body else {}
        response = self.cloud.session.request(
            path,
            method,
            endpoint_filter={"service_type": service, "interface": "public"},
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            **content,
        )
        has_json = response.content and "json" in response.headers["Content-Type"]
        return response.json() if has_json else {}

    def until(self, read: Callable[[], str], *states: str, bad: tuple[str, ...] = ()) -> str:
        """Poll until ``read`` returns one of ``states``; a missing resource reads GONE.

        Raises Stuck at one of the states ``bad``, or after PATIENCE.
        """
        state = ""

        def is_settled() -> bool:
            nonlocal state
            try:
                state = read()
            except (NotFoundException, ClientException) as error:
                if getattr(error, "http_status", getattr(error, "status_code", 404)) != 404:
                    raise
                state = "GONE"
            return state in states or state in bad

        wait_until(is_settled, PATIENCE, 0.5)
        if state not in states:
            raise Stuck(f"{self.name} expected {' or '.join(states)}; it is {state!r}")
        return state

    def _record_response(self, response: Any, *_: object, **__: object) -> None:
        token = response.headers.get("X-Subject-Token")
        if token:
            self.run.tokens.add(token)
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
    """A resource did not reach the requested state."""


def identifier(result: object) -> str | None:
    """Return the id of a call's result: a resource of the SDK, or the JSON of a REST API."""
    if isinstance(result, Mapping) and not hasattr(result, "_original_body"):
        inner = next(iter(result.values())) if len(result) == 1 else result
        for resource in (result, inner):
            if isinstance(resource, Mapping):
                for key in ("id", "uuid", "notification_uuid"):
                    if isinstance(resource.get(key), str):
                        return str(resource[key])
        return None
    value = getattr(result, "id", None)
    return value if isinstance(value, str) else None


def _first_identifier(arguments: tuple[Any, ...]) -> str | None:
    for argument in arguments:
        value = getattr(argument, "id", None)
        if isinstance(value, str):
            return value
    for argument in arguments:
        if isinstance(argument, str):
            # An id, or a path with an id in it.
            for part in argument.replace("?", "/").split("/"):
                if len(part.replace("-", "")) == 32 and all(
                    letter in "0123456789abcdef-" for letter in part
                ):
                    return part
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def section(run: ScenarioRun, name: str) -> Iterator[None]:
    """Run a section. An error is recorded as a problem, and the other sections go on."""
    begin = time.monotonic()
    try:
        yield
    except (Stuck, SDKException, ClientException, AttributeError, TypeError, KeyError) as error:
        run.problem(f"section {name} failed: {type(error).__name__}: {error}")
    run.progress(f"scenario: {name}, {time.monotonic() - begin:.0f} s")
