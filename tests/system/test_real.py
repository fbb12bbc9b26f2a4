"""Functions of the kinds that people run, with packages of others, in memory that is tight."""
import hashlib
import html.parser
import random
import struct
import zlib

import pytest

from test_packages import built


def make(platform, kind, memory, **settings):
    """Built with what its requirements.txt names, which takes a package index."""
    name = "real-" + kind
    r = platform.upload({"name": name, "type": "wait_for_response", "memory": memory, "retries": 0,
                         **settings}, kind)
    assert r.status_code == 201, r.text
    built(platform, name, "index")
    return name


def call(platform, name, payload):
    """The answer; a limit that is met and not far from what was needed means something."""
    r = platform.call(name, payload)
    assert r.status_code == 200, r.text
    peak = int(r.headers["Pratai-Memory-Peak-Bytes"])
    limit = platform.get(f"/v1/functions/{name}")["memory"] << 20
    assert limit / 4 < peak <= limit, f"{peak >> 20} MiB of {limit >> 20}"
    return r


class Cells(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.cells, self.tags, self.open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open = tag == "td"
        if self.open:
            self.cells.append("")

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data


@pytest.mark.slow
@pytest.mark.index
def test_template(platform):
    name = make(platform, "template", 24)
    names = ["<script>alert(1)</script>", "Käse & Brot", 'a "b"'] + [f"n{i}" for i in range(500)]
    items = [{"name": n, "count": i % 5 + 1, "price": 2.5} for i, n in enumerate(names)]
    r = call(platform, name, {"number": "<7>", "items": items})
    assert r.headers["Content-Type"] == "text/html; charset=utf-8"
    page = Cells(r.text)
    assert "script" not in page.tags and [c.strip() for c in page.cells[::3]] == names
    assert [c.strip() for c in page.cells[2::3]] == [f"{i['count'] * 2.5:.2f}" for i in items]


def png(width, height):
    """Red grows to the right, green downwards."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + b"".join(bytes((x * 255 // width, y * 255 // height, 40))
                                     for x in range(width)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def jpeg_size(data):
    assert data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"
    at = 2
    while not 0xc0 <= data[at + 1] <= 0xc3:
        at += 2 + struct.unpack(">H", data[at + 2:at + 4])[0]
    height, width = struct.unpack(">HH", data[at + 5:at + 9])
    return width, height


@pytest.mark.slow
@pytest.mark.index
def test_thumbnail(platform):
    name = make(platform, "thumbnail", 64)
    r = call(platform, name, png(1600, 1200))
    assert jpeg_size(r.content) == (160, 120) and len(r.content) < 20000
    r = platform.call(name, b"\x89PNG\r\n\x1a\nno picture")
    assert platform.problem(r, 502, "function_failed")
    # Ten times as many points do not fit, and that is said.
    platform.problem(platform.call(name, png(6000, 3200)), 502, "memory_exceeded")


@pytest.mark.slow
def test_compression(platform):
    name = make(platform, "compression", 48)
    text = " ".join(random.Random(7).choices(["event", "sandbox", "länger", "0", "layer"], k=150000))
    r = call(platform, name, text)
    for method, made in r.json().items():
        assert made["sha256"] == hashlib.sha256(text.encode()).hexdigest(), method
        assert 1000 < made["bytes"] < len(text) / 3


def power_iteration(nodes, edges, damping=0.85):
    out = [0] * nodes
    for a, _ in edges:
        out[a] += 1
    rank = [1 / nodes] * nodes
    for _ in range(200):
        lost = sum(r for r, n in zip(rank, out) if not n)
        new = [(1 - damping + damping * lost) / nodes] * nodes
        for a, b in edges:
            new[b] += damping * rank[a] / out[a]
        rank = new
    return rank


@pytest.mark.slow
@pytest.mark.index
def test_pagerank(platform):
    name = make(platform, "pagerank", 24)
    dice = random.Random(3)
    edges = sorted({(dice.randrange(300), min(dice.randrange(300), dice.randrange(300)))
                    for _ in range(3000)})
    ranks = call(platform, name, {"nodes": 300, "edges": edges}).json()
    assert sum(ranks) == pytest.approx(1)
    assert ranks == pytest.approx(power_iteration(300, edges), abs=1e-6)


@pytest.mark.slow
@pytest.mark.index
def test_matrix(platform):
    name = make(platform, "matrix", 48)
    n = 600
    made = call(platform, name, {"n": n}).json()
    a = [[(i * n + j) % 7 for j in range(n)] for i in range(n)]
    b = [[(i * n + j) % 11 for j in range(n)] for i in range(n)]
    columns, rows = [sum(row[j] for row in a) for j in range(n)], [sum(row) for row in b]
    assert made["sum"] == sum(c * r for c, r in zip(columns, rows))
    assert made["corner"] == sum(a[-1][k] * b[k][-1] for k in range(n))
    assert made["trace"] == sum(a[i][k] * b[k][i] for i in range(n) for k in range(n))


@pytest.mark.slow
@pytest.mark.index
def test_aes(platform):
    """NIST SP 800-38A, F.5.1."""
    name = make(platform, "aes", 20, env={"KEY": "2b7e151628aed2a6abf7158809cf4f3c",
                                          "COUNTER": "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"})
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
                          "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
    r = call(platform, name, plain)
    assert r.content.hex() == ("874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
                               "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee")
    big = random.Random(1).randbytes(4 << 20)
    assert call(platform, name, platform.call(name, big).content).content == big
