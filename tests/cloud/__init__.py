"""Ten real OpenStack services on one machine, and what they tell. See README.md beside this."""
