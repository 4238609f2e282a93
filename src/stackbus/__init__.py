"""stackbus: the notifications of an OpenStack cloud for the systems outside it."""
