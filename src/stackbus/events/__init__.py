"""Notifications and events: decode, scrub, normalise. Pure: no network, no files, no clock."""
