"""The adding game on CPython's socketserver: one thread per connection."""
import os
import socketserver
import sys
import threading
import time


class Adding(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        total = 0                                  # the state: a local variable of this thread
        for line in self.rfile:                    # blocks until the next line
            number, *rest = line.split()
            total += int(number)
            if rest and rest[0] in (b"wait", b"work"):
                verb, micros, *rest = rest
                if verb == b"wait":
                    time.sleep(int(micros) / 1e6)  # this thread waits, the others go on
                else:
                    end = time.perf_counter() + int(micros) / 1e6
                    while time.perf_counter() < end:
                        pass
            self.wfile.write(b" ".join([b"%d" % total, *rest]) + b"\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 4096

    def handle_error(self, request, client_address):
        pass


def end_with_the_parent():
    sys.stdin.read()
    os._exit(0)


with Server(("127.0.0.1", 0), Adding) as server:
    print("127.0.0.1:%d" % server.server_address[1], flush=True)
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    server.serve_forever()
