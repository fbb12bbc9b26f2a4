"""Returns what JSON cannot hold."""


def main(payload=None):
    return {"answer": [1, {2, 3}]}
