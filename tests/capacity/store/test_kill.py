"""Killed at random moments, the store holds every step that was acknowledged, and no half."""

import random
import signal
import subprocess
import sys
import time

import pytest

from promptlimits.capacity.store import Store

# Resumes from the checkpoint, then writes steps for ever and says which it has written. The
# state spans several pages and spells its step in each byte pair, so a torn one would show.
WRITER = """
import sys
from pathlib import Path
from promptlimits.capacity.store import Store
with Store.open(Path(sys.argv[1])) as store:
    run = store.start_run({"seed": 0}, seed=0, provenance={})
    state = store.checkpoint(run.id)
    step = 0 if state is None else int.from_bytes(state[:4], "big")
    print("ready", step, flush=True)
    while True:
        step += 1
        state = step.to_bytes(4, "big") * 5000
        store.record_step(run.id, step=step, metrics={"loss": 1 / step}, state=state)
        print(step, flush=True)
"""


def write_and_stop(path, stop, seconds):
    """Let a child write for some time, stop it by a signal, and return its last word."""
    # Unbuffered: what is read ahead behind the first line would be lost to communicate().
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    ready = child.stdout.readline().split()
    time.sleep(seconds)
    child.send_signal(stop)
    said, errors = child.communicate(timeout=30)
    assert ready[:1] == [b"ready"], errors.decode()
    lines = said.split()  # the pipe may end inside a number, never inside a committed step
    complete = lines if said.endswith(b"\n") or not lines else lines[:-1]
    return int(ready[1]), int(complete[-1]) if complete else int(ready[1])


def check(path, acknowledged):
    """The curve has each step once, at most one more than was said, and the state is its last."""
    with Store.open(path) as store:
        run = store.run_by_spec({"seed": 0})
        steps = [row["step"] for row in store.curve(run.id)]
        assert steps == list(range(1, len(steps) + 1))
        assert acknowledged <= len(steps) <= acknowledged + 1
        state = store.checkpoint(run.id)
        assert state == (None if not steps else len(steps).to_bytes(4, "big") * 5000)
        assert store.run(run.id).steps == len(steps)
        return len(steps)


def kill_many_times(path, stop, times, seed):
    moments = random.Random(seed)
    kept = 0
    for _ in range(times):
        resumed, said = write_and_stop(path, stop, moments.uniform(0.0, 0.05))
        assert resumed == kept
        kept = check(path, said)
    assert kept > times, "the writer never got to write"


def test_kill_9(tmp_path):
    kill_many_times(tmp_path / "store.sqlite", signal.SIGKILL, 3, seed=0)


@pytest.mark.slow  # twenty children
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_twenty_times(tmp_path, stop):
    kill_many_times(tmp_path / "store.sqlite", stop, 20, seed=int(stop))


def test_killed_while_the_store_is_being_made(tmp_path):
    """Whatever moment of the first opening is cut off, the next opening works."""
    code = "import sys; from pathlib import Path; from promptlimits.capacity.store import Store\n"
    code += "print(flush=True); Store.open(Path(sys.argv[1]))"
    moments = random.Random(1)
    for attempt in range(5):
        path = tmp_path / str(attempt) / "store.sqlite"
        child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.01))
        child.kill()
        child.communicate()
        with Store.open(path) as store:
            assert store.runs() == []
