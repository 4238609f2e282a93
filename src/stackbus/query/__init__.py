"""Questions to the history, and their answers as values: for the command line, HTTP and pages.

``filter.py`` what a question asks for, ``events.py`` the events themselves, ``audit.py`` a story
of them, ``coverage.py`` what each channel told, ``proof.py`` digests and their verification.
"""
