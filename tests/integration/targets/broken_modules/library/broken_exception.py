#!/usr/bin/python
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={'how': {}})
    how = module.params['how']
    if how == 'raise':
        raise ValueError('meant to be')
    if how == 'cause':
        try:
            {}['nothing']
        except KeyError as error:
            raise RuntimeError('outer') from error
    if how == 'exit text':
        raise SystemExit('a text instead of a result')
    if how == 'exit code':
        raise SystemExit(5)
    if how == 'interrupt':
        raise KeyboardInterrupt
    if how == 'memory':
        raise MemoryError
    if how == 'fail':
        module.fail_json(msg='failed on purpose', detail=[1, 2], rc=9)
    if how == 'fail with exception':
        try:
            1 / 0
        except ZeroDivisionError as error:
            module.fail_json(msg='wrapped', exception=error)
    if how == 'kill':
        import os
        os.kill(os.getpid(), 9)
    if how == 'terminate':
        import os
        os.kill(os.getpid(), 15)
    if how == 'abort':
        import os
        os.abort()
    if how == 'os exit':
        import os
        os._exit(7)
    if how == 'nothing':
        return
    if how == 'junk':
        print('this is {no} JSON')
        return
    if how == 'twice':
        print('{"changed": false, "n": 1}')
        print('{"changed": false, "n": 2}')
        return
    if how == 'list':
        print('[1, 2]')
        return
    if how == 'junk after':
        print('{"changed": false, "n": 1}\ntrailing words')
        return
    if how == 'not utf-8':
        import sys
        sys.stdout.flush()
        sys.stdout.buffer.write(b'{"changed": false, "x": "\xff"}\n')
        return
    if how == 'result and rc':
        print('{"changed": true, "n": 1}')
        raise SystemExit(3)
    if how == 'thread':
        import threading
        import time
        threading.Thread(target=lambda: (time.sleep(0.3), print('{"changed": false, "from": "thread"}'))).start()
        return
    if how == 'atexit':
        import atexit
        atexit.register(print, '{"changed": false, "from": "atexit"}')
        return
    if how == 'child':
        import os
        if os.fork() == 0:
            os.setsid()
            null = os.open('/dev/null', os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            import time
            time.sleep(3)
            os._exit(0)
    if how == 'closed':
        import os
        os.closerange(0, 3)
        return
    if how == 'large':
        module.exit_json(changed=False, size='x' * 3000000)
    if how == 'unserializable':
        module.exit_json(changed=False, thing={1, 2, 3} and object)
    module.exit_json(changed=False, how=how)


if __name__ == '__main__':
    main()
