"""A real Keystone and a real Glance on this machine, from PyPI, each in its own environment.

Called by ``demo.py``. Configured by nothing but a minimal file each, plus the drop-in that
``stackbus config`` prints, so that what is shown is what an administrator would get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from stackbus.broker.node import LOOPBACK, free_port
from stackbus.broker.supervisor import Child
from stackbus.errors import StackbusError

_HERE = Path(__file__).parent
_READY_SECONDS = 120.0
_ADMIN_PASSWORD = "demonstration"  # noqa: S105 -- of a cloud that lives two minutes on loopback

Progress = Callable[[str], None]

_KEYSTONE_CONF = """
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{folder}/keystone.sqlite
[fernet_tokens]
key_repository = {folder}/fernet-keys
[credential]
key_repository = {folder}/credential-keys
[identity]
password_hash_rounds = 4
"""

_GLANCE_CONF = """
[DEFAULT]
use_stderr = true
enabled_backends = files:file
worker_self_reference_url = http://127.0.0.1:{port}
[database]
connection = sqlite:///{folder}/glance.sqlite
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = {folder}/images
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[oslo_concurrency]
lock_path = {folder}/lock
[paste_deploy]
flavor = keystone
config_file = {venv}/etc/glance/glance-api-paste.ini
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
username = admin
password = {password}
project_name = admin
user_domain_id = default
project_domain_id = default
"""


def install(name: str, folder: Path) -> None:
    """Install a service, versions pinned, into ``folder/name/venv``. Raises StackbusError."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise StackbusError("the demonstration installs with uv, which is missing: pip install uv")
    venv = folder / name / "venv"
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], name)
    python = str(venv / "bin" / "python")
    requirements = str(_HERE / f"{name}.txt")
    _run([uv, "pip", "install", "--quiet", "--python", python, "-r", requirements], name)


@dataclass
class Cloud:
    """Keystone and Glance, once started."""

    folder: Path
    keystone: str
    glance: str
    processes: list[Child]

    def stop(self) -> None:
        """End both, by their process ids."""
        for child in reversed(self.processes):
            child.stop()


def start(folder: Path, drop_ins: dict[str, str], progress: Progress) -> Cloud:
    """Start both services, installed in ``folder``, and wait until their APIs answer."""
    taken: set[int] = set()
    ports = {}
    for name in ("keystone", "glance"):
        ports[name] = free_port(LOOPBACK, taken)
        taken.add(ports[name])
    urls = {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
    cloud = Cloud(folder, f"{urls['keystone']}/v3", urls["glance"], [])
    try:
        progress("preparing Keystone's database")
        _prepare_keystone(folder / "keystone", drop_ins["keystone"], cloud.keystone)
        cloud.processes.append(_serve(folder, "keystone", ports["keystone"]))
        progress("preparing Glance's database")
        _prepare_glance(folder / "glance", drop_ins["glance"], cloud.keystone, ports["glance"])
        cloud.processes.append(_serve(folder, "glance", ports["glance"]))
        progress("waiting for both APIs")
        for child, url in zip(cloud.processes, urls.values(), strict=True):
            _wait(child, url)
    except BaseException:
        cloud.stop()
        raise
    return cloud


def walk(cloud: Cloud, progress: Progress) -> None:
    """Make a project, a user, a failed login and an image through the real APIs."""
    with httpx.Client(timeout=60) as http:
        progress("making a project and a user")
        admin = _token(http, cloud, "admin", _ADMIN_PASSWORD, "admin")
        headers = {"X-Auth-Token": admin}
        project = _post(http, f"{cloud.keystone}/projects", {"project": {"name": "demo"}}, headers)
        user = _post(
            http,
            f"{cloud.keystone}/users",
            {"user": {"name": "alice", "password": "wonderland"}},
            headers,
        )
        roles = http.get(f"{cloud.keystone}/roles?name=member", headers=headers).json()["roles"]
        grant = f"projects/{project['project']['id']}/users/{user['user']['id']}/roles"
        _checked(http.put(f"{cloud.keystone}/{grant}/{roles[0]['id']}", headers=headers))
        progress("failing to log in")
        refused = http.post(f"{cloud.keystone}/auth/tokens", json=_login("alice", "guess", "demo"))
        if refused.status_code != httpx.codes.UNAUTHORIZED:
            raise StackbusError(f"Keystone answered {refused.status_code} to a wrong password")
        progress("uploading an image")
        headers = {"X-Auth-Token": _token(http, cloud, "alice", "wonderland", "demo")}
        image = _post(
            http,
            f"{cloud.glance}/v2/images",
            {"name": "cirros", "disk_format": "raw", "container_format": "bare"},
            headers,
        )
        url = f"{cloud.glance}/v2/images/{image['id']}"
        stream = {**headers, "Content-Type": "application/octet-stream"}
        _checked(http.put(f"{url}/file", content=b"an image", headers=stream))
        _checked(http.delete(url, headers=headers))


def _prepare_keystone(folder: Path, drop_in: str, url: str) -> None:
    _write(folder / "etc" / "keystone.conf", _KEYSTONE_CONF.format(folder=folder))
    _write(folder / "etc" / "stackbus.conf", drop_in)
    manage = [str(folder / "venv/bin/keystone-manage"), "--config-dir", str(folder / "etc")]
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    _run([*manage, "db_sync"], "keystone")
    _run([*manage, "fernet_setup", *owner], "keystone")
    _run([*manage, "credential_setup", *owner], "keystone")
    environment = {
        "OS_BOOTSTRAP_PASSWORD": _ADMIN_PASSWORD,
        "OS_BOOTSTRAP_PUBLIC_URL": url,
        "OS_BOOTSTRAP_INTERNAL_URL": url,
        "OS_BOOTSTRAP_REGION_ID": "RegionOne",
    }
    _run([*manage, "bootstrap"], "keystone", environment)


def _prepare_glance(folder: Path, drop_in: str, keystone: str, port: int) -> None:
    conf = _GLANCE_CONF.format(
        folder=folder,
        venv=folder / "venv",
        keystone=keystone,
        port=port,
        password=_ADMIN_PASSWORD,
    )
    for name in ("images", "staging", "tasks", "lock"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write(folder / "etc" / "glance-api.conf", conf + drop_in)
    manage = str(folder / "venv/bin/glance-manage")
    _run([manage, "--config-file", str(folder / "etc/glance-api.conf"), "db_sync"], "glance")


def _serve(folder: Path, name: str, port: int) -> Child:
    home = folder / name
    environment = {
        **_environment(),
        f"OS_{name.upper()}_CONFIG_DIR": str(home / "etc"),
        "OS_KEYSTONE_CONFIG_FILES": "keystone.conf;stackbus.conf",
    }
    child = Child(
        name,
        [str(home / "venv/bin/python"), str(_HERE / "serve.py"), str(port), f"{name}.wsgi.api"],
        environment,
        home / "service.log",
        home,
        stop_seconds=5.0,
    )
    child.start()
    return child


def _wait(child: Child, url: str) -> None:
    end = time.monotonic() + _READY_SECONDS
    while True:
        try:
            httpx.get(url, timeout=10)
        except httpx.HTTPError:
            dead = child.process is None or child.process.poll() is not None
            if dead or time.monotonic() > end:
                raise StackbusError(
                    f"{child.name} does not come up; the end of its log:\n{child.last_lines()}"
                ) from None
            time.sleep(0.2)
        else:
            return


def _token(http: httpx.Client, cloud: Cloud, user: str, password: str, project: str) -> str:
    response = http.post(f"{cloud.keystone}/auth/tokens", json=_login(user, password, project))
    return _checked(response).headers["X-Subject-Token"]


def _login(user: str, password: str, project: str) -> dict[str, object]:
    identity = {
        "methods": ["password"],
        "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}},
    }
    scope = {"project": {"name": project, "domain": {"id": "default"}}}
    return {"auth": {"identity": identity, "scope": scope}}


def _post(
    http: httpx.Client, url: str, body: dict[str, object], headers: dict[str, str]
) -> dict[str, dict[str, str]]:
    value: dict[str, dict[str, str]] = _checked(http.post(url, json=body, headers=headers)).json()
    return value


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise StackbusError(
            f"{response.request.method} {response.request.url}: {response.status_code} "
            f"{response.text[:300]}"
        )
    return response


def _run(command: list[str], name: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(  # noqa: S603 -- our own commands
        command,
        env={**_environment(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise StackbusError(f"{name}: {' '.join(command[:4])} failed:\n{said}")


def _environment() -> dict[str, str]:
    """Give this environment without what belongs to our own virtual environment."""
    kept = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, "utf-8")
