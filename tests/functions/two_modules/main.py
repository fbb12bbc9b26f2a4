"""Not the one."""


def main(payload=None):
    return "main"
