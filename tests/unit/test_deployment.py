"""The deployment: what is valid, and each mistake with its path, its value and what to do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackbus.errors import InputError, InvalidDeployment
from stackbus.expose.deployment import Queue, Topic, binding_keys
from stackbus.expose.validation import EXTERNAL, load, parse

GOOD: dict[str, Any] = {
    "apiVersion": "lcm.mirantis.com/v1alpha1",
    "kind": "OpenStackDeployment",
    "metadata": {"name": "osh", "namespace": "openstack"},
    "spec": {
        "preset": "compute",
        "features": {
            "services": ["identity", "image", "compute", "load-balancer", "placement"],
            "neutron": {"floating_network": {"enabled": False}},
            "messaging": {
                "notifications": {
                    "external": {"enabled": True, "topics": ["a", "b.c"], "settings": {}}
                }
            },
        },
    },
}
REMOVED = object()


def change(path: str, value: object) -> dict[str, Any]:
    """Return the valid document with one value changed; ``/`` separates the keys of ``path``."""
    document = copy.deepcopy(GOOD)
    parent: Any = document
    *keys, key = path.split("/")
    for step in keys:
        parent = parent[int(step)] if isinstance(parent, list) else parent.setdefault(step, {})
    if value is REMOVED:
        del parent[key]
    else:
        parent[key] = value
    return document


E = "spec/features/messaging/notifications/external"
BAD: list[tuple[str, object, str, str]] = [
    # the key to change, its value, the path in the mistake, a word of what to do
    ("apiVersion", "v1", "apiVersion", "lcm.mirantis.com/v1alpha1"),
    ("apiVersion", REMOVED, "apiVersion", "lcm.mirantis.com"),
    ("kind", "Deployment", "kind", "OpenStackDeployment"),
    ("kind", None, "kind", "OpenStackDeployment"),
    ("metadata", REMOVED, "metadata", "object with a name"),
    ("metadata", [], "metadata", "object with a name"),
    ("metadata/name", "Upper", "metadata.name", "Kubernetes name"),
    ("metadata/name", 7, "metadata.name", "Kubernetes name"),
    ("metadata/namespace", "", "metadata.namespace", "Kubernetes name"),
    ("spec", REMOVED, "spec", "must be an object"),
    ("spec", "x", "spec", "must be an object"),
    ("spec/features", [], "spec.features", "must be an object"),
    ("spec/features/services", "compute", "spec.features.services", "list"),
    ("spec/features/services", [3], "spec.features.services[0]", "text"),
    ("spec/features/services", ["computer"], "spec.features.services[0]", "compute"),
    ("spec/features/services", ["placement"], "spec.features.services", "all ten"),
    ("spec/features/messaging", 1, "spec.features.messaging", "must be an object"),
    (
        "spec/features/messaging/notifications",
        [],
        "spec.features.messaging.notifications",
        "object",
    ),
    (E, None, EXTERNAL, "leave the key out"),
    (E, True, EXTERNAL, "must be an object"),
    (f"{E}/enabled", "yes", f"{EXTERNAL}.enabled", "true or false"),
    (f"{E}/enabled", 1, f"{EXTERNAL}.enabled", "true or false"),
    (f"{E}/enabled", REMOVED, f"{EXTERNAL}.enabled", "true or false"),
    (f"{E}/topics", REMOVED, f"{EXTERNAL}.topics", "list the topics"),
    (f"{E}/topics", "a", f"{EXTERNAL}.topics", "list"),
    (f"{E}/topics", {"a": 1}, f"{EXTERNAL}.topics", "list"),
    (f"{E}/topics", [1], f"{EXTERNAL}.topics[0]", "quotes"),
    (f"{E}/topics", [None], f"{EXTERNAL}.topics[0]", "text"),
    (f"{E}/topics", ["external-consumer-A"], f"{EXTERNAL}.topics[0]", "'external-consumer-a'"),
    (f"{E}/topics", ["under_score"], f"{EXTERNAL}.topics[0]", "'under-score'"),
    (f"{E}/topics", ["-a"], f"{EXTERNAL}.topics[0]", "'a'"),
    (f"{E}/topics", ["a-"], f"{EXTERNAL}.topics[0]", "'a'"),
    (f"{E}/topics", ["a..b"], f"{EXTERNAL}.topics[0]", "'a.b'"),
    (f"{E}/topics", ["a.-b"], f"{EXTERNAL}.topics[0]", "'a.b'"),
    (f"{E}/topics", [""], f"{EXTERNAL}.topics[0]", "lower-case"),
    (f"{E}/topics", ["a b"], f"{EXTERNAL}.topics[0]", "'a-b'"),
    (f"{E}/topics", ["topïc"], f"{EXTERNAL}.topics[0]", "lower-case"),
    (f"{E}/topics", ["a\n"], f"{EXTERNAL}.topics[0]", "lower-case"),
    (f"{E}/topics", ["x" * 230], f"{EXTERNAL}.topics[0]", "229"),
    (f"{E}/topics", ["notifications"], f"{EXTERNAL}.topics[0]", "inner bus"),
    (f"{E}/topics", ["amq.topic"], f"{EXTERNAL}.topics[0]", "RabbitMQ"),
    (f"{E}/topics", ["stackbus"], f"{EXTERNAL}.topics[0]", "stackbus"),
    (f"{E}/topics", ["stackbus.journal"], f"{EXTERNAL}.topics[0]", "stackbus"),
    (f"{E}/topics", ["a", "a"], f"{EXTERNAL}.topics[1]", "once"),
    (f"{E}/topics", ["a", "a.info"], f"{EXTERNAL}.topics[1]", "queue of topic a"),
    (f"{E}/topics", ["a.warn", "a"], f"{EXTERNAL}.topics[0]", "queue of topic a"),
    (f"{E}/topicz", [], f"{EXTERNAL}.topicz", "did you mean 'topics'"),
    (f"{E}/settings", [], f"{EXTERNAL}.settings", "object"),
    (f"{E}/settings/z", {}, f"{EXTERNAL}.settings.z", "no such topic"),
    (f"{E}/settings/a", 5, f"{EXTERNAL}.settings.a", "object"),
    (f"{E}/settings/a/acess", "own", f"{EXTERNAL}.settings.a.acess", "'access'"),
    (f"{E}/settings/a/access", "write", f"{EXTERNAL}.settings.a.access", "read-only"),
    (f"{E}/settings/a/services", "compute", f"{EXTERNAL}.settings.a.services", "list"),
    (f"{E}/settings/a/services", [], f"{EXTERNAL}.settings.a.services", "leave the key out"),
    (f"{E}/settings/a/services", ["comput"], f"{EXTERNAL}.settings.a.services[0]", "'compute'"),
    (f"{E}/settings/a/services", ["dns"], f"{EXTERNAL}.settings.a.services[0]", "enable it"),
    (f"{E}/settings/a/services", ["image", "image"], f"{EXTERNAL}.settings.a.services", "twice"),
    (f"{E}/settings/a/events", ["a..b"], f"{EXTERNAL}.settings.a.events[0]", "pattern"),
    (f"{E}/settings/a/events", ["inst*"], f"{EXTERNAL}.settings.a.events[0]", "pattern"),
    (f"{E}/settings/a/events", ["a." * 100 + "a"], f"{EXTERNAL}.settings.a.events[0]", "150"),
    (f"{E}/settings/a/events", [5], f"{EXTERNAL}.settings.a.events[0]", "text"),
    (f"{E}/settings/a/projects", ["a.b"], f"{EXTERNAL}.settings.a.projects[0]", "id"),
    (f"{E}/settings/a/projects", [123], f"{EXTERNAL}.settings.a.projects[0]", "quotes"),
    (f"{E}/settings/a/projects", ["x" * 65], f"{EXTERNAL}.settings.a.projects[0]", "64"),
    (f"{E}/settings/a/priorities", ["inf"], f"{EXTERNAL}.settings.a.priorities[0]", "'info'"),
    (f"{E}/settings/a/priorities", ["warning"], f"{EXTERNAL}.settings.a.priorities[0]", "warn"),
    (f"{E}/settings/a/queue", "quorum", f"{EXTERNAL}.settings.a.queue", "object"),
    (f"{E}/settings/a/queue/type", "stream", f"{EXTERNAL}.settings.a.queue.type", "quorum"),
    (f"{E}/settings/a/queue/maxAge", 3, f"{EXTERNAL}.settings.a.queue.maxAge", "unit"),
    (f"{E}/settings/a/queue/maxAge", "0s", f"{EXTERNAL}.settings.a.queue.maxAge", "between"),
    (f"{E}/settings/a/queue/maxAge", "50d", f"{EXTERNAL}.settings.a.queue.maxAge", "49d"),
    (f"{E}/settings/a/queue/maxBytes", "1 GB!", f"{EXTERNAL}.settings.a.queue.maxBytes", "GiB"),
    (f"{E}/settings/a/queue/maxBytes", 0, f"{EXTERNAL}.settings.a.queue.maxBytes", "more than 0"),
    (f"{E}/settings/a/queue/maxBytes", True, f"{EXTERNAL}.settings.a.queue.maxBytes", "number"),
    (f"{E}/settings/a/queue/size", 1, f"{EXTERNAL}.settings.a.queue.size", "unknown key"),
    (
        f"{E}/settings/a",
        {"projects": [f"p{n}" for n in range(200)], "events": [f"e{n}" for n in range(6)]},
        f"{EXTERNAL}.settings.a",
        "more than 1000",
    ),
]


@pytest.mark.parametrize(("where", "value", "path", "mend"), BAD)
def test_a_mistake_is_told_with_its_path_and_mend(
    where: str, value: object, path: str, mend: str
) -> None:
    with pytest.raises(InvalidDeployment) as refused:
        parse(change(where, value), "deployment.yaml")
    mistakes = [m for m in refused.value.mistakes if m.path == path and mend in m.remedy]
    assert mistakes, str(refused.value)
    assert refused.value.exit_code == 2


def test_all_mistakes_are_told_in_one_run() -> None:
    document = change(f"{E}/topics", ["A", "b", "b"])
    document["kind"] = "x"
    document["spec"]["features"]["services"] = ["imagee"]
    document["spec"]["features"]["messaging"]["notifications"]["external"]["settings"] = {
        "b": {"access": "x", "queue": {"maxAge": 1, "x": 2}},
        "c": {},
    }
    with pytest.raises(InvalidDeployment) as refused:
        parse(document, "d")
    paths = {mistake.path for mistake in refused.value.mistakes}
    assert paths == {
        "kind",
        "spec.features.services[0]",
        f"{EXTERNAL}.topics[0]",
        f"{EXTERNAL}.topics[2]",
        f"{EXTERNAL}.settings.b.access",
        f"{EXTERNAL}.settings.b.queue.maxAge",
        f"{EXTERNAL}.settings.b.queue.x",
        f"{EXTERNAL}.settings.c",
    }


def test_what_mosks_resource_holds_besides_is_let_through() -> None:
    read = parse(GOOD, "d")
    assert [topic.name for topic in read.topics] == ["a", "b.c"]
    assert read.services == ("glance", "keystone", "nova")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (f"{E}/enabled", False),
        (E, REMOVED),
        ("spec/features/messaging", REMOVED),
        ("spec/features/messaging", None),
        ("spec/features", REMOVED),
        (f"{E}/topics", []),
    ],
)
def test_disabled_or_absent_takes_every_topic_away(where: str, value: object) -> None:
    assert parse(change(where, value), "d").topics == ()


def test_a_disabled_block_is_still_checked() -> None:
    document = change(f"{E}/topics", ["A"])
    document["spec"]["features"]["messaging"]["notifications"]["external"]["enabled"] = False
    with pytest.raises(InvalidDeployment):
        parse(document, "d")


def test_the_longest_legal_name_is_accepted() -> None:
    name = "x" * 229
    assert parse(change(f"{E}/topics", [name]), "d").topics[0].name == name


def test_settings_become_values() -> None:
    settings = {
        "services": ["compute", "identity"],
        "events": ["instance.#"],
        "projects": ["p1"],
        "priorities": ["info", "error"],
        "access": "read-only",
        "queue": {"type": "classic", "maxAge": "3d", "maxBytes": "1GiB"},
    }
    topic = parse(change(f"{E}/settings/a", settings), "d").topics[0]
    assert topic == Topic(
        "a",
        services=("keystone", "nova"),
        events=("instance.#",),
        projects=("p1",),
        priorities=("error", "info"),
        read_only=True,
        queue=Queue("classic", 3 * 86400, 2**30),
    )
    assert binding_keys(topic, None) == (
        "error.keystone.p1.instance.#",
        "error.nova.p1.instance.#",
        "info.keystone.p1.instance.#",
        "info.nova.p1.instance.#",
    )


def test_without_settings_all_passes_and_with_enabled_services_only_theirs() -> None:
    assert binding_keys(Topic("a"), None) == ("#",)
    assert binding_keys(Topic("a"), ("nova",)) == ("*.nova.*.#",)


names = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?(\.[a-z0-9]{1,5})?\Z").filter(
    lambda name: not name.startswith(("amq", "stackbus", "notifications"))
)


@given(st.lists(names, unique=True, max_size=5), st.booleans())
def test_a_deployment_written_out_is_read_back(listed: list[str], read_only: bool) -> None:
    listed = [name for name in listed if name.rpartition(".")[0] not in listed]
    document = change(f"{E}/topics", listed)
    external = document["spec"]["features"]["messaging"]["notifications"]["external"]
    external["settings"] = {
        name: {"access": "read-only" if read_only else "own", "queue": {"maxAge": "2h"}}
        for name in listed
    }
    read = parse(document, "d")
    assert parse(read.to_document(), "d") == read


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_at_all_under_external_is_read_or_refused(value: object) -> None:
    try:
        parse(change(E, value), "d")
    except InvalidDeployment as refused:
        assert all(mistake.path.startswith(EXTERNAL) for mistake in refused.mistakes)


FILES: list[tuple[bytes, str]] = [
    (b"", "empty"),
    (b"# only a comment\n", "empty"),
    (b"\x7fELF\x02\x01\x00\xff\xfe", "UTF-8"),
    (b"a: \x00b", "special characters"),
    (b"a: [1, 2", "line 1"),
    (b"a: b: c", "line 1"),
    (b"a: 1\na: 2\n", "occurs twice"),
    (b"!!python/object/apply:os.system ['touch /tmp/owned']", "python/object"),
    (b"a: !!python/name:os.system", "python/name"),
    (b"a: 1\n---\nb: 2\n", "2 documents"),
    (b"? [1, 2]\n: x\n", "plain value"),
    (b"[" * 5000, "nested too deep"),
    (b"just a text", "must be a"),
    (b"- a\n- b\n", "must be a"),
    (b"5", "must be a"),
    (b"x: *nowhere", "undefined alias"),
    (b"\t- a", "line 1"),
]


@pytest.mark.parametrize(("content", "reason"), FILES)
def test_a_file_that_is_not_a_deployment_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"deployment\.yaml") as refused:
        load(path)
    assert reason in str(refused.value)
    assert str(path) in str(refused.value)


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    document = yaml.safe_dump(GOOD) + "\n".join(lines)
    path = tmp_path / "bomb.yaml"
    path.write_text(document, "utf-8")
    assert load(path).name == "osh"
    path.write_text("\n".join(lines) + "\nkind: *a11\n", "utf-8")
    with pytest.raises(InvalidDeployment) as refused:
        load(path)
    assert len(str(refused.value)) < 5000
