"""The example of pratai-runtime(7) is a runtime that works."""
import json
import re
import sys

from conftest import TOP, Process


def example():
    page = (TOP / "man/pratai-runtime.7").read_text()
    text = re.search(r"\.Sh EXAMPLES.*?^\.Bd[^\n]*\n(.*?)^\.Ed", page, re.S | re.M).group(1)
    return text.replace(r"\e", "\\")


def run(root, script):
    main = root / "function/main"
    main.write_text("#!/bin/sh\n" + script)
    main.chmod(0o755)
    (root / "runtime.py").write_text(example().replace("/function/main", str(main)))
    p = Process([sys.executable, "-I", str(root / "runtime.py")], root)
    assert p.line()["type"] == "imported"
    p.write(b'{"v":1,"type":"event","payload":"text","bytes":5}\nhello')
    result = p.line()
    body = p.stream.read(result["bytes"])
    return result, body, p.end()


def test_answer(root):
    result, body, end = run(root, "tr a-z A-Z; echo log >&2")
    assert result["ok"] and body == b"HELLO" and end == ("", "log\n", 0)


def test_failure(root):
    result, _, _ = run(root, "exit 3")
    assert not result["ok"] and result["error"]["message"] == "main ended with 3"


def test_pages_own_lines_are_json():
    page = (TOP / "man/pratai-runtime.7").read_text()
    for block in re.findall(r"^\.Bd -literal[^\n]*\n(\{.*?)^\.Ed", page, re.S | re.M):
        rest = block.replace("\n ", " ").strip()
        while rest:
            value, at = json.JSONDecoder().raw_decode(rest)
            assert isinstance(value, dict)
            rest = rest[at:].strip()
            rest = rest[value.get("bytes", 0):].strip()  # as they are, whatever they are
