"""The lines of ``rabbitmq.conf`` that client certificates need. Pure.

The private node writes them into its configuration, the operator into a ConfigMap for the broker in
Kubernetes. ``deploy/`` and ``docs/how-to/own-broker.md`` repeat them; a test compares the text.
"""

from __future__ import annotations

RABBITMQ_CONF = """\
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
"""
"""Options of TLS and login. The paths of the PEM files, which differ by place, are not here."""
