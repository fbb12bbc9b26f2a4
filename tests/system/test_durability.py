"""Nothing that was accepted is lost, whatever is killed; and nothing that was killed lives on."""
import os
import random
import signal
import sqlite3
import threading
import time

import pytest
import requests

from conftest import END_STATES, is_alive, make_zip, wait_for

EVENTS = 240
SEED = int(os.environ.get("SYSTEM_SEED", "20180704"))  # another one: other moments

# Says in its log that it ran, then takes a moment, so that kills find it at work.
WORK = '''
import time


def main(payload, context):
    print("ran", payload["n"], "attempt", context.attempt)
    time.sleep(payload["n"] % 7 * 0.03)
    if payload["n"] % 20 == 3:
        raise ValueError("never works")
    return payload["n"]
'''


ONE_MOMENT = "import time\n\n\ndef main(payload):\n    time.sleep(0.4)\n    return payload\n"


class Sender(threading.Thread):
    """Sends the events one after another; an accept that could not be had is tried again
    with the same Idempotency-Key, as a careful client does."""

    def __init__(self, platform, name, count):
        super().__init__(daemon=True)
        self.platform, self.name_of, self.count = platform, name, count
        self.accepted, self.error = {}, None
        self.pause = threading.Event()

    def run(self):
        session = requests.Session()
        session.trust_env = False
        try:
            for n in range(self.count):
                self.accepted[n] = self.send(session, n)
        except Exception as error:  # shown by the test
            self.error = error

    def send(self, session, n):
        end = time.monotonic() + 90
        while True:
            try:
                r = session.post(f"{self.platform.url}/v1/functions/{self.name_of}",
                                 json={"payload": {"n": n}}, timeout=10,
                                 headers={"X-Auth-Token": self.platform.token,
                                          "Idempotency-Key": f"key-{n}"})
                if r.status_code == 202:
                    return r.json()["event_id"]
                assert r.status_code == 503, (r.status_code, r.text)
            except requests.exceptions.RequestException:
                pass
            assert time.monotonic() < end, f"event {n} was not accepted"
            self.pause.wait(0.05)


def all_events(platform, name):
    """Every event of the function, through the pages of the list."""
    found, cursor = [], ""
    while cursor is not None:
        page = platform.get(f"/v1/events?function={name}&limit=100&cursor={cursor}" if cursor
                            else f"/v1/events?function={name}&limit=100")
        found += page["items"]
        cursor = page["next"]
    return found


def open_events(platform):
    counts = platform.counts()
    return counts["queued"] + counts["running"]


def answers(platform):
    """True when the platform is there again."""
    try:
        return platform.http("GET", "/readyz", timeout=5).status_code == 200
    except requests.exceptions.RequestException:
        return False


def check_all_ended_once(platform, name, accepted):
    """Each accepted event is one record in an end state, the right one, and nothing more is."""
    records = {e["event_id"]: e for e in all_events(platform, name)}
    assert len(records) == len(accepted) == len(set(accepted.values()))
    assert set(records) == set(accepted.values())
    for n, event in accepted.items():
        record = platform.event(event)
        if n % 20 == 3:
            assert (record["state"], record["reason"]) == ("dead", "function_failed"), record
        else:
            assert (record["state"], record["response"]) == ("succeeded", n), record
        assert record["attempts"] >= 1 and record["finished_at"]
        log = platform.log_of(event)
        assert f"ran {n} attempt" in log, (record, log)
    counts = platform.counts()
    assert counts["accepted"] == sum(v for k, v in counts.items() if k != "accepted")
    assert counts["queued"] == counts["running"] == 0
    failing = sum(1 for n in accepted if n % 20 == 3)
    assert (counts["dead"], counts["succeeded"]) == (failing, len(accepted) - failing)


def check_database(platform):
    """The file itself, after the end."""
    db = sqlite3.connect(f"file:{platform.state}/control/pratai.db?mode=ro", uri=True)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()


VICTIMS = ("control", "driver", "spawner", "inits")


def kill_something(platform, kind, rng):
    """kill -9 of one process of this kind; its pid, or None when there is none just now."""
    found = sorted(getattr(platform, kind)())
    if not found:
        return None
    pid = rng.choice(found)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return pid


def order_of_kills(rng, rounds):
    """Each kind once a round, in an order that is another one each time."""
    return [kind for _ in range(rounds) for kind in rng.sample(VICTIMS, len(VICTIMS))]


@pytest.mark.slow
def test_kill_9_of_everything_but_up(new_platform):
    p = new_platform.start()
    name = p.create(make_zip({"main.py": WORK}), retries=1, timeout=30)
    rng, killed = random.Random(SEED), []
    coming = order_of_kills(rng, 7)
    sender = Sender(p, name, EVENTS)
    sender.start()
    began = time.monotonic()
    while sender.is_alive() or open_events_or_none(p):
        assert time.monotonic() - began < 150, f"after {killed}: {p.log()[-3000:]}"
        # The pauses are part of what is random: kills meet every stage of an event's life.
        sender.pause.wait(rng.uniform(0.05, 0.8))
        if coming and (pid := kill_something(p, coming[0], rng)):
            killed.append(coming.pop(0))
            wait_for(lambda: not is_alive(pid), 10, "a killed process")
    assert sender.error is None, sender.error
    assert set(killed) == set(VICTIMS), killed
    assert p.process.poll() is None
    wait_for(lambda: answers(p), 30, "readiness")
    check_all_ended_once(p, name, sender.accepted)
    lost = [line for line in p.log().splitlines() if "a sandbox was lost" in line]
    assert all(" event=" in line for line in lost), lost
    # The last kill may have been just now: a node that is only starting again leaves cgroups of
    # the one before to the next start.
    p.ended(p.send(name, {"n": 1}))
    p.end()
    check_database(p)


def open_events_or_none(platform):
    """How many have not ended; 1 also when nobody answers just now."""
    try:
        r = platform.http("GET", "/v1/cluster", timeout=5)
        if r.status_code != 200:
            return 1
        events = r.json()["events"]
        return events["queued"] + events["running"]
    except requests.exceptions.RequestException:
        return 1


@pytest.mark.slow
def test_kill_9_of_up_and_again(new_platform):
    """Three times: nothing keeps running; the next `up` on the directory finishes the rest."""
    p = new_platform.start()
    name = p.create(make_zip({"main.py": WORK}), retries=1, timeout=30)
    token = p.token
    accepted = {}
    for number in range(3):
        for n in range(number * 40, number * 40 + 40):
            accepted[n] = p.send(name, {"n": n})
        wait_for(lambda: any(p.event(e)["state"] in END_STATES for e in accepted.values()),
                 what="a first end")
        p.note_namespaces()
        p.process.kill()
        p.process.wait()
        p.process.stdout.close()
        # Its programs and all they started are gone without anybody's help; cgroups that are
        # empty by then are swept by the next start.
        wait_for(lambda: not p.processes() and not p.sandboxes(), 10, "the end of all processes")
        p.web.close()
        p.start()
        assert p.token == token
    wait_for(lambda: open_events(p) == 0, 90, "the end of all events")
    check_all_ended_once(p, name, accepted)
    p.end()
    check_database(p)


@pytest.mark.slow
def test_an_orderly_end_and_a_new_start(new_platform):
    """What was accepted and not run is run after the next start; what is known stays known."""
    p = new_platform.start("--slots", "1")
    name = p.create(ONE_MOMENT)
    events = [p.send(name, n) for n in range(6)]
    wait_for(lambda: p.event(events[0])["state"] != "queued", what="a start")
    p.end()
    p.start()
    assert [p.ended(e)["response"] for e in events] == list(range(6))
    assert len(all_events(p, name)) == 6
    assert p.get(f"/v1/functions/{name}")["state"] == "ready"


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM,
                                                              marks=pytest.mark.slow)])
def test_nothing_keeps_running(new_platform, how):
    """Also of functions that fight; after SIGKILL the kernel takes it down, nobody else is
    there to."""
    p = new_platform.start()
    names = [p.create("escapes", timeout=300), p.create("fork_bomb", timeout=300, pids=32),
             p.create("sleeper", timeout=300)]
    events = [p.send(n) for n in names]
    wait_for(lambda: all(p.event(e)["state"] == "running" for e in events), what="running events")
    wait_for(lambda: len(p.sandboxes()) > 20, what="what they start")
    p.note_namespaces()
    p.process.send_signal(how)
    assert p.process.wait(20) == (0 if how == signal.SIGTERM else -how)
    p.process.stdout.close()
    wait_for(lambda: not p.processes() and not p.sandboxes(), 10, "the end of all processes")
    if how == signal.SIGTERM:
        assert not p.cgroups()
    p.start()
    for n in names:
        p.ok("function-delete", n)
    wait_for(lambda: open_events(p) == 0, 30, "the end of all events")


def test_the_leak_gate_can_fail(platform):
    with pytest.raises(AssertionError):
        platform.gate()


@pytest.mark.parametrize("victim", ["driver", "spawner"])
@pytest.mark.slow
def test_an_event_of_a_lost_node_runs_again(new_platform, victim):
    """node_lost is no failure of the function's: retries=0, and it is run again."""
    p = new_platform.start()
    name = p.create("def main(payload, context):\n"
                    "    import time\n    time.sleep(1.5)\n    return context.attempt\n", retries=0)
    event = p.send(name, 1)
    wait_for(lambda: p.event(event)["state"] == "running", what="a start")
    os.kill(getattr(p, victim)()[0], signal.SIGKILL)
    record = p.ended(event)
    assert record["state"] == "succeeded" and record["attempts"] == record["response"] >= 2


@pytest.mark.slow
def test_a_waiting_caller_of_a_lost_node_is_told(new_platform):
    """At most once: a wait_for_response event is never sent twice."""
    p = new_platform.start()
    name = p.wait_function("sleeper")
    answered = []
    t = threading.Thread(target=lambda: answered.append(p.call(name, 20)))
    t.start()
    wait_for(lambda: p.get("/v1/nodes")["items"][0]["running"] == 1, what="a start")
    os.kill(p.driver()[0], signal.SIGKILL)
    t.join(30)
    assert answered, "no answer"
    p.problem(answered[0], 502, "node_lost")
    record = p.ended(answered[0].headers["Pratai-Event-Id"])
    assert (record["state"], record["attempts"]) == ("failed", 1)
