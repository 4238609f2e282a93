"""A recorder for each channel. A new channel is one ``if`` in ``recorders``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stackbus.clients.opensearch import OpenSearch
from stackbus.expose.topology import queue_name
from stackbus.files import read_first_line
from stackbus.history.history import History
from stackbus.record.channel import Channel
from stackbus.record.channels.bus import BusChannel
from stackbus.record.channels.log import LogChannel
from stackbus.record.channels.opensearch import OpenSearchChannel
from stackbus.record.recorder import Recorder, RecordSettings
from stackbus.record.storing import Storer, Storing
from stackbus.services.service import PRIORITIES
from stackbus.settings import Settings
from stackbus.wiring.consumers import read_consumer
from stackbus.wiring.history import connect_history, scrubber

_MAX_PREFETCH = 65_535
"""AMQP 0-9-1's basic.qos has 16 bits for the prefetch count."""


def recorders(
    settings: Settings,
    history: History,
    *,
    secret: Path | None,
    logs: Sequence[Path],
    opensearch: tuple[str, str] | None,
    by_password: bool,
    plain: bool,
) -> list[Recorder]:
    """Return the recorders of a topic's Secret, log files, and (URL, index) of OpenSearch."""
    channels: list[Channel] = []
    if secret is not None:
        channels.append(_bus(settings, secret, by_password=by_password, plain=plain))
    if logs:
        channels.append(LogChannel(logs, history))
    if opensearch is not None:
        channels.append(_opensearch(settings, history, *opensearch))
    limits = RecordSettings(
        batch=settings.record_batch,
        batch_bytes=settings.record_batch_bytes,
        batch_seconds=settings.record_batch_seconds,
        retry_max=settings.record_retry_max,
    )
    create = partial(_storer, settings)
    return [
        Recorder(channel, Storing(create, settings.record_processes), limits)
        for channel in channels
    ]


def _bus(settings: Settings, secret: Path, *, by_password: bool, plain: bool) -> BusChannel:
    read = partial(
        read_consumer,
        secret,
        "stackbus record",
        by_password=by_password,
        plain=plain,
        heartbeat=settings.amqp_heartbeat,
    )
    topic, _ = read()
    queues = [queue_name(topic, priority) for priority in PRIORITIES]
    # One batch for each process that inserts, and one that is being filled meanwhile.
    prefetch = (settings.record_processes + 1) * settings.record_batch
    return BusChannel(lambda: read()[1], queues, min(prefetch, _MAX_PREFETCH))


def _opensearch(settings: Settings, history: History, url: str, index: str) -> OpenSearchChannel:
    file = settings.opensearch_password_file
    password = "" if file is None else read_first_line(file, "a password")
    server = OpenSearch(url, settings.opensearch_user, password, ca=settings.opensearch_ca)
    return OpenSearchChannel(server, index, history)


def _storer(settings: Settings) -> Storer:
    """Create the storer, in the process that inserts."""
    history = connect_history(settings)
    history.migrate()
    return Storer(history, scrubber(settings), settings.quarantine_max_bytes)
