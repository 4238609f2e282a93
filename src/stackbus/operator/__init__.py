"""The door to Kubernetes: ``stackbus operator``."""
