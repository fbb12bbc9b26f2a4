"""What decides which packages pip installs for a requirements.txt, as one text: with the same
text they are the same, so that functions can share them (pratai-runtime(7), "dependencies").

Only of requirements that name packages of an index.  One that names a file, a directory or a
repository, another requirements file, a variable of the environment or an option that is not
known here is installed with its package there, for itself.
"""
import importlib.util
import json
import os
import platform
import re
import sys
import sysconfig

FORMAT = 1  # rises when what is made of the same text changes
TEXT_MAX = 1 << 20
NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[\w\s,.-]*\])?\s*([<>=!~(;@].*)?$")
ARCHIVE = re.compile(r"\.(?:whl|zip|tar|gz|tgz|bz2|tbz|xz|txz|lzma|tlz)$", re.I)
OPTION = re.compile(r"--(?:pre|prefer-binary|require-hashes|(?:only|no)-binary[ =]\s*[\w:.,-]+|"
                    r"(?:index-url|extra-index-url|find-links)[ =]\s*https?://\S+)$|"
                    r"-[if]\s*https?://\S+$")
CODING = re.compile(r"#.*coding[:=]")


def of(path):
    """Bytes, or None."""
    with open(path, "rb") as f:
        data = f.read(TEXT_MAX + 1)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    text = text.replace("\r\n", "\n")
    if len(data) > TEXT_MAX or text.startswith("\ufeff") or CODING.search(text) or \
            not all(is_of_an_index(line) for line in text.replace("\\\n", " ").split("\n")):
        return None
    if "\\\n" not in text:
        lines = [line.strip() for line in text.split("\n")]
        text = "".join(line + "\n" for line in lines if line and not line.startswith("#"))
    return json.dumps({
        "format": FORMAT, "requirements": text, "python": sys.version,
        "tag": sysconfig.get_config_var("SOABI"), "magic": importlib.util.MAGIC_NUMBER.hex(),
        "platform": sysconfig.get_platform(), "libc": platform.libc_ver()},
        sort_keys=True).encode("utf-8")


def is_of_an_index(line):
    line = re.sub(r"(^|\s+)#.*$", "", line).strip()
    if not line or OPTION.match(line):
        return True
    if "${" in line:
        return False
    line, *options = re.split(r"\s+--", line)
    found = NAME.match(line)
    return bool(found) and not ARCHIVE.search(found[1]) and \
        all(re.match(r"hash[ =]", option) for option in options) and \
        (not (found[2] or "").startswith("@") or bool(re.match(r"@\s*https?://", found[2])))


def unpack(needs, directory):
    """Makes the directory, and its requirements.txt of the text that of() gave."""
    os.mkdir(directory, 0o755)
    with open(directory + "/requirements.txt", "w", encoding="utf-8") as f:
        f.write(json.loads(needs)["requirements"])
