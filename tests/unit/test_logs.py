"""Log records of libraries are complete, one JSON line each for machines, without local variables."""

from __future__ import annotations

import json
import logging

import pytest

from stackbus import logs


@pytest.mark.parametrize("as_json", [True, False])
def test_the_traceback_of_a_library_shows_no_local_variable(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    logs.configure_libraries(json=as_json, quiet=("talkative",))
    try:
        password = "hunter2-in-a-variable"
        try:
            int(f"no number: {len(password)}")
        except ValueError:
            logging.getLogger("somebody").exception("it went wrong: %s", "here")
        logging.getLogger("talkative").info("not this")
    finally:
        logging.basicConfig(handlers=[], force=True)
    output = capsys.readouterr().err
    assert "it went wrong: here" in output
    assert "no number: 21" in output
    assert "hunter2-in" not in output.replace('password = "hunter2-in-a-variable"', "")
    assert "not this" not in output
    assert "Logging error" not in output
    if as_json:
        (line,) = output.splitlines()
        assert json.loads(line)["level"] == "error"
