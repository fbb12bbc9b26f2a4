"""Runtimes other than python3, and one that is added by its manual alone."""
import io
import json
import shutil
import subprocess
import tarfile

import pytest

from conftest import BUILD

COPY = '#include <unistd.h>\nchar b[65536];\nint main(void){ ssize_t n;\n' \
    'while ((n = read(0, b, sizeof b)) > 0) if (write(1, b, n) != n) return 1;\nreturn n < 0; }\n'


def exec_function(platform, script, **metadata):
    main = script if isinstance(script, bytes) else "#!/bin/sh\n" + script + "\n"
    return platform.wait_function({"main": main}, runtime="exec", **metadata)


def failed(platform, source, runtime, **metadata):
    """Why the version could not be made."""
    name = platform.create(source, state="failed", runtime=runtime, **metadata)
    reason = platform.get(f"/v1/functions/{name}")["state_reason"]
    platform.ok("function-delete", name)
    return reason


# ---- exec ----

def test_exec_answers_byte_for_byte(platform, tmp_path):
    (tmp_path / "main.c").write_text(COPY)
    subprocess.run(["gcc", "-O1", "-static", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    name = exec_function(platform, (tmp_path / "main").read_bytes(), memory=16)
    data = bytes(range(256)) * 24000
    r = platform.call(name, data, headers={"Content-Type": "application/octet-stream"})
    assert r.status_code == 200 and r.content == data
    assert r.headers["Content-Type"] == "application/octet-stream"
    r = platform.call(name, {"n": 12345678901234567890})
    assert r.json() == {"n": 12345678901234567890}
    assert r.headers["Content-Type"] == "application/json"
    r = platform.call(name, b"gr\xc3\xbc\xc3\x9fe\n", headers={"Content-Type": "text/plain"})
    assert r.content == b"gr\xc3\xbc\xc3\x9fe\n" and r.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_exec_log_and_context(platform):
    name = platform.create({"main": "#!/bin/sh\nenv | grep ^PRATAI_ | sort; id -u; pwd; echo to the log >&2\n"},
                           runtime="exec", timeout=7)
    e = platform.ended(platform.send(name, {"x": 1}))
    lines = e["response"].splitlines()
    assert f"PRATAI_EVENT_ID={e['event_id']}" in lines and f"PRATAI_FUNCTION_ID={e['function_id']}" in lines
    assert {"PRATAI_SOURCE=webhook", "PRATAI_ATTEMPT=1", "PRATAI_TIMEOUT_MS=7000"} <= set(lines)
    assert lines[-2:] == ["1000", "/function"]
    assert platform.log_of(e["event_id"]) == "to the log"


@pytest.mark.parametrize("script,metadata,status,kind,words", [
    ("exit 3", {}, 502, "function_failed", "main ended with exit status 3"),
    ("kill -SEGV $$", {}, 502, "function_failed", "SIGSEGV"),
    ("kill -KILL $$", {}, 502, "function_failed", "SIGKILL"),
    ("cat /dev/zero", {}, 502, "function_failed", "more than the 6291456 bytes"),
    ("cat /dev/zero >&2", {}, 502, "output_exceeded", "printed more than"),
    ("sleep 60", {"timeout": 1}, 504, "timeout", "within 1 s"),
    ("exec /usr/bin/python3 -c 'x = b\"x\" * (1 << 30)'", {}, 502, "memory_exceeded", "128 MiB"),
    ("/usr/bin/python3 -c 'x = b\"x\" * (1 << 30)'; exit 5", {}, 502, "memory_exceeded", "128 MiB")])
def test_exec_fails(platform, script, metadata, status, kind, words):
    name = exec_function(platform, script, **metadata)
    assert words in platform.problem(platform.call(name, {"x": 1}), status, kind)
    platform.ok("function-delete", name)


@pytest.mark.parametrize("source,reason", [
    ({"other": "x"}, "there is no main at the root of the zip"),
    ({"main": "echo\n"}, "main is neither an ELF program nor a script that begins with #!"),
    ({"main": "#!/no/such\n"}, "main's interpreter /no/such is not in the image")])
def test_exec_packages_that_cannot_work(platform, source, reason):
    assert failed(platform, source, "exec") == reason


def test_exec_create_says_why(platform, tmp_path):
    (tmp_path / "README").write_text("no main here\n")
    r = platform.cli("function-create", "no-main", "--file", tmp_path, "--runtime", "exec")
    assert r.code == 1 and "there is no main at the root of the zip" in r.err
    platform.ok("function-delete", "no-main")


def test_exec_layer_is_the_package(platform):
    """Nothing was added, so nothing is stored twice: the same zip serves two functions."""
    source = {"main": "#!/bin/sh\ncat data.txt\n", "data.txt": "shared"}
    for _ in range(2):
        name = platform.wait_function(source, runtime="exec")
        assert platform.call(name).content == b"shared"
        assert "the function is main, a script for /bin/sh" in \
            platform.get(f"/v1/functions/{name}/build")["log"]
        platform.ok("function-delete", name)


# ---- nodejs ----

def node_function(platform, source, **metadata):
    files = {"main.js": source} if isinstance(source, str) else source
    return platform.wait_function(files, runtime="nodejs", **metadata)


def test_nodejs_answers(platform):
    name = node_function(platform, "exports.main = async (payload, context) => { console.log('to the log');"
                         " return { got: payload, attempt: context.attempt, left: context.remaining_ms() > 0,"
                         " id: context.event_id === process.env.PRATAI_EVENT_ID, uid: process.getuid() } }")
    r = platform.call(name, {"x": ["ü", None]})
    assert r.status_code == 200, r.text
    assert r.json() == {"got": {"x": ["ü", None]}, "attempt": 1, "left": True, "id": True, "uid": 1000}
    assert platform.log_of(r.headers["Pratai-Event-Id"]) == "to the log"
    data = bytes(range(256)) * 24000
    name = node_function(platform, {"index.mjs": "export default (payload) => payload"})
    r = platform.call(name, data, headers={"Content-Type": "application/octet-stream"})
    assert r.content == data and r.headers["Content-Type"] == "application/octet-stream"


def test_nodejs_chooses_its_answer(platform):
    name = node_function(platform, "exports.main = () => ({ statusCode: 418, headers: { 'X-Pot': 'tea' }, body: 'short' })")
    r = platform.call(name)
    assert (r.status_code, r.headers["X-Pot"], r.text) == (418, "tea", "short")


@pytest.mark.parametrize("body,metadata,status,kind,words", [
    ("throw new TypeError('said so')", {}, 502, "function_failed", "said so"),
    ("process.exit(3)", {}, 502, "function_failed", "process.exit(3)"),
    ("process.abort()", {}, 502, "function_failed", "SIGABRT"),
    ("for (;;);", {"timeout": 1}, 504, "timeout", "within 1 s"),
    ("for (;;) console.log('x'.repeat(65536))", {}, 502, "output_exceeded", "printed more than"),
    # the heap, and what is not in it
    ("const a = []; for (;;) a.push(new Array(1000).fill(1))", {}, 502, "memory_exceeded", "128 MiB"),
    ("const a = []; for (;;) a.push(Buffer.alloc(65536, 1))", {}, 502, "memory_exceeded", "128 MiB")])
def test_nodejs_fails(platform, body, metadata, status, kind, words):
    name = node_function(platform, "exports.main = () => { " + body + " }", **metadata)
    assert words in platform.problem(platform.call(name, {"x": 1}), status, kind)
    platform.ok("function-delete", name)


def test_nodejs_collects_garbage_before_memory_is_full(platform):
    """Far more than its memory goes by, of which little is in use at a time: V8, which sees the
    machine's memory, would put the collection off until the sandbox's is gone."""
    name = node_function(platform, "exports.main = () => { let kept = [], sum = 0;"
                         " const live = [...Array(320).keys()].map((i) => new Array(16000).fill(i));"
                         " for (let i = 0; i < 60000; i++) { kept.push(new Array(500).fill(i));"
                         " if (kept.length > 2000) kept = kept.slice(1000); sum += kept.length }"
                         " return live.length + (sum > 0) }")
    assert platform.call(name).json() == 321


@pytest.mark.parametrize("source,reason", [
    ({"other.js": "x"}, "there is no main.js or index.js at the root of the zip"),
    ({"main.js": "exports.main = (\n"}, "main.js, line 2: Unexpected end of input"),
    ({"main.js": "const x = 1;\n"}, "main.js exports no main: write exports.main = (payload, context) => …")])
def test_nodejs_packages_that_cannot_work(platform, source, reason):
    assert failed(platform, source, "nodejs") == reason


def tgz(name, files):
    """A package as npm packs it."""
    out = io.BytesIO()
    files = {"package.json": json.dumps({"name": name, "version": "1.0.0", **files.pop("", {})}), **files}
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for file, text in files.items():
            info = tarfile.TarInfo("package/" + file)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def test_nodejs_packages(platform):
    """npm in the build's sandbox, its install script too; what it made is found by require and
    import, and is read-only."""
    script = "node -e \"require('fs').writeFileSync('made.json', JSON.stringify(process.getuid()))\""
    files = {"main.js": "const { word } = require('small');\nexports.main = async () => [word, require('small/made.json'),"
             " (await import('small')).word, (() => { try { require('fs').writeFileSync(require.resolve('small'), '') }"
             " catch (e) { return e.code } })()];",
             "package.json": json.dumps({"dependencies": {"small": "file:small.tgz"}}),
             "small.tgz": tgz("small", {"index.js": "exports.word = 'here'", "": {"scripts": {"install": script}}})}
    name = platform.wait_function(files, runtime="nodejs", seconds=120)
    assert platform.call(name).json() == ["here", 1000, "here", "EACCES"]
    log = platform.get(f"/v1/functions/{name}/build")["log"]
    assert "pratai: npm install" in log and "added 1 package" in log


def test_nodejs_packages_that_cannot_be_had(platform):
    files = {"main.js": "exports.main = () => 1", "package.json": '{"dependencies": {"x": "file:no.tgz"}}'}
    reason = failed(platform, files, "nodejs", seconds=120)
    assert reason.startswith("npm could not install package.json: ") and "no.tgz" in reason


# ---- one of a user's own ----

PERL = r'''
use strict;
use warnings;
use Fcntl;
use IO::Handle;
use JSON::PP;
use Time::HiRes qw(time);

open(my $channel, "+<&=", 3) or die "no channel";
fcntl($channel, F_SETFD, FD_CLOEXEC);
my $json = JSON::PP->new->utf8->canonical->allow_nonref;

sub send_message {
    my ($message, $body) = @_;
    STDOUT->flush;
    my $data = $json->encode({ v => 1, %$message, defined $body ? (bytes => length $body) : () }) . "\n";
    $data .= $body if defined $body;
    while (length $data) {
        my $n = syswrite($channel, $data) or exit 70;
        substr($data, 0, $n) = "";
    }
}

sub receive {
    my ($data, $more) = @_;
    sysread($channel, $$data, $more, length $$data) or exit 0;
}

sub fail {
    my ($type, $message) = @_;
    send_message({ type => "result", ok => JSON::PP::false, error => { type => $type, message => $message } });
    exit 1;
}

my $began = time;
do "/function/main.pl";
fail("LoadError", $@) if $@;
fail("NoMain", "main.pl defines no sub main") unless defined &main::main;
send_message({ type => "imported", import_us => int((time() - $began) * 1e6) });

my $input = "";
receive(\$input, 1) while $input !~ /\n\z/;
my $event = $json->decode($input);
my $payload = "";
receive(\$payload, $event->{bytes} - length $payload) while length $payload < ($event->{bytes} // 0);
$payload = $event->{payload} eq "json" ? $json->decode($payload) : $event->{payload} eq "none" ? undef : $payload;
$ENV{PRATAI_EVENT_ID} = $event->{event_id};
my $answer = eval { main::main($payload, $event) };
fail("Died", $@) if $@;
send_message({ type => "result", ok => JSON::PP::true, content_type => "application/json" }, $json->encode($answer));
exit 0;
'''


@pytest.fixture
def own_runtimes(tmp_path):
    """The runtimes that come along, and beside them one that was written by pratai-runtime(7)."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "runtimes"
    shutil.copytree(BUILD / "runtimes", directory)
    layer = directory / "perl/layer/opt/perl"
    layer.mkdir(parents=True)
    (directory / "perl/runtime.json").write_text(json.dumps({
        "name": "perl", "description": "sub main of main.pl",
        "command": ["/usr/bin/perl", "/opt/perl/run.pl"], "env": {"PERL_UNICODE": "0"}}))
    (layer / "run.pl").write_text(PERL)
    return directory


def test_runtime_of_a_users_own(new_platform, own_runtimes):
    p = new_platform.start("--runtimes", own_runtimes)
    assert {"exec", "nodejs", "perl", "python3"} == {
        r["name"] for r in p.ok("runtime-list", "-f", "json").json()}
    source = {"main.pl": "use utf8; print \"loaded\\n\"; sub main { my ($p, $event) = @_; warn \"called\\n\";"
                         " die \"no such thing\\n\" if $p->{fail};"
                         " return { got => $p, source => $event->{source}, id => $ENV{PRATAI_EVENT_ID} } } 1;"}
    name = p.wait_function(source, runtime="perl")
    r = p.call(name, {"text": "grüße", "list": [1, None, True]})
    event_id = r.headers["Pratai-Event-Id"]
    assert r.json() == {"got": {"text": "grüße", "list": [1, None, True]}, "source": "webhook", "id": event_id}
    assert sorted(p.log_of(event_id).splitlines()) == ["called", "loaded"]
    assert "no such thing" in p.problem(p.call(name, {"fail": 1}), 502, "function_failed")
    name = p.wait_function({"main.pl": "1;"}, runtime="perl")
    assert "defines no sub main" in p.problem(p.call(name, {}), 502, "function_failed")
    assert p.call(p.wait_function({"main": "#!/bin/sh\ncat\n"}, runtime="exec"), {"x": 1}).json() == {"x": 1}
