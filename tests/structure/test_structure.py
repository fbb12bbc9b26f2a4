"""What may include what, and what the C sources must not contain.

The arrows are those of the design: programs -> netio, store, sandbox, rootfs, core/model ->
core/base.  Each check is a function of the sources, given as {path: text}, so that it is
also tried on sources that break its rule: a check that cannot fail proves nothing.
"""
import pathlib
import re

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("core", "sandbox", "netio", "rootfs", "store", "runtimes")
FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 80

# A folder's files may include its own headers and those of:
ARROWS = {
    "core/base": [],
    "core/model": ["core/base"],
    "sandbox": ["core/base"],
    "rootfs": ["core/base"],
    "netio": ["core/base"],
    "store": ["core/base", "core/model", "netio"],
    "core/agent": ["core/base", "core/model", "netio", "store"],
    "core/scheduler": ["core/base", "core/model", "netio", "store"],
    "core/api": ["core/base", "core/model", "netio", "store", "core/scheduler", "core/agent"],
    "core/client": ["core/base", "core/model", "netio", "rootfs"],
    "core/run": ["core/base", "rootfs", "sandbox"],
    "runtimes/exec": ["core/base"],
    "core/node": ["core/base", "core/model", "netio", "rootfs", "sandbox", "core/build"],
    "core/build": ["core/base", "core/model", "netio", "rootfs", "sandbox", "core/node"],
}
# Each third-party library is behind a header of ours.
LIBRARIES = {
    r"cjson/.*": ["core/base/json.c"],
    r"sodium.*": ["core/base/crypto.c"],
    r"openssl/sha\.h": ["core/base/crypto.c"],
    r"zmq.*": ["netio/mq.c"],
    r"curl/.*": ["netio/http_client.c"],
    r"microhttpd\.h": ["netio/http_private.h"],
    r"sqlite3\.h": ["store/sqlite_impl.h"],
    r"seccomp\.h": ["sandbox/seccomp_names.c"],
    r"archive(_entry)?\.h": ["rootfs/unpack.c", "rootfs/tar_stream.c", "rootfs/tar_write.c",
                              "core/client/zip.c"],
    r"sys/capability\.h": [],
}
# The system's own; whatever is neither this nor a library above needs a line here.
SYSTEM = re.compile(
    r"(sys|linux|net|netinet|arpa|asm)/[\w/]+\.h|"
    r"(ctype|dirent|elf|endian|err|errno|fcntl|fnmatch|ftw|getopt|glob|grp|ifaddrs|inttypes|langinfo|"
    r"libgen|limits|locale|math|netdb|poll|pthread|pwd|sched|semaphore|setjmp|signal|spawn|stdalign|stdarg|stdatomic|"
    r"stdbool|stddef|stdint|stdio|stdio_ext|stdlib|string|strings|syslog|termios|time|unistd|utime|wchar|"
    r"wctype)\.h")
BANNED = ("strcpy", "strcat", "stpncpy", "strncpy", "strncat", "sprintf", "vsprintf", "gets", "atoi",
          "atol", "atoll", "atof", "strtok", "alloca", "system", "popen", "mktemp", "tmpnam", "rand")


def sources():
    return {str(p.relative_to(TOP)): p.read_text()
            for folder in FOLDERS for p in sorted((TOP / folder).rglob("*.[ch]"))}


def blank(text):
    """text without what is in comments and literals; lines and columns stay."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def folder_of(path):
    return path.rsplit("/", 1)[0]


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def includes(text, form):
    for m in re.finditer(form, text, re.M):
        yield m.group(1), line_of(text, m.start())


OURS = r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"'
THEIRS = r"^[ \t]*#[ \t]*include[ \t]*<([^>]+)>"


# ---- the checks: each yields what is wrong ----

def wrong_arrows(files):
    for path, text in files.items():
        folder = folder_of(path)
        if folder not in ARROWS:
            yield f"{path}: the folder {folder} is in no arrow"
            continue
        allowed = [folder, *ARROWS[folder]]
        for name, line in includes(text, OURS):
            if "/" not in name or ".." in name.split("/"):
                yield f'{path}:{line}: "{name}" is not a path from the top'
            elif folder_of(name) not in allowed:
                yield f'{path}:{line}: {folder} does not know {folder_of(name)} ("{name}")'


def missing_headers(files):
    for path, text in files.items():
        for name, line in includes(text, OURS):
            if name not in files and not name.endswith(".inc"):
                yield f'{path}:{line}: there is no "{name}"'


def private_headers(files):
    """*_impl.h, *_private.h and internal.h are for their own folder."""
    for path, text in files.items():
        for name, line in includes(text, OURS):
            if re.search(r"(_impl|_private|/internal)\.h$", name) and folder_of(name) != folder_of(path):
                yield f'{path}:{line}: "{name}" is private to {folder_of(name)}'


def wrong_libraries(files):
    for path, text in files.items():
        for name, line in includes(text, THEIRS):
            homes = [h for pattern, h in LIBRARIES.items() if re.fullmatch(pattern, name)]
            if homes:
                if path not in homes[0]:
                    yield f"{path}:{line}: <{name}> belongs in {homes[0]} only"
            elif not SYSTEM.fullmatch(name):
                yield f"{path}:{line}: <{name}> is no header that we know"


def own_header_not_first(files):
    for path, text in files.items():
        own = path[:-1] + "h"
        found = [n for n, _ in includes(text, OURS)]
        if path.endswith(".c") and own in files and (not found or found[0] != own):
            yield f'{path}: "{own}" is not the first header of ours'


def wrong_guards(files):
    for path, text in files.items():
        m = re.search(r"^#ifndef (\w+)\n#define (\w+)\n", text, re.M)
        if path.endswith(".h") and (not m or m[1] != m[2] or not m[1].startswith("PRATAI_")):
            yield f"{path}: no guard PRATAI_..._H"


def no_theory(files):
    """A header is a contract and begins with it; a source says what it is about, unless its
    header did."""
    for path, text in files.items():
        own = path[:-1] + "h"
        if not text.startswith("/*") and (path.endswith(".h") or own not in files):
            # After the own header's include is fine, too.
            if not re.match(r'(#include [^\n]*\n|\n)*/\*', text):
                yield f"{path}: does not begin with what it is about"


def banned_functions(files):
    form = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")[ \t]*\(")
    for path, text in files.items():
        for m in form.finditer(blank(text)):
            yield f"{path}:{line_of(text, m.start())}: {m.group(1)} is not used here"


def unfinished(files):
    for path, text in files.items():
        for m in re.finditer(r"\b(TODO|FIXME|XXX|HACK)\b(?!XX)", text):
            if "XXXX" not in text[m.start():m.start() + 6]:
                yield f"{path}:{line_of(text, m.start())}: {m.group(1)}"


def wrong_whitespace(files):
    for path, text in files.items():
        if not text.endswith("\n") or text.endswith("\n\n"):
            yield f"{path}: ends without one newline"
        for n, line in enumerate(text.split("\n"), 1):
            lead = re.match(r"[ \t]*", line).group()
            if line != line.rstrip():
                yield f"{path}:{n}: space at the end of the line"
            elif " \t" in lead:
                yield f"{path}:{n}: a tab after spaces"
            elif " " * 8 in lead:
                yield f"{path}:{n}: spaces where tabs belong"
            elif lead and "\t" not in lead and not re.match(r" ?\*| +\w|  ", line):
                yield f"{path}:{n}: indented by spaces"
            elif "\r" in line:
                yield f"{path}:{n}: a carriage return"


def too_long(files):
    for path, text in files.items():
        lines = text.split("\n")
        if len(lines) - 1 > FILE_LINES_MAX:
            yield f"{path}: {len(lines) - 1} lines, at most {FILE_LINES_MAX}"
        begin = None
        for n, line in enumerate(lines, 1):
            if line == "{":
                begin = n
            elif line == "}" and begin:
                if n - begin - 1 > FUNCTION_LINES_MAX:
                    name = next((m[1] for k in range(begin - 1, 0, -1)
                                 if (m := re.match(r"(\w+)\(", lines[k - 1]))), "a function")
                    yield f"{path}:{begin}: {name} has {n - begin - 1} lines, at most {FUNCTION_LINES_MAX}"
                begin = None


def return_type_beside_name(files):
    """Definitions only: their brace is at the start of the next line."""
    form = re.compile(r"^(?:static |struct |const |unsigned |void |int |bool |char |size_t )[^\n;={}]*?"
                      r"\b(\w+)\([^;{}]*\)\n\{", re.M)
    for path, text in files.items():
        for m in form.finditer(blank(text)):
            first = m.group().split("(")[0]
            if "\n" not in first and "__attribute__" not in first and not first.startswith("#"):
                yield f"{path}:{line_of(text, m.start())}: {m.group(1)}: its type belongs on a line of its own"


CHECKS = [wrong_arrows, missing_headers, private_headers, wrong_libraries, own_header_not_first,
          wrong_guards, no_theory, banned_functions, unfinished, wrong_whitespace, too_long,
          return_type_beside_name]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_sources(check):
    files = sources()
    assert len(files) > 100
    wrong = list(check(files))
    assert not wrong, "\n" + "\n".join(wrong)


# ---- each check does find what it is for ----

HEADER = "/* x */\n#ifndef PRATAI_X_H\n#define PRATAI_X_H\n#endif\n"
BROKEN = [
    (wrong_arrows, {"core/base/a.c": '#include "netio/loop.h"\n'}),
    (wrong_arrows, {"core/model/a.c": '#include "store/store.h"\n'}),
    (wrong_arrows, {"sandbox/a.c": '#include "rootfs/zip.h"\n'}),
    (wrong_arrows, {"netio/a.c": '#include "core/model/event.h"\n'}),
    (wrong_arrows, {"store/a.c": '#include "sandbox/sandbox.h"\n'}),
    (wrong_arrows, {"core/api/a.c": '#include "sandbox/sandbox.h"\n'}),
    (wrong_arrows, {"core/client/up.c": '#\tinclude "sandbox/sandbox.h"\n'}),
    (wrong_arrows, {"core/scheduler/a.c": '#include "core/api/api.h"\n'}),
    (wrong_arrows, {"core/base/a.c": '#include "err.h"\n'}),
    (wrong_arrows, {"core/new/a.c": ""}),
    (missing_headers, {"core/base/a.c": '#include "core/base/none.h"\n'}),
    (private_headers, {"core/scheduler/a.c": '#include "core/model/sched_impl.h"\n'}),
    (private_headers, {"core/api/a.c": '#include "core/scheduler/internal.h"\n'}),
    (wrong_libraries, {"core/model/a.c": "#include <cjson/cJSON.h>\n"}),
    (wrong_libraries, {"core/scheduler/a.c": "#include <zmq.h>\n"}),
    (wrong_libraries, {"core/base/a.c": "#include <glib.h>\n"}),
    (own_header_not_first, {"netio/a.c": '#include "core/base/err.h"\n#include "netio/a.h"\n', "netio/a.h": HEADER}),
    (wrong_guards, {"netio/a.h": "/* x */\n#pragma once\n"}),
    (no_theory, {"netio/a.c": "#include <stdio.h>\nint x;\n"}),
    (banned_functions, {"netio/a.c": "x = strcpy (a, b);\n"}),
    (banned_functions, {"netio/a.c": "char *p = alloca(n);\n"}),
    (unfinished, {"netio/a.c": "/* TODO: more */\n"}),
    (wrong_whitespace, {"netio/a.c": "int x; \n"}),
    (wrong_whitespace, {"netio/a.c": "        int x;\n"}),
    (wrong_whitespace, {"netio/a.c": "  \tint x;\n"}),
    (wrong_whitespace, {"netio/a.c": "int x;"}),
    (too_long, {"netio/a.c": "int x;\n" * 701}),
    (too_long, {"netio/a.c": "int\nf(void)\n{\n" + "\tx();\n" * 81 + "}\n"}),
    (return_type_beside_name, {"netio/a.c": "static int f(void)\n{\n}\n"}),
]


@pytest.mark.parametrize("check,files", BROKEN, ids=[c.__name__ + str(i) for i, (c, _) in enumerate(BROKEN)])
def test_a_check_finds_what_it_is_for(check, files):
    assert list(check(files))


FINE = [
    (banned_functions, '/* strcpy(a) */\nputs("atoi(1)");\nmy_strtok(x);\np->system(1);\nsnprintf(a, 1, "");\n'),
    (unfinished, 'mkstemp("/tmp/x-XXXXXX");\n'),
    (wrong_whitespace, "/*\n * text\n */\n\tint x;\n\t       y;\n"),
    (too_long, "int x;\n" * 700),
    (return_type_beside_name, "static int\nf(void)\n{\n}\nint g(void);\nstruct x {\n};\n"),
]


@pytest.mark.parametrize("check,text", FINE, ids=[c.__name__ for c, _ in FINE])
def test_a_check_leaves_what_is_right(check, text):
    assert not list(check({"netio/a.c": text}))


def test_every_folder_is_built():
    modules = re.search(r"^modules := ((?:.*\\\n)*.*)$", (TOP / "Makefile").read_text(), re.M)[1]
    assert set(modules.replace("\\", " ").split()) == set(ARROWS) - {"runtimes/exec"}  # a program of its own
