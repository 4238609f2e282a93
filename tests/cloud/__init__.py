"""Ten real OpenStack services on one machine, and their notifications: see README.md."""
