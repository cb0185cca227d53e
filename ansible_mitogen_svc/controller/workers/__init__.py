# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Task workers: the ways one (host, task) pair can be run inside ansible-playbook.

Theory of operation

1. The strategy mixin (``controller/strategy.py``, main thread) asks `Decider` which *kind* of worker a task gets.
2. *inline*: the main thread runs the TaskExecutor itself, before it queues the next host. *thread*: one of at most
   ``forks`` daemon threads does. *fork*: core's own WorkerProcess, with our TaskExecutor subclass in the child.
3. Every kind occupies a slot of ``TaskQueueManager._workers``, so core's throttling, signal handler and search for dead
   workers see all of them alike.
4. Results and item callbacks of threads and of inline tasks reach core through the same two doors as those of
   processes: ``strategy._results``, and the results thread of the strategy (`delivery`).
5. What core gets for free from having a process per task is rebuilt where threads lack it: copies of the task and its
   variables (`live_task`), locks (`locks`), captured prints and queued display (`output`), forks that find no thread in
   the middle of something (`gate`, ``compat/worker_process.py``), plugins not known to be safe (`plugin_policy`).
6. A task that turns out to need another kind before it has done anything is abandoned and started again as that kind
   (`plugin_policy.Abandon`); nothing is ever run twice.
"""
