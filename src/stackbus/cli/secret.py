"""The command ``stackbus secret``."""

from __future__ import annotations

from typing import Annotated

import typer

from stackbus.cli import options
from stackbus.cli.output import Format, errors, show, show_table
from stackbus.errors import InputError
from stackbus.expose.credentials import secret_name
from stackbus.expose.secrets import NAMESPACE, as_object, manifest
from stackbus.wiring.broker import secret_store


def secret(
    topic: options.Topic,
    key: Annotated[
        str | None,
        typer.Option(help="Print the value of this key alone, decoded.", show_default=False),
    ] = None,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="Format of the manifest.")
    ] = Format.yaml,
    state: options.State = None,
) -> None:
    """Print a topic's Secret, or one of its values.

    The Secret is printed as the manifest that `kubectl apply -f -` takes.
    Example: stackbus secret external-consumer-a --key username
    """
    with errors():
        settings = options.settings(state)
        answer = secret_store(settings).read(NAMESPACE, secret_name(topic))
        if answer is None:
            raise InputError(
                f"{settings.state} has no Secret of a topic {topic!r}; `stackbus topics` lists the "
                "topics"
            )
        if key is not None:
            if key not in answer.data:
                raise InputError(f"the Secret has no key {key!r}; it has {', '.join(answer.data)}")
            value = answer.data[key]
            print(value, end="" if value.endswith("\n") else "\n")
        elif output is Format.yaml:
            print(manifest(answer), end="")
        elif output is Format.json:
            show(as_object(answer), output)
        else:
            rows = [(name, str(len(value))) for name, value in answer.data.items()]
            show_table(("KEY", ">BYTES"), rows)  # as `kubectl describe secret` prints it
