"""The control plane: from a deployment to RabbitMQ and Secrets. Begin at ``apply.py``."""
