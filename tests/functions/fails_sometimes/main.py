"""Fails until its attempt number is the payload's."""


def main(payload, context):
    if context.attempt < payload:
        raise RuntimeError("attempt %d of %d" % (context.attempt, payload))
    return context.attempt
