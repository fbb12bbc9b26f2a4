"""A function that runs by the clock."""
import pytest

from conftest import FUNCTIONS, wait_for


@pytest.mark.slow
def test_a_tick_each_minute(platform):
    r = platform.ok("function-create", "ticks", "--file", FUNCTIONS / "context", "--event",
                    "timer", "--frequency", "1", "-f", "json").json()
    assert (r["event"], r["frequency"], r["state"]) == ("timer", 1, "ready")
    ticks = wait_for(lambda: platform.get("/v1/events?function=ticks")["items"], 75, "a tick",
                     pause=0.2)
    record = platform.ended(ticks[0]["event_id"])
    assert (record["state"], record["source"], record["type"]) == ("succeeded", "timer", "async")
    assert record["response"]["source"] == "timer"
    assert record["created_at"] >= r["created_at"]
    assert len(platform.get("/v1/events?function=ticks")["items"]) == 1
    platform.ok("function-delete", "ticks")
