"""What stops a program from outside: `kill`, `timeout`, a closed terminal, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from helpers.project import ROOT

from pipeline.runtime.child import interrupt

SLEEPER = """
import time
from pipeline.errors import report_user_errors

with report_user_errors():
    print("ready", flush=True)
    time.sleep(SECONDS)
"""
PARENT = """
import os, sys
from pipeline.errors import report_user_errors
from pipeline.runtime.child import run_child

with report_user_errors():
    run_child([sys.executable, "-c", sys.argv[1]], os.environ)
"""
CHILD = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("saved", flush=True)
"""


def stopped(number: signal.Signals, *code: str, ignoring: signal.Signals | None = None) -> tuple[int, str]:
    """Exit status of Python running `code`, to which `number` was sent once it was ready, and what it said then."""
    process = subprocess.Popen(
        [sys.executable, "-c", *code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: _begin_with(ignoring),
    )
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)
    said, _ = process.communicate()
    return process.returncode, said


def _begin_with(ignored: signal.Signals | None) -> None:
    """Whatever the tests themselves were started with, such as `nohup`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_as_after_ctrl_c_and_names_the_remedy(number: signal.Signals) -> None:
    expected = (130, "interrupted: run the same command again to resume\n")
    assert stopped(number, SLEEPER.replace("SECONDS", "60")) == expected


def test_a_background_process_of_a_script_can_be_interrupted() -> None:
    assert stopped(signal.SIGINT, SLEEPER.replace("SECONDS", "60"), ignoring=signal.SIGINT)[0] == 130


def test_under_nohup_a_closed_terminal_changes_nothing() -> None:
    assert stopped(signal.SIGHUP, SLEEPER.replace("SECONDS", "1"), ignoring=signal.SIGHUP) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_it_started_may_save_first(number: signal.Signals) -> None:
    status, said = stopped(number, PARENT, CHILD)
    assert (status, said.splitlines()[0]) == (130, "saved")


def test_a_program_that_has_ended_meanwhile_needs_no_interrupt() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    os.waitid(os.P_PID, ended.pid, os.WEXITED)  # reaped, as by another thread
    ended.returncode = 0
    interrupt(ended)
