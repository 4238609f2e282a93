"""The life of the private bus, from ``stackbus up`` to ``stackbus down``.

``run`` is the process that stays. It starts the node, the relay and, if asked for, a recorder under
``broker/supervisor.py``, applies the deployment, and removes rotated credentials at the end of
their grace time. ``start_detached`` starts that process and waits until the bus is ready; ``stop``
ends it. The two find each other by the lock and the process id in the state folder (``state.py``).
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

from stackbus.broker.node import Description, NodeOptions
from stackbus.broker.supervisor import Child, Supervisor
from stackbus.errors import BrokerError, BrokerUnreachable, PortTaken, StackbusError
from stackbus.expose import status
from stackbus.expose.deployment import Deployment
from stackbus.settings import Settings
from stackbus.state import StateFolder
from stackbus.wiring import control
from stackbus.wiring.broker import open_broker, private_endpoint, private_node

_START_SECONDS = 180.0
_STOP_SECONDS = 120.0
_PORTS_SECONDS = 30.0
"""Time that a node without its supervisor may take to end and free its ports."""

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
    """Run the private bus until SIGTERM or SIGINT.

    ``deployment``: applied at the start; None: that of the last apply. ``record``: whether to run
    a recorder; None: as at the last start.

    Raises StackbusError if the bus is up already or cannot start.
    """
    state = StateFolder(settings.state)
    with state.hold_for_up():
        supervisor = Supervisor()
        supervisor.catch_signals()
        if record is not None:
            state.set_recorded(record)
        try:
            description = _start(settings, wish, deployment, supervisor, progress)
            if supervisor.stopping:
                return
            state.write_ready()
            ready(description)
            supervisor.run(_remove_expired(settings))
        finally:
            state.remove_ready()
            supervisor.stop()


def start_detached(
    settings: Settings, deployment: Deployment | None, arguments: list[str], progress: Progress
) -> None:
    """Start ``stackbus up`` with ``arguments`` as its own process, and wait until it is ready.

    The process receives the deployment on its standard input. Raises StackbusError with the end of
    its log if it does not become ready.
    """
    state = StateFolder(settings.state)
    deployment_options = ["-f", "-"] if deployment is not None else []
    document = "" if deployment is None else json.dumps(deployment.to_document())
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    progress("starting the private bus")
    with state.up_log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own command
            [
                *(sys.executable, "-m", "stackbus", "up", "--state", str(settings.state)),
                *deployment_options,
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # its log will say why it has ended
        pipe.write(document.encode())
    reported = 0
    try:
        while state.read_ready() != process.pid:
            lines = state.up_log.read_text("utf-8", "replace").splitlines()
            for line in lines[reported:]:
                progress(line)
            reported = len(lines)
            if process.poll() is not None:
                raise StackbusError("\n".join(lines) or "the private bus did not start")
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def stop(settings: Settings) -> bool:
    """Stop the private bus and wait until it has ended; return False if it was not up."""
    state = StateFolder(settings.state)
    if not state.is_up:
        return False
    pid = state.read_ready()
    if pid is None:
        raise StackbusError(
            f"the private bus in {settings.state} is starting or stopping at this moment: try again"
        )
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], _STOP_SECONDS)[0]:
                raise StackbusError(
                    f"the private bus (process {pid}) has not stopped in {_STOP_SECONDS:.0f} s"
                )
        finally:
            os.close(handle)
    return True


def wait_until_answering(settings: Settings, is_stopping: Callable[[], bool]) -> None:
    """Wait until the node answers and a relay consumes.

    Returns early once ``is_stopping``. Raises BrokerError after three minutes.
    """
    end = time.monotonic() + _START_SECONDS

    def pause() -> bool:
        time.sleep(0.1)
        return time.monotonic() < end and not is_stopping()

    while True:
        try:
            with open_broker(settings) as broker:
                if status.wait_for_relay(broker.management, settings.inner_vhost, pause):
                    return
        except (BrokerUnreachable, BrokerError) as error:
            if not pause():
                raise BrokerError(f"the private bus does not start: {error}") from error
            continue
        if is_stopping():
            return
        relay_log = StateFolder(settings.state).relay_log
        raise BrokerError(f"the relay does not start; its log, {relay_log}, says why")


def _start(
    settings: Settings,
    wish: NodeOptions,
    deployment: Deployment | None,
    supervisor: Supervisor,
    progress: Progress,
) -> Description:
    description = _prepare_node(settings, wish)
    control.create_first_credentials(settings, private_endpoint(description))
    progress(f"starting RabbitMQ on {description.listen}:{description.ports.amqp}")
    _start_node(settings, description, supervisor)
    if supervisor.stopping:
        return description
    progress("applying the deployment")
    with open_broker(settings) as broker:
        target = deployment or control.saved_deployment(settings)
        control.plan_and_apply(
            settings,
            broker,
            lambda exposure: exposure.plan(target),
            deployment=deployment,
            progress=progress,
        )
    progress("starting the relay")
    state = StateFolder(settings.state)
    supervisor.add(_stackbus_child(settings, ["relay"], state.relay_log))
    if state.is_recorded:
        progress("starting the recorder")
        secret = str(control.record_secret(settings))
        supervisor.add(_stackbus_child(settings, ["record", "--secret", secret], state.record_log))
    wait_until_answering(settings, lambda: supervisor.stopping)
    return description


def _prepare_node(settings: Settings, wish: NodeOptions) -> Description:
    """Write the node's files; wait for its ports while an earlier node is still ending."""
    node = private_node(settings)
    has_run_before = node.read_description() is not None
    end = time.monotonic() + _PORTS_SECONDS
    while True:
        try:
            return node.prepare(wish, settings.inner_vhost, settings.outer_vhost)
        except PortTaken:
            if not has_run_before or time.monotonic() > end:
                raise
            time.sleep(0.2)


def _start_node(settings: Settings, description: Description, supervisor: Supervisor) -> None:
    """Start RabbitMQ and its port mapper, and wait until the management API answers."""
    node = private_node(settings)
    environment = node.environment(description)
    folder = StateFolder(settings.state).broker
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
    supervisor.add(rabbitmq)
    end = time.monotonic() + _START_SECONDS
    with open_broker(settings) as broker:
        while not supervisor.stopping:
            try:
                broker.management.overview()
            except BrokerError as error:
                assert rabbitmq.process is not None
                if rabbitmq.process.poll() is not None or time.monotonic() > end:
                    raise StackbusError(
                        f"RabbitMQ does not start ({error}). The end of its output, from "
                        f"{rabbitmq.output}:\n{rabbitmq.last_lines()}"
                    ) from error
                time.sleep(0.1)
            else:
                return


def _stackbus_child(settings: Settings, arguments: list[str], output: Path) -> Child:
    """Return a stackbus command of the state folder, to run under the supervisor."""
    command, *options = arguments
    return Child(
        {"record": "recorder"}.get(command, command),
        [
            *(sys.executable, "-m", "stackbus", command, "--state", str(settings.state)),
            *options,
        ],
        os.environ,
        output,
        settings.state,
        stop_seconds=20.0,
    )


def _remove_expired(settings: Settings) -> Callable[[], None]:
    """Return a function, called each second, that applies when a grace time has ended."""

    def each_second() -> None:
        try:
            with open_broker(settings) as broker:
                next_expiry = control.exposure(settings, broker).next_expiry()
                if next_expiry is not None and next_expiry <= datetime.now(UTC):
                    deployment = control.saved_deployment(settings)
                    control.plan_and_apply(
                        settings, broker, lambda exposure: exposure.plan(deployment)
                    )
                    log.info("rotation.finished")
        except StackbusError as error:
            log.warning("rotation.delayed", reason=str(error))

    return each_second
