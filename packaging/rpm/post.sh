# Folders for secrets, jobs and restores; does nothing where they are.
systemd-tmpfiles --create kafka-backup.conf || :
if [ $1 -eq 1 ]; then
    # First installation: whether the unit is enabled is the distribution's policy.
    systemctl --no-reload preset kafka-backup.service || :
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
