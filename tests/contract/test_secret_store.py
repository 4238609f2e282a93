"""What every place that keeps Secrets must do: the folder, and Kubernetes."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.kubernetes.emulator import running

from stackbus import files
from stackbus.clients.kubernetes import Kubernetes
from stackbus.errors import Conflict, StackbusError
from stackbus.expose.cluster.objects import namespace
from stackbus.expose.cluster.store import MANAGER, KubernetesStore
from stackbus.expose.secrets import (
    LABELS,
    NAMESPACE,
    OWN_NAMESPACE,
    FolderStore,
    Secret,
    SecretStore,
    manifest,
    parse_manifest,
)

SECRET = Secret(
    NAMESPACE, "openstack-siem-notifications", {"username": "siem.g1", "password": "p\n"}
)


@pytest.fixture(params=["folder", "kubernetes"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SecretStore]:
    if request.param == "folder":
        yield FolderStore(tmp_path / "secrets")
        return
    with running() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        cluster = Kubernetes(MANAGER)
        for name in (NAMESPACE, OWN_NAMESPACE):
            cluster.create(namespace(name))
        yield KubernetesStore(cluster)


def test_what_was_written_is_read(store: SecretStore) -> None:
    assert store.read(SECRET.namespace, SECRET.name) is None
    assert store.names(NAMESPACE) == []
    store.write(SECRET)
    assert store.read(SECRET.namespace, SECRET.name) == SECRET
    assert store.names(NAMESPACE) == [SECRET.name]


def test_writing_again_replaces_the_whole(store: SecretStore) -> None:
    store.write(SECRET)
    other = Secret(SECRET.namespace, SECRET.name, {"username": "siem.g2"})
    store.write(other)
    assert store.read(SECRET.namespace, SECRET.name) == other


def test_removing_none_is_no_error(store: SecretStore) -> None:
    store.remove(NAMESPACE, SECRET.name)
    store.write(SECRET)
    store.remove(NAMESPACE, SECRET.name)
    assert store.read(NAMESPACE, SECRET.name) is None


def test_namespaces_are_apart(store: SecretStore) -> None:
    own = Secret(OWN_NAMESPACE, SECRET.name, {"username": "other"})
    store.write(SECRET)
    store.write(own)
    store.remove(NAMESPACE, SECRET.name)
    assert store.read(OWN_NAMESPACE, SECRET.name) == own
    assert (store.names(NAMESPACE), store.names(OWN_NAMESPACE)) == ([], [SECRET.name])


def test_any_text_survives(store: SecretStore) -> None:
    secret = Secret(NAMESPACE, SECRET.name, {"a": "", "b": "ünï\n\n", "c-d.e": "x" * 100_000})
    store.write(secret)
    assert store.read(NAMESPACE, SECRET.name) == secret


def test_the_longest_legal_name_is_kept(store: SecretStore) -> None:
    name = f"openstack-{'x' * 229}-notifications"
    secret = Secret(NAMESPACE, name, {"username": "u"})
    store.write(secret)
    assert store.names(NAMESPACE) == [name]
    assert store.read(NAMESPACE, name) == secret


def test_a_secret_shows_no_value() -> None:
    assert "siem.g1" not in repr(SECRET)
    assert "password" in repr(SECRET)


# The folder's own


def test_a_manifest_is_kubernetes_secret_and_its_owners_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "secrets")
    store.write(SECRET)
    path = tmp_path / "secrets" / NAMESPACE / "openstack-siem-notifications.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    document = yaml.safe_load(path.read_text())
    assert (document["apiVersion"], document["kind"], document["type"]) == (
        "v1",
        "Secret",
        "Opaque",
    )
    assert document["metadata"]["namespace"] == "openstack-external"
    assert base64.b64decode(document["data"]["password"]) == b"p\n"
    assert parse_manifest(path.read_text(), str(path)) == SECRET


@pytest.mark.parametrize(
    "text", ["", "x", "[", "kind: Secret", "kind: Secret\ndata: {a: '!'}", "\x00"]
)
def test_a_manifest_that_somebody_broke_counts_as_gone(tmp_path: Path, text: str) -> None:
    store = FolderStore(tmp_path)
    store.write(SECRET)
    store.path(NAMESPACE, SECRET.name).write_text(text)
    assert store.read(NAMESPACE, SECRET.name) is None
    with pytest.raises(StackbusError):
        parse_manifest(text, "x")


def test_a_full_disk_leaves_the_old_secret_whole(tmp_path: Path) -> None:
    """A file system of 64 kB is filled: the write fails in a sentence, nothing is half."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {mount} 2>/dev/null") != 0:  # noqa: S605
        pytest.skip("no permission to mount a small file system")
    try:
        store = FolderStore(mount)
        store.write(SECRET)
        before = store.path(NAMESPACE, SECRET.name).read_bytes()
        big = Secret(SECRET.namespace, SECRET.name, {"password": "x" * 100_000})
        with pytest.raises(StackbusError, match="No space left"):
            store.write(big)
        assert store.path(NAMESPACE, SECRET.name).read_bytes() == before
        assert sorted(path.name for path in (mount / NAMESPACE).iterdir()) == [
            "openstack-siem-notifications.yaml"
        ]
    finally:
        os.system(f"umount {mount}")  # noqa: S605


def test_a_lock_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with files.locked(lock, 0.0, "busy"):
        with pytest.raises(StackbusError, match="busy"), files.locked(lock, 0.1, "busy"):
            pass
    with files.locked(lock, 0.0, "busy"):
        pass
    assert manifest(SECRET).startswith("apiVersion: v1")


# Kubernetes' own


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    with running() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        found = Kubernetes(MANAGER)
        found.create(namespace(NAMESPACE))
        yield found


def foreign(**others: object) -> dict[str, object]:
    metadata = {"name": SECRET.name, "namespace": NAMESPACE}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "data": {"username": "dGhlaXJz"},
        **others,
    }


def test_somebody_elses_is_neither_read_nor_written_nor_removed(cluster: Kubernetes) -> None:
    cluster.create(foreign())
    store = KubernetesStore(cluster)
    assert store.read(NAMESPACE, SECRET.name) is None
    assert store.names(NAMESPACE) == []
    assert store.foreign(NAMESPACE) == {SECRET.name}
    with pytest.raises(Conflict, match=SECRET.name):
        store.write(SECRET)
    store.remove(NAMESPACE, SECRET.name)
    found = cluster.get("Secret", NAMESPACE, SECRET.name)
    assert found is not None
    assert found["data"] == {"username": "dGhlaXJz"}


def test_ours_stays_ours_without_its_label_and_is_mended(cluster: Kubernetes) -> None:
    KubernetesStore(cluster).write(SECRET)
    found = cluster.get("Secret", NAMESPACE, SECRET.name)
    assert found is not None
    added = {"metadata": {"labels": None}, "data": {"added": "eA==", "password": None}}
    cluster.patch(found, added)
    store = KubernetesStore(cluster)
    assert store.names(NAMESPACE) == [SECRET.name]
    assert store.read(NAMESPACE, SECRET.name) != SECRET
    store.write(SECRET)
    again = KubernetesStore(cluster)
    assert again.read(NAMESPACE, SECRET.name) == SECRET
    mended = cluster.get("Secret", NAMESPACE, SECRET.name)
    assert mended is not None
    cluster.patch(mended, {"metadata": {"labels": None}})
    KubernetesStore(cluster).label(NAMESPACE)
    mended = cluster.get("Secret", NAMESPACE, SECRET.name)
    assert mended is not None
    assert mended["metadata"]["labels"] == LABELS


@pytest.mark.parametrize("data", [{"a": "!"}, {"a": "gA=="}, None])
def test_data_that_is_no_text_counts_as_gone(cluster: Kubernetes, data: object) -> None:
    KubernetesStore(cluster).write(SECRET)
    found = cluster.get("Secret", NAMESPACE, SECRET.name)
    assert found is not None
    cluster.patch(found, {"data": None})
    cluster.patch(found, {"data": data})
    read = KubernetesStore(cluster).read(NAMESPACE, SECRET.name)
    assert read is None or read.data == {}
