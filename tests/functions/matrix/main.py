"""The product of two matrices, and what shows that it is right."""
import numpy


def main(payload):
    n = payload["n"]
    a = numpy.arange(n * n, dtype=numpy.float64).reshape(n, n) % 7
    b = numpy.arange(n * n, dtype=numpy.float64).reshape(n, n) % 11
    c = a @ b
    return {"trace": float(numpy.trace(c)), "sum": float(c.sum()), "corner": float(c[-1, -1])}
