"""Print each name that a DNS question asks for, and answer that there is no such name.

A container of the proof runs this text. Docker answers the names of services itself and passes on
all other questions to the server that the container's `dns` names.
"""

import socket
import sys

NO_SUCH_NAME = bytes([0x81, 0x83])

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    question, client = server.recvfrom(512)
    labels, at = [], 12
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode())
        at += 1 + length
    sys.stdout.write(".".join(labels) + "\n")
    sys.stdout.flush()
    server.sendto(question[:2] + NO_SUCH_NAME + question[4:], client)
