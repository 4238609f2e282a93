"""docs/how-to/kubernetes.md: its commands, on a real API server where there is one."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cli.test_docs import ROOT, Shell, Shown, shown
from tests.kubernetes.conftest import EXTERNAL, KIND, NAME, OPENSTACK, REAL, Cloud

PAGE = "docs/how-to/kubernetes.md"


def test_the_secret_of_the_page_is_what_the_operator_reads(tmp_path: Path) -> None:
    """Rendered by kubectl without a cluster, given to the operator's own reader."""
    from stackbus.expose.cluster.endpoint import read_access

    (one,) = (one for one in shown(PAGE) if "create secret generic" in one.command)
    (tmp_path / "password").write_text("s3cret\n")
    done = subprocess.run(
        ["bash", "-c", f"{one.command} --dry-run=client -o yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    document = yaml.safe_load(done.stdout)
    assert document["metadata"] == {
        "name": "stackbus-broker",
        "namespace": OPENSTACK,
        "creationTimestamp": None,
    }
    found = read_access(document, "openstack/stackbus-broker")
    assert (found.username, found.password) == ("admin", "s3cret")


def test_what_the_page_lists_is_what_is_made() -> None:
    from stackbus.expose.cluster import objects
    from stackbus.expose.cluster.endpoint import SERVICE
    from stackbus.expose.cluster.reconcile import LET_GO
    from stackbus.expose.cluster.rotation import ROTATE

    text = (ROOT / PAGE).read_text()
    for name in (objects.SERVER_TLS, objects.CONFIGURATION, objects.RELAY, SERVICE, LET_GO, ROTATE):
        assert f"`{name}`" in text or f"{name}=" in text
    folders = set(re.findall(r"deploy/[a-z/-]+[a-z]", text)) - {"deploy/base/rbac"}
    assert len(folders) == 5
    for folder in folders:
        assert (ROOT / folder / "kustomization.yaml").exists()


@pytest.mark.skipif(REAL is None, reason="needs a real API server (make test-kubernetes)")
def test_its_five_commands_install_it(cloud: Cloud, tmp_path: Path) -> None:
    """The operator of the Deployment is run beside: there are no nodes."""
    cloud.delete("Secret", OPENSTACK, "stackbus-broker")
    description = cloud.broker.description
    (tmp_path / "password").write_text(description.password)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    shell = Shell(tmp_path, KUBECONFIG=str(REAL))
    places = {
        "http://rabbitmq.openstack.svc:15672": description.management_url,
        "amqp://rabbitmq.openstack.svc:5672": f"amqp://127.0.0.1:{description.ports.amqp}",
        "username=admin": f"username={description.username}",
        "apply -k": "apply --validate=false -k",
        "apply -f": "apply --validate=false -f",
    }
    try:
        for one in shown(PAGE):
            if " wait " in one.command:
                cloud.start()
                cloud.give_address("192.0.2.7")
            shell.run(Shown(one.command, one.lines), places)
        assert len(cloud.names("Secret", EXTERNAL)) == 2
        found = cloud.get("Secret", EXTERNAL, "openstack-external-consumer-a-notifications")
        assert found is not None
        assert base64.b64decode(found["data"]["hosts"]) == b"192.0.2.7"
    finally:
        cloud.delete(KIND, OPENSTACK, NAME)
        cloud.wait(lambda: cloud.get(KIND, OPENSTACK, NAME) is None)
