# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Ansible modules which do what modules do at their worst; each is run cold and in a zygote."""
from __future__ import annotations

_HEAD = '''
import json, os, signal, subprocess, sys, threading, time, atexit, inspect, zipfile, zipimport
from ansible.module_utils.basic import AnsibleModule
'''

_BODIES = {
    'raises': 'def main():\n    AnsibleModule({})\n    raise ValueError("boom \\u20ac")\n',
    'raises_base': 'def main():\n    raise GeneratorExit("out")\n',
    'exit_text': 'def main():\n    sys.exit("a text to stderr")\n',
    'exit_big': 'def main():\n    sys.exit(259)\n',
    'exit_hard': 'def main():\n    print("lost?", flush=True)\n    os._exit(7)\n',
    'prints_much': 'def main():\n    sys.stdout.write("x" * 20971520)\n    sys.stderr.write("y" * 3000000)\n'
                   '    sys.exit(0)\n',
    'not_utf8': 'def main():\n    sys.stdout.flush()\n    os.write(1, bytes(range(256)))\n    sys.exit(0)\n',
    'killed': 'def main():\n    print("before", flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n',
    'kills_group': 'def main():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    os.killpg(0, signal.SIGTERM)\n'
                   '    AnsibleModule({}).exit_json(alive=True)\n',
    'kills_group_dead': 'def main():\n    os.killpg(0, signal.SIGTERM)\n    time.sleep(5)\n',
    'leads': '''
def main():
    module = AnsibleModule({'calls': {'type': 'list', 'elements': 'str'}})
    calls = {'setsid': os.setsid, 'setpgrp': os.setpgrp, 'setpgid_0': lambda: os.setpgid(0, 0),
             'setpgid_own': lambda: os.setpgid(os.getpid(), os.getpid())}
    made = []
    for call in module.params['calls']:
        try:
            made.append(str(calls[call]()))
        except OSError as error:
            made.append(str(error))
    child = os.fork()
    if not child:
        os.setsid()
        os._exit(os.getsid(0) != os.getpid())
    module.exit_json(made=made, leads=os.getpgrp() == os.getpid(), child=os.waitpid(child, 0)[1])
''',
    'daemonises': '''
def main():
    module = AnsibleModule({'mark': {'type': 'str'}})
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1.5)
            open(module.params['mark'], 'w').write('alive')
            os._exit(0)
        os._exit(0)
    module.exit_json(started=True)
''',
    'leaves_behind': '''
def main():
    import subprocess
    module = AnsibleModule({'mark': {'type': 'str'}, 'seconds': {'type': 'float'}})
    open(module.params['mark'] + '-begun', 'w').close()
    time.sleep(module.params['seconds'])
    subprocess.Popen(['sh', '-c', 'sleep 1; echo alive > "$0"', module.params['mark']], stdout=subprocess.DEVNULL)
    module.exit_json(started=True)
''',
    'leaves_objects': '''
import gzip, tempfile
class Thing:
    def __init__(self, place):
        self.me = self
        self.file = tempfile.NamedTemporaryFile(dir=place)
        self.archive = gzip.open(os.path.join(place, 'archive'), 'wb')
        self.archive.write(b'content')
    def __del__(self):
        print('Thing ends')
def main():
    module = AnsibleModule({'place': {'type': 'str'}})
    Thing(module.params['place'])
    module.exit_json()
''',
    'keeps_files': '''
import ctypes, gzip, io
import filecmp as keeper
def main():
    module = AnsibleModule({'place': {'type': 'str'}})
    def place(name):
        return os.path.join(module.params['place'], name)
    keeper.text = open(place('text'), 'w')
    keeper.text.write('content')
    keeper.data = open(place('data'), 'wb')
    keeper.data.write(b'content')
    keeper.archive = gzip.open(place('archive'), 'wb')
    keeper.archive.write(b'content')
    keeper.full = open('/dev/full', 'w')
    keeper.full.write('content')
    print('{"changed": false}')
    sys.stdout.flush()
    ctypes.CDLL(None).printf(b'by C\\n')
    sys.exit(0)
''',
    'forks_and_returns': '''
def main():
    if os.fork() == 0:
        sys.exit(9)
    os.wait()
    print('{"parent": true}')
    sys.exit(0)
''',
    'sees_imports': '''
seen = [name for name in ('filecmp', 'colorsys') if name in sys.modules]
import filecmp, colorsys
def main():
    AnsibleModule({}).exit_json(seen=seen)
''',
    'looks_around': '''
import uuid
def main():
    import importlib.util, platform
    places = [path for path in sys.path if 'payload' not in path and not path.endswith('zip')]
    found = [name for name in ('svc_late', 'svc_behind_pth') if importlib.util.find_spec(name)]
    AnsibleModule({}).exit_json(places=places[-3:], found=found)
''',
    'knows_host': '''
def main():
    import platform
    AnsibleModule({}).exit_json(known=str(platform._uname_cache))
''',
    'writes_everywhere': '''
def main():
    for data in (b'a line\\n', b'{}\\n[1]\\n5\\n', b'{"rc": "x", "fds": 0}\\n', b'{"error": 5, "fds": -1}\\n',
                 b'[' * 90000, b'end'):
        for descriptor in range(3, 12):
            try:
                os.write(descriptor, data)
            except OSError:
                pass
    print('{"changed": false}')
    sys.exit(3)
''',
    'closes_all': '''
def main():
    os.closerange(3, 256)
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    AnsibleModule({}).exit_json(kept=len(kept))
''',
    'interrupted': 'def main():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(5)\n',
    'threads': '''
def late():
    time.sleep(0.2)
    print(json.dumps({'changed': False, 'from': 'thread'}))
def main():
    atexit.register(lambda: print('atexit'))
    threading.Thread(target=late).start()
    sys.exit(0)
''',
    'full_stdout': 'def main():\n    print("x")\n    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)\n    sys.exit(0)\n',
    'surroundings': '''
def main():
    import locale
    module = AnsibleModule({})
    module.exit_json(
        cwd=os.getcwd(), argv=sys.argv, stdin=sys.stdin.read(), encodings=[sys.stdout.encoding, sys.stdout.errors],
        umask=os.umask(0o22), main=sorted(n for n in dir(sys.modules['__main__']) if n.startswith('_m')),
        session=os.getsid(0) == os.getpid(), pipe=str(signal.getsignal(signal.SIGPIPE)),
        handlers=[str(signal.getsignal(n)) for n in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)],
        path=[p for p in sys.path if not p.endswith('.zip')],
        threads=threading.active_count(), preferred=locale.getpreferredencoding(), recursion=sys.getrecursionlimit(),
        own=[n for n in sys.modules if n.startswith(('mitogen', 'ansible_mitogen'))], flags=str(sys.flags),
        frozen=hasattr(sys, 'frozen'), name=__name__, package=str(__package__), spec=__spec__.name,
        zone=time.tzname, home=os.path.expanduser('~'), limits=__import__('resource').getrlimit(7))
''',
    'looks_at_itself': '''
def main():
    import pkgutil
    import ansible.module_utils as utils
    from ansible.module_utils import basic
    from ansible.module_utils.common import respawn
    module = AnsibleModule({})
    root = _modlib_path
    sys.path.remove('') if '' in sys.path else None
    with zipfile.ZipFile(root) as archive:
        names = sorted(archive.namelist())
        site = b'sys.path.insert(0' in archive.read('sitecustomize.py')
    env = dict(os.environ, PYTHONPATH=root)
    code = 'import ansible.module_utils.basic as b; print(b.__file__.endswith("basic.py"))'
    child = subprocess.run([sys.executable, '-c', code], env=env, stdout=subprocess.PIPE).stdout.decode()
    try:
        source = inspect.getsource(main)[:9]
    except OSError as error:
        source = str(error)
    mine = getattr(respawn, '_ANSIBLE_PARENT_PATH')
    module.exit_json(
        zip=os.path.isfile(root), first=sys.path[0] == root, names=names, site=site, child=child,
        same=[str(mine) == root, basic.__file__ == root + '/ansible/module_utils/basic.py',
              main.__code__.co_filename == root + '/' + __spec__.name.replace('.', '/') + '.py',
              basic.AnsibleModule.exit_json.__code__.co_filename == basic.__file__,
              utils.__path__ == [root + '/ansible/module_utils'], __file__ == main.__code__.co_filename],
        source=source, basic=len(inspect.getsource(basic.AnsibleModule)) > 1000,
        respawn=len(inspect.getsource(respawn.respawn_module)) > 100,
        data=len(pkgutil.get_data('ansible.module_utils', 'basic.py')) > 1000,
        walk=sorted(n for _, n, _ in pkgutil.iter_modules(utils.__path__) if not n.startswith('_')),
        imported=len(zipimport.zipimporter(root).get_data('ansible/module_utils/basic.py')) > 1000)
''',
    'respawns': '''
from ansible.module_utils.common.respawn import has_respawned, respawn_module
def main():
    if not has_respawned():
        respawn_module(sys.executable)
    module = AnsibleModule({'text': {'type': 'str'}})
    module.exit_json(text=module.params['text'], respawned=True)
''',
    'probes': '''
from ansible.module_utils.common.respawn import probe_interpreters_for_module
def main():
    found = probe_interpreters_for_module([sys.executable], 'json')
    AnsibleModule({}).exit_json(found=found == sys.executable)
''',
    'deprecates': '''
def main():
    module = AnsibleModule({'old': {'type': 'str', 'removed_in_version': '9.9',
                                    'removed_from_collection': 'ansible.builtin'}})
    module.deprecate('this is old', version='9.9', collection_name='ansible.builtin')
    module.warn('careful')
    module.exit_json()
''',
    'sleeps': '''
def main():
    module = AnsibleModule({'seconds': {'type': 'float'}})
    time.sleep(module.params['seconds'])
    module.exit_json(slept=True)
''',
    'imports': '''
def main():
    from ansible.module_utils import basic
    try:
        import svc_new_package
        new = True
    except ImportError:
        new = False
    AnsibleModule({}).exit_json(found=[basic.has_journal, new])
''',
    'runs_commands': '''
def main():
    module = AnsibleModule({})
    reader, writer = os.pipe()
    os.register_at_fork(after_in_child=lambda: os.write(writer, b'x'))
    ended = [module.run_command(['sh', '-c', 'umask; echo $0'])[:2],
             module.run_command(['umask'], use_unsafe_shell=True, umask=0o27)[:2]]
    os.close(writer)
    module.exit_json(ended=ended, copies=len(os.read(reader, 10)))
''',
    'own_module_utils': '''
def main():
    from ansible.module_utils import json_utils
    AnsibleModule({}).exit_json(marked=getattr(json_utils, 'MARK', None))
''',
}

MODULES = {f'svc_{name}': _HEAD + body + "\nif __name__ == '__main__':\n    main()\n" for name, body in _BODIES.items()}
