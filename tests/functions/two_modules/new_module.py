"""new_module.py comes before main.py."""
import helper


def main(payload=None):
    return [__name__, helper.NAME]
