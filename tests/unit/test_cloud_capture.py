"""What is captured keeps its shape and loses its secrets."""

from __future__ import annotations

import json

from tests.cloud.capture import disguised
from tests.cloud.telling import Sent

from stackbus.events.scrub import Scrubber

TOKEN = "gAAAAABk" + "Ab3-" * 30


def sent(payload: object, event_type: str = "x.y") -> Sent:
    message = {"event_type": event_type, "payload": payload, "message_id": "m"}
    return Sent("nova", "notifications.info", json.dumps({"oslo.message": json.dumps(message)}))


def test_what_holds_no_secret_is_kept_byte_for_byte() -> None:
    one = sent({"name": 'a \\ " ä', "size": 1})
    assert disguised(one) == one.body


def test_secrets_become_others_of_the_same_shape_everywhere_and_always_the_same() -> None:
    one = sent(
        {
            "auth_token": TOKEN,
            "again": f"see {TOKEN} here",
            "inside": json.dumps({"password": 'quo"te\\d\nnew ä 1'}),
            "list": [{"secrets": ["one1", {"two": "Two2"}]}],
            "url": "rabbit://user:pass9word@host/",
        }
    )
    body = disguised(one)
    assert body == disguised(one)
    assert len(body) == len(one.body)
    for secret in (TOKEN, "quo", "one1", "Two2", "pass9word"):
        assert secret not in body
    paths = Scrubber().scrub(one.body.encode(), "x.y").paths
    assert Scrubber().scrub(body.encode(), "x.y").paths == paths
    payload = Sent(one.exchange, one.routing_key, body).notification()["payload"]
    assert payload["auth_token"].startswith("gAAAAA")
    assert payload["again"] == f"see {payload['auth_token']} here"
    assert "user" in payload["url"]


def test_a_secret_that_one_service_alone_has_is_found_by_the_event_type() -> None:
    one = sent({"key": "ABCDEFGH"}, "dns.zone_transfer_request.create")
    assert "ABCDEFGH" not in disguised(one)
