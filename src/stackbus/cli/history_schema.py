"""The command ``stackbus history schema``."""

from __future__ import annotations

import typer

from stackbus.cli import options
from stackbus.cli.output import errors
from stackbus.history.session import Layout, migrations, statements

history = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show the history's own tables.",
)


@history.callback()
def _only_commands() -> None:
    """Make `history` a group, although it has one command."""


@history.command("schema")
def schema(state: options.State = None) -> None:
    """Print the SQL of the tables, for one server and for a cluster.

    Example: stackbus history schema
    """
    with errors():
        settings = options.settings(state)
        clickhouse_cluster = settings.history_cluster or "cluster"
        for title, layout in (
            ("One server, or embedded", Layout()),
            (
                f"A cluster (STACKBUS_HISTORY_CLUSTER={clickhouse_cluster})",
                Layout(clickhouse_cluster),
            ),
        ):
            print(f"-- {title}\n")
            for text in migrations().values():
                for statement in statements(text, layout):
                    print(f"{statement};\n")
