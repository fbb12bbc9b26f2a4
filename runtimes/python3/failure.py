"""What went wrong, as the three texts of an error: type, message, traceback.

The traceback has the user's frames only: those of this runtime and of the import system
say nothing to whoever wrote the function.  Every text is bounded and is valid UTF-8
without NUL, whatever the exception holds; an exception whose own __str__ fails is
described all the same.
"""
import sys

from pratai_runner import HERE, Failure

TYPE_MAX = 63
MESSAGE_MAX = 8 << 10
TRACEBACK_MAX = 32 << 10
LINE_MAX = (64 << 10) - 512  # what stands around the three texts
PATH_STEPS_MAX = 100000


def describe(error, encode):
    """{"type", "message", "traceback"}, of such a size that the line they go into fits."""
    kind = error.kind if isinstance(error, Failure) else name_of(error)
    message = message_of(error)
    out = {"type": cut_end(kind, TYPE_MAX), "message": cut_end(message, MESSAGE_MAX),
           "traceback": ""}
    trace = "" if isinstance(error, Failure) else clean(traceback_of(error))
    limit = TRACEBACK_MAX
    while True:  # control characters grow by six in JSON
        out["traceback"] = cut_middle(trace, limit)
        if len(encode(out).encode("utf-8")) <= LINE_MAX:
            return out
        if limit < 1024:
            out["message"] = cut_end(message, 1024)
        limit //= 2


def print_error(error):
    """To the log: for a forked child, which has nobody to answer."""
    sys.stderr.write(traceback_of(error) or message_of(error) + "\n")


def name_of(error):
    return str(getattr(type(error), "__qualname__", "Exception"))


def message_of(error):
    try:
        text = str(error)
    except MemoryError:
        raise
    except BaseException as second:
        return "(its message cannot be read: __str__ raised %s)" % name_of(second)
    if isinstance(error, SystemExit):
        shown = "" if error.code is None else text
        return "the function called sys.exit(%.1000s); a function answers by returning" % shown
    return text


def clean(text):
    text = str(text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def cut_end(text, limit):
    """Clean and at most limit bytes.  What goes is not copied: a message may be all that the
    memory holds."""
    data = clean(text[:limit + 1]).encode("utf-8")
    if len(data) <= limit:
        return data.decode("utf-8")
    mark = " [%d characters in all]" % len(text) if limit >= 1024 else ""
    return data[:limit - len(mark)].decode("utf-8", "ignore") + mark


def cut_middle(text, limit):
    """The beginning says where it started, the end what happened: the middle goes."""
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    head, tail = limit // 4, limit - limit // 4 - 64
    return "%s\n  [... %d bytes cut ...]\n%s" % (
        data[:head].decode("utf-8", "ignore"), len(data) - head - tail,
        data[len(data) - tail:].decode("utf-8", "ignore"))


# ---- Tracebacks ------------------------------------------------------------------------

def is_own_frame(filename):
    return filename.startswith((HERE + "/", "<frozen importlib"))


def library_module(name):
    """A module of the standard library, also when the function has one of that name."""
    library = sys.prefix + "/lib/python%d.%d" % sys.version_info[:2]
    module = sys.modules.get(name)
    if module is None:
        saved = sys.path[:]
        sys.path[:] = [p for p in saved if p.startswith(library)]
        try:
            module = __import__(name)
        finally:
            sys.path[:] = saved
    if not str(getattr(module, "__file__", "")).startswith(library):
        raise ImportError(name)
    return module


def traceback_of(error):
    try:
        traceback = library_module("traceback")
        whole = traceback.TracebackException(type(error), error, error.__traceback__,
                                             compact=True)
        keep_user_frames(whole, set())
        return "".join(whole.format())
    except Exception:
        return plain_traceback(error)


def keep_user_frames(whole, seen):
    """Here, and in what it was caused by and holds; a long message is cut before it is copied."""
    if whole is None or id(whole) in seen:
        return
    seen.add(id(whole))
    if isinstance(getattr(whole, "_str", None), str):
        whole._str = cut_end(whole._str, MESSAGE_MAX)
    frames = [f for f in whole.stack if not is_own_frame(f.filename)]
    while frames and "/asyncio/" in frames[0].filename:
        frames.pop(0)  # asyncio.run around an async main
    whole.stack[:] = frames
    keep_user_frames(whole.__cause__, seen)
    keep_user_frames(whole.__context__, seen)
    for inner in getattr(whole, "exceptions", None) or ():
        keep_user_frames(inner, seen)


def plain_traceback(error):
    """Without source lines and causes: when the traceback module cannot work."""
    lines, frame, count = [], error.__traceback__, 0
    while frame is not None and count < 2000:
        code = frame.tb_frame.f_code
        if not is_own_frame(code.co_filename):
            lines.append('  File "%s", line %s, in %s\n'
                         % (code.co_filename, frame.tb_lineno, code.co_name))
        frame, count = frame.tb_next, count + 1
    head = "Traceback (most recent call last):\n" if lines else ""
    return "%s%s%s: %s\n" % (head, "".join(lines), name_of(error), message_of(error)[:4096])


# ---- Answers that JSON cannot hold -------------------------------------------------------

def explain_unencodable(value, error):
    """A Failure that says what in value cannot be JSON, and where."""
    if isinstance(error, RecursionError):
        return Failure("BadResponse", "the answer is nested too deeply for JSON")
    try:
        found = find_unencodable(value)
    except Exception:
        found = None
    if found is None:
        found = "holds something that JSON cannot: %s: %s" % (name_of(error), message_of(error))
    return Failure("BadResponse", "the answer " + found)


def find_unencodable(root):
    """Walks breadth first, without recursion, at most PATH_STEPS_MAX values."""
    queue, at, parents = [(root, "", ())], 0, {}
    while at < len(queue) and at < PATH_STEPS_MAX:
        value, path, above = queue[at]
        at += 1
        problem = problem_of(value)
        if problem:
            return "%s at $%s" % (problem, path) if path else problem
        if not isinstance(value, (dict, list, tuple)):
            continue
        if id(value) in above:
            return "contains itself at $%s" % path
        above = above + (id(value),) if len(above) < 1000 else above
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and not isinstance(key, (str, int, float, type(None))):
                return "has a key of type %s at $%s, which JSON cannot hold" % (
                    type(key).__qualname__, path)
            if isinstance(key, str) and problem_of(key):
                return "%s in a key at $%s" % (problem_of(key), path)
            step = ".%.60s" % clean(key) if isinstance(value, dict) else "[%d]" % key
            queue.append((item, path + step if len(path) < 400 else path, above))
            if len(queue) > PATH_STEPS_MAX:
                break
    return None


def problem_of(value):
    if value is None or isinstance(value, (bool, int, dict, list, tuple)):
        return None
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return "holds %r, which JSON cannot hold" % value
        return None
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "holds a lone surrogate, which UTF-8 cannot hold"
        return None
    return "holds a value of type %s, which JSON cannot hold" % type(value).__qualname__
