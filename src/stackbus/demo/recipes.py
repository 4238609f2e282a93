"""Recipes for Keystone and Glance: how each is installed, configured, prepared and served.

The demonstration (``openstack.py``) and the test cloud (``tests/cloud/members.py``) start both
services by these recipes. A recipe is minimal and holds nothing about notifications: the drop-in of
``stackbus config``, appended to the configuration file, is all that makes the service emit.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stackbus.errors import StackbusError

Sections = dict[str, dict[str, object]]
"""An oslo.config file: options by section."""

REGION = "RegionOne"
_SERVE = Path(__file__).parent / "serve.py"


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of one service: configuration, data, and its Python environment."""

    etc: Path
    state: Path
    venv: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """One service.

    ``file`` is its configuration file in ``etc``, with the options ``sections``. ``prepare`` are
    the commands that run once before the first start, each a program of the environment and its
    arguments. ``application`` is the module of its WSGI application, started with ``environment``.
    ``folders`` are created in ``state``.
    """

    file: str
    sections: Sections
    prepare: tuple[tuple[str, ...], ...]
    application: str
    environment: Mapping[str, str]
    folders: tuple[str, ...] = field(default=())


def keystone(folders: Folders, database: str, url: str) -> Recipe:
    """Return Keystone's recipe; ``url`` is its own, ``database`` a URL of SQLAlchemy.

    The bootstrap command takes the administrator's password from OS_BOOTSTRAP_PASSWORD.
    """
    keys = folders.state
    file = "keystone.conf"
    manage = ("keystone-manage", "--config-file", str(folders.etc / file))
    owner = ("--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
    urls = [
        argument
        for interface in ("admin", "internal", "public")
        for argument in (f"--bootstrap-{interface}-url", url)
    ]
    return Recipe(
        file=file,
        sections={
            "DEFAULT": {"use_stderr": True},
            "database": {"connection": database},
            "fernet_tokens": {"key_repository": keys / "fernet-keys"},
            "fernet_receipts": {"key_repository": keys / "fernet-keys"},
            "credential": {"key_repository": keys / "credential-keys"},
            "identity": {"password_hash_rounds": 4},
        },
        prepare=(
            (*manage, "db_sync"),
            (*manage, "fernet_setup", *owner),
            (*manage, "credential_setup", *owner),
            (*manage, "bootstrap", "--bootstrap-region-id", REGION, *urls),
        ),
        application="keystone.wsgi.api",
        environment={
            "OS_KEYSTONE_CONFIG_DIR": str(folders.etc),
            "OS_KEYSTONE_CONFIG_FILES": file,
        },
    )


def glance(
    folders: Folders, database: str, url: str, keystone_authtoken: Mapping[str, object]
) -> Recipe:
    """Return Glance's recipe; ``keystone_authtoken`` are the options of its login to Keystone."""
    state = folders.state
    file = "glance-api.conf"
    paste = folders.venv / "etc" / "glance" / "glance-api-paste.ini"
    return Recipe(
        file=file,
        sections={
            "DEFAULT": {
                "use_stderr": True,
                "enabled_backends": "files:file",
                "worker_self_reference_url": url,
            },
            "database": {"connection": database},
            "glance_store": {"default_backend": "files"},
            "files": {"filesystem_store_datadir": state / "images"},
            "os_glance_staging_store": {"filesystem_store_datadir": state / "staging"},
            "os_glance_tasks_store": {"filesystem_store_datadir": state / "tasks"},
            "oslo_concurrency": {"lock_path": state / "lock"},
            "paste_deploy": {"flavor": "keystone", "config_file": paste},
            "keystone_authtoken": dict(keystone_authtoken),
        },
        prepare=(("glance-manage", "--config-file", str(folders.etc / file), "db_sync"),),
        application="glance.wsgi.api",
        environment={"OS_GLANCE_CONFIG_DIR": str(folders.etc)},
        folders=("images", "staging", "tasks", "lock"),
    )


def login_options(keystone_url: str, user: str, password: str, project: str) -> dict[str, object]:
    """Return keystoneauth's options for a login by password, in the domain Default."""
    return {
        "auth_type": "password",
        "auth_url": keystone_url,
        "username": user,
        "password": password,
        "project_name": project,
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "region_name": REGION,
    }


def render(sections: Sections) -> str:
    """Render an oslo.config file."""
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items()), ""]
    return "\n".join(lines) + "\n"


def serve_command(port: int, application: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that serves a WSGI application on loopback, with the service's Python."""
    return ("python", str(_SERVE), str(port), application, *arguments)


def install_commands(venv: Path, requirements: Path) -> list[list[str]]:
    """Return the commands that install ``requirements`` into a new environment ``venv``.

    Raises StackbusError if uv is not installed.
    """
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise StackbusError("uv is not installed: pip install uv")
    python = str(venv / "bin" / "python")
    return [
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)],
        [uv, "pip", "install", "--quiet", "--python", python, "-r", str(requirements)],
    ]


def service_environment(venv: Path) -> dict[str, str]:
    """Return the environment of a service's programs: its own venv first, without ours."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        and not name.startswith(("OS_", "STACKBUS_"))
    }
    return {
        **inherited,
        "PATH": f"{venv / 'bin'}:{inherited.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
