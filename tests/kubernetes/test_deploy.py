"""deploy/ renders, holds together, and asks for no more than it needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackbus.bus.rabbitmq_conf import RABBITMQ_CONF
from stackbus.cli.operator import operator
from stackbus.expose.cluster.objects import (
    CONFIGURATION,
    RELAY,
    SERVER_TLS,
    configuration,
)
from stackbus.settings import Settings

ROOT = Path(__file__).parent.parent.parent
RENDERED = [
    "deploy",
    "deploy/overlays/mosk",
    "deploy/overlays/two-brokers",
    "deploy/overlays/with-rabbitmq",
]


def rendered(folder: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def found(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)


@pytest.mark.parametrize("folder", RENDERED)
def test_it_renders_and_what_it_names_is_there(folder: str) -> None:
    objects = rendered(folder)
    kinds = {(one["kind"], one["metadata"]["name"]) for one in objects}
    assert ("Namespace", "stackbus") in kinds
    assert ("Namespace", "openstack-external") in kinds
    has_definition = (
        "CustomResourceDefinition",
        "openstackdeployments.lcm.mirantis.com",
    ) in kinds
    assert has_definition == (folder != "deploy/overlays/mosk")
    for binding in (one for one in objects if one["kind"].endswith("Binding")):
        role = binding["roleRef"]
        assert (role["kind"], role["name"]) in kinds
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["name"]) in kinds
    for policy in (one for one in objects if one["kind"] == "NetworkPolicy"):
        assert policy["spec"]["policyTypes"]


@pytest.mark.parametrize("name", ["stackbus-operator", "stackbus-relay"])
def test_a_pod_has_no_more_than_it_needs(name: str) -> None:
    deployment = found(rendered("deploy"), "Deployment", name)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 2
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["livenessProbe"]
    assert container["readinessProbe"]
    assert container["image"] == "stackbus:0.1.0"
    names = {port["name"] for port in container["ports"]}
    assert container["livenessProbe"]["httpGet"]["port"] in names


@pytest.mark.parametrize("folder", RENDERED)
def test_the_operators_arguments_are_options_that_it_has(folder: str) -> None:
    deployment = found(rendered(folder), "Deployment", "stackbus-operator")
    command, *options = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert command == "operator"
    parameters = set(operator.__annotations__)
    for option in options:
        name = re.match(r"--([a-z-]+)=", option)
        assert name is not None
        assert name[1].replace("-", "_") in parameters


def test_the_relay_reads_the_secret_that_the_operator_writes() -> None:
    deployment = found(rendered("deploy"), "Deployment", "stackbus-relay")
    pod = deployment["spec"]["template"]["spec"]
    (volume,) = pod["volumes"]
    assert volume["secret"]["secretName"] == RELAY
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    mounted = container["volumeMounts"][0]["mountPath"]
    settings = Settings.__struct_fields__
    for variable in container["env"]:
        assert variable["name"].removeprefix("STACKBUS_").lower() in settings
        assert variable["value"] in (
            f"{mounted}/inner_url",
            f"{mounted}/outer_url",
            f"{mounted}/ca.crt",
        )


def test_rabbitmqs_own_cluster_has_what_the_config_map_says() -> None:
    objects = rendered("deploy/overlays/with-rabbitmq")
    cluster = found(objects, "RabbitmqCluster", "rabbitmq")["spec"]
    assert cluster["replicas"] == 3
    assert cluster["rabbitmq"]["additionalConfig"] == RABBITMQ_CONF
    assert cluster["tls"]["secretName"] == cluster["tls"]["caSecretName"] == SERVER_TLS
    assert RABBITMQ_CONF in configuration("openstack")["data"]["90-stackbus.conf"]
    roles = [one for one in objects if one["kind"] == "Role"]
    names = {
        name for role in roles for rule in role["rules"] for name in rule.get("resourceNames", ())
    }
    assert {SERVER_TLS, CONFIGURATION, "rabbitmq-external", "stackbus-broker"} == names
    selector = Settings().service_selector
    names_of_clusters = [
        one["metadata"]["name"] for one in objects if one["kind"] == "RabbitmqCluster"
    ]
    assert [selector["app.kubernetes.io/name"]] == names_of_clusters


def test_the_image_works_as_its_user(tmp_path: Path) -> None:
    """What the Dockerfile copies and runs is copied and run here, then used as its user."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().split()
    source, made = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            *names, where = line.split()[1:]
            for name in names:
                assert name not in ignored
                target = source / where / ("" if (ROOT / name).is_dir() else name)
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / where)
                else:
                    shutil.copy(ROOT / name, target)
    (run,) = (line for line in lines if "uv sync" in line)
    variable, *command = run.removeprefix("RUN ").split()
    name, _, place = variable.partition("=")
    assert place == "/opt/stackbus"
    environment = {**os.environ, name: str(made)}
    environment.pop("VIRTUAL_ENV", None)
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    user = next(line.split()[1] for line in lines if line.startswith("USER"))
    assert user == "10001:10001"
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    as_user = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups"]
    python = str(made / "bin" / "python")
    if subprocess.run([*as_user, python, "-c", ""], capture_output=True, check=False).returncode:
        as_user = []  # this machine's Python is in a home that others may not enter
    for words in (["operator", "--help"], ["relay", "--help"], ["--version"]):
        done = subprocess.run(
            [*as_user, str(made / "bin" / "stackbus"), *words],
            env={"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": "/tmp"},  # noqa: S108 -- the image's
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    # Imports that only the running operator needs.
    subprocess.run([python, "-c", "import stackbus.operator.handlers"], check=True)
