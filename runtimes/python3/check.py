"""Is there a main that can take a payload?  Answered from the syntax tree, without
running anything, so that a mistake is told when the function is created and not at its
first event.

What the tree does not show (main imported, assigned, decorated, made by exec) is
accepted: the import decides at the first event.
"""
import ast
import os
import tokenize

from pratai_runner import ENTRY_NAMES, Failure, decide_call

SOURCE_MAX = 16 << 20
# With one of these a module can define any name without the tree showing it.
MAGIC_NAMES = {"globals", "locals", "vars", "exec", "eval", "setattr"}
VALUES = (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set)


def check(function, say):
    """Failure NoMain, BadMain or SyntaxError."""
    name = find_entry(function)
    tree = parse(os.path.join(function, name), name)
    bindings, unknown = find_bindings(tree)
    if not unknown:
        check_bindings(name, bindings)
    say("the function is main in " + name)


def find_entry(function):
    for name in ENTRY_NAMES:
        if os.path.isfile(os.path.join(function, name + ".py")):
            return name + ".py"
    inner = [d for d in sorted(os.listdir(function))
             if any(os.path.isfile(os.path.join(function, d, n + ".py")) for n in ENTRY_NAMES)]
    hint = " (there is one in %s/: zip what is in that directory, not the directory)" % (
        inner[0][:100]) if inner else ""
    raise Failure("NoMain", "there is no new_module.py or main.py at the root of the zip" + hint)


def parse(path, name):
    with open(path, "rb") as f:
        source = f.read(SOURCE_MAX + 1)
    if len(source) > SOURCE_MAX:
        raise Failure("SyntaxError", "%s has more than %d MiB" % (name, SOURCE_MAX >> 20))
    try:
        if b"\0" in source:
            raise SyntaxError("it holds NUL bytes, which is no text")
        with open(path, "rb") as f:
            encoding = tokenize.detect_encoding(f.readline)[0]
        source.decode(encoding)
        return ast.parse(source, name)
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise Failure("SyntaxError", "%s, line %d: the file is not %s text; save it as UTF-8"
                      % (name, line, error.encoding)) from None
    except SyntaxError as error:
        where = "%s, line %d" % (name, error.lineno) if error.lineno else name
        raise Failure("SyntaxError", "%s: %s%s" % (where, error.msg, shown(error.text))) from None
    except (RecursionError, MemoryError):  # the parser's own bounds, not the sandbox's
        raise Failure("SyntaxError", "%s: an expression is nested too deeply" % name) from None
    except (ValueError, OverflowError) as error:
        raise Failure("SyntaxError", "%s: %s" % (name, error)) from None


def shown(text):
    text = (text or "").strip()
    return ": " + text[:200] if text else ""


def top_level(nodes):
    """Every node that runs when the module is imported: not the bodies of functions and
    classes, but what stands in if, try, with, for, while and match."""
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))


def find_bindings(tree):
    """(the nodes that bind main, whether something else may)."""
    bindings = []
    for node in top_level(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name == "__getattr__":
                return bindings, True
            if node.name == "main":
                bindings.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, VALUES) and any(
                isinstance(t, ast.Name) and t.id == "main" for t in node.targets):
            bindings.append(node)
        elif isinstance(node, ast.Assign) or not binds_main(node):
            continue
        else:
            return bindings, True
    return bindings, has_hidden_bindings(tree, bindings)


def binds_main(node):
    if isinstance(node, ast.ClassDef):
        return node.name == "main"
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any((a.asname or a.name.split(".")[0]) in ("main", "*") for a in node.names)
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return node.name == "main"
    return False


def has_hidden_bindings(tree, bindings):
    constant = {id(t) for b in bindings if isinstance(b, ast.Assign) for t in b.targets}
    for node in top_level(tree.body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "main" \
                and id(node) not in constant:
            return True
    for node in ast.walk(tree):
        if isinstance(node, ast.Global) and "main" in node.names:
            return True
        if isinstance(node, ast.Name) and node.id in MAGIC_NAMES:
            return True
        if isinstance(node, ast.Attribute) and node.attr == "modules":
            return True
    return False


def check_bindings(name, bindings):
    if not bindings:
        raise Failure("NoMain", "%s defines no main(payload=None)" % name)
    problem = None
    for node in bindings:  # of several (if/else) one that works is enough
        try:
            check_binding(name, node)
            return
        except Failure as error:
            problem = error
    raise problem


def check_binding(name, node):
    if isinstance(node, ast.Assign):
        raise Failure("BadMain", "%s, line %d: main is a value and not a function"
                      % (name, node.lineno))
    if node.decorator_list:
        return
    a = node.args
    arguments = a.posonlyargs + a.args
    required = len(arguments) - len(a.defaults)
    try:
        decide_call(([(x.arg, i < required, i < len(a.posonlyargs))
                      for i, x in enumerate(arguments)],
                     a.vararg is not None,
                     [(x.arg, d is None) for x, d in zip(a.kwonlyargs, a.kw_defaults)]))
    except Failure as error:
        raise Failure(error.kind, "%s, line %d: %s" % (name, node.lineno, error)) from None
