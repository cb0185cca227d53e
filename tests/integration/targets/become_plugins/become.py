#!/usr/bin/python3
"""Stands in for become programs that Debian does not have: asks as they ask, refuses in their words, and lets sudo
become the user."""
import os
import re
import sys
import termios

PROMPTS = {
    'doas': 'doas (ops@target) password: ', 'ksu': 'Kerberos password for ops@LAB: :', 'pbrun': 'Password:',
    'sesu': 'Please enter your password:', 'pmrun': 'Enter UPM user password:', 'machinectl': 'Password: ',
    'run0': 'Password: ',
}
REFUSALS = {
    'doas': 'doas: Permission denied', 'ksu': 'ksu: Password incorrect', 'sesu': 'Sorry, try again with sesu.',
    'machinectl': '==== AUTHENTICATION FAILED ====', 'run0': '==== AUTHENTICATION FAILED ====',
}


def ask(program):
    on_terminal = program in ('doas', 'machinectl', 'run0')
    descriptor = os.open('/dev/tty', os.O_RDWR) if on_terminal else 0
    if on_terminal:
        before = termios.tcgetattr(descriptor)
        silent = list(before)
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(descriptor, termios.TCSANOW, silent)
    os.write(descriptor if on_terminal else 2, PROMPTS[program].encode())
    answer = b''
    while not answer.endswith(b'\n'):
        byte = os.read(descriptor, 1)
        if not byte:
            sys.exit(1)
        answer += byte
    if on_terminal:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
    return answer.strip().decode()


def main(program, arguments):
    user, words = 'root', list(arguments)
    if '-u' in words:
        user = words[words.index('-u') + 1]
    found = [word for word in words if re.fullmatch(r'--user=\w+|\w+@|app|batch|root', word)]
    if found:
        user = found[0].replace('--user=', '').rstrip('@')
    if program != 'pfexec' and '-n' not in words:
        if ask(program) != 'right':
            print(REFUSALS.get(program, 'refused'), file=sys.stderr)
            return 1
    elif program != 'pfexec':
        print(f'{program}: Authorization required', file=sys.stderr)
        return 1
    shell = [number for number, word in enumerate(words) if word == '/bin/sh']
    command = words[shell[0]:] if shell else ['/bin/sh', '-c', words[-1]]
    os.execvp('sudo', ['sudo', '-n', '-H', '-u', user, *command])


sys.exit(main(os.path.basename(sys.argv[0]), sys.argv[1:]))
