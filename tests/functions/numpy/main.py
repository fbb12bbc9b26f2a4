"""Uses what requirements.txt names."""
import numpy


def main(payload=None):
    return {"sum": int(numpy.arange(payload or 10).sum()), "version": numpy.__version__}
