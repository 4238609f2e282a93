"""Logs: one line each on stderr, a stable action word beside its sentence, never a secret.

Called by the doors at their start; every room then asks ``structlog.get_logger()``.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, json: bool = False, least: int = logging.INFO) -> None:
    """Send log lines of level ``least`` and up to stderr: for people, or as JSON for machines."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
