# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The options that all strategies of this collection share; read by ansible_mitogen_svc/controller/settings.py."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as ``extends_documentation_fragment: ansible_mitogen.svc.strategy_options``."""

    DOCUMENTATION = r"""
options:
  task_workers:
    description:
      - Where tasks run on the controller.
      - V(auto) runs them inside the ansible-playbook process, in its main thread or in one of C(forks) threads, and
        starts a worker process only for tasks that are not known to be safe there, such as those with C(timeout) or
        with plugins from collections that O(safe_plugins) does not name.
      - V(fork) starts a worker process for each task and host, as ansible-core does.
      - With C(-vvv) the kind of worker and the reason are shown for each task and host.
    type: str
    choices: [auto, fork]
    default: auto
    env:
      - name: ANSIBLE_MITOGEN_SVC_TASK_WORKERS
    ini:
      - section: ansible_mitogen_svc
        key: task_workers
    vars:
      - name: ansible_mitogen_svc_task_workers
  safe_plugins:
    description:
      - Action, connection, become, lookup and vars plugins, filters and tests that may run in threads beside others, by
        their fully qualified names, or all plugins of a collection by its name. Those of C(ansible.builtin) and of this
        collection need not be named.
      - Plugins that lie beside a playbook or in a role are in the collection C(ansible.legacy).
      - Filters and tests need be named only if their source shows that they keep something between calls (a cache, a
        counter) or change their process, and yet do no harm. Modules need not be named.
    type: list
    elements: str
    default: []
    env:
      - name: ANSIBLE_MITOGEN_SVC_SAFE_PLUGINS
    ini:
      - section: ansible_mitogen_svc
        key: safe_plugins
    vars:
      - name: ansible_mitogen_svc_safe_plugins
  local_command_plugins:
    description:
      - Connection plugins, by their fully qualified names, that start a program on the controller for each command,
        with C(subprocess.Popen). They are accelerated as those of C(docker), C(podman), C(kubectl) and the like are,
        which need not be named.
      - Plugins that lie beside a playbook are in the collection C(ansible.legacy).
    type: list
    elements: str
    default: []
    env:
      - name: ANSIBLE_MITOGEN_SVC_LOCAL_COMMAND_PLUGINS
    ini:
      - section: ansible_mitogen_svc
        key: local_command_plugins
    vars:
      - name: ansible_mitogen_svc_local_command_plugins
  pool_size:
    description:
      - Number of threads that answer what hosts ask for while tasks run, such as a module they lack.
    type: int
    default: 16
    env:
      - name: ANSIBLE_MITOGEN_SVC_POOL_SIZE
    ini:
      - section: ansible_mitogen_svc
        key: pool_size
    vars:
      - name: ansible_mitogen_svc_pool_size
  packing_cache:
    description:
      - Whether it is kept between runs which files a module is packed with, in O(packing_cache_path).
      - What is kept are names and checksums, no content and nothing of any task. A module is packed anew whenever
        anything about it, or about the files or directories that were looked at, is not as it was.
      - The collection's own code that every connection starts with is kept there as well, ready to be sent.
    type: bool
    default: true
    env:
      - name: ANSIBLE_MITOGEN_SVC_PACKING_CACHE
    ini:
      - section: ansible_mitogen_svc
        key: packing_cache
    vars:
      - name: ansible_mitogen_svc_packing_cache
  packing_cache_path:
    description:
      - The directory for it. It is made with mode 0700, and is not used when somebody else could write there.
      - By default C(ansible_mitogen_svc/packing) below C(ANSIBLE_HOME), which usually is C(~/.ansible).
    type: path
    env:
      - name: ANSIBLE_MITOGEN_SVC_PACKING_CACHE_PATH
    ini:
      - section: ansible_mitogen_svc
        key: packing_cache_path
    vars:
      - name: ansible_mitogen_svc_packing_cache_path
  identity_limit:
    description:
      - Number of Pythons that are kept running on each host for users that tasks become, and for other interpreters,
        beside the one of the login user.
      - One more takes the place of the one that is longest unused. None in use is ended, so there are more for as long
        as more of them work at once.
      - Each takes some 20 MB of memory on the host, and one becoming of its user to start.
    type: int
    default: 20
    env:
      - name: ANSIBLE_MITOGEN_SVC_IDENTITY_LIMIT
    ini:
      - section: ansible_mitogen_svc
        key: identity_limit
    vars:
      - name: ansible_mitogen_svc_identity_limit
  connection_limit:
    description:
      - Number of connections that may be open at once. Where one more is needed, one that no running task uses is
        closed, and made again when a task needs it.
      - V(0) stands for as many as the limit of open files (C(ulimit -n)) has room for, at three for each connection and
        two for each fork.
      - It is read when the first task of a run connects; later plays cannot change it.
    type: int
    default: 0
    env:
      - name: ANSIBLE_MITOGEN_SVC_CONNECTION_LIMIT
    ini:
      - section: ansible_mitogen_svc
        key: connection_limit
    vars:
      - name: ansible_mitogen_svc_connection_limit
  stats_path:
    description:
      - A file to which statistics of the run are written as JSON when it ends.
    type: path
    env:
      - name: ANSIBLE_MITOGEN_SVC_STATS
    ini:
      - section: ansible_mitogen_svc
        key: stats_path
    vars:
      - name: ansible_mitogen_svc_stats_path
"""
