"""Makes a version of a python3 function ready: checks it, installs its requirements.txt,
compiles everything, and sends the layer for its sandboxes as a tar (pratai-runtime(7)).

Runs once per version in a build sandbox: the package read-only at /function, /tmp
writable, no network.  When requirements.txt names something that the package has not along,
the node is told what is needed (needs.py), and what pip installs for that is a layer of its
own, made here, too, in a sandbox without the package; or, when that does not depend on
requirements.txt alone, this runs again with network and makes one layer.  No code of the user's runs in this process; pip runs code of packages in processes
of its own, without the channel.

The same package and the same installed files give the same bytes: entries are sorted,
times and owners fixed, and this process runs with a fixed hash seed, since the order of
constants in compiled code depends on it.

Standard output and standard error are the build's log, which the function's owner reads.
"""
import os
import sys
from _frozen_importlib import _load
from _frozen_importlib_external import SourceFileLoader, spec_from_file_location

HERE = os.path.dirname(os.path.abspath(__file__))
TOTAL_MAX = 512 << 20  # function and dependencies, without what is compiled from them
ENTRIES_MAX = 100000   # with it


def fix_hash_seed():
    """Starts this program again with the seed fixed and nothing else of PYTHON*: -I, with
    which it was started, would ignore the seed, too."""
    if os.environ.get("PYTHONHASHSEED") == "0" and not sys.flags.ignore_environment:
        return
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    kept["PYTHONHASHSEED"] = "0"
    os.execve(sys.executable, [sys.executable, "-s", "-B", "-X", "utf8", __file__] + sys.argv[1:],
              kept)


def load(name):
    full = "pratai_" + name
    path = os.path.join(HERE, name + ".py")
    return _load(spec_from_file_location(full, path, loader=SourceFileLoader(full, path)))


def say(text):
    print("pratai: " + text, flush=True)


def measure(roots):
    """Files and bytes below the directories."""
    entries = total = 0
    for root in roots:
        for folder, folders, files in os.walk(root):
            entries += len(folders) + len(files)
            for name in files:
                total += os.lstat(os.path.join(folder, name)).st_size
                entries += name.endswith(".py")
    return entries, total


def check_size(runner, roots):
    entries, total = measure(roots)
    if total > TOTAL_MAX:
        raise runner.Failure("TooLarge", "the function and its dependencies have %d MiB; at most "
                             "%d are allowed" % (-(-total // (1 << 20)), TOTAL_MAX >> 20))
    if entries > ENTRIES_MAX:
        raise runner.Failure("TooLarge", "the function and its dependencies have more than %d "
                             "files" % ENTRIES_MAX)


def build(runner, root, channel):
    function = root + "/function"
    line = channel.read_line()
    if line is None:
        return
    request = runner._package_codec()[0](line.decode("utf-8"))
    if request["type"] == "dependencies":
        needs = channel.read_bytes(request["bytes"])
        install_needs(runner, root, channel, request, bytes(needs))
        return
    load("check").check(function, say)
    requirements = load("requirements")
    if requirements.need_network(function) and not request.get("network"):
        needs = load("needs").of(function + "/requirements.txt")
        if needs is None:
            send_message(channel, runner, {"v": 1, "type": "network"})
        else:
            send_message(channel, runner, {"v": 1, "type": "dependencies", "bytes": len(needs)},
                         needs)
            send_layer(runner, channel, [(function, "function")])
        return
    deps = requirements.install(function, root + "/tmp", timeout_of(request), say)
    send_layer(runner, channel, [(function, "function")] + ([(deps, "opt/deps")] if deps else []))


def install_needs(runner, root, channel, request, needs):
    """The layer below those of all versions that need the same; no package is here."""
    directory = root + "/tmp/pratai-requirements"
    load("needs").unpack(needs, directory)
    deps = load("requirements").install(directory, root + "/tmp", timeout_of(request), say)
    send_layer(runner, channel, [(deps, "opt/deps")])


def timeout_of(request):
    return request.get("requirements_timeout_s") or 600


def send_layer(runner, channel, trees):
    check_size(runner, [directory for directory, _ in trees])
    layer = load("layer")
    plan = layer.plan(trees)
    send_message(channel, runner, {"v": 1, "type": "layer", "ok": True})
    compiled = layer.send(plan, channel.send, say)
    say("compiled %d modules, %d files in all" % (compiled, len(plan)))


def send_message(channel, runner, message, body=b""):
    channel.send(runner._package_codec()[1](message).encode("utf-8") + b"\n" + body)


def lacks(name):
    """By hand: what is missing may be what prints JSON."""
    text = ("the image's python3 has no module %s: install the whole standard library (Debian's "
            "package python3, not python3-minimal alone)" % name)
    say(text)
    return ('{"v":1,"type":"result","ok":false,"error":{"type":"BadImage","message":"%s"}}\n'
            % text).encode("ascii", "replace")


def main():
    fix_hash_seed()
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != HERE]
    runner = load("runner")
    channel = runner.Channel(3)
    try:
        build(runner, sys.argv[1] if len(sys.argv) > 1 else "", channel)
    except runner.Failure as error:
        failure = load("failure")
        say(str(error))
        send_message(channel, runner, {
            "v": 1, "type": "result", "ok": False,
            "error": failure.describe(error, runner._package_codec()[1])})
        sys.exit(1)
    except ModuleNotFoundError as error:  # of this program's own: no code of the package's is run
        channel.send(lacks(error.name))
        sys.exit(1)


if __name__ == "__main__":
    main()
