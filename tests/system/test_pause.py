"""A control plane that stands still for longer than a lease (a suspended machine, a frozen
cgroup) does not take its own silence for the node's."""
import concurrent.futures
import os
import signal
import time

import pytest

from conftest import wait_for

LEASE_S = 15
SLEEP = '''
import time


def main(payload):
    time.sleep(payload)
    return payload
'''


@pytest.mark.slow
def test_a_pause_of_the_control_plane_loses_no_event(new_platform):
    p = new_platform.start()
    waits, later = p.wait_function(SLEEP), p.create(SLEEP, retries=0)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(p.call, waits, s, timeout=90) for s in (1, 4, 22)]
        events = [p.send(later, s) for s in (1, 4, 22)]
        for e in events:
            wait_for(lambda: p.event(e)["state"] == "running", what="its start")
        control, = p.control()
        os.kill(control, signal.SIGSTOP)
        try:
            time.sleep(LEASE_S + 3)  # the pause itself, nothing to poll for
        finally:
            os.kill(control, signal.SIGCONT)
        for answer, s in zip(answers, (1, 4, 22)):
            r = answer.result()
            assert (r.status_code, r.json()) == (200, s), r.text
    for e in events:
        record = p.ended(e)
        assert (record["state"], record["attempts"]) == ("succeeded", 1), record
    assert "this process stood still" in p.log()
