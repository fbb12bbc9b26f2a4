"""The layer of a version: function/ and opt/deps/ as a tar, with a .pyc for each .py that
compiles.

A .pyc of kind unchecked-hash is taken as it is, without a look at its source: nothing can
come between, since both are in one read-only layer.  It carries the path that the source
has at run time.  Nothing is compiled to disk: the package is read-only, and /tmp counts as
memory; each .pyc is made when its turn in the stream comes.
"""
import importlib.util
import io
import marshal
import os
import stat
import tarfile
import warnings

from pratai_runner import Failure

# 1980-01-01, the first time that a zip can hold: functions that zip their own files work.
MTIME = 315532800
NAME_MAX = 255


def plan(trees):
    """[(name in the layer, kind, path to read)], sorted; trees are (directory, prefix)."""
    entries = {}
    for root, prefix in trees:
        for parent in [prefix[:i] for i, c in enumerate(prefix) if c == "/"] + [prefix]:
            entries[parent] = ("dir", root)
        for folder, folders, files in os.walk(root):
            base = prefix + folder[len(root):]
            for name in folders + files:
                add(entries, base, name, os.path.join(folder, name))
    for name, (kind, path) in list(entries.items()):
        if kind == "file" and name.endswith(".py"):
            add_pyc(entries, name, path)
    return [(name, *entries[name]) for name in sorted(entries)]


def add(entries, base, name, path):
    where = base + "/" + name
    try:
        where.encode("utf-8")
    except UnicodeEncodeError:
        raise Failure("BadPackage", "the name %.200a is not UTF-8" % where) from None
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        entries[where] = ("dir", path)
    elif stat.S_ISLNK(mode):
        add_link(entries, where, path)
    elif not stat.S_ISREG(mode):
        raise Failure("BadPackage", "%.200s is neither a file nor a directory nor a link" % where)
    elif name.endswith(".pyc") and os.path.basename(base) == "__pycache__":
        return  # of another interpreter or of another source; ours comes instead
    else:
        entries[where] = ("file", path)


def add_pyc(entries, where, path):
    cached = importlib.util.cache_from_source(where)
    if len(os.path.basename(cached).encode("utf-8")) > NAME_MAX:
        return
    folder = os.path.dirname(cached)
    if cached in entries or entries.get(folder, ("dir",))[0] != "dir":
        return  # the package has something else there: then Python compiles at each start
    entries.setdefault(folder, ("dir", path))
    entries[cached] = ("pyc", path)


def add_link(entries, where, path):
    """A relative link that stays inside is kept; for another its file is taken."""
    target = os.readlink(path)
    parts = target.split("/")
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    if target and not target.startswith("/") and ups < where.count("/") + 1 \
            and ".." not in parts[ups:]:
        entries[where] = ("link", path)
    elif os.path.isfile(path):
        entries[where] = ("file", path)
    else:
        raise Failure("BadPackage", "the link %.200s leads to %.200s, outside of the function"
                      % (where, target))


class Output:
    """What tarfile writes to."""

    def __init__(self, send):
        self.write = send


def send(entries, send_bytes, say):
    """Writes the tar; the number of .pyc in it."""
    compiled = 0
    with tarfile.open(fileobj=Output(send_bytes), mode="w|", format=tarfile.PAX_FORMAT,
                      encoding="utf-8", bufsize=1 << 18) as tar:
        for name, kind, path in entries:
            info = tarfile.TarInfo(name)
            info.mtime = MTIME
            info.mode = 0o444
            if kind == "dir":
                info.type, info.mode = tarfile.DIRTYPE, 0o555
                tar.addfile(info)
            elif kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
                tar.addfile(info)
            elif kind == "pyc":
                compiled += send_pyc(tar, info, name, path, say)
            else:
                with open(path, "rb") as f:
                    st = os.fstat(f.fileno())
                    info.size = st.st_size
                    info.mode = 0o555 if st.st_mode & 0o111 else 0o444
                    tar.addfile(info, f)
    return compiled


def send_pyc(tar, info, name, path, say):
    source = os.path.dirname(os.path.dirname(name)) + "/" + os.path.basename(path)
    data = compile_file(path, source, say)
    if data is None:
        return 0
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return 1


def compile_file(path, name, say):
    """The bytes of the .pyc, or None: a file that does not parse may never be imported."""
    own = name.startswith("function/")
    with open(path, "rb") as f:
        source = f.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default" if own else "ignore")
            code = compile(source, "/" + name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        if own:
            say("%s does not compile: %s" % (name, error))
        return None
    return (importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
            + importlib.util.source_hash(source) + marshal.dumps(code))
