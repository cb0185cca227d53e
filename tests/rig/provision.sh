#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
# Runs once inside the new root file system (chroot). Its content is part of the image's hash.
# Accounts: root (password for su), ops (sudo without password), deploy (sudo with its password),
# app and batch (only ever become users).
set -eu
export LC_ALL=C.UTF-8

for account in ops deploy app batch; do
    useradd --create-home --shell /bin/bash "$account"
done
chpasswd <<PASSWORDS
root:root-secret
ops:ops-secret
deploy:deploy-secret
app:app-secret
batch:batch-secret
PASSWORDS
echo 'ops ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops
echo 'deploy ALL=(ALL:ALL) ALL' > /etc/sudoers.d/deploy
# a wrong password must not make the tests wait
printf 'Defaults timestamp_timeout=0\nDefaults passwd_tries=1\n' > /etc/sudoers.d/rig
chmod 0440 /etc/sudoers.d/*
sed -i 's/nullok/nullok nodelay/' /etc/pam.d/common-auth
sed -i '/pam_faildelay/s/^/#/' /etc/pam.d/login /etc/pam.d/su 2>/dev/null || true

# there is no audit netlink in a container
sed -i -E 's/^(session\s+)required(\s+pam_loginuid.so)/\1optional\2/' /etc/pam.d/*
rm -f /etc/ssh/ssh_host_*
mkdir -p /run/sshd /rig /etc/ssh/sshd_config.d
cat > /etc/ssh/sshd_config.d/rig.conf <<SSHD
HostKey /rig/host_key
AuthorizedKeysFile /rig/authorized_keys
StrictModes no
PermitRootLogin yes
PasswordAuthentication yes
UseDNS no
MaxSessions 200
MaxStartups 200:30:400
PrintMotd no
SSHD
rm -f /etc/update-motd.d/*

# process 1 below tini: keeps sshd running, so that a test may kill it as a reboot would
cat > /usr/local/sbin/rig-init <<'INIT'
#!/bin/sh
mkdir -p /run/sshd
cat /proc/sys/kernel/random/uuid > /run/rig-boot-id
while :; do
    /usr/sbin/sshd -D -e -o "ListenAddress=$RIG_LISTEN"
    sleep "$(cat /run/rig-pause 2>/dev/null || echo 0.2)"
done
INIT
# a "reboot": every login session ends, sshd is away for two seconds, then the boot id is another one
cat > /usr/local/sbin/rig-reboot <<'REBOOT'
#!/bin/sh
# the terminal goes with this session, maybe before setsid has left it
trap '' HUP
echo 2 > /run/rig-pause
setsid sh -c 'sleep 0.3; pkill -x sshd; cat /proc/sys/kernel/random/uuid > /run/rig-boot-id' > /dev/null 2>&1 < /dev/null &
REBOOT
chmod 755 /usr/local/sbin/rig-init /usr/local/sbin/rig-reboot
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old
