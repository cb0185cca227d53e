from __future__ import annotations

DOCUMENTATION = """
name: stub_shell
short_description: runs everything here, as a connection nobody accelerates
description: A connection plugin that is not core's, as paramiko or a vendor's would be.
options:
  host: {description: ignored, vars: [{name: ansible_host}]}
"""

import shutil
import subprocess

from ansible.plugins.connection import ConnectionBase


class Connection(ConnectionBase):
    transport = 'stub_shell'
    has_pipelining = False

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        done = subprocess.run(['/bin/sh', '-c', cmd], input=in_data, capture_output=True)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        shutil.copyfile(in_path, out_path)

    def fetch_file(self, in_path, out_path):
        shutil.copyfile(in_path, out_path)

    def close(self):
        self._connected = False
