"""The oslo.config drop-in with which a service publishes its notifications to the bus. Pure.

``stackbus config`` prints it. It is complete: the administrator puts it into the service's
``--config-dir``, or at the end of its configuration file. Sources: oslo.messaging's
``notify/notifier.py`` and ``_drivers/impl_rabbit.py``, and each service's ``services/*.py``.
"""

from __future__ import annotations

from stackbus.services.service import Option, Service

_COMMON = (
    Option("oslo_messaging_notifications", "driver", "messagingv2", "send notifications at all"),
    Option(
        "oslo_messaging_notifications",
        "topics",
        "notifications",
        "publish once: the topics fan out in the broker",
    ),
    Option(
        "oslo_messaging_notifications",
        "retry",
        "3",
        "give up after three attempts; the default, -1, blocks a request for as long as the bus "
        "is away. What is given up stands in the service's log",
    ),
)


def render_drop_in(service: Service, url: str, *, notification_format: str = "versioned") -> str:
    """Return the drop-in of ``service`` for the transport ``url``, as text.

    ``notification_format`` is Nova's: ``versioned``, or ``both`` for consumers that still read
    the legacy format.
    """
    transport = Option(
        "oslo_messaging_notifications",
        "transport_url",
        # In the URL, the option holds for this transport alone: RPC keeps its own settings.
        f"{url}?amqp_durable_queues=true".replace("$", "$$"),
        "this bus, with a user that can do nothing else; durable, as the bus' exchanges are",
    )
    exchange = Option("DEFAULT", "control_exchange", service.exchange, service.exchange_reason)
    options = [exchange, *service.options, *_COMMON, transport]
    if service.name == "nova":
        options.append(
            Option(
                "notifications",
                "notification_format",
                notification_format,
                "versioned objects; the legacy format carries users' tokens"
                if notification_format == "versioned"
                else "versioned objects, and the legacy format for old consumers",
            )
        )
    lines = [
        f"# {service.name}: emit notifications to stackbus. Printed by `stackbus config`.",
        f"# Put this into {service.drop_in_location}.",
    ]
    for section in dict.fromkeys(option.section for option in options):
        lines += ["", f"[{section}]"]
        for option in options:
            if option.section == section:
                lines += [f"# {option.reason}", f"{option.name} = {option.value}"]
    return "\n".join(lines) + "\n"
