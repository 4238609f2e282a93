"""README and docs: their commands run, and print what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.cli.test_commands import GOLDEN
from tests.conftest import Broker, publish, running, stackbus, wait_until

from stackbus.events.normalise import normalise

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Shown:
    """A command of a page, and the lines that the page says it prints."""

    command: str
    lines: tuple[str, ...]


def shown(page: str) -> list[Shown]:
    """Read the console blocks of a page; a here-document belongs to its command."""
    found = []
    for block in re.findall(
        r"^```console\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, rest = part.partition("\n")
            if "<<'END'" in command:
                document, _, rest = rest.partition("\nEND\n")
                command += f"\n{document}\nEND"
            found.append(Shown(command, tuple(rest.splitlines())))
    return found


def pattern(lines: tuple[str, ...]) -> str:
    """Turn printed lines into a pattern: ``...`` is anything, a line of it any lines."""
    parts = []
    for line in lines:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            words = [re.escape(word) for word in line.rstrip().split("...")]
            parts.append(".*".join(words) + r" *\n")
    return "".join(parts)


class Shell:
    """One shell environment in which pages run, one command after the other."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
            **environment,
        }

    def run(self, one: Shown, places: dict[str, str] | None = None) -> None:
        command = one.command
        for word, place in (places or {}).items():
            command = command.replace(word, place)
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = value
            return
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        if one.lines:
            assert re.fullmatch(pattern(one.lines), done.stdout), f"$ {command}\n{done.stdout}"


def test_readme_and_the_pages_print_what_they_say(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    readme = [one for one in shown("README.md") if not one.command.startswith("make")]
    *first, down = readme
    assert down.command == "stackbus down"
    assert len(first) > 4
    try:
        for one in first:
            shell.run(one)
        for page in ("docs/start.md", "docs/how-to/rotate.md", "docs/how-to/filters.md"):
            commands = shown(page)
            assert commands, page
            for one in commands:
                shell.run(one)
    finally:
        shell.run(down)


def test_the_auditors_page_answers_from_what_the_test_cloud_told(tmp_path: Path) -> None:
    deleted = next(one for one in GOLDEN if b"compute.instance.delete.end" in one.body)
    (event,) = normalise(deleted.body, "bus", datetime.now(UTC), deleted.service)
    places = {"SERVER": event.resource_id, "USER": event.user_name}
    assert all(places.values())
    shell = Shell(tmp_path)
    up, *questions = shown("docs/how-to/audit.md")
    assert "--record" in up.command
    state = tmp_path / "stackbus"
    try:
        shell.run(up)
        publish(running(state), GOLDEN)

        def recorded() -> int:
            return int(stackbus("events", "--count", state=state).stdout)

        wait_until(lambda: recorded() >= len(GOLDEN), 60)
        for one in questions:
            shell.run(one, places)
        for page in ("docs/how-to/nothing-arrives.md", "docs/how-to/upgrade-and-backup.md"):
            commands = shown(page)
            assert commands, page
            for one in commands:
                shell.run(one)
    finally:
        stackbus("down", state=state)


def test_the_page_about_a_broker_of_ones_own_works(clean: Broker, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "password").write_text(clean.description.password)
    places = {
        "https://rabbit.example.org:15671": clean.description.management_url,
        "/etc/stackbus/password": str(tmp_path / "password"),
        "STACKBUS_MANAGEMENT_USER=admin": "STACKBUS_MANAGEMENT_USER=stackbus-admin",
    }
    for one in shown("docs/how-to/own-broker.md"):
        shell.run(one, places)


def test_the_python_client_of_the_page_consumes(bus: Broker, tmp_path: Path) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```",
        (ROOT / "docs/how-to/connect.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    stackbus("apply", "-f", str(ROOT / "examples/deployment.yaml"), state=bus.state)
    try:
        (tmp_path / "siem.yaml").write_text(
            stackbus("secret", "external-consumer-a", state=bus.state).stdout
        )
        (tmp_path / "consumer.py").write_text(code)
        process = subprocess.Popen(
            [sys.executable, "-u", "consumer.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        publish(running(bus.state), [one for one in GOLDEN if one.service == "cinder"][:3])
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.terminate()
        process.wait()
        assert all("cinder" in line for line in lines)
    finally:
        empty = tmp_path / "empty.yaml"
        empty.write_text(
            "apiVersion: lcm.mirantis.com/v1alpha1\nkind: OpenStackDeployment\nmetadata: {name: x}\nspec: {}\n"
        )
        stackbus("apply", "-f", str(empty), state=bus.state)


@pytest.mark.timeout(600)
def test_the_demonstration_ends_well_and_leaves_nothing() -> None:
    """Real Keystone and Glance, configured by nothing but the printed drop-ins, emit."""
    before = set(Path("/tmp").glob("stackbus-demo-*"))  # noqa: S108
    done = stackbus("demo", "-f", str(ROOT / "examples/deployment.yaml"))
    for word in (
        "identity.project.created",
        "identity.user.created",
        "image.upload",
        "image.delete",
    ):
        assert word in done.stdout
    assert re.search(r"identity\.authenticate +failure +received +received", done.stdout)
    assert set(Path("/tmp").glob("stackbus-demo-*")) == before  # noqa: S108


def test_pages_that_are_generated_are_what_the_code_says() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/reference.py"), "--check"], check=True)


def _links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if "://" not in link:
            yield link


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in _links(page):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_every_target_that_readme_and_ci_name_has_a_recipe() -> None:
    named = re.findall(r"^(?:\| `)?make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    parts = re.findall(r'^parts="(.*)"$', (ROOT / ".ci/run").read_text(), re.MULTILINE)
    named += parts[0].split()
    assert "test-cloud" in named
    recipes = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (phony,) = re.findall(
        r"^\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert sorted(recipes) == sorted(phony.replace("\\\n", "").split())
    assert set(named) <= set(recipes)
