"""Logs: one line each on stderr, a stable action word beside its sentence, never a secret.

Called by the doors at their start; every room then asks ``structlog.get_logger()``.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, json: bool = False, least: int = logging.INFO) -> None:
    """Send log lines of level ``least`` and up to stderr: for people, or as JSON for machines."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _renderer(json=json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def configure_libraries(*, json: bool = False, quiet: tuple[str, ...] = ()) -> None:
    """Send what libraries log the same way; of those in ``quiet`` only warnings."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([structlog.processors.format_exc_info] if json else []),
            _renderer(json=json),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderer(*, json: bool) -> structlog.typing.Processor:
    if json:
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        pad_event_to=0,
        # The other one shows local variables, passwords among them.
        exception_formatter=structlog.dev.plain_traceback,
    )
