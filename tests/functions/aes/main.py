"""AES in counter mode, of bytes as they come; key and counter are in the function's settings."""
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY, COUNTER = bytes.fromhex(os.environ["KEY"]), bytes.fromhex(os.environ["COUNTER"])


def main(payload):
    encryptor = Cipher(algorithms.AES(KEY), modes.CTR(COUNTER)).encryptor()
    return encryptor.update(payload) + encryptor.finalize()
