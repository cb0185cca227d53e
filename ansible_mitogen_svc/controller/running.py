# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""How a task's connection has jobs, and the steps before them, done by the zygotes of its target.

The middle of the mixin in front of core's connection plugins (connection.py is above, reach.py below); lives in a task
worker.

Theory of operation
1. A job with an interpreter belongs to the zygote of its command's identity, which that command starts when there is
   none yet; a job without one is a command line for the login user's shell, in the login zygote.
2. Steps that nobody waits for are collected and travel with the next job, before it, or in front of it to the zygote
   that writes the task's files. `svc_flush` is for whatever needs them earlier.
3. A job that was not delivered, or was refused before it began, is given to another zygote once, or goes core's own
   way where a zygote cannot have or import its code, and core has the words for it. What was lost after
   that may have happened, and is core's exception for an unreachable host, unless ssh's `reconnection_retries` says
   to try again all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.utils.display import Display

from ansible_mitogen_svc.controller import identity as identities
from ansible_mitogen_svc.controller.batch import Batch, Outcome, outcome_of
from ansible_mitogen_svc.controller.connection_timeout import timeout_of
from ansible_mitogen_svc.controller.escalation import EscalationRefused
from ansible_mitogen_svc.controller.loop_ahead import LoopAhead, run_of
from ansible_mitogen_svc.controller.pair import HeldRun, Sequel
from ansible_mitogen_svc.controller.payload import Payload
from ansible_mitogen_svc.controller.reach import ReachingConnection
from ansible_mitogen_svc.controller.session import session_lifecycle
from ansible_mitogen_svc.controller.steps import OwnDirectory, Steps, makes_directory
from ansible_mitogen_svc.controller.target import AGENT, LOGIN, Before, Target, Zygote
from ansible_mitogen_svc.services.answers import Answer, JobRefused, ZygoteGone, ZygoteLost
from ansible_mitogen_svc.services.link import TargetLost
from ansible_mitogen_svc.statistics import counters

display = Display()
#: Seconds that zygotes may take to end.
RETIRE_TIMEOUT = 10.0
T = TypeVar("T")


@dataclass
class Job:
    """What the command is that core is about to compose.

    Attributes:
        interpreter: what runs the identity's zygote, as core names it; the composed command then only serves to find or
            start that zygote. Empty: the composed command itself is what shall run, in the login user's shell.
        environment: variables of the ``environment`` keyword.
        payload: a module run.
        argv: without a payload, the command to run in the zygote.
        stdin: its input.
        steps: with an interpreter and nothing to run, the steps that its zygote shall do.
        batch: further runs of the payload's module.
        outcome: that of a run which was made already, with another job's batch.
        sequel: a run that may follow at once.
        anew: by a become command, which may make another process now than it did before.
        again: another zygote has refused it, as it is not what would be started now.
    """

    interpreter: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    payload: Payload | None = None
    argv: tuple[str, ...] = ()
    stdin: bytes | None = None
    steps: Steps | None = None
    batch: Batch | None = None
    outcome: Outcome | None = None
    sequel: Sequel | None = None
    anew: bool = False
    again: bool = False


class RunningConnection(ReachingConnection):
    """Mixin; see the module."""

    svc_job: Job | None
    svc_steps: Steps
    #: Core's own way to make the task's temporary directory, when a step is to make it.
    svc_make_directory: Callable[[], Any] | None
    #: The task's temporary directory, when it is the become user's own.
    svc_directory: OwnDirectory | None
    #: Large files that were put for the next module: `path`, and what the FileService's `put` says is known.
    svc_known_files: list[dict[str, Any]]
    #: Core asks for the status of the task's own asynchronous job.
    svc_polls: bool
    #: A run that waits for its second to be composed.
    svc_held_run: HeldRun | None
    #: What is asked of a loop's coming items.
    svc_loop_ahead: LoopAhead | None

    def _svc_wrapped(self, command: str) -> bool:
        become = self.become
        return become is not None and bool(become._id) and become._id in command

    def _svc_guard(self, function: Callable[[], T]) -> T:
        """Run something on the target; what can go wrong there becomes core's exception for an unreachable host."""
        try:
            return function()
        except TargetLost:
            ended = session_lifecycle.current().explain_end(self.svc_last_target)
            raise AnsibleConnectionFailure(
                f"The connection to {self.svc_name} was lost while the task ran: {ended}. The next task connects again."
            ) from None
        except ZygoteLost as error:
            raise AnsibleConnectionFailure(
                f"The task's result from {self.svc_name} was lost: {error}. The next task starts another one."
            ) from None

    def svc_run_with_retries(self, target: Target, job: Job, command: str) -> Outcome:
        """A job; once more for a connection that was lost meanwhile, as often as the plugin's option says (ssh's)."""
        for attempt in range(self.svc_retries if self._svc_may_run_again(job) else 0):
            try:
                return self._svc_run_in_identity(target, job, command)
            except TargetLost:
                seconds = min(2**attempt - 1, 30)  # as core's ssh plugin waits
                display.vvv(f"connection lost (attempt {attempt + 1}), again in {seconds} seconds", host=self.svc_name)
                time.sleep(seconds)
                target.alive = False
                again = self.svc_target()
                if again is None:
                    raise
                target = again
        return self._svc_run_in_identity(target, job, command)

    @property
    def svc_retries(self) -> int:
        """How often a command is tried again whose connection was lost; 0 for plugins without such an option."""
        try:
            return int(self.get_option("reconnection_retries"))
        except KeyError:
            return 0

    def _svc_may_run_again(self, job: Job) -> bool:
        """Not with files: whether those that travelled with the job are there is not known."""
        alone = job.batch is None and job.sequel is None and self.svc_held_run is None
        return alone and not self._shell.tmpdir

    def _svc_run_in_identity(self, target: Target, job: Job, command: str) -> Outcome:
        job.anew = self._svc_wrapped(command)
        try:
            zygote, executable = self._svc_zygote(target, job, command)
            try:
                return self._svc_run_in_zygote(target, job, zygote, executable)
            except ZygoteGone:
                if self.svc_directory is not None:
                    raise  # the directory went with it
                # Retired, killed, or not what would be started now.
                return self._svc_run_in_another_zygote(job, command)
        except identities.NotBecome as error:
            counters.add("module_runs", "cold", "identity did not start")
            failure = self.svc_transport.ended(error)
            if failure is not None:
                raise failure from None
            return error.rc if error.rc is not None else 1, error.stdout, error.stderr

    def _svc_run_in_another_zygote(self, job: Job, command: str) -> Outcome:
        target = self.svc_target()
        if target is None:
            reason = self.svc_unavailable
            raise AnsibleConnectionFailure(f"No agent can be started on {self.svc_name} any more: {reason}")
        job.again = True
        return self._svc_run_in_zygote(target, job, *self._svc_zygote(target, job, command))

    def _svc_run_in_zygote(self, target: Target, job: Job, zygote: Zygote, executable: str) -> Outcome:
        if job.steps is not None:
            return self._svc_have_directory_made(target, zygote, job)
        if job.payload is not None:
            header, blobs = self._svc_module_header(target, zygote, job.payload, executable), [job.payload.parameters]
        else:
            header, blobs = {"op": "execute", "argv": list(job.argv)}, [job.stdin or b""]
        if job.batch is not None:
            header["items"], more = job.batch.pack(len(blobs))
            blobs += more
        if job.anew:
            header["anew"] = True
        if job.again:
            header["again"] = True
        own = {name: str(value) for name, value in job.environment.items()}
        # A become command decides itself what is left of it.
        header["environment"] = own if job.anew else {**self.svc_environment_changes(), **own}
        answer = self._svc_send(target, job, zygote, header, blobs)
        if job.payload is not None:
            counters.add("module_runs", "zygote", "zygote")
        return outcome_of(answer) if job.batch is None else job.batch.take(outcome_of(answer))

    def _svc_send(self, target: Target, job: Job, zygote: Zygote, header: dict[str, Any], blobs: list[bytes]) -> Answer:
        """Run a job; as the second of a pair, or with a second, when that is what it is."""
        header.update(cwd=to_text(self.cwd) if getattr(self, "cwd", None) else None, umask=None, steps=[])
        held, self.svc_held_run = self.svc_held_run, None
        if held is not None:
            return self._svc_send_both(target, held, job, zygote, header, blobs)
        sequel, job.sequel = job.sequel, None
        if sequel is None:
            return self._svc_call_with_steps(target, zygote, header, blobs)
        writer = self._svc_writer(target).number
        held = HeldRun(target, zygote, header, blobs, self.svc_steps, writer, sequel.condition, job.payload)
        self.svc_held_run, self.svc_steps = held, Steps()
        try:
            sequel.compose()
        finally:
            self.svc_held_run, self.svc_steps = None, held.steps_left()
        return held.outcome() or self._svc_call_with_steps(target, zygote, header, blobs)

    def _svc_send_both(  # noqa: PLR0913
        self, target: Target, held: HeldRun, job: Job, zygote: Zygote, header: dict[str, Any], blobs: list[bytes]
    ) -> Answer:
        """Send a pair, unless its answers are known; the second's answer."""
        ahead = self.svc_loop_ahead
        second = run_of(zygote.number, header, blobs, job.payload) if ahead is not None else None
        if ahead is None or second is None or zygote.number != held.zygote.number:
            return held.send(self.svc_call, zygote, header, blobs, self.svc_steps)
        known = ahead.known(target, held, second)
        if known is not None:
            held.have_answer(known[0])
            return known[1]
        answer = held.send(self.svc_call, zygote, header, blobs, self.svc_steps)
        ahead.note(target, answer)
        return answer

    def _svc_module_header(self, target: Target, zygote: Zygote, payload: Payload, executable: str) -> dict[str, Any]:
        target.ensure_code(zygote, payload.manifest)
        known, self.svc_known_files = self.svc_known_files, []
        display.vvv(f"RUN {payload.module} in zygote {zygote.number} ({executable})", host=self.svc_name)
        return {
            "op": "run",
            "manifest": payload.manifest.id,
            "module": payload.module,
            "arguments": payload.arguments,
            "rlimit_nofile": payload.rlimit_nofile,
            "executable": executable,
            "known_files": known,
        }

    def _svc_call_with_steps(
        self, target: Target, zygote: Zygote, header: dict[str, Any], blobs: list[bytes]
    ) -> Answer:
        """`svc_call` for a job, after the steps that wait."""
        writer = self._svc_writer(target).number
        if zygote.number != writer:
            # Two zygotes are not ordered with one another but by the agent.
            return self.svc_call(target, zygote, header, blobs, before=self.svc_steps.before(writer))
        waiting = self.svc_steps.copy()
        header["steps"], data = self.svc_steps.take(first_blob=len(blobs))
        try:
            return self.svc_call(target, zygote, header, [*blobs, *data])
        except (ZygoteGone, identities.CodeRefused):
            self.svc_steps = waiting
            raise

    def _svc_zygote(self, target: Target, job: Job, command: str) -> tuple[Zygote, str]:
        become, seconds = self.become, self._svc_become_timeout()
        shell = getattr(self._shell, "executable", None) or self._play_context.executable or ""
        identity = identities.identify(command, job.interpreter, become, seconds, str(shell))
        try:
            return identities.zygote_for(target, identity, self.svc_transport.shell(target.hello))
        except EscalationRefused as refused:
            raise self.svc_transport.refused(self, refused, identity.timeout) from None

    def _svc_become_timeout(self) -> float:
        """Seconds that core waits for a become prompt: 2 more than the connection's timeout (ssh plugin)."""
        return 2.0 + timeout_of(self, self.svc_templar)

    def svc_call(
        self,
        target: Target,
        zygote: Zygote,
        header: Mapping[str, Any],
        blobs: Sequence[bytes],
        before: Before | None = None,
        pair: tuple[Mapping[str, Any], bytes] | None = None,
    ) -> Answer:
        try:
            return target.run(zygote, header, blobs, before, pair)
        except ZygoteLost as lost:
            self._svc_give_up(target, before[0] if lost.first and before is not None else zygote.number)
            raise
        except JobRefused as error:
            if error.kind in ("InterpreterChanged", "AccountChanged"):  # nothing was started
                self._svc_give_up(target, zygote.number)
                raise ZygoteGone(str(error)) from None
            if error.kind in identities.CodeRefused.REASONS:
                raise identities.CodeRefused(str(error), error.kind) from None
            if makes_directory(error.failed_step, header, before):
                self._svc_explain_directory()
            raise AnsibleError(f"The task could not be started on {self.svc_name}: {error}") from error

    def _svc_explain_directory(self) -> None:
        """Let core try to make the temporary directory that could not be made: its exception has its words."""
        make, self.svc_make_directory = self.svc_make_directory, None
        if make is not None:
            make()

    @staticmethod
    def _svc_give_up(target: Target, number: int) -> None:
        """A zygote is of no more use."""
        if number == target.login_number:
            # Without it there is nothing to write files or run snippets with: the whole target starts again.
            session_lifecycle.current().disconnect(target)
        else:
            target.forget_zygote(number)
            target.cast(AGENT, {"op": "replace", "zygote": number})

    def _svc_execute(self, target: Target, command: str, in_data: bytes | None) -> Outcome:
        zygote = target.zygote(LOGIN)
        assert zygote is not None
        display.vvv(f"EXEC {command}", host=self.svc_name)
        argv = [self.svc_transport.shell(target.hello), "-c", command]
        header: dict[str, Any] = {"op": "execute", "argv": argv}
        header["environment"] = self.svc_environment_changes()
        return outcome_of(self._svc_send(target, Job(), zygote, header, [in_data or b""]))

    def svc_flush(self) -> None:
        """Carry out the steps that are still waiting, now.

        :raises AnsibleConnectionFailure: one of them failed.
        """
        if not self.svc_steps.steps:
            return
        target = self.svc_target()
        if target is None:
            raise AnsibleConnectionFailure(f"The connection to {self.svc_name} was lost with files under way.")
        zygote = self._svc_writer(target)
        steps, blobs = self.svc_steps.take(first_blob=0)
        self._svc_guard(lambda: self.svc_call(target, zygote, {"op": "steps", "steps": steps}, blobs))

    def _svc_writer(self, target: Target) -> Zygote:
        """Who does the steps."""
        if self.svc_directory is not None:
            return self.svc_directory.zygote
        zygote = target.zygote(LOGIN)
        assert zygote is not None
        return zygote

    def _svc_have_directory_made(self, target: Target, zygote: Zygote, job: Job) -> Outcome:
        """Have a become user make a temporary directory of its own; the outcome is that of a command."""
        assert job.steps is not None
        steps = job.steps.take(first_blob=0)[0]
        job.steps.steps = list(steps)  # for another zygote, when this one must not be used any more
        try:
            self.svc_call(target, zygote, {"op": "steps", "steps": steps, "anew": job.anew, "again": job.again}, [])
        except AnsibleError as error:
            return 1, b"", str(error).encode()
        self.svc_directory = OwnDirectory(str(steps[0][1]), zygote)
        return 0, b"", b""

    def svc_retire_user(self, user: str) -> None:
        """An account is about to be removed from the target: none of our processes may stand in the way."""
        target = self.svc_target()
        if target is not None:
            self._svc_guard(lambda: target.call(AGENT, {"op": "retire_user", "user": user}, timeout=RETIRE_TIMEOUT))

    def svc_cast(self, *step: Any) -> None:
        """Carry out one step without waiting; it is done before whatever is sent to the target next."""
        target = self.svc_target()
        if target is not None:
            target.cast_steps(self._svc_writer(target).number, [list(step)])

    def svc_settle(self) -> None:
        """Wait until the target has done what it was told without waiting: core's plugin goes there another way."""
        target = self._svc_known_target() if self.svc_unavailable is None else None
        if target is None or not target.alive:
            return
        # What a worker process told the host before it ended, this process does not know of.
        target.settle(by_others=session_lifecycle.in_worker_process())
