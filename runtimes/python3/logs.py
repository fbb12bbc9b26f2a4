"""The logger `pratai`, in the line that functions of the first Pratai wrote:

    asctime - function_id - request_id - levelname - message

to stderr, every level.  The root logger stays as Python makes it, so that basicConfig and
dictConfig do what they always do; `pratai` does not propagate, so that a function that
configures the root logger does not get its lines twice.
"""
import sys

FORMAT = "%(asctime)s - %(function_id)s - %(request_id)s - %(levelname)s - %(message)s"


def configure(logging, identity):
    class Handler(logging.StreamHandler):
        def __init__(self):
            logging.Handler.__init__(self)

        @property
        def stream(self):
            return sys.stderr  # of this moment: the function may have replaced it

        def format(self, record):
            # Not set when the caller gave its own with extra=.
            record.__dict__.setdefault("function_id", identity.function_id)
            record.__dict__.setdefault("request_id", identity.request_id)
            return super().format(record)

    handler = Handler()
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("pratai")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
