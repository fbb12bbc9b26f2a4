"""What functions need from a package index, or a registry."""
import pytest

OFFLINE = ("Temporary failure in name resolution", "Name or service not known",
           "Network is unreachable", "Connection refused", "No route to host",
           "Connection timed out", "ConnectTimeoutError", "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED",
           "ETIMEDOUT", "ENETUNREACH")


def built(platform, name, source):
    """The log of the function's build, which needs a package index or registry."""
    f = platform.settled(name, 300)
    log = platform.get(f"/v1/functions/{name}/build")["log"]
    if f["state"] == "failed" and any(word in log for word in OFFLINE):
        pytest.skip(f"the package {source} cannot be reached")
    assert f["state"] == "ready", log
    return log


@pytest.mark.slow
@pytest.mark.index
def test_numpy(platform):
    """A large package with compiled parts, from requirements.txt."""
    name = "with-numpy"
    r = platform.upload({"name": name, "type": "wait_for_response", "memory": 256}, "numpy")
    assert r.status_code == 201, r.text
    log = built(platform, name, "index")
    r = platform.call(name, 100)
    assert r.status_code == 200 and r.json()["sum"] == 4950, r.text
    assert "numpy" in log
    platform.ok("function-delete", name)


@pytest.mark.slow
@pytest.mark.index
def test_npm(platform):
    """A package with one of its own dependencies, from package.json; required and imported."""
    name = "with-npm"
    main = "import isOdd from 'is-odd'; export const main = (n) => ({ odd: isOdd(n) });"
    files = {"main.mjs": main, "package.json": '{"dependencies": {"is-odd": "3.0.1"}}'}
    r = platform.upload({"name": name, "type": "wait_for_response", "runtime": "nodejs"}, files)
    assert r.status_code == 201, r.text
    log = built(platform, name, "registry")
    r = platform.call(name, 7)
    assert r.status_code == 200 and r.json() == {"odd": True}, r.text
    assert "npm install" in log
    platform.ok("function-delete", name)
