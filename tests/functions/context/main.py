"""What a function is told about its event, and where it finds itself."""
import os


def main(payload, context):
    return {
        "event_id": context.event_id,
        "function_id": context.function_id,
        "request_id": context.request_id,
        "source": context.source,
        "attempt": context.attempt,
        "remaining_ms": context.remaining_ms(),
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "pid": os.getpid(),
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    }
