"""The life of the private bus, from ``stackbus up`` to ``stackbus down``.

Called by the doors ``up``, ``down`` and ``status``. ``run`` is the process that stays: it starts
the node, the relay and, if wanted, a recorder under ``broker/supervisor.py``, applies the
deployment, and removes rotated credentials when their grace time is over. ``start_detached``
starts that process and waits until it says that the bus is ready; ``stop`` ends it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from stackbus import wiring
from stackbus.broker.node import Description, NodeOptions
from stackbus.broker.supervisor import Child, Supervisor
from stackbus.errors import BrokerError, BrokerUnreachable, PortTaken, StackbusError
from stackbus.expose import status
from stackbus.expose.deployment import Deployment
from stackbus.files import locked, write_private
from stackbus.settings import Settings

_START_SECONDS = 180.0
_STOP_SECONDS = 120.0
_PORTS_SECONDS = 30.0
"""How long a node that lost its supervisor may take to give its ports back."""

Progress = Callable[[str], None]

log = structlog.get_logger()


def run(
    settings: Settings,
    wish: NodeOptions,
    deployment: Deployment | None,
    progress: Progress,
    ready: Callable[[Description], None],
    *,
    record: bool | None = None,
) -> None:
    """Be the private bus until SIGTERM or SIGINT.

    ``deployment``, and whether to ``record`` beside it: None keeps what was last.

    Raises StackbusError if it is up already, or cannot start.
    """
    busy = f"the bus in {settings.state} is up already: `stackbus apply` changes it"
    with locked(_lock(settings), 0.0, busy):
        supervisor = Supervisor()
        supervisor.catch_signals()
        if record is not None:
            wiring.set_recorded(settings, wanted=record)
        try:
            description = _start(settings, wish, deployment, supervisor, progress)
            if supervisor.stopping:
                return
            write_private(_ready(settings), json.dumps({"pid": os.getpid()}))
            ready(description)
            supervisor.run(_expiring(settings))
        finally:
            _ready(settings).unlink(missing_ok=True)
            supervisor.stop()


def start_detached(
    settings: Settings, deployment: Deployment | None, arguments: list[str], progress: Progress
) -> None:
    """Start ``stackbus up`` with ``arguments`` as a process of its own; wait until it is ready.

    It gets the deployment over its standard input. Raises StackbusError with the end of its log if
    it does not get there.
    """
    given = ["-f", "-"] if deployment is not None else []
    text = "" if deployment is None else json.dumps(deployment.to_document())
    output = settings.state / "up.log"
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    progress("starting the private bus")
    with output.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 -- our own command
            [
                *(sys.executable, "-m", "stackbus", "up", "--state", str(settings.state)),
                *given,
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # it says itself why it has ended
        pipe.write(text.encode())
    shown = 0
    try:
        while not is_ready(settings, process.pid):
            lines = output.read_text("utf-8", "replace").splitlines()
            for line in lines[shown:]:
                progress(line)
            shown = len(lines)
            if process.poll() is not None:
                raise StackbusError("\n".join(lines) or "the private bus did not start")
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def stop(settings: Settings) -> bool:
    """End the private bus; tell whether there was one. Returns when it has ended."""
    if not is_up(settings):
        return False
    try:
        pid = int(json.loads(_ready(settings).read_text("utf-8"))["pid"])
    except (OSError, ValueError, KeyError):
        raise StackbusError("the bus is just starting or stopping: try again") from None
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], _STOP_SECONDS)[0]:
                raise StackbusError(f"the bus (process {pid}) does not stop")
        finally:
            os.close(handle)
    return True


def is_up(settings: Settings) -> bool:
    """Tell whether a process is the private bus of the state folder."""
    if not _lock(settings).exists():
        return False
    try:
        with locked(_lock(settings), 0.0, ""):
            return False
    except StackbusError:
        return True


def is_ready(settings: Settings, pid: int | None = None) -> bool:
    """Tell whether the bus (that is process ``pid``) has come up."""
    try:
        value = json.loads(_ready(settings).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return pid is None or value.get("pid") == pid


def wait_until_answering(settings: Settings, wants_stop: Callable[[], bool]) -> None:
    """Wait until the node answers and a relay consumes. Raises BrokerError after three minutes."""
    end = time.monotonic() + _START_SECONDS

    def pause() -> bool:
        time.sleep(0.1)
        return time.monotonic() < end and not wants_stop()

    while True:
        try:
            with wiring.bus(settings) as where:
                if status.wait_for_relay(where.management, settings.inner_vhost, pause):
                    return
        except (BrokerUnreachable, BrokerError) as error:
            if not pause():
                raise BrokerError(f"the bus does not come up: {error}") from error
            continue
        if wants_stop():
            return
        raise BrokerError(f"the relay does not start; see {settings.state / 'relay.log'}")


def _start(
    settings: Settings,
    wish: NodeOptions,
    deployment: Deployment | None,
    supervisor: Supervisor,
    progress: Progress,
) -> Description:
    node = wiring.node(settings)
    description = _prepared(settings, wish)
    wiring.first_credentials(settings, wiring.endpoint_of(description))
    environment = node.environment(description)
    folder = settings.state / "broker"
    supervisor.add(
        Child(
            "epmd",
            node.port_mapper_command(description),
            environment,
            folder / "log" / "epmd.log",
            folder,
            stop_seconds=2.0,
        )
    )
    rabbitmq = Child(
        "rabbitmq", node.command(), environment, folder / "log" / "startup.log", folder
    )
    progress(f"starting RabbitMQ on {description.listen}:{description.ports.amqp}")
    supervisor.add(rabbitmq)
    _wait_for_node(settings, rabbitmq, supervisor)
    if supervisor.stopping:
        return description
    progress("applying the deployment")
    with wiring.bus(settings) as where:
        kept = deployment or wiring.saved_deployment(settings)
        wiring.carry_out(settings, where, lambda control: control.plan(kept), deployment, progress)
    progress("starting the relay")
    supervisor.add(
        Child(
            "relay",
            [sys.executable, "-m", "stackbus", "relay", "--state", str(settings.state)],
            os.environ,
            settings.state / "relay.log",
            settings.state,
            stop_seconds=20.0,
        )
    )
    if wiring.is_recorded(settings):
        progress("starting the recorder")
        supervisor.add(
            Child(
                "recorder",
                [
                    *(sys.executable, "-m", "stackbus", "record", "--state", str(settings.state)),
                    *("--secret", str(wiring.record_secret(settings))),
                ],
                os.environ,
                settings.state / "record.log",
                settings.state,
                stop_seconds=20.0,
            )
        )
    wait_until_answering(settings, lambda: supervisor.stopping)
    return description


def _prepared(settings: Settings, wish: NodeOptions) -> Description:
    """Write the node's files; wait for the ports if the last node is still on its way out."""
    node = wiring.node(settings)
    known = node.read_description() is not None
    end = time.monotonic() + _PORTS_SECONDS
    while True:
        try:
            return node.prepare(wish, settings.inner_vhost, settings.outer_vhost)
        except PortTaken:
            if not known or time.monotonic() > end:
                raise
            time.sleep(0.2)


def _wait_for_node(settings: Settings, rabbitmq: Child, supervisor: Supervisor) -> None:
    end = time.monotonic() + _START_SECONDS
    with wiring.bus(settings) as where:
        while not supervisor.stopping:
            try:
                where.management.overview()
            except BrokerError as error:
                assert rabbitmq.process is not None
                if rabbitmq.process.poll() is not None or time.monotonic() > end:
                    raise StackbusError(
                        f"RabbitMQ does not start ({error}); the end of what it said, from "
                        f"{rabbitmq.output}:\n{rabbitmq.last_lines()}"
                    ) from error
                time.sleep(0.1)
            else:
                return


def _expiring(settings: Settings) -> Callable[[], None]:
    """Give what is done each second: an apply when a grace time has ended."""

    def each_second() -> None:
        try:
            with wiring.bus(settings) as where:
                until = wiring.exposure(settings, where).next_expiry()
                if until is not None and until <= datetime.now(UTC):
                    kept = wiring.saved_deployment(settings)
                    wiring.carry_out(settings, where, lambda control: control.plan(kept), None)
                    log.info("rotation.finished")
        except StackbusError as error:
            log.warning("rotation.delayed", reason=str(error))

    return each_second


def _lock(settings: Settings) -> Path:
    return settings.state / "up.lock"


def _ready(settings: Settings) -> Path:
    return settings.state / "up.json"
