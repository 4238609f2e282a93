"""Captured notifications keep their shape and lose their secrets."""

from __future__ import annotations

import json

from tests.cloud.capture import disguise
from tests.cloud.traffic import Sent

from stackbus.events.scrub import Scrubber

TOKEN = "gAAAAABk" + "Ab3-" * 30


def build_sent(payload: object, event_type: str = "x.y") -> Sent:
    notification = {"event_type": event_type, "payload": payload, "message_id": "m"}
    return Sent(
        "nova", "notifications.info", json.dumps({"oslo.message": json.dumps(notification)})
    )


def test_a_body_without_secrets_is_kept_byte_for_byte() -> None:
    message = build_sent({"name": 'a \\ " ä', "size": 1})
    assert disguise(message) == message.body


def test_a_secret_becomes_the_same_invented_text_of_its_shape_everywhere() -> None:
    message = build_sent(
        {
            "auth_token": TOKEN,
            "again": f"see {TOKEN} here",
            "inside": json.dumps({"password": 'quo"te\\d\nnew ä 1'}),
            "list": [{"secrets": ["one1", {"two": "Two2"}]}],
            "url": "rabbit://user:pass9word@host/",
        }
    )
    body = disguise(message)
    assert body == disguise(message)
    assert len(body) == len(message.body)
    for secret in (TOKEN, "quo", "one1", "Two2", "pass9word"):
        assert secret not in body
    paths = Scrubber().scrub(message.body.encode(), "x.y").paths
    assert Scrubber().scrub(body.encode(), "x.y").paths == paths
    payload = Sent(message.exchange, message.routing_key, body).notification()["payload"]
    assert payload["auth_token"].startswith("gAAAAA")
    assert payload["again"] == f"see {payload['auth_token']} here"
    assert "user" in payload["url"]


def test_a_secret_of_one_service_is_recognised_by_the_event_type() -> None:
    message = build_sent({"key": "ABCDEFGH"}, "dns.zone_transfer_request.create")
    assert "ABCDEFGH" not in disguise(message)
