"""Chooses its HTTP answer by the payload."""


def main(payload=None):
    payload = payload or {}
    return {
        "statusCode": payload.get("status", 200),
        "headers": payload.get("headers", {"Content-Type": "text/html", "X-Mine": "yes"}),
        "body": payload.get("body", "<p>hello</p>"),
    }
