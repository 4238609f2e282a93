"""The state folder: the name of every file in it, and the reading and writing of stackbus' own.

    deployment.yaml     the deployment of the last apply
    endpoint.json       what the Secrets say of your own broker, from the last apply
    secrets/            a manifest for each Secret (expose/secrets.py)
    apply.lock          held by the process that changes all of these
    broker.json         the private broker: ports, administrator (broker/node.py)
    broker/             its configuration, data and logs
    tls/                its certificates, and the key of its own
    up.lock, up.json    held by `stackbus up`; its process id, once the private bus is ready
    up.log, relay.log, record.log   what `up --detach`, its relay and its recorder print
    recorded            empty; while it exists, `stackbus up` starts a recorder
    history/            the embedded history
    digests/            the signed digests of the history

Folders have mode 0700, files 0600. ``wiring/`` and the commands come here for a path; nothing else
spells one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackbus.errors import StackbusError
from stackbus.files import locked, write_private

if TYPE_CHECKING:  # imports cryptography: 0.1 s
    from stackbus.expose.credentials import Credentials, Endpoint

_LOCK_SECONDS = 60.0
"""How long one apply waits for another."""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The state folder, at the path ``folder``."""

    folder: Path

    @property
    def deployment(self) -> Path:
        """Return the path of the deployment of the last apply."""
        return self.folder / "deployment.yaml"

    @property
    def secrets(self) -> Path:
        """Return the folder of the Secrets' manifests."""
        return self.folder / "secrets"

    @property
    def broker(self) -> Path:
        """Return the folder of the private broker."""
        return self.folder / "broker"

    @property
    def history(self) -> Path:
        """Return the folder of the embedded history."""
        return self.folder / "history"

    @property
    def digests(self) -> Path:
        """Return the default folder of the digests."""
        return self.folder / "digests"

    @property
    def up_log(self) -> Path:
        """Return the path of the output of ``stackbus up --detach``."""
        return self.folder / "up.log"

    @property
    def relay_log(self) -> Path:
        """Return the path of the relay's log."""
        return self.folder / "relay.log"

    @property
    def record_log(self) -> Path:
        """Return the path of the recorder's log."""
        return self.folder / "record.log"

    @property
    def is_recorded(self) -> bool:
        """Tell whether ``stackbus up`` starts a recorder."""
        return self._recorded.exists()

    def set_recorded(self, is_recorded: bool) -> None:  # noqa: FBT001 -- the value
        """Set whether ``stackbus up`` starts a recorder, from its next start on."""
        if is_recorded:
            write_private(self._recorded, "")
        else:
            self._recorded.unlink(missing_ok=True)

    def write_deployment(self, text: str) -> None:
        """Write the deployment, a YAML document, that is about to be applied."""
        write_private(self.deployment, text)

    def read_endpoint(self) -> Endpoint | None:
        """Return the endpoint of the last apply to your own broker; None before the first.

        Raises StackbusError if the file was changed and cannot be read.
        """
        from stackbus.expose.credentials import Endpoint  # noqa: PLC0415 -- see TYPE_CHECKING

        try:
            value = json.loads(self._endpoint.read_text("utf-8"))
            return Endpoint(
                hosts=tuple(value["hosts"]),
                port_amqp=value["port_amqp"],
                port_amqps=value["port_amqps"],
                vhost=value["vhost"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StackbusError(
                f"{self._endpoint}: cannot be read as stackbus wrote it. Remove it, and give "
                "--advertise again."
            ) from error

    def write_endpoint(self, endpoint: Endpoint) -> None:
        """Write the endpoint that is about to be applied to your own broker."""
        write_private(self._endpoint, json.dumps(asdict(endpoint)))

    def install_certificates(self, credentials: Credentials) -> None:
        """Write the PEM files that the private broker reads; the CA's key is not among them."""
        for name, text in (
            ("ca.pem", credentials.ca.certificate),
            ("server.pem", credentials.server.certificate),
            ("server.key", credentials.server.key),
        ):
            path = self.folder / "tls" / name
            if not path.exists() or path.read_text("ascii") != text:
                write_private(path, text)

    @contextmanager
    def hold_for_apply(self) -> Iterator[None]:
        """Hold the state folder while it changes: a second apply waits for the first."""
        busy = (
            f"{self.folder} is locked: another stackbus process has been changing it for "
            f"{_LOCK_SECONDS:.0f} s. Wait for it to finish, then run the command again."
        )
        with locked(self.folder / "apply.lock", _LOCK_SECONDS, busy):
            yield

    @contextmanager
    def hold_for_up(self) -> Iterator[None]:
        """Be the process of the private bus. Raises StackbusError if another one is."""
        busy = (
            f"the private bus in {self.folder} is up already. To change it, run `stackbus apply`."
        )
        with locked(self._up_lock, 0.0, busy):
            yield

    @property
    def is_up(self) -> bool:
        """Tell whether a process runs the private bus."""
        if not self._up_lock.exists():
            return False
        try:
            with locked(self._up_lock, 0.0, ""):
                return False
        except StackbusError:
            return True

    def write_ready(self) -> None:
        """Note that this process runs the private bus, and that the bus is ready."""
        write_private(self._ready, json.dumps({"pid": os.getpid()}))

    def remove_ready(self) -> None:
        """Note that this process no longer runs a ready bus."""
        self._ready.unlink(missing_ok=True)

    def read_ready(self) -> int | None:
        """Return the id of the process that runs the private bus; None until the bus is ready."""
        try:
            return int(json.loads(self._ready.read_text("utf-8"))["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def _endpoint(self) -> Path:
        return self.folder / "endpoint.json"

    @property
    def _recorded(self) -> Path:
        return self.folder / "recorded"

    @property
    def _up_lock(self) -> Path:
        return self.folder / "up.lock"

    @property
    def _ready(self) -> Path:
        return self.folder / "up.json"
