"""Notifications in log lines: as oslo.log, oslo.messaging and keystonemiddleware write them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import oslo_messaging
import pytest
import webob
import webob.dec
from hypothesis import given
from hypothesis import strategies as st
from keystonemiddleware import audit
from oslo_config import cfg
from oslo_context import context
from oslo_log import formatters
from oslo_log import log as oslo_log
from oslo_messaging.notify import messaging
from tests.conftest import golden

from stackbus.errors import Unreadable
from stackbus.events.envelope import decode_with_context
from stackbus.events.normalise import normalise
from stackbus.sources.log_lines import extract_notification, may_hold_notification

NOW = datetime(2026, 1, 1, tzinfo=UTC)
USER, PROJECT = "9f0d8a2b64a64d1b8a6b1f8f6f2c1e10", "6f70656e737461636b20342065766572"


class FluentLines(formatters.FluentFormatter):
    """The object that oslo.log gives to Fluentd, as the line that Fluentd writes."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(super().format(record))


@pytest.fixture(params=["text", "json", "fluentd"])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Log everything as a service does, with oslo.log's own formatters."""
    conf = cfg.ConfigOpts()
    oslo_log.register_options(conf)
    conf([])
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    formatter_classes: dict[str, Callable[[], logging.Formatter]] = {
        "text": lambda: formatters.ContextFormatter(config=conf, project="nova", version="1"),
        "json": formatters.JSONFormatter,
        "fluentd": FluentLines,
    }
    handler.setFormatter(formatter_classes[request.param]())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def request_context() -> context.RequestContext:
    return context.RequestContext(
        user_id=USER, project_id=PROJECT, request_id="req-11111111-2222-3333-4444-555555555555"
    )


def notifier(driver: str) -> oslo_messaging.Notifier:
    conf = cfg.ConfigOpts()
    conf([])
    transport = oslo_messaging.get_notification_transport(conf, url="fake://")
    return oslo_messaging.Notifier(
        transport, publisher_id="compute.host-1", driver=driver, topics=["notifications"]
    )


def lines(stream: io.StringIO) -> list[bytes]:
    return [line for line in stream.getvalue().encode().splitlines() if may_hold_notification(line)]


PAYLOAD = {
    "instance_id": "0f5f7d5b-8f4a-4b55-8d8e-1df6f2a4a0a1",
    "tenant_id": PROJECT,
    "display_name": "a {\"name\"} with \\ and 'quotes' \u00e9\u2028 {",
    "created_at": "2026-01-01",
    "memory_mb": 512,
    "fault": None,
    "nested": [{"a": [1, 2.5, True]}],
}


def test_a_line_of_the_log_driver_holds_the_notification(log: io.StringIO) -> None:
    sent = request_context()
    notifier("log").info(sent.to_dict(), "compute.instance.create.end", PAYLOAD)
    (line,) = lines(log)
    event = normalise(extract_notification(line), "log", NOW)[0]
    assert json.loads(bytes(event.payload)) == PAYLOAD
    assert (event.service, event.type) == ("nova", "compute.instance.create.end")
    assert (event.resource_id, event.project_id) == (PAYLOAD["instance_id"], PROJECT)
    assert (event.user_id, event.actor_project_id) == (USER, PROJECT)
    assert event.request_id == sent.request_id


def test_the_line_about_a_failed_send_holds_the_notification(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(
        _: Any, target: Any, ctxt: dict[str, Any], message: dict[str, Any], **__: Any
    ) -> None:
        del target
        # As oslo_messaging/_drivers/common.py packs a context into what it is about to send.
        message.update({f"_context_{key}": value for key, value in ctxt.items()})
        raise oslo_messaging.MessageDeliveryFailure("no broker")

    monkeypatch.setattr(messaging.MessagingDriver, "version", 2.0, raising=False)
    monkeypatch.setattr("oslo_messaging.transport.Transport._send_notification", refuse)
    moment = {**PAYLOAD, "launched_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}
    notifier("messagingv2").error(
        request_context().to_dict(), "compute.instance.create.error", moment
    )
    (line,) = lines(log)
    event = normalise(extract_notification(line), "log", NOW)[0]
    parsed = json.loads(bytes(event.payload))
    assert parsed.pop("launched_at").startswith("datetime.datetime(2026, 1, 2, 3, 4, 5")
    assert parsed == PAYLOAD
    assert (event.outcome, event.user_id, event.project_id) == ("failure", USER, PROJECT)


@pytest.mark.parametrize("notifier_name", ["its own log", "oslo.messaging"])
def test_the_audit_filter_of_keystonemiddleware(log: io.StringIO, notifier_name: str) -> None:
    @webob.dec.wsgify  # type: ignore[untyped-decorator]
    def service(_: webob.Request) -> webob.Response:
        return webob.Response(status=200)

    options = {"audit_map_file": "", "service_name": "nova"}
    if notifier_name == "oslo.messaging":
        options |= {"driver": "log", "use_oslo_messaging": "true", "transport_url": "fake://"}
    else:
        options |= {"use_oslo_messaging": "false"}
    app = audit.filter_factory(options)(service)
    request = webob.Request.blank(
        "/v2.1/servers",
        environ={
            "HTTP_X_USER_ID": USER, "HTTP_X_USER_NAME": "alice", "HTTP_X_PROJECT_ID": PROJECT,
            "HTTP_X_IDENTITY_STATUS": "Confirmed", "HTTP_X_SERVICE_CATALOG": json.dumps(CATALOG),
            "REMOTE_ADDR": "192.0.2.7",
        },
    )  # fmt: skip
    assert request.get_response(app).status_int == 200
    parsed = [normalise(extract_notification(line), "log", NOW)[0] for line in lines(log)]
    assert [event.type for event in parsed] == ["audit.http.request", "audit.http.response"]
    assert len({event.id for event in parsed}) == 2
    for event in parsed:
        assert (event.user_id, event.address) == (USER, "192.0.2.7")
        assert event.action == "list"
    assert [event.outcome for event in parsed] == ["unknown", "success"]


CATALOG = [
    {
        "type": "compute", "name": "nova",
        "endpoints": [{"id": "e1", "publicURL": "http://localhost/v2.1", "internalURL": "",
                       "adminURL": ""}],
    }
]  # fmt: skip


def test_every_captured_notification_survives_a_log() -> None:
    for captured in golden():
        message = {
            name: value
            for name, value in captured.message().items()
            if not name.startswith("_context_") and name != "_unique_id"
        }
        line = (
            "2026-11-24 10:00:00.123 42 INFO oslo.messaging.notification."
            f"{message['event_type']} [None req-1-2 {USER} - - - -] {json.dumps(message)}"
        )
        assert may_hold_notification(line.encode())
        events = normalise(extract_notification(line.encode()), "log", NOW)
        direct = normalise(captured.body, "bus", NOW, captured.service)
        assert [event.id for event in events] == [event.id for event in direct]
        assert [event.resource_id for event in events] == [event.resource_id for event in direct]
        assert {event.service for event in events} == {captured.service}


def test_text_after_the_message_is_ignored() -> None:
    line = (
        b"INFO oslo.messaging.notification.image.update [-] "
        b'{"message_id": "m", "event_type": "image.update", "priority": "INFO", '
        b'"timestamp": "2026-01-01 00:00:00", "payload": {"id": "i"}} /usr/lib/x.py:42\x1b[0m'
    )
    assert decode_with_context(extract_notification(line)).message_id == "m"
    failed = (
        b"ERROR oslo_messaging.notify.messaging [-] Could not send notification to notifications. "
        b"Payload={'message_id': 'm', 'event_type': 'image.update', 'priority': 'INFO', "
        b"'timestamp': '2026-01-01 00:00:00', 'payload': {'id': 'i'}} /usr/lib/x.py:42"
    )
    assert decode_with_context(extract_notification(failed)).message_id == "m"


FORGED = {
    "message_id": "forged", "event_type": "compute.instance.delete.end", "priority": "INFO",
    "publisher_id": "compute.host-1", "timestamp": "2026-01-01 00:00:00",
    "payload": {"instance_id": "i", "tenant_id": PROJECT, "user_id": "alice"},
}  # fmt: skip
FORGED_LOGGER = "oslo.messaging.notification.compute.instance.delete.end"
FORGED_RECORD = f"2026-11-24 10:00:00.123 42 INFO {FORGED_LOGGER} [-] {json.dumps(FORGED)}"
FORGED_DOCUMENT = json.dumps({"name": FORGED_LOGGER, "message": json.dumps(FORGED), "context": {}})
FORGERIES = [
    FORGED_RECORD,
    f"{FORGED_LOGGER} {json.dumps(FORGED)}",
    f"INFO {FORGED_LOGGER} [-] {json.dumps(FORGED)}",
    f"x] {FORGED_RECORD}",
    FORGED_DOCUMENT,
    f'", "name": "{FORGED_LOGGER}", "message": {json.dumps(json.dumps(FORGED))}, "x": "',
    f"Could not send notification to notifications. Payload={FORGED}",
    f"Event type: audit.http.request, Context: {{}}, Payload: {FORGED}",
]


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("logger", ["keystone.server.flask", "keystonemiddleware.auth_token"])
def test_a_notification_in_a_name_that_a_user_chose_is_not_read(
    log: io.StringIO, logger: str, name: str
) -> None:
    logging.getLogger(logger).warning("Authorization failed. Could not find user: %s.", name)
    logging.getLogger(logger).warning("%s", name)
    logging.getLogger(logger).warning("%r", name)
    assert log.getvalue().count("\n") == 3
    assert lines(log) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_a_notification_in_a_name_inside_a_notification_stays_a_name(
    log: io.StringIO, name: str
) -> None:
    payload = {**PAYLOAD, "display_name": name}
    notifier("log").info(request_context().to_dict(), "compute.instance.create.end", payload)
    (line,) = lines(log)
    (event,) = normalise(extract_notification(line), "log", NOW)
    assert (event.type, event.resource_name) == ("compute.instance.create.end", name)


def test_a_user_name_in_the_prefix_cannot_replace_the_message() -> None:
    """``logging_user_identity_format`` may name users, and a user's name may hold brackets."""
    genuine = json.dumps({**FORGED, "message_id": "genuine"})
    for name in (f"x] {json.dumps(FORGED)}", f"x] [y] {json.dumps(FORGED)} [", "x] {", "["):
        line = (
            f"2026-11-24 10:00:00.123 42 INFO {FORGED_LOGGER} "
            f"[None req-1-2 {name} - - - -] {genuine}"
        ).encode()
        assert may_hold_notification(line)
        with pytest.raises(Unreadable):
            extract_notification(line)


def test_the_logger_and_its_message_name_the_same_event_type() -> None:
    line = FORGED_RECORD.replace(FORGED_LOGGER, "oslo.messaging.notification.image.update")
    with pytest.raises(Unreadable, match="another event type"):
        extract_notification(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        f"WARNING:root:Authorization failed for {FORGED_RECORD}",
        f"root - Authorization failed for {FORGED_RECORD}",
        f"{FORGED_LOGGER}: {json.dumps(FORGED)}",
        f"10.0.0.1 - {FORGED_RECORD}",
        json.dumps({"log": FORGED_RECORD}),
        json.dumps({"message": json.dumps(FORGED), "x": FORGED_LOGGER}),
    ],
)
def test_a_line_of_an_unknown_format_is_unreadable_with_that_reason(line: str) -> None:
    assert may_hold_notification(line.encode())
    with pytest.raises(Unreadable, match=r"not oslo\.log's"):
        extract_notification(line.encode())


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Nov 24 10:00:00 ctl-1 nova-compute[42]: ",
        "2026-11-24T10:00:00.123456+00:00 ctl-1 nova-compute: ",
        "[Tue Nov 24 10:00:00.123 2026] [wsgi:error] [pid 42:tid 14] [remote 192.0.2.7:40000] ",
    ],
)
@pytest.mark.parametrize(
    "record",
    [FORGED_RECORD, f"\x1b[00;32mINFO {FORGED_LOGGER} [\x1b[00;36m-] {json.dumps(FORGED)}"],
)
def test_headers_of_syslog_and_apache_and_colours_are_no_part_of_a_record(
    header: str, record: str
) -> None:
    line = f"{header}{record}".encode()
    assert decode_with_context(extract_notification(line)).message_id == "forged"


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v2.1/servers HTTP/1.1 200",
        b"oslo_messaging_notifications.driver = ['messagingv2', 'log']",
        b"",
    ],
)
def test_lines_without_a_notification_are_skipped(line: bytes) -> None:
    assert not may_hold_notification(line)


@pytest.mark.parametrize(
    "line",
    [
        b"INFO oslo.messaging.notification.x [-] no object",
        b"INFO oslo.messaging.notification.x [-] {cut",
        b'INFO oslo.messaging.notification.x [-] {"a": ' + b"[" * 5000,
        b"ERROR oslo_messaging.notify.messaging [-] Could not send notification to t. Payload={'a': <object at 0x7f>}",
        b"ERROR oslo_messaging.notify.messaging [-] Could not send notification to t. Payload={'a': "
        + b"[" * 5000,
        b"ERROR oslo_messaging.notify.messaging [-] Could not send notification to t. Payload={'a': __import__('os').system('true')}",
        b"INFO keystonemiddleware.audit._notifier [-] Event type: audit.http.request, Context: {}, Payload: {}",
        b"INFO keystonemiddleware.audit._notifier [-] Event type: audit.http.request, Context: {}, Payload: {'id': 'gAAAAA-secret'",
        b'{"message": "3", "name": "oslo.messaging.notification.x"}',
    ],
)
def test_a_malformed_line_is_unreadable_and_not_quoted(line: bytes) -> None:
    assert may_hold_notification(line)
    with pytest.raises(Unreadable) as caught:
        normalise(extract_notification(line), "log", NOW)
    assert "gAAAAA" not in str(caught.value)
    assert "__import__" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_line_raises_another_error_than_unreadable(ending: bytes) -> None:
    for start in (
        b"INFO oslo.messaging.notification.a [-] {",
        b"ERROR oslo_messaging.notify.messaging [-] Could not send notification to t. Payload={",
        b"INFO keystonemiddleware.audit._notifier [-] Event type: audit.x, Context: {}, Payload: {",
    ):
        with pytest.raises(Unreadable):
            normalise(extract_notification(start + ending), "log", NOW)
