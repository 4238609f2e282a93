"""Settings become clients here, and nowhere else: one file for each part of the command line.

    broker.py       the broker that a command works on, and the Secrets beside it
    control.py      plan and apply on that broker, under the lock of the state folder
    consumers.py    the AMQP connections of ``tail`` and of a topic's consumer
    relay.py        the relay between the two buses
    history.py      the history, its digests, the scrubber of what it stores
    record.py       a recorder for each channel
    kubernetes.py   the operator's work in a Kubernetes cluster

A command imports only the file that it needs, so that it starts fast.
"""
