"""The parameters of a `main` that is not a plain function: a bound method, a partial, an
object with __call__, something decorated.  inspect knows all of them, and costs 15 ms:
so it is asked only here."""

# What a callable whose signature nobody can tell is called with: main(payload).
UNKNOWN = ([("payload", False, False)], False, [])


def inspect_parameters(main):
    """As runner.parameters_of."""
    import inspect

    try:
        parameters = inspect.signature(main).parameters.values()
    except (TypeError, ValueError):
        return UNKNOWN
    kinds = inspect.Parameter
    positional = [(p.name, p.default is p.empty, p.kind == kinds.POSITIONAL_ONLY)
                  for p in parameters
                  if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    keywords = [(p.name, p.default is p.empty) for p in parameters
                if p.kind == kinds.KEYWORD_ONLY]
    return positional, any(p.kind == kinds.VAR_POSITIONAL for p in parameters), keywords
