"""How small a text gets, by three methods, and whether it comes back."""
import bz2
import hashlib
import lzma
import zlib

METHODS = {"zlib": (zlib.compress, zlib.decompress), "bz2": (bz2.compress, bz2.decompress),
           "lzma": (lambda data: lzma.compress(data, preset=2), lzma.decompress)}


def main(payload):
    data = payload.encode()
    out = {}
    for name, (squeeze, restore) in METHODS.items():
        small = squeeze(data)
        out[name] = {"bytes": len(small), "sha256": hashlib.sha256(restore(small)).hexdigest()}
    return out
