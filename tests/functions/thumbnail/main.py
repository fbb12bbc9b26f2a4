"""A picture in, a small JPEG of it out."""
import io

from PIL import Image

SIDE = 160


def main(payload):
    picture = Image.open(io.BytesIO(payload))
    picture.draft("RGB", (SIDE, SIDE))
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()
