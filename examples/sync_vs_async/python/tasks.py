"""The adding game on CPython's asyncio: one task per connection, one thread for all."""
import asyncio
import os
import sys
import threading
import time


async def adding(reader, writer):
    total = 0                                      # the state: a local variable of this task
    try:
        while line := await reader.readline():     # the task waits, the thread serves others
            number, *rest = line.split()
            total += int(number)
            if rest and rest[0] in (b"wait", b"work"):
                verb, micros, *rest = rest
                if verb == b"wait" and POLITE:
                    await asyncio.sleep(int(micros) / 1e6)
                elif verb == b"wait":
                    time.sleep(int(micros) / 1e6)  # blocks the loop, and so every connection
                else:
                    end = time.perf_counter() + int(micros) / 1e6
                    while time.perf_counter() < end:
                        pass
            writer.write(b" ".join([b"%d" % total, *rest]) + b"\n")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def end_with_the_parent():
    sys.stdin.read()
    os._exit(0)


async def main():
    server = await asyncio.start_server(adding, "127.0.0.1", 0, backlog=4096)
    print("127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    await server.serve_forever()


POLITE = "polite" in sys.argv
asyncio.run(main())
