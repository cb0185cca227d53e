#!/usr/bin/python
# Looks a name up in its own process; with a server, first starts one there that knows every name as 192.0.2.7.
from __future__ import annotations

import os
import socket

from ansible.module_utils.basic import AnsibleModule


def answer_for_ever(server):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((server, 53))
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    while True:
        question, caller = sock.recvfrom(512)
        end = question.index(b'\0', 12) + 5
        kind = question[end - 4:end - 2]
        known = kind == b'\0\1'
        header = question[:2] + b'\x81\x80\0\1' + (b'\0\1' if known else b'\0\0') + b'\0\0\0\0'
        record = b'\xc0\x0c\0\1\0\1\0\0\0\0\0\4\xc0\0\2\7' if known else b''
        sock.sendto(header + question[12:end] + record, caller)


def main():
    module = AnsibleModule(argument_spec={'name': {}, 'server': {}})
    if module.params['server']:
        answer_for_ever(module.params['server'])
    try:
        module.exit_json(changed=False, address=socket.gethostbyname(module.params['name']))
    except OSError:
        module.exit_json(changed=False, address='none')


if __name__ == '__main__':
    main()
