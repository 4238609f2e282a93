"""The demonstration: the main job end to end, with a real Keystone and a real Glance."""
