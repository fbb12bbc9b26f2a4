"""Writes to all that ends in the event's log; the order is that of the digits."""
import logging
import os
import sys

log = logging.getLogger("pratai")


def main(payload=None):
    print("1 printed")
    sys.stderr.write("2 on standard error\n")
    log.info("3 logged")
    os.system("echo 4 from a child")
    log.error("5 gr\u00fc\u00dfe")
    return "logged"
