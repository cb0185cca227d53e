#!/usr/bin/python
from __future__ import annotations

import os
import resource
import signal
import sys
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, respawn_module


def daemon(mark):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            time.sleep(0.5)
            os.close(os.open(mark, os.O_CREAT | os.O_WRONLY))
            time.sleep(3)
        os._exit(0)
    os.wait()


def main():
    module = AnsibleModule(argument_spec={'how': {}, 'mark': {}})
    how = module.params['how']
    found = None
    if how == 'megabytes':
        found = 'x' * 5000000
    if how == 'megabytes of errors':
        sys.stderr.write('e' * 2000000)
        sys.stderr.flush()
        module.fail_json(msg='after many errors')
    if how == 'bytes':
        sys.stdout.flush()
        os.write(1, b'\xff\xfe before\n')
    if how == 'bytes of errors':
        os.write(2, b'\xff\xfe errors\n')
        os._exit(3)
    if how == 'group':
        os.killpg(0, signal.SIGKILL)
    if how == 'daemon':
        daemon(module.params['mark'])
    if how == 'closes':
        os.closerange(3, 256)
    if how == 'many files':
        found = len([open(os.devnull) for _ in range(200)])
    if how == 'nice':
        found = os.nice(0)
    if how == 'limits':
        names = 'RLIMIT_CORE', 'RLIMIT_NOFILE', 'RLIMIT_NPROC'
        found = [resource.getrlimit(getattr(resource, name)) for name in names]
    if how == 'memory':
        resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
        found = len(b'x' * (1 << 29))
    if how == 'respawn' and not has_respawned():
        respawn_module(module.params['mark'])
    if how == 'respawn':
        found = [sys.executable, has_respawned()]
    module.exit_json(changed=False, found=found, how=how)


if __name__ == '__main__':
    main()
