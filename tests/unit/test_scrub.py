"""Scrubbing: no planted secret survives at any depth, and everything else stays as it is."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.conftest import Captured, golden

from stackbus.events.envelope import decode
from stackbus.events.scrub import MASK, Scrubber

SCRUBBER = Scrubber()
FERNET = "gAAAAABn" + "Zx3-_q" * 25
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"
CANARY = "canary-5f1c"

SENSITIVE = [
    "password", "admin_password", "adminPass", "AdminPassword", "ipmi_password", "passwd",
    "passphrase", "token", "auth_token", "X-Auth-Token", "x_subject_token", "tokens", "secret",
    "client_secret", "aws_secret_access_key", "private_key", "privateKey", "private-key",
    "ssh.private.key", "psk", "pre_shared_key", "preshared-key", "user_data", "userData",
    "credentials", "credential", "cookie", "Set-Cookie", "api_key", "apikey", "access_key",
    "auth_key", "Authorization", "encryption_key", "injected_files", "PASSWORD", "db.password",
    "OS-KSADM:password", "session_key", "user data",
]  # fmt: skip
LOOK_ALIKE = [
    "public_key", "key_name", "key", "keypair_name", "request_id", "checksum", "os_hash_value",
    "fingerprint", "encryption_key_id", "password_expires_at", "application_credential_id",
    "secret_ref", "encryption_secret_uuid", "token_type", "name", "user_id", "trusted_image",
    "os_hidden", "key_id", "keys", "credential_id", "injected_file_content_bytes", "pass", "host",
]  # fmt: skip


def notification(payload: object, event_type: str = "instance.update") -> bytes:
    message = {
        "message_id": "8d4b0c2e-0c65-4c5a-9f5e-6a4f2f7f6a11",
        "publisher_id": "compute.host-1",
        "event_type": event_type,
        "priority": "INFO",
        "payload": payload,
        "timestamp": "2026-11-22 11:28:35.656005",
        "_context_auth_token": None,
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def scrub(payload: object, event_type: str = "instance.update") -> tuple[object, tuple[str, ...]]:
    result = SCRUBBER.scrub(notification(payload, event_type), event_type)
    return json.loads(bytes(decode(result.body).payload)), result.paths


@pytest.mark.parametrize("name", SENSITIVE)
def test_a_value_under_a_sensitive_name_is_masked(name: str) -> None:
    payload, paths = scrub({"server": {name: CANARY, "id": "1"}})
    assert payload == {"server": {name: MASK, "id": "1"}}
    assert paths == (f"payload.server.{name}",)


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize("value", [CANARY, 12345678, 1.5, [CANARY], {"x": CANARY}])
def test_a_value_of_any_type_is_masked(name: str, value: object) -> None:
    assert scrub({name: value})[0] == {name: MASK}


@pytest.mark.parametrize("name", LOOK_ALIKE)
def test_a_name_that_only_looks_sensitive_is_left(name: str) -> None:
    body = notification({name: CANARY, "deep": [{name: CANARY}]})
    assert SCRUBBER.scrub(body, "instance.update").body == body


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize("value", [None, True, False, "", [], {}, "***"])
def test_an_empty_value_passes_byte_for_byte(name: str, value: object) -> None:
    body = notification({name: value})
    result = SCRUBBER.scrub(body, "instance.update")
    assert result.body is body
    assert result.paths == ()


SHAPES = [
    (FERNET, MASK),
    (f"token {FERNET} has expired", f"token {MASK} has expired"),
    (JWT, MASK),
    (f"Bearer {JWT}", f"Bearer {MASK}"),
    (PEM, MASK),
    (PEM[:40], MASK),
    (PEM.replace("EC ", "OPENSSH "), MASK),
    ("rabbit://nova:hunter2@10.0.0.1:5672/", f"rabbit://nova:{MASK}@10.0.0.1:5672/"),
    ("mysql+pymysql://u:p%40ss@db/nova?charset=utf8", f"mysql+pymysql://u:{MASK}@db/nova?charset=utf8"),
    ("a://u:p@ss@h and b://v:q@h", f"a://u:{MASK}@h and b://v:{MASK}@h"),
    ("https://h/x?user=a&password=hunter2&z=1", f"https://h/x?user=a&password={MASK}&z=1"),
    ("https://h/v1/o?temp_url_sig=da39a3ee&temp_url_expires=9", f"https://h/v1/o?temp_url_sig={MASK}&temp_url_expires=9"),
    ("swift+https://t%3Au:k3y@auth/c/o", f"swift+https://t%3Au:{MASK}@auth/c/o"),
    ("redis://:hunter2@h:6379", f"redis://:{MASK}@h:6379"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "masked"), SHAPES)
def test_a_secret_pattern_is_masked_in_any_string(value: str, masked: str) -> None:
    assert scrub({"note": value})[0] == {"note": masked}
    assert scrub(value)[0] == masked
    assert scrub([{"a": [value]}])[0] == [{"a": [masked]}]


@pytest.mark.parametrize(
    "value",
    [
        "http://10.0.0.1:9292/v2/images",
        "https://h:8080/path?mail=a@b",
        "gAAAA",
        "eyJ",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGAAAA user@host",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "d41d8cd98f00b204e9800998ecf8427e",
        "req-6e06bd0f-1ad3-467b-b16f-46419e2eec04",
        "lab-host@fake#fake",
        "user@example.org:path",
        "?q=tokens+of+love",
        "eyjafjallajokull.example.org.is",
    ],
)
def test_text_that_only_resembles_a_pattern_is_left(value: str) -> None:
    body = notification({"note": value})
    assert SCRUBBER.scrub(body, "x").body == body


def test_secrets_in_json_inside_strings_are_found() -> None:
    inner = json.dumps({"a": [json.dumps({"password": CANARY, "id": 1})]})
    payload, paths = scrub({"blob": inner})
    assert isinstance(payload, dict)
    assert json.loads(json.loads(payload["blob"])["a"][0]) == {"password": MASK, "id": 1}
    assert paths == ("payload.blob.a[0].password",)


def test_a_pair_written_as_an_object_is_recognised() -> None:
    payload, paths = scrub({"metadata": [{"key": "db_password", "value": CANARY}]})
    assert payload == {"metadata": [{"key": "db_password", "value": MASK}]}
    assert paths == ("payload.metadata[0].value",)


def test_designates_transfer_key_is_secret_in_its_events_only() -> None:
    assert scrub({"key": "ABCDEFGH"}, "dns.zone_transfer_request.create")[0] == {"key": MASK}
    assert scrub({"key": "ABCDEFGH"}, "dns.zone.create")[0] == {"key": "ABCDEFGH"}


@pytest.mark.parametrize(
    "text",
    [
        '{"p\\u0061ssword": "canary-5f1c"}',
        '{"\\u0074oken": "canary-5f1c"}',
        '{"x": "g\\u0041AAAABn' + "Zx3q" * 30 + '"}',
        '{"x": "rabbit:\\/\\/u:canary-5f1c@h"}',
        '{"x": "rabbit://u:can\\u00e1ry-5f1c@h"}',
    ],
)
def test_escapes_do_not_hide_a_secret(text: str) -> None:
    body = notification("PLACE").replace(b'\\"PLACE\\"', json.dumps(text)[1:-1].encode())
    result = SCRUBBER.scrub(body, "x")
    assert b"canary" not in result.body
    assert b"AAAABn" not in result.body
    assert result.paths


def test_of_a_key_twice_in_a_body_only_the_last_value_remains() -> None:
    body = b'{"event_type": "x", "payload": {"password": "canary", "password": "***"}}'
    result = SCRUBBER.scrub(body, "x")
    assert b"canary" not in result.body
    assert result.paths == ("payload",)


@pytest.mark.parametrize("number", ["1", "1" * 5000])
def test_a_body_that_is_nested_too_deep_keeps_the_rest(number: str) -> None:
    deep = "[" * 100_000 + number + "]" * 100_000
    message = notification({"id": 1, "deep": "PLACE"}).replace(b'\\"PLACE\\"', deep.encode())
    event = decode(message)
    result = SCRUBBER.scrub(message, event.event_type)
    assert json.loads(bytes(decode(result.body).payload))["id"] == 1
    assert result.paths[0].startswith("payload.deep[0]")


@pytest.mark.parametrize(
    "name",
    [
        '{"token":1,"token":2}',
        '[{"token":1,"a":[{"b":1,"b":2}]}]',
        '{"token":1,"x":' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"token":1,"x":' + "1" * 5000 + "}",
        '{"token": "' + "x" * 1_100_000 + '"}',
    ],
)
def test_a_text_that_cannot_be_searched_is_masked_alone(name: str) -> None:
    assert scrub({"name": name, "id": "1"}) == ({"name": MASK, "id": "1"}, ("payload.name",))


STALLS = [
    "eyJ", "eyJaaaaaa.", "gAAAA", "://a:", "://a:b", '"', "'", "\\", '\\"', "?", "?token", "&a=", ";",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "PRIVATE KEY ", "-----END ", "pskid", '"token": ',
    "{", "[", '{"a":', '["', "a", " ", "'a' ", '{"token":1,"token":2}',
]  # fmt: skip


def cost(text: str) -> float:
    start = time.process_time()
    SCRUBBER.scrub(notification({"name": text}), "x")
    SCRUBBER.mask_secrets(text.encode())
    SCRUBBER.mask_patterns("-----BEGIN " + text)
    return time.process_time() - start


@pytest.mark.parametrize("part", STALLS)
def test_the_cost_is_at_most_linear_in_the_length(part: str) -> None:
    size = 50_000
    short, long = (part * (n // len(part)) for n in (size, 8 * size))
    # 64 times if it were quadratic; the constant absorbs the clock's grain.
    assert cost(long) < 30 * cost(short) + 0.1


def test_the_lists_can_be_extended() -> None:
    extended = Scrubber(names=["Licence-Key"], patterns=[r"SN-\d{4}"])
    body = notification({"licence_key": "L", "note": "serial SN-1234", "id": "1"})
    result = extended.scrub(body, "x")
    assert json.loads(bytes(decode(result.body).payload)) == {
        "licence_key": MASK,
        "note": f"serial {MASK}",
        "id": "1",
    }
    plain = notification({"id": "1"})
    assert extended.scrub(plain, "x").body is plain


# Properties


harmless_names = st.text("abcdefgh_-. ", max_size=8)
harmless_values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('abcdefgh {}[]":,/é\n', max_size=12)
)
trees = st.recursive(
    harmless_values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(harmless_names, inner, max_size=4),
    max_leaves=25,
)
steps = st.lists(st.sampled_from(["object", "list", "text"]), max_size=6)
secrets = st.sampled_from(SENSITIVE).map(lambda name: {name: CANARY}) | st.sampled_from(
    [FERNET, JWT, PEM, f"amqp://u:{CANARY}@h"]
)


def plant(secret: object, path: list[str], beside: object) -> object:
    for step in path:
        if step == "object":
            secret = {"beside": beside, "inner": secret}
        elif step == "list":
            secret = [beside, secret]
        else:
            secret = json.dumps({"inner": secret})
    return secret


@settings(max_examples=400, deadline=None)
@given(trees, steps, secrets)
@example(None, [], {"token": CANARY})
def test_a_planted_secret_never_survives(beside: object, path: list[str], secret: object) -> None:
    body = notification({"tree": beside, "planted": plant(secret, path, beside)})
    result = SCRUBBER.scrub(body, "instance.update")
    for part in (CANARY, FERNET, JWT, "MHcCAQEE"):
        assert part.encode() not in result.body
    assert result.paths
    assert SCRUBBER.is_clear(body) is False


@settings(max_examples=400, deadline=None)
@given(trees)
def test_a_body_without_secrets_is_unchanged(tree: object) -> None:
    body = notification({"tree": tree})
    assert SCRUBBER.scrub(body, "instance.update").body == body


@settings(max_examples=200, deadline=None)
@given(trees, st.sampled_from(SENSITIVE))
def test_only_the_secret_is_changed(tree: object, name: str) -> None:
    payload, _ = scrub({"tree": tree, name: CANARY})
    assert payload == {"tree": tree, name: MASK}


@settings(max_examples=300, deadline=None)
@given(trees, steps, st.sampled_from(SENSITIVE + LOOK_ALIKE), harmless_values)
def test_the_check_never_clears_a_body_that_the_walk_would_change(
    beside: object, path: list[str], name: str, value: object
) -> None:
    body = notification(plant({name: value}, path, beside))
    if SCRUBBER.is_clear(body):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Scrubber, "is_clear", lambda *_: False)
            assert SCRUBBER.scrub(body, "x").paths == ()


# The captured notifications of ten real services


LEAKS = {
    "scheduler.select_destinations.start": {
        "payload.request_spec.instance_properties.pci_requests._context.auth_token"
    },
    "scheduler.select_destinations.end": {
        "payload.request_spec.instance_properties.pci_requests._context.auth_token"
    },
    "compute_task.build_instances": {
        "payload.request_spec.instance_properties.pci_requests._context.auth_token",
        "payload.instance_properties.pci_requests._context.auth_token",
    },
    "dns.tsigkey.create": {"payload.secret"},
    "dns.tsigkey.update": {"payload.secret"},
    "dns.tsigkey.delete": {"payload.secret"},
    "dns.zone_transfer_request.create": {"payload.key"},
    "dns.zone_transfer_request.update": {"payload.key"},
    "dns.zone_transfer_request.delete": {"payload.key"},
    "dns.zone_transfer_accept.create": {"payload.key"},
}


@pytest.mark.parametrize(
    "captured",
    golden(),
    ids=lambda captured: f"{captured.service}-{captured.message()['event_type']}",
)
def test_only_the_known_leaks_of_captured_notifications_are_masked(captured: Captured) -> None:
    event_type = str(captured.message()["event_type"])
    result = SCRUBBER.scrub(captured.body, event_type)
    leaks = set() if captured.routing_key.startswith("versioned") else LEAKS.get(event_type, set())
    assert set(result.paths) == leaks
    if not result.paths:
        assert result.body is captured.body
        return
    before, after = captured.message(), json.loads(json.loads(result.body)["oslo.message"])
    for path in result.paths:
        *parents, field = path.split(".")
        old, new = before, after
        for parent in parents:
            old, new = old[parent], new[parent]  # type: ignore[assignment]
        assert new.pop(field) == MASK
        assert re.search(r"\w{8}", str(old.pop(field)))
    assert after == before


CANARY = "c4n4ry-Zx3q"


@pytest.mark.parametrize(
    "data",
    [
        f'{{"event_type": "x", "payload": {{"password": "{CANARY}"',
        f'{{"a": "{{\\"admin_password\\": \\"{CANARY}\\", \\"b\\": 1}}", "cut": ',
        f"Payload={{'adminPass': '{CANARY}', 'o': <object at 0x1>}}",
        f"Payload={{'adminPass': \"{CANARY}'s\", 'o': <object at 0x1>}}",
        f"{{'user_data': b'{CANARY}', 'x': <y>}}",
        f'{{"password": "{CANARY}", "password": "twice"}}',
        f'{{"dns": {{"key": "{CANARY}"}}, "x": ',
        f'{{"password" : "\\"{CANARY}", "x": ',
        f'{{"secret": "{CANARY}',
        f'["token", {{"token": "{CANARY}"}}',
    ],
)
def test_truncated_data_keeps_no_secret_under_a_sensitive_name(data: str) -> None:
    masked = SCRUBBER.mask_secrets(data.encode())
    assert CANARY.encode() not in masked
    assert MASK.encode() in masked


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\xfe random bytes \x80",
        b'{"password": null, "token_id": "t", "cut": ',
        b'{"password_expires_at": "2026", ',
        b"",
        b"[" * 5000,
    ],
)
def test_data_without_secrets_stays_byte_for_byte(data: bytes) -> None:
    assert SCRUBBER.mask_secrets(data) == data


def test_a_pattern_is_masked_between_any_bytes() -> None:
    data = b"\xff\x00" + FERNET.encode() + b"\x00\xfe"
    assert SCRUBBER.mask_secrets(data) == b"\xff\x00***\x00\xfe"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_searched_without_an_error(data: bytes) -> None:
    SCRUBBER.mask_secrets(data)


@pytest.mark.parametrize("value", ['"}' + CANARY, '",' + CANARY, '"]' + CANARY, '\\"},' + CANARY])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_secret_that_begins_with_a_quote_is_not_an_empty_string(value: str, depth: int) -> None:
    payload: object = {"password": value, "x": 1}
    for _ in range(depth):
        payload = {"inner": json.dumps(payload)}
    body = notification(payload)
    assert not SCRUBBER.is_clear(body)
    assert CANARY.encode() not in SCRUBBER.scrub(body, "x").body
