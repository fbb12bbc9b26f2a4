"""Its main cannot take a payload."""


def main():
    return None
