"""Run a real Keystone and a real Glance on this machine, each in its own Python environment.

``demo.py`` installs and starts both, makes API calls on them with ``call_apis``, and stops them.
Each is configured by its recipe and by the drop-in that ``stackbus config`` prints, so the
demonstration has an administrator's configuration.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from stackbus.broker.node import LOOPBACK, free_port
from stackbus.broker.supervisor import Child
from stackbus.demo import recipes
from stackbus.demo.recipes import Folders, Recipe
from stackbus.errors import StackbusError
from stackbus.files import write_private

SERVICES = ("keystone", "glance")
"""The services of the demonstration, in the order in which they start."""

_FOLDER = Path(__file__).parent
_READY_SECONDS = 120.0
_ADMIN_PASSWORD = "demonstration"  # noqa: S105 -- of a cloud that lives two minutes on loopback

Progress = Callable[[str], None]


@dataclass
class Cloud:
    """Keystone and Glance, running on loopback."""

    keystone: str
    glance: str
    processes: list[Child] = field(default_factory=list)

    def stop(self) -> None:
        """End both services by their process ids."""
        for child in reversed(self.processes):
            child.stop()


def install(name: str, folder: Path) -> None:
    """Install a service in its pinned versions into ``folder/name/venv``. Raises StackbusError."""
    venv = _folders(folder, name).venv
    for command in recipes.install_commands(venv, _FOLDER / f"{name}.txt"):
        _run(command, name, venv)


def start(folder: Path, drop_ins: dict[str, str], progress: Progress) -> Cloud:
    """Start both services, which are installed in ``folder``, and wait until they answer."""
    keystone_port = free_port(LOOPBACK, set())
    glance_port = free_port(LOOPBACK, {keystone_port})
    keystone_url = f"http://{LOOPBACK}:{keystone_port}/v3"
    glance_url = f"http://{LOOPBACK}:{glance_port}"
    login = recipes.login_options(keystone_url, "admin", _ADMIN_PASSWORD, "admin")
    login["www_authenticate_uri"] = keystone_url
    keystone_folders, glance_folders = _folders(folder, "keystone"), _folders(folder, "glance")
    keystone = recipes.keystone(keystone_folders, _database(keystone_folders), keystone_url)
    glance = recipes.glance(glance_folders, _database(glance_folders), glance_url, login)
    cloud = Cloud(keystone_url, glance_url)
    try:
        progress("preparing Keystone's database")
        _prepare("keystone", keystone, keystone_folders, drop_ins["keystone"])
        cloud.processes.append(_serve("keystone", keystone, keystone_folders, keystone_port))
        progress("preparing Glance's database")
        _prepare("glance", glance, glance_folders, drop_ins["glance"])
        cloud.processes.append(_serve("glance", glance, glance_folders, glance_port))
        progress("waiting for both APIs")
        for child, url in zip(cloud.processes, (keystone_url, glance_url), strict=True):
            _wait_until_ready(child, url)
    except BaseException:
        cloud.stop()
        raise
    return cloud


def call_apis(cloud: Cloud, progress: Progress) -> None:
    """Create a project and a user, fail a login, and upload and delete an image."""
    with httpx.Client(timeout=60) as http:
        progress("creating a project and a user")
        admin = _log_in(http, cloud, "admin", _ADMIN_PASSWORD, "admin")
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
        _check(http.put(f"{cloud.keystone}/{grant}/{roles[0]['id']}", headers=headers))
        progress("failing to log in")
        refusal = http.post(
            f"{cloud.keystone}/auth/tokens", json=_login_body("alice", "guess", "demo")
        )
        if refusal.status_code != httpx.codes.UNAUTHORIZED:
            raise StackbusError(f"Keystone answered {refusal.status_code} to a wrong password")
        progress("uploading an image")
        headers = {"X-Auth-Token": _log_in(http, cloud, "alice", "wonderland", "demo")}
        image = _post(
            http,
            f"{cloud.glance}/v2/images",
            {"name": "cirros", "disk_format": "raw", "container_format": "bare"},
            headers,
        )
        url = f"{cloud.glance}/v2/images/{image['id']}"
        stream = {**headers, "Content-Type": "application/octet-stream"}
        _check(http.put(f"{url}/file", content=b"an image", headers=stream))
        _check(http.delete(url, headers=headers))


def _folders(folder: Path, name: str) -> Folders:
    home = folder / name
    return Folders(etc=home / "etc", state=home / "state", venv=home / "venv")


def _database(folders: Folders) -> str:
    return f"sqlite:///{folders.state}/database.sqlite"


def _prepare(name: str, recipe: Recipe, folders: Folders, drop_in: str) -> None:
    for path in (folders.etc, folders.state, *(folders.state / part for part in recipe.folders)):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folders.etc / recipe.file, recipes.render(recipe.sections) + drop_in)
    for program, *arguments in recipe.prepare:
        _run([str(folders.venv / "bin" / program), *arguments], name, folders.venv)


def _serve(name: str, recipe: Recipe, folders: Folders, port: int) -> Child:
    program, *arguments = recipes.serve_command(port, recipe.application)
    child = Child(
        name,
        [str(folders.venv / "bin" / program), *arguments],
        {**recipes.service_environment(folders.venv), **recipe.environment},
        folders.state / "service.log",
        folders.state,
        stop_seconds=5.0,
    )
    child.start()
    return child


def _wait_until_ready(child: Child, url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            httpx.get(url, timeout=10)
        except httpx.HTTPError:
            if child.has_ended() or time.monotonic() > deadline:
                raise StackbusError(
                    f"{child.name} did not start; the last lines of its log:\n{child.last_lines()}"
                ) from None
            time.sleep(0.2)
        else:
            return


def _log_in(http: httpx.Client, cloud: Cloud, user: str, password: str, project: str) -> str:
    body = _login_body(user, password, project)
    return _check(http.post(f"{cloud.keystone}/auth/tokens", json=body)).headers["X-Subject-Token"]


def _login_body(user: str, password: str, project: str) -> dict[str, object]:
    identity = {
        "methods": ["password"],
        "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}},
    }
    scope = {"project": {"name": project, "domain": {"id": "default"}}}
    return {"auth": {"identity": identity, "scope": scope}}


def _post(
    http: httpx.Client, url: str, body: dict[str, object], headers: dict[str, str]
) -> dict[str, dict[str, str]]:
    value: dict[str, dict[str, str]] = _check(http.post(url, json=body, headers=headers)).json()
    return value


def _check(response: httpx.Response) -> httpx.Response:
    """Return ``response``. Raises StackbusError if it is an error."""
    if response.is_error:
        raise StackbusError(
            f"{response.request.method} {response.request.url}: {response.status_code} "
            f"{response.text[:300]}"
        )
    return response


def _run(command: list[str], name: str, venv: Path) -> None:
    result = subprocess.run(  # noqa: S603 -- our own commands
        command,
        env={
            **recipes.service_environment(venv),
            "OS_BOOTSTRAP_PASSWORD": _ADMIN_PASSWORD,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        output = "\n".join((result.stdout + result.stderr).splitlines()[-12:])
        raise StackbusError(f"{name}: {' '.join(command[:4])} failed:\n{output}")
