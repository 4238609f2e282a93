"""A recorder for each channel.

A new channel is an entry in CHANNELS and an ``if`` in ``recorders``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from stackbus import metrics
from stackbus.bus.names import PRIORITIES, queue_name
from stackbus.clients.opensearch import OpenSearch
from stackbus.files import read_first_line
from stackbus.flow.loop import Loop, LoopSettings
from stackbus.flow.stream import Channel
from stackbus.history.history import History
from stackbus.settings import Settings
from stackbus.sinks.history import Extract, HistorySink, HistoryWriter
from stackbus.sources.bus import BusSource
from stackbus.sources.log import LogSource
from stackbus.sources.opensearch import OpenSearchSource
from stackbus.wiring.consumers import read_consumer
from stackbus.wiring.history import connect_history, scrubber

CHANNELS: tuple[type[Channel], ...] = (BusSource, LogSource, OpenSearchSource)
"""The sources of the history."""

EXTRACTS: Mapping[str, Extract] = {channel.name: channel.extract for channel in CHANNELS}
"""For each channel, the function that returns the notification in the body of a delivery."""

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
) -> list[Loop]:
    """Return the recorders of a topic's Secret, log files, and (URL, index) of OpenSearch."""
    channels: list[Channel] = []
    if secret is not None:
        channels.append(_bus(settings, secret, by_password=by_password, plain=plain))
    if logs:
        channels.append(LogSource(logs, history.positions))
    if opensearch is not None:
        channels.append(_opensearch(settings, history, *opensearch))
    limits = LoopSettings(
        batch=settings.record_batch,
        batch_bytes=settings.record_batch_bytes,
        batch_seconds=settings.record_batch_seconds,
        retry_max=settings.record_retry_max,
    )
    return [
        Loop(channel, _history_sink(settings, channel), limits, metrics.RECEIVED)
        for channel in channels
    ]


def _bus(settings: Settings, secret: Path, *, by_password: bool, plain: bool) -> BusSource:
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
    return BusSource(lambda: read()[1], queues, min(prefetch, _MAX_PREFETCH))


def _opensearch(settings: Settings, history: History, url: str, index: str) -> OpenSearchSource:
    file = settings.opensearch_password_file
    password = "" if file is None else read_first_line(file, "a password")
    server = OpenSearch(url, settings.opensearch_user, password, ca=settings.opensearch_ca)
    return OpenSearchSource(server, index, history.positions)


def _history_sink(settings: Settings, channel: Channel) -> HistorySink:
    create_writer = partial(_history_writer, settings, channel.extract)
    return HistorySink(create_writer, settings.record_processes)


def _history_writer(settings: Settings, extract: Extract) -> HistoryWriter:
    """Open the history, in a process that writes to it."""
    history = connect_history(settings)
    history.migrate()
    return HistoryWriter(
        history,
        extract,
        scrubber(settings),
        region=settings.region,
        quarantine_max_bytes=settings.quarantine_max_bytes,
    )
