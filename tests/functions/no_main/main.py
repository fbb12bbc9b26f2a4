"""Has no main."""


def handler(payload=None):
    return payload
