"""What libraries log comes out whole, in one line for machines, and shows no local variable."""

from __future__ import annotations

import json
import logging

import pytest

from stackbus import logs


@pytest.mark.parametrize("as_json", [True, False])
def test_a_librarys_traceback_shows_no_local_variable(
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
    told = capsys.readouterr().err
    assert "it went wrong: here" in told
    assert "no number: 21" in told
    assert "hunter2-in" not in told.replace('password = "hunter2-in-a-variable"', "")
    assert "not this" not in told
    assert "Logging error" not in told
    if as_json:
        (line,) = told.splitlines()
        assert json.loads(line)["level"] == "error"
