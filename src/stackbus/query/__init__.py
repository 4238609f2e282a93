"""Questions to the history and their answers, as values for every door.

``filter.py`` selects events; ``events.py`` lists, follows and counts them; ``audit.py`` folds them
into actions; ``coverage.py`` compares the channels; ``signing.py`` signs digests of the history,
and ``verification.py`` verifies it.
"""
