"""An answer with a status and headers of the function's own:

    {"statusCode": 200, "headers": {"Name": "value"}, "body": …, "isBase64Encoded": false}

A body of str goes out as it is, bytes as they are, anything else as JSON; none is empty.
What is wrong is an error and not a guess: a header with a line break in it would be
another answer's header.
"""
from pratai_runner import Failure

KEYS = {"statusCode", "headers", "body", "isBase64Encoded"}
# They belong to the connection, which the server answers for; so does what begins with pratai-.
SERVER_FIELDS = {"connection", "content-length", "date", "keep-alive", "proxy-connection", "te",
                 "trailer", "transfer-encoding", "upgrade"}
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
FIELDS_MAX = 64
FIELDS_BYTES_MAX = 16 << 10
NAME_MAX = 127
CONTENT_TYPE_MAX = 127


def compose(result, encode_json):
    """(content type, status, header fields, bytes); Failure BadResponse."""
    unknown = [key for key in result if key not in KEYS]
    if unknown:
        raise bad("has the key %.100r beside statusCode; known are %s"
                  % (unknown[0], ", ".join(sorted(KEYS))))
    status = result["statusCode"]
    if not isinstance(status, int) or isinstance(status, bool):
        raise bad("has statusCode %.100r, not a whole number" % (status,))
    status = int(status)
    if not 200 <= status <= 599:
        raise bad("has statusCode %d, not one from 200 to 599" % status)
    kind, fields = check_headers(result.get("headers"))
    default, body = encode_body(result.get("body"), result.get("isBase64Encoded", False),
                                encode_json)
    if body and status in (204, 205, 304):
        raise bad("has statusCode %d, which has no body, and a body of %d bytes"
                  % (status, len(body)))
    return kind or default, status, fields, body


def bad(what):
    return Failure("BadResponse", "the answer " + what)


def check_headers(headers):
    """(content type or None, the other fields)."""
    if headers is None:
        return None, None
    if not isinstance(headers, dict):
        raise bad("has headers of type %s, not a dict" % type(headers).__qualname__)
    kind, fields, seen, total = None, {}, set(), 0
    for name, value in headers.items():
        value = check_field(name, value)
        lower = name.lower()
        if lower in seen:
            raise bad("has the header %s twice" % name)
        seen.add(lower)
        total += len(name) + len(value)
        if lower == "content-type":
            if len(value) > CONTENT_TYPE_MAX:
                raise bad("has a Content-Type of more than %d characters" % CONTENT_TYPE_MAX)
            kind = value
        else:
            fields[name] = value
    if len(fields) > FIELDS_MAX or total > FIELDS_BYTES_MAX:
        raise bad("has more than %d headers or %d bytes of them" % (FIELDS_MAX, FIELDS_BYTES_MAX))
    return kind, fields


def check_field(name, value):
    if not isinstance(name, str) or not name or len(name) > NAME_MAX or not TOKEN.issuperset(name):
        raise bad("has the header name %.100r, which HTTP does not allow" % (name,))
    if name.lower() in SERVER_FIELDS or name.lower().startswith("pratai-"):
        raise bad("has the header %s, which the server sets itself" % name)
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, (int, float)):
        value = str(value)
    if not isinstance(value, str):
        raise bad("has the header %s with a value of type %s, not str"
                  % (name, type(value).__qualname__))
    if any(not " " <= c <= "~" for c in value):
        raise bad("has the header %s with a character that is not printable ASCII" % name)
    return value.strip(" ")


def encode_body(body, is_base64, encode_json):
    """(content type when the headers name none, bytes)."""
    if not isinstance(is_base64, bool):
        raise bad("has isBase64Encoded %.100r, not True or False" % (is_base64,))
    if is_base64:
        if not isinstance(body, str):
            raise bad("is said to be base64, but its body is of type %s" % type(body).__qualname__)
        import binascii
        try:
            return "application/octet-stream", binascii.a2b_base64(body, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise bad("is said to be base64, but its body is not: %s" % error) from None
    if body is None:
        return "text/plain; charset=utf-8", b""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return "application/octet-stream", bytes(body)
    if isinstance(body, str):
        try:
            return "text/plain; charset=utf-8", body.encode("utf-8")
        except UnicodeEncodeError as error:
            raise bad("has a body with a lone surrogate at character %d, which UTF-8 cannot hold"
                      % error.start) from None
    return "application/json", encode_json(body)
