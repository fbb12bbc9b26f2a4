"""An async main."""
import asyncio


async def main(payload=None):
    return sum(await asyncio.gather(*(asyncio.sleep(0.01, n) for n in range(payload or 5))))
