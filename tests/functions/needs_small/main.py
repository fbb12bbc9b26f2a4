"""A requirement without compiled parts, quick to install."""
import six


def main(payload=None):
    return six.__version__
