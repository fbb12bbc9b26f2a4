"""Imports what nobody installed."""
import not_installed_anywhere


def main(payload=None):
    return not_installed_anywhere.x
