"""The command line: its list of commands, its settings, and what it must not import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stackbus.cli.app import COMMANDS, Commands, Entry, LazyCommand, app
from stackbus.errors import InputError
from stackbus.settings import SecretStr, read_settings, reference


def commands() -> dict[str, LazyCommand]:
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    return {
        name: command
        for name, command in group.commands.items()
        if isinstance(command, LazyCommand)
    }


@pytest.mark.parametrize("entry", COMMANDS, ids=[entry.name for entry in COMMANDS])
def test_the_list_has_the_first_line_of_a_commands_help(entry: Entry) -> None:
    text = commands()[entry.name].load().help
    assert inspect.cleandoc(text).splitlines()[0] == entry.help


def test_help_lists_every_command_on_one_line() -> None:
    lines = CliRunner().invoke(app, ["--help"]).output.splitlines()
    for name, _, help_line in COMMANDS:
        assert any(line.split(maxsplit=1) == [name, help_line] for line in lines), name


def test_a_commands_own_help_comes_from_its_module() -> None:
    output = CliRunner().invoke(app, ["rotate", "--help"]).output
    assert "--grace" in output
    assert "Usage: stackbus rotate [OPTIONS]" in output
    assert "schema" in CliRunner().invoke(app, ["history", "--help"]).output


def test_an_unknown_command_is_refused() -> None:
    answer = CliRunner().invoke(app, ["topic"])
    assert answer.exit_code == 2
    assert "No such command" in answer.output


def test_completion_knows_the_commands() -> None:
    environment = {
        "_STACKBUS_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "stackbus r",
    }
    answer = CliRunner().invoke(app, [], prog_name="stackbus", env=environment)
    for name in ("rotate", "relay", "record"):
        assert f'"{name}"' in answer.output


IMPORTED_WHEN_USED = {
    "app": ("yaml", "rich", "msgspec", "httpx", "pika", "pydantic", "cryptography"),
    "topics": (
        "pydantic",
        "httpx",
        "pika",
        "structlog",
        "clickhouse_connect",
        "chdb",
        "kopf",
        "tenacity",
    ),
    "status": (
        "pydantic",
        "httpx",
        "pika",
        "structlog",
        "clickhouse_connect",
        "chdb",
        "kopf",
        "tenacity",
    ),
    "secret": (
        "pydantic",
        "httpx",
        "pika",
        "structlog",
        "clickhouse_connect",
        "chdb",
        "kopf",
        "tenacity",
    ),
    "relay": ("clickhouse_connect", "kopf", "lightkube"),
    "events": ("pika", "kopf", "lightkube"),
}


@pytest.mark.parametrize("module", IMPORTED_WHEN_USED)
def test_a_command_does_not_import_what_it_does_not_use(module: str) -> None:
    code = f"import sys, stackbus.cli.{module}; print(*sys.modules, sep='\\n')"
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not set(IMPORTED_WHEN_USED[module]) & set(imported)


def test_settings_come_from_the_environment_and_options_override_them() -> None:
    environment = {
        "STACKBUS_RELAY_PREFETCH": "7",
        "STACKBUS_SCRUB_NAMES": '["licence"]',
        "STACKBUS_SERVICE_SELECTOR": '{"app": "rabbit"}',
        "STACKBUS_HISTORY_KEEP_DAYS": "30",
        "STACKBUS_INNER_URL": "amqp://u:secret-word@h/v",
        "STACKBUS_MANAGEMENT_URL": "http://from-the-environment",
    }
    settings = read_settings(environment, {"state": Path("/s"), "management_url": None})
    assert settings.relay_prefetch == 7
    assert settings.scrub_names == ["licence"]
    assert settings.service_selector == {"app": "rabbit"}
    assert settings.history_keep_days == 30
    assert settings.state == Path("/s")
    assert settings.management_url is None
    assert isinstance(settings.inner_url, SecretStr)
    assert settings.inner_url.value == "amqp://u:secret-word@h/v"
    assert "secret-word" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("RELAY_PREFETCH", "many", "'many': expected int"),
        ("RELAY_PREFETCH", "0", "'0': expected int >= 1"),
        ("RELAY_RETRY_MAX", "nan", "'nan': expected float > 0"),
        ("SCRUB_NAMES", "licence", "'licence': not valid JSON"),
        ("SCRUB_NAMES", "[7]", "'[7]': expected str, got int"),
        ("BROKER_SECRET", "name", "'name': expected NAMESPACE/NAME of a Secret"),
        ("BROKER_SECRET", "a/b\n", "expected NAMESPACE/NAME of a Secret"),
        ("SERVICE_TYPE", "X", "'X': expected LoadBalancer, NodePort or ClusterIP"),
        ("HISTORY_CLUSTER", "a b", "'a b': expected a name of letters"),
        ("JOURNAL_MAX_AGE", "7d", "'7d': expected a number with one of the units"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name: str, value: str, sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        read_settings({f"STACKBUS_{name}": value}, {})
    assert str(refused.value).startswith(f"setting STACKBUS_{name}: ")
    assert sentence in str(refused.value)


def test_every_setting_says_what_it_means() -> None:
    assert all(setting.description.endswith(".") for setting in reference())
