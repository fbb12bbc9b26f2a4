"""Who may do what: tokens, files, and the processes' own powers."""
import os
import socket
import stat

import pytest
import requests

from conftest import FUNCTIONS, number_of, read_bytes

PLACES = [("GET", "/v1/functions"), ("POST", "/v1/functions"), ("GET", "/v1/functions/x"),
          ("PATCH", "/v1/functions/x"), ("DELETE", "/v1/functions/x"), ("POST", "/v1/functions/x"),
          ("GET", "/v1/functions/x/build"), ("GET", "/v1/events"), ("GET", "/v1/events/x"),
          ("GET", "/v1/events/x/response"), ("GET", "/v1/events/x/logs"),
          ("GET", "/v1/events/x/payload"), ("GET", "/v1/cluster"), ("GET", "/v1/nodes"),
          ("GET", "/v1/runtimes"), ("GET", "/v1/tokens"), ("POST", "/v1/tokens"),
          ("DELETE", "/v1/tokens/x"), ("POST", "/v1/node/register"),
          ("GET", "/v1/node/blobs/" + "0" * 64), ("PUT", "/v1/node/blobs/" + "0" * 64)]


@pytest.mark.parametrize("headers", [
    {}, {"X-Auth-Token": ""}, {"X-Auth-Token": "wrong"}, {"X-Auth-Token": "0" * 64},
    {"X-Auth-Token": "x" * 8000}, {"Authorization": "Bearer wrong"},
    {"Authorization": "Basic eDp5"},
    {"X-Pratai-Join": "wrong"}], ids=str)
def test_nothing_without_a_token(platform, headers):
    for method, path in PLACES:
        r = requests.request(method, platform.url + path, headers=headers, timeout=10,
                             data=b"{}" if method in ("POST", "PUT") else None)
        platform.problem(r, 401, "unauthorized")


@pytest.mark.parametrize("token", ["", "X-Auth-Token: wrong\r\n"])
def test_a_strangers_body_is_not_asked_for(platform, token):
    """The 401 comes at the headers: in place of the "100", or after what is sent anyway."""
    host, port = platform.url.removeprefix("http://").split(":")
    for path in ("/v1/functions", "/v1/functions/x", "/v1/tokens"):
        with socket.create_connection((host, int(port)), timeout=20) as s:
            s.sendall((f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{token}"
                       "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n").encode())
            assert s.recv(12) == b"HTTP/1.1 401"
    r = requests.post(f"{platform.url}/v1/functions/x", data=b"x" * (8 << 20), timeout=20,
                      headers={"X-Auth-Token": "wrong"})
    platform.problem(r, 401, "unauthorized")


def test_a_users_token_is_no_join_token(platform):
    r = platform.http("POST", "/v1/node/register", json={}, headers={
        "X-Pratai-Join": platform.token})
    platform.problem(r, 401, "unauthorized")
    join = (platform.state / "join").read_text().strip()
    r = requests.get(platform.url + "/v1/functions", headers={"X-Auth-Token": join}, timeout=10)
    platform.problem(r, 401, "unauthorized")


def test_tokens(platform):
    made = platform.ok("token-create", "second", "--description", "for a test", "-f", "json").json()
    secret = made["token"]
    assert len(secret) >= 40 and made["name"] == "second"
    as_second = {"OS_TOKEN": secret}
    assert platform.ok("function-list", env=as_second).code == 0
    listed = platform.ok("token-list", "-f", "json").json()
    assert {"first", "second"} <= {t["name"] for t in listed}
    assert secret not in str(listed) and platform.token not in str(listed)
    platform.ok("token-delete", "second")
    r = platform.cli("function-list", env=as_second)
    assert r.code == 1 and "token" in r.err
    r = requests.get(platform.url + "/v1/functions", headers={"X-Auth-Token": secret}, timeout=10)
    platform.problem(r, 401, "unauthorized")
    twins = [platform.ok("token-create", "twin", "-f", "json").json() for _ in range(2)]
    r = platform.cli("token-delete", "twin")
    assert r.code == 1 and "2 tokens are called 'twin'" in r.err
    platform.ok("token-delete", *(t["token_id"] for t in twins))
    for body in (b"", b"[]", b"{}", b'{"name": 5}', b'{"name": "a/b"}', b'{"name": "a", "x": 1}'):
        platform.problem(platform.http("POST", "/v1/tokens", data=body), 400, "invalid_request")


def test_a_deleted_first_token_stays_deleted(new_platform):
    """Also over a restart; a new secret in its place makes a new token."""
    p = new_platform.start()
    second = p.ok("token-create", "second", "-f", "json").json()["token"]
    first = p.token
    p.ok("token-delete", "first")
    p.problem(p.http("GET", "/v1/functions"), 401, "unauthorized")
    p.end()
    p.start()
    assert p.token == first
    p.problem(p.http("GET", "/v1/functions"), 401, "unauthorized")
    r = p.http("GET", "/v1/tokens", headers={"X-Auth-Token": second})
    assert [t["name"] for t in r.json()["items"]] == ["second"]
    p.end()
    (p.state / "token").unlink()
    p.start()
    assert p.token != first and p.get("/v1/functions")["items"] == []


def test_no_secret_in_what_is_stored_or_said(platform):
    """Only a token's hash is kept; no log has it."""
    token = platform.token.encode()
    for path in (platform.state / "control").rglob("*"):
        if path.is_file():
            assert token not in path.read_bytes(), path
    assert token not in platform.log_path.read_bytes()
    for pid in platform.processes():
        assert token not in read_bytes(f"/proc/{pid}/cmdline")
        assert token not in read_bytes(f"/proc/{pid}/environ")


def test_the_state_directory(platform):
    assert stat.S_IMODE(platform.state.stat().st_mode) == 0o700
    for name in ("env", "token", "join", "instance", "lock", "alive"):
        st = (platform.state / name).stat()
        assert (stat.S_IMODE(st.st_mode), st.st_uid) == (0o600, 0), name
    for name, uid in (("control", 1878982657), ("node", 1878982658)):
        st = (platform.state / name).stat()
        assert (stat.S_IMODE(st.st_mode), st.st_uid) == (0o700, uid), name
    assert stat.S_IMODE((platform.state / "control/pratai.db").stat().st_mode) & 0o077 == 0
    env = (platform.state / "env").read_text()
    assert f"export OS_PRATAI_URL={platform.url}\n" in env and "export OS_TOKEN=" in env
    assert f"export PRATAI_ROOT={platform.state}\n" in env
    assert all(line.startswith("export ") for line in env.splitlines())


def test_who_is_root(platform):
    """`up` itself, the spawner and its helper; nobody who talks to the network."""
    control, driver, spawner = platform.control(), platform.driver(), platform.spawner()
    assert len(control) == len(driver) == len(spawner) == 1
    for pid in control + driver:
        assert number_of(pid, "Uid") >= 1878982657
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert number_of(pid, name) == 0, name
        assert number_of(pid, "NoNewPrivs") == 1
        status = read_bytes(f"/proc/{pid}/status").decode()
        assert status.split("Groups:")[1].split("\n")[0].strip() in ("", str(number_of(pid, "Gid")))
    others = set(platform.processes(root=True)) - {platform.process.pid}
    assert others and all(pid in spawner or number_of(pid, "PPid") in spawner for pid in others)
    sockets = [os.readlink(f"/proc/{spawner[0]}/fd/{fd}")
               for fd in os.listdir(f"/proc/{spawner[0]}/fd")]
    network = read_bytes("/proc/net/tcp") + read_bytes("/proc/net/tcp6")
    for s in sockets:
        if s.startswith("socket:["):
            assert s[8:-1].encode() not in network.split()


def test_only_one_port_is_open(platform):
    inodes = set()
    for pid in platform.processes():
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except OSError:
                pass
    listening = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in read_bytes(f"/proc/net/{table}").decode().splitlines()[1:]:
            words = line.split()
            if f"socket:[{words[9]}]" in inodes and (words[3] == "0A" or table[0] == "u"):
                listening.add((table, words[1]))
    port = int(platform.url.rsplit(":", 1)[1])
    assert listening == {("tcp", f"0100007F:{port:04X}")}


def test_events_and_functions_of_another_project(platform):
    """There is one project as yet; an id that is nobody's is as unknown as any."""
    for path in ("/v1/functions/", "/v1/events/"):
        r = platform.http("GET", path + "01a2063c-4dfc-701b-bf30-5d7baba99c7c")
        platform.problem(r, 404, "not_found")


def test_a_functions_environment_is_not_logged(platform):
    name = platform.create("echo", env={"PASSWORD": "s3cr3t-word"})
    event = platform.send(name, {"card": "4111-pay-load"})
    platform.ended(event)
    log = platform.log()
    assert "s3cr3t-word" not in log and "4111-pay-load" not in log
    assert (FUNCTIONS / "echo").is_dir()
